// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings that move, go, or are emptied. As long as their event is not read,
 * who serves the faults knows addresses that may be old: EAGAIN.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "minor.h"

#define EVENTS \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

static void ready(struct area *a, int kind)
{
	area_make(a, kind, 8, PROT_READ | PROT_WRITE);
	area_register(a, EVENTS, BOTH);
	fill(a, 0, 4, 1);
}

/*
 * Since 6.15 EAGAIN is written to the field too, where it was left as it was
 * before; who retries must not find there what an earlier call wrote.
 */
static void again(struct area *a)
{
	static char src[PAGE];
	int64_t done;

	await_event(a->uffd);
	for (int i = 0; i < 3; i++) {
		eq(uffd_continue(a->uffd, at(a, 1), PAGE, 0, &done), -EAGAIN);
		check(done == -EAGAIN || done == UNTOUCHED, "mapped is %ld", (long)done);
		eq(uffd_copy(a->uffd, at(a, 6), src, PAGE, &done), -EAGAIN);
		check(done == -EAGAIN || done == UNTOUCHED, "copy is %ld", (long)done);
	}
	check(!is_mapped(at(a, 1)), "mapped with EAGAIN");
}

static long do_mremap(void *arg)
{
	struct area *a = arg;

	return (long)mremap(a->mem, a->len, a->len, MREMAP_MAYMOVE | MREMAP_FIXED, a->mem + 16 * a->len);
}

static void room(struct area *a)
{
	/* Where 16 lengths further nothing else is. */
	char *mem = mmap(NULL, 17 * a->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(mem != MAP_FAILED);
	must(mremap(a->mem, a->len, a->len, MREMAP_MAYMOVE | MREMAP_FIXED, mem) == mem);
	a->mem = mem;
}

TEST(changing_mremap, 0)
{
	struct uffd_msg msg;
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		struct caller *c;
		char *old;

		area_make(&a, kind, 8, PROT_READ | PROT_WRITE);
		room(&a);
		area_register(&a, EVENTS, BOTH);
		fill(&a, 0, 4, 1);
		must_continue(a.uffd, a.mem, PAGE);
		old = a.mem;
		c = call_start(do_mremap, &a);
		again(&a);
		expect_event(a.uffd, UFFD_EVENT_REMAP, &msg);
		eq(msg.arg.remap.from, (uintptr_t)a.mem);
		eq(msg.arg.remap.to, (uintptr_t)a.mem + 16 * a.len);
		a.mem = (char *)(uintptr_t)msg.arg.remap.to;
		/* The range it left is told as unmapped too. */
		await_event(a.uffd);
		expect_event(a.uffd, UFFD_EVENT_UNMAP, &msg);
		eq(call_join(c), (uintptr_t)a.mem);
		check(has_flag(a.mem, "ui") && has_flag(a.mem, "um"), "the moved mapping is not registered");
		page_has(a.mem, 0, 1);
		continue_fails(a.uffd, old, PAGE, ENOENT);
		touch_continue(a.uffd, at(&a, 1), READ);
		page_has(at(&a, 1), 1, 1);
		continue_fails(a.uffd, at(&a, 5), PAGE, EFAULT);
		close(a.uffd);
	}
}

/* Nobody asked for the event: what moved is nobody's. */
TEST(changing_mremap_without_event, 0)
{
	struct area a;
	char *moved;

	area_make(&a, MEMFD_SHARED, 8, PROT_READ | PROT_WRITE);
	room(&a);
	area_register(&a, 0, BOTH);
	fill(&a, 0, 4, 1);
	moved = (char *)do_mremap(&a);
	must(moved != MAP_FAILED);
	check(!has_flag(moved, "ui") && !has_flag(moved, "um"), "still registered");
	continue_fails(a.uffd, moved, PAGE, ENOENT);
	touch_native(a.uffd, moved + PAGE, READ);
	page_has(moved + PAGE, 1, 1);
	eq(touch_native(a.uffd, moved + 6 * PAGE, READ), 0);
}

static long do_remove(void *arg)
{
	struct area *a = arg;

	return madvise(at(a, 2), 2 * PAGE, MADV_REMOVE);
}

static long do_dontneed(void *arg)
{
	struct area *a = arg;

	return madvise(at(a, 2), 2 * PAGE, MADV_DONTNEED);
}

static long do_munmap(void *arg)
{
	struct area *a = arg;

	return munmap(at(a, 2), 2 * PAGE);
}

TEST(changing_remove, 0)
{
	struct uffd_msg msg;
	struct area a;
	struct caller *c;

	ready(&a, MEMFD_SHARED);
	must_continue(a.uffd, at(&a, 2), PAGE);
	c = call_start(do_remove, &a);
	again(&a);
	expect_event(a.uffd, UFFD_EVENT_REMOVE, &msg);
	eq(msg.arg.remove.start, (uintptr_t)at(&a, 2));
	eq(msg.arg.remove.end, (uintptr_t)at(&a, 4));
	eq(call_join(c), 0);
	must_continue(a.uffd, at(&a, 1), PAGE);
	continue_fails(a.uffd, at(&a, 2), PAGE, EFAULT);
	continue_fails(a.uffd, at(&a, 3), PAGE, EFAULT);
}

TEST(changing_dontneed, 0)
{
	struct uffd_msg msg;
	struct area a;
	struct caller *c;

	ready(&a, MEMFD_SHARED);
	must_continue(a.uffd, at(&a, 2), PAGE);
	c = call_start(do_dontneed, &a);
	again(&a);
	expect_event(a.uffd, UFFD_EVENT_REMOVE, &msg);
	eq(call_join(c), 0);
	must_continue(a.uffd, at(&a, 1), 3 * PAGE);
	for (int i = 1; i < 4; i++)
		page_has(at(&a, i), i, 1);
}

TEST(changing_munmap, 0)
{
	struct uffd_msg msg;
	struct area a;
	struct caller *c;

	ready(&a, MEMFD_SHARED);
	c = call_start(do_munmap, &a);
	again(&a);
	expect_event(a.uffd, UFFD_EVENT_UNMAP, &msg);
	eq(call_join(c), 0);
	must_continue(a.uffd, at(&a, 0), 2 * PAGE);
	continue_fails(a.uffd, at(&a, 2), PAGE, ENOENT);
	continue_fails(a.uffd, at(&a, 4), 4 * PAGE, EFAULT);
}

static bool is_there(void *addr)
{
	unsigned char vec;

	return !mincore(addr, PAGE, &vec);
}

static long do_munmap_last(void *arg)
{
	struct area *a = arg;

	return munmap(at(a, 7), PAGE);
}

/* Two changes, of which one event was read: it is not over yet. */
TEST(changing_two, 0)
{
	struct caller *c[2];
	struct uffd_msg msg;
	struct area a;

	ready(&a, MEMFD_SHARED);
	c[0] = call_start(do_munmap, &a);
	await_event(a.uffd);
	c[1] = call_start(do_munmap_last, &a);
	/* Until both are in the queue: its mapping goes before its event comes. */
	for (long end = now_ms() + wait_ms; is_there(at(&a, 7)); nap())
		check(now_ms() < end, "the second munmap() does not begin");
	expect_event(a.uffd, UFFD_EVENT_UNMAP, &msg);
	for (long end = now_ms() + wait_ms; !call_done(c[0]) && !call_done(c[1]); nap())
		check(now_ms() < end, "nobody was woken");
	again(&a);
	expect_event(a.uffd, UFFD_EVENT_UNMAP, &msg);
	eq(call_join(c[0]), 0);
	eq(call_join(c[1]), 0);
	must_continue(a.uffd, at(&a, 0), 2 * PAGE);
}

/* In the child: look at all pages, and end well. */
struct forker {
	struct area *a;
	bool with_event;
};

static void child(struct forker *f)
{
	struct area *a = f->a;

	alarm(20);
	check(has_flag(a->mem, "ui") == f->with_event, "the child has %sui", f->with_event ? "no " : "");
	check(has_flag(a->mem, "um") == f->with_event, "the child has %sum", f->with_event ? "no " : "");
	for (int i = 0; i < 4; i++)
		page_has(at(a, i), i, 1);
	if (a->kind != MEMFD_PRIVATE)
		at(a, 3)[4] = 0x77;
	_exit(0);
}

static long do_fork(void *arg)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid)
		child(arg);
	return pid;
}

static void ends_well(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	check(!status, "the child ended with 0x%x", status);
}

/* The child's userfaultfd, by event; the parent had some pages mapped. */
static void fork_event(int kind)
{
	struct area a;
	struct forker f = { &a, true };
	struct uffd_msg msg;
	struct caller *c;
	int uffd;
	pid_t pid;

	ready(&a, kind);
	must_continue(a.uffd, a.mem, PAGE);
	c = call_start(do_fork, &f);
	again(&a);
	expect_event(a.uffd, UFFD_EVENT_FORK, &msg);
	uffd = msg.arg.fork.ufd;
	pid = call_join(c);
	/* Page tables are copied for who may have copies of pages: then page 0 is mapped. */
	for (int i = kind == MEMFD_PRIVATE; i < 4; i++) {
		expect_fault(uffd, at(&a, i), F_MINOR);
		must_continue(uffd, at(&a, i), PAGE);
	}
	ends_well(pid);
	no_event(a.uffd);
	if (kind != MEMFD_PRIVATE)
		eq(door_at(&a, 3)[4], 0x77);
	/* The child is gone, and with it the memory that its userfaultfd is of. */
	eq(uffd_continue(uffd, a.mem, PAGE, 0, NULL), -ESRCH);
	must_continue(a.uffd, at(&a, 1), PAGE);
	close(uffd);
	close(a.uffd);
}

TEST(fork_event_shared, 0)
{
	fork_event(MEMFD_SHARED);
	fork_event(ANON_SHARED);
}

TEST(fork_event_private, 0)
{
	fork_event(MEMFD_PRIVATE);
}

TEST(fork_without_event, 0)
{
	struct area a;
	struct forker f = { &a, false };

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 8, BOTH);
		fill(&a, 0, 4, 1);
		must_continue(a.uffd, a.mem, PAGE);
		ends_well(do_fork(&f));
		no_event(a.uffd);
		check(has_flag(a.mem, "ui"), "%s: the parent is not registered any more", kind_name[kind]);
		touch_continue(a.uffd, at(&a, 1), READ);
		close(a.uffd);
	}
}

/* Minor mode alone is inherited, and lost, like missing mode. */
TEST(fork_minor_only, 0)
{
	struct area a;
	pid_t pid;

	area_ready(&a, MEMFD_SHARED, 8, MINOR);
	fill(&a, 0, 4, 1);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		alarm(20);
		check(!has_flag(a.mem, "ui"), "the child has ui");
		page_has(at(&a, 2), 2, 1);
		_exit(0);
	}
	ends_well(pid);
	no_event(a.uffd);
}
