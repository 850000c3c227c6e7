// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which accesses raise an event, which, and who is woken.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "minor.h"

/* An access to a hole, and one to a page that is there. */
static void both_modes(int kind, int value)
{
	uint64_t write = value == READ ? 0 : F_WRITE;
	char src[PAGE] __attribute__((aligned(8)));
	struct toucher *t;
	struct area a;

	area_ready(&a, kind, 4, BOTH);
	fill(&a, 0, 1, 1);
	t = touch_start(at(&a, 0) + 9, value);
	expect_fault(a.uffd, at(&a, 0), F_MINOR | write);
	must_continue(a.uffd, at(&a, 0), PAGE);
	touch_join(t);

	t = touch_start(at(&a, 1) + 9, value);
	expect_fault(a.uffd, at(&a, 1), write);
	fill_page(src, 1, 2);
	eq(uffd_copy(a.uffd, at(&a, 1), src, PAGE, NULL), 0);
	touch_join(t);
	if (value == READ) {
		page_has(at(&a, 0), 0, 1);
		page_has(at(&a, 1), 1, 2);
	}
	no_event(a.uffd);
	close(a.uffd);
}

TEST(event_read_both_modes, 0)
{
	for (int kind = 0; kind < KINDS; kind++)
		both_modes(kind, READ);
}

TEST(event_write_both_modes, 0)
{
	for (int kind = 0; kind < KINDS; kind++)
		both_modes(kind, 0x77);
}

/* A hole is no business of minor mode. */
TEST(event_minor_only, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 8, MINOR);
		fill(&a, 0, 2, 1);
		eq(touch_native(a.uffd, at(&a, 4), READ), 0);
		eq(touch_native(a.uffd, at(&a, 5), 0x77), 0x77);
		touch_continue(a.uffd, at(&a, 0), READ);
		page_has(at(&a, 0), 0, 1);
		touch_continue(a.uffd, at(&a, 1), 0x77);
		check(at(&a, 1)[0] == 0x77, "%s: the store is not there", kind_name[kind]);
		close(a.uffd);
	}
}

/* In missing mode a page that is there is mapped by the kernel. */
TEST(event_missing_only, EVERYWHERE)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 4, MISSING);
		fill(&a, 0, 2, 1);
		touch_native(a.uffd, at(&a, 0), READ);
		page_has(at(&a, 0), 0, 1);
		touch_native(a.uffd, at(&a, 1), 0x77);
		close(a.uffd);
	}
}

/* A fault in the kernel, on behalf of a system call. */
struct write_call {
	int fd;
	char *mem;
};

static long do_write(void *arg)
{
	struct write_call *w = arg;

	return write(w->fd, w->mem, PAGE);
}

TEST(event_in_the_kernel, 0)
{
	struct area a;
	struct write_call w = { .fd = memfd_create("other", MFD_CLOEXEC) };
	char got[PAGE] __attribute__((aligned(8)));
	struct caller *c;

	must(w.fd >= 0);
	area_ready(&a, MEMFD_SHARED, 4, BOTH);
	fill(&a, 0, 4, 1);
	w.mem = at(&a, 1);
	c = call_start(do_write, &w);
	expect_fault(a.uffd, at(&a, 1), F_MINOR);
	must_continue(a.uffd, at(&a, 1), PAGE);
	eq(call_join(c), PAGE);
	must(pread(w.fd, got, PAGE, 0) == PAGE);
	page_has(got, 1, 1);
}

/* Is this Linux so new that it came with minor faults of its own? */
static bool upstream_has_it(void)
{
	struct utsname name;
	int major = 0, minor = 0;

	must(!uname(&name));
	sscanf(name.release, "%d.%d", &major, &minor);
	return major > 5 || (major == 5 && minor >= 14);
}

/* Faults wait for the one who has registered; when he leaves, they do not. */
static void leave(uint64_t mode, bool by_close)
{
	struct toucher *seen, *unseen;
	struct area a;

	area_ready(&a, MEMFD_SHARED, 4, mode);
	fill(&a, 0, 4, 1);
	seen = touch_start(at(&a, 0) + PAGE - 1, READ);
	expect_fault(a.uffd, at(&a, 0), F_MINOR);
	unseen = touch_start(at(&a, 1) + PAGE - 1, 0x55);
	await_event(a.uffd);
	eq(waiters(a.uffd), 2);
	if (by_close)
		close(a.uffd);
	else
		eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	if (!by_close && waiters(a.uffd) && mode == MINOR && upstream_has_it())
		skip("up to Linux 6.18 at least, unregister wakes only who waits in a range in missing mode");
	touch_join(seen);
	touch_join(unseen);
	page_has(at(&a, 0), 0, 1);
	eq(at(&a, 1)[PAGE - 1], 0x55);
	eq(door_at(&a, 1)[PAGE - 1], 0x55);
	/* From now on all is as without. */
	page_has(at(&a, 2), 2, 1);
}

TEST(event_unregister_wakes_minor_only, 0)
{
	leave(MINOR, false);
}

TEST(event_unregister_wakes_both_modes, 0)
{
	leave(BOTH, false);
}

TEST(event_close_wakes, 0)
{
	leave(MINOR, true);
	leave(BOTH, true);
}

TEST(event_unregister_then_native, 0)
{
	struct area a;

	area_ready(&a, MEMFD_SHARED, 4, BOTH);
	fill(&a, 0, 2, 1);
	touch_continue(a.uffd, at(&a, 0), READ);
	eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	touch_native(a.uffd, at(&a, 1), READ);
	eq(touch_native(a.uffd, at(&a, 2), READ), 0);
	page_has(at(&a, 0), 0, 1);
	page_has(at(&a, 1), 1, 1);
}

/* Whether the feature was asked for makes no difference to what can be done. */
TEST(event_feature_not_asked_for, 0)
{
	struct area a;

	for (int asked = 0; asked < 2; asked++) {
		area_make(&a, MEMFD_SHARED, 4, PROT_READ | PROT_WRITE);
		area_register(&a, asked ? UFFD_FEATURE_MINOR_SHMEM : 0, MINOR);
		fill(&a, 0, 1, 1);
		touch_continue(a.uffd, a.mem, READ);
		close(a.uffd);
	}
}

TEST(event_sigbus, 0)
{
	struct area a;

	area_make(&a, MEMFD_SHARED, 4, PROT_READ | PROT_WRITE);
	area_register(&a, UFFD_FEATURE_SIGBUS, BOTH);
	fill(&a, 0, 2, 1);
	eq(touch_or_bus(at(&a, 0), READ), -1);
	eq(touch_or_bus(at(&a, 1), 0x77), -1);
	eq(touch_or_bus(at(&a, 2), READ), -1);
	no_event(a.uffd);
	must_continue(a.uffd, at(&a, 0), 2 * PAGE);
	check(touch_or_bus(at(&a, 0), READ) >= 0, "SIGBUS for a page that is mapped");
	page_has(at(&a, 0), 0, 1);
	page_has(at(&a, 1), 1, 1);
}

TEST(event_dontwake, 0)
{
	struct area a;
	struct toucher *t;
	int64_t mapped;

	area_ready(&a, MEMFD_SHARED, 4, BOTH);
	fill(&a, 0, 4, 1);
	t = touch_start(at(&a, 0), READ);
	expect_fault(a.uffd, at(&a, 0), F_MINOR);
	eq(uffd_continue(a.uffd, at(&a, 0), PAGE, UFFDIO_CONTINUE_MODE_DONTWAKE, &mapped), 0);
	eq(mapped, PAGE);
	check(is_mapped(at(&a, 0)), "the page is not mapped");
	eq(waiters(a.uffd), 1);
	check(!touch_done(t), "the thread runs on");
	/* A wake of another range is none of his. */
	eq(uffd_wake(a.uffd, at(&a, 1), PAGE), 0);
	eq(waiters(a.uffd), 1);
	eq(uffd_wake(a.uffd, at(&a, 0), PAGE), 0);
	eq(waiters(a.uffd), 0);
	touch_join(t);

	/* Without the flag, CONTINUE itself wakes. */
	t = touch_start(at(&a, 1), READ);
	expect_fault(a.uffd, at(&a, 1), F_MINOR);
	must_continue(a.uffd, at(&a, 1), PAGE);
	eq(waiters(a.uffd), 0);
	touch_join(t);
}

/* What was mapped is woken, and no more: not the rest of what was asked for. */
TEST(event_partial_wakes_part, 0)
{
	struct area a;
	struct toucher *first, *second;
	int64_t mapped;

	area_ready(&a, MEMFD_SHARED, 4, BOTH);
	fill(&a, 0, 2, 1);
	fill(&a, 3, 1, 1);
	first = touch_start(at(&a, 1), READ);
	expect_fault(a.uffd, at(&a, 1), F_MINOR);
	second = touch_start(at(&a, 3), READ);
	expect_fault(a.uffd, at(&a, 3), F_MINOR);
	/* Page 2 is a hole. */
	eq(uffd_continue(a.uffd, at(&a, 0), 4 * PAGE, 0, &mapped), -EAGAIN);
	eq(mapped, 2 * PAGE);
	touch_join(first);
	eq(waiters(a.uffd), 1);
	check(!touch_done(second), "the other thread runs on");
	must_continue(a.uffd, at(&a, 3), PAGE);
	touch_join(second);
}

TEST(event_wake_raises_again, 0)
{
	struct area a;
	struct toucher *t;

	area_ready(&a, MEMFD_SHARED, 4, BOTH);
	fill(&a, 0, 1, 1);
	t = touch_start(a.mem, READ);
	for (int i = 0; i < 3; i++) {
		expect_fault(a.uffd, a.mem, F_MINOR);
		eq(uffd_wake(a.uffd, a.mem, a.len), 0);
	}
	expect_fault(a.uffd, a.mem, F_MINOR);
	must_continue(a.uffd, a.mem, PAGE);
	touch_join(t);
}

/* A hole becomes a page while the thread waits: the next event is minor. */
TEST(event_missing_then_minor, 0)
{
	struct area a;
	struct toucher *t;

	area_ready(&a, MEMFD_SHARED, 4, BOTH);
	t = touch_start(a.mem, 0x44);
	expect_fault(a.uffd, a.mem, F_WRITE);
	fill(&a, 0, 1, 1);
	eq(uffd_wake(a.uffd, a.mem, PAGE), 0);
	expect_fault(a.uffd, a.mem, F_WRITE | F_MINOR);
	punch(&a, 0, 1);
	continue_fails(a.uffd, a.mem, PAGE, EFAULT);
	eq(uffd_wake(a.uffd, a.mem, PAGE), 0);
	expect_fault(a.uffd, a.mem, F_WRITE);
	/* CONTINUE answers a missing event as well as a minor one. */
	fill(&a, 0, 1, 2);
	must_continue(a.uffd, a.mem, PAGE);
	eq(touch_join(t), 0x44);
	eq(a.door[0], 0x44);
}

TEST(event_many_waiters, 0)
{
	struct toucher *t[8];
	struct area a;

	area_ready(&a, MEMFD_SHARED, 4, BOTH);
	fill(&a, 0, 4, 1);
	for (int i = 0; i < 8; i++) {
		t[i] = touch_start(at(&a, i % 2) + 8 * i, i & 4 ? READ : i + 1);
		expect_fault(a.uffd, at(&a, i % 2), F_MINOR | (i & 4 ? 0 : F_WRITE));
	}
	eq(waiters(a.uffd), 8);
	must_continue(a.uffd, a.mem, 2 * PAGE);
	eq(waiters(a.uffd), 0);
	for (int i = 0; i < 8; i++)
		touch_join(t[i]);
	for (int i = 0; i < 4; i++)
		eq(door_at(&a, i % 2)[8 * i], i + 1);
}

/* The mapping is emptied, the page is still there. */
TEST(event_after_dontneed, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 4, BOTH);
		fill(&a, 0, 4, 1);
		for (int i = 0; i < 3; i++) {
			touch_continue(a.uffd, at(&a, 1), READ);
			page_has(at(&a, 1), 1, 1);
			must(!madvise(at(&a, 1), PAGE, MADV_DONTNEED));
			check(!is_mapped(at(&a, 1)), "still mapped");
		}
		close(a.uffd);
	}
}

/* With sixteen pages around it in the page cache, one fault maps one page. */
static void fault_around(int kind, int prot)
{
	struct area a;

	area_make(&a, kind, 64, prot);
	area_register(&a, 0, MINOR);
	fill(&a, 0, 64, 1);
	/* In the page tables of the door, so that nothing stands in the way. */
	for (int i = 0; i < 64; i++)
		page_has(door_at(&a, i), i, 1);
	touch_continue(a.uffd, at(&a, 20), READ);
	for (int i = 0; i < 64; i++)
		check(is_mapped(at(&a, i)) == (i == 20), "%s: page %d is %smapped", kind_name[kind], i,
		      i == 20 ? "not " : "");
	touch_continue(a.uffd, at(&a, 21), READ);
	touch_continue(a.uffd, at(&a, 19), READ);
	close(a.uffd);
}

TEST(event_no_fault_around, 0)
{
	for (int kind = 0; kind < KINDS; kind++) {
		fault_around(kind, PROT_READ | PROT_WRITE);
		fault_around(kind, PROT_READ);
	}
}

/* Nor does a hole that the kernel fills itself bring its neighbours along. */
TEST(event_no_fault_around_hole, 0)
{
	struct area a;

	area_ready(&a, MEMFD_SHARED, 64, MINOR);
	fill(&a, 0, 64, 1);
	punch(&a, 20, 1);
	eq(touch_native(a.uffd, at(&a, 20), READ), 0);
	for (int i = 0; i < 64; i++)
		check(is_mapped(at(&a, i)) == (i == 20), "page %d", i);
}
