// SPDX-License-Identifier: GPL-2.0-only
/*
 * What CONTINUE maps, and what it says when it does not.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

TEST(continue_hole, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 4, BOTH);
		continue_fails(a.uffd, a.mem, PAGE, EFAULT);
		continue_fails(a.uffd, a.mem, a.len, EFAULT);
		check(!is_mapped(a.mem), "%s: a hole is mapped", kind_name[kind]);
		if (a.fd >= 0)
			eq(blocks(a.fd), 0);
		close(a.uffd);
	}
}

TEST(continue_twice, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 4, BOTH);
		fill(&a, 0, 4, 1);
		must_continue(a.uffd, a.mem, PAGE);
		continue_fails(a.uffd, a.mem, PAGE, EEXIST);
		continue_fails(a.uffd, a.mem, a.len, EEXIST);
		check(!is_mapped(at(&a, 1)), "%s: went on after the page that was there", kind_name[kind]);
		page_has(a.mem, 0, 1);
		close(a.uffd);
	}
}

/* EEXIST wakes nobody: the one who waits is left to be woken by WAKE. */
TEST(continue_twice_wakes_nobody, 0)
{
	struct area a;
	struct toucher *t;
	int64_t mapped;

	area_ready(&a, MEMFD_SHARED, 4, BOTH);
	fill(&a, 0, 4, 1);
	t = touch_start(a.mem, READ);
	expect_fault(a.uffd, a.mem, F_MINOR);
	eq(uffd_continue(a.uffd, a.mem, PAGE, UFFDIO_CONTINUE_MODE_DONTWAKE, &mapped), 0);
	continue_fails(a.uffd, a.mem, PAGE, EEXIST);
	eq(waiters(a.uffd), 1);
	eq(uffd_wake(a.uffd, a.mem, PAGE), 0);
	touch_join(t);
}

/* What stops it is told only when it is the first page: else EAGAIN and how far. */
TEST(continue_partial, 0)
{
	struct area a;
	int64_t mapped;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 8, BOTH);
		fill(&a, 0, 8, 1);
		must_continue(a.uffd, at(&a, 3), PAGE);
		eq(uffd_continue(a.uffd, a.mem, a.len, 0, &mapped), -EAGAIN);
		eq(mapped, 3 * PAGE);
		check(is_mapped(at(&a, 2)) && !is_mapped(at(&a, 4)), "%s: wrong pages", kind_name[kind]);
		continue_fails(a.uffd, at(&a, 3), 5 * PAGE, EEXIST);
		must_continue(a.uffd, at(&a, 4), 4 * PAGE);
		for (int i = 0; i < 8; i++)
			page_has(at(&a, i), i, 1);
		close(a.uffd);
	}
}

TEST(continue_partial_hole, 0)
{
	struct area a;
	int64_t mapped;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 8, BOTH);
		fill(&a, 0, 5, 1);
		fill(&a, 6, 2, 1);
		eq(uffd_continue(a.uffd, a.mem, a.len, 0, &mapped), -EAGAIN);
		eq(mapped, 5 * PAGE);
		continue_fails(a.uffd, at(&a, 5), 3 * PAGE, EFAULT);
		must_continue(a.uffd, at(&a, 6), 2 * PAGE);
		check(!is_mapped(at(&a, 5)), "%s: the hole is mapped", kind_name[kind]);
		close(a.uffd);
	}
}

/* A whole page table and more, not from its begin. */
TEST(continue_many, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 1300, BOTH);
		fill(&a, 0, 1300, 1);
		must_continue(a.uffd, at(&a, 7), 1200 * PAGE);
		for (int i = 7; i < 1207; i++)
			page_has(at(&a, i), i, 1);
		check(!is_mapped(at(&a, 6)) && !is_mapped(at(&a, 1207)), "mapped more than was asked for");
		no_event(a.uffd);
		close(a.uffd);
	}
}

/* The page is the one of the mapping's offset in the object. */
TEST(continue_offset, 0)
{
	struct area a;
	char *mem;

	area_make(&a, MEMFD_SHARED, 16, PROT_READ | PROT_WRITE);
	fill(&a, 0, 16, 1);
	a.uffd = uffd_open(0);
	for (int type = MAP_SHARED; type <= MAP_PRIVATE; type++) {
		mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, type, a.fd, 9 * PAGE);
		must(mem != MAP_FAILED);
		eq(uffd_register(a.uffd, mem, 4 * PAGE, BOTH, NULL), 0);
		must_continue(a.uffd, mem + PAGE, 3 * PAGE);
		for (int i = 1; i < 4; i++)
			page_has(mem + i * PAGE, 9 + i, 1);
	}
}

/* Both see the same page, whoever writes. */
TEST(continue_shares_the_page, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		if (kind == MEMFD_PRIVATE)
			continue;
		area_ready(&a, kind, 4, BOTH);
		fill(&a, 0, 4, 1);
		must_continue(a.uffd, a.mem, a.len);
		fill_page(at(&a, 1), 1, 2);
		page_has(door_at(&a, 1), 1, 2);
		fill_page(door_at(&a, 2), 2, 3);
		page_has(at(&a, 2), 2, 3);
		close(a.uffd);
	}
}

/* Freed memory that holds something, for the next who allocates to find. */
static void foul_memory(size_t len)
{
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(mem != MAP_FAILED);
	memset(mem, 0xee, len);
	must(!munmap(mem, len));
}

/*
 * What fallocate() allocates is in the page cache, but nobody has zeroed it
 * yet. A fault tells so, and who maps it must zero it.
 */
TEST(continue_fallocated, 0)
{
	struct area a;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		foul_memory(2048 * PAGE);
		area_ready(&a, kind, 1024, BOTH);
		must(!fallocate(a.fd, 0, 0, a.len));
		eq(blocks(a.fd), 1024);
		/* Not through the door: the door's fault would zero them. */
		touch_continue(a.uffd, at(&a, 700), READ);
		must_continue(a.uffd, at(&a, 0), 700 * PAGE);
		must_continue(a.uffd, at(&a, 701), 323 * PAGE);
		for (int i = 0; i < 1024; i++)
			page_has(at(&a, i), i, 0);
		for (int i = 0; i < 1024; i++)
			page_has(door_at(&a, i), i, 0);
		eq(blocks(a.fd), 1024);
		close(a.uffd);
		close(a.fd);
	}
}

TEST(continue_fallocated_then_stored, 0)
{
	char got[PAGE] __attribute__((aligned(8)));
	struct area a;

	foul_memory(256 * PAGE);
	area_ready(&a, MEMFD_SHARED, 64, BOTH);
	must(!fallocate(a.fd, 0, 0, a.len));
	must_continue(a.uffd, a.mem, a.len);
	for (int i = 0; i < 64; i += 2)
		fill_page(at(&a, i), i, 5);
	for (int i = 0; i < 64; i++) {
		must(pread(a.fd, got, PAGE, i * PAGE) == PAGE);
		page_has(got, i, i % 2 ? 0 : 5);
	}
}

/* What lies past the end is not mapped, in the page cache or not. */
static void past_end(int kind, bool kept)
{
	struct area a;
	int64_t mapped;

	area_ready(&a, kind, 8, BOTH);
	fill(&a, 0, 8, 1);
	must(!ftruncate(a.fd, 4 * PAGE));
	if (kept) /* pages past the end, which fallocate() leaves there */
		must(!fallocate(a.fd, FALLOC_FL_KEEP_SIZE, 4 * PAGE, 4 * PAGE));
	/* EINVAL of the lookup; EFAULT if it is seen only when the page is mapped. */
	for (int i = 4; i < 8; i++) {
		int ret = uffd_continue(a.uffd, at(&a, i), PAGE, 0, &mapped);

		check(ret == -EINVAL || ret == -EFAULT, "%s: page %d past the end: %d", kind_name[kind], i, ret);
		eq(mapped, ret);
		check(!is_mapped(at(&a, i)), "a page past the end is mapped");
	}
	eq(uffd_continue(a.uffd, at(&a, 2), 4 * PAGE, 0, &mapped), -EAGAIN);
	eq(mapped, 2 * PAGE);
	if (!kept)
		eq(touch_or_bus(at(&a, 5), READ), -1);
	no_event(a.uffd);
	/* It grows again: the pages are holes, and were never seen. */
	must(!ftruncate(a.fd, 8 * PAGE));
	if (!kept)
		continue_fails(a.uffd, at(&a, 5), PAGE, EFAULT);
	page_has(at(&a, 2), 2, 1);
	close(a.uffd);
	close(a.fd);
}

TEST(continue_past_end, 0)
{
	past_end(MEMFD_SHARED, false);
	past_end(MEMFD_PRIVATE, false);
}

TEST(continue_past_end_allocated, 0)
{
	past_end(MEMFD_SHARED, true);
	past_end(MEMFD_PRIVATE, true);
}

/* The end within a page: that page is mapped, and beyond the end it is zeros. */
TEST(continue_last_page, 0)
{
	struct area a;
	int64_t mapped;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		area_ready(&a, kind, 8, BOTH);
		fill(&a, 0, 8, 1);
		must(!ftruncate(a.fd, 3 * PAGE + 100));
		eq(uffd_continue(a.uffd, a.mem, a.len, 0, &mapped), -EAGAIN);
		eq(mapped, 4 * PAGE);
		for (int i = 0; i < 3; i++)
			page_has(at(&a, i), i, 1);
		check(!memcmp(at(&a, 3), door_at(&a, 3), 100) && at(&a, 3)[2], "the last page is another");
		for (size_t i = 100; i < PAGE; i++)
			check(!at(&a, 3)[i], "byte %zu past the end is %d", i, at(&a, 3)[i]);
		must(!ftruncate(a.fd, 1));
		check(!is_mapped(at(&a, 1)), "a page that was cut off is mapped");
		check(is_mapped(at(&a, 0)), "the last page is not mapped");
		must(!ftruncate(a.fd, 0));
		check(!is_mapped(at(&a, 0)), "a page of an empty file is mapped");
		mapped = uffd_continue(a.uffd, a.mem, PAGE, 0, NULL);
		check(mapped == -EINVAL || mapped == -EFAULT, "page 0 of an empty file: %ld", (long)mapped);
		close(a.uffd);
		close(a.fd);
	}
}

TEST(continue_punched, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 8, BOTH);
		fill(&a, 0, 8, 1);
		must_continue(a.uffd, at(&a, 0), 4 * PAGE);
		punch(&a, 2, 4);
		check(is_mapped(at(&a, 1)) && !is_mapped(at(&a, 2)), "%s: punched pages", kind_name[kind]);
		continue_fails(a.uffd, at(&a, 2), PAGE, EFAULT);
		continue_fails(a.uffd, at(&a, 4), PAGE, EFAULT);
		must_continue(a.uffd, at(&a, 6), 2 * PAGE);
		if (a.fd >= 0)
			eq(blocks(a.fd), 4);
		close(a.uffd);
	}
}

/* The page was swapped out: CONTINUE brings it back, with what was in it. */
TEST(continue_swapped, NEEDS_SWAP)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 64, BOTH);
		fill(&a, 0, 64, 1);
		page_out(&a, 0, 64);
		touch_continue(a.uffd, at(&a, 30), READ);
		must_continue(a.uffd, at(&a, 0), 30 * PAGE);
		must_continue(a.uffd, at(&a, 31), 33 * PAGE);
		for (int i = 0; i < 64; i++)
			page_has(at(&a, i), i, 1);
		if (a.fd >= 0)
			eq(blocks(a.fd), 64);
		/* And is what the others see. */
		if (kind != MEMFD_PRIVATE) {
			fill_page(at(&a, 5), 5, 2);
			page_has(door_at(&a, 5), 5, 2);
		}
		close(a.uffd);
	}
}

/* A write fault on it is a minor one too. */
TEST(continue_swapped_write, NEEDS_SWAP)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 4, BOTH);
		fill(&a, 0, 4, 1);
		page_out(&a, 0, 4);
		touch_continue(a.uffd, at(&a, 1) + 4, 0x66);
		eq(at(&a, 1)[4], 0x66);
		eq(door_at(&a, 1)[4], kind == MEMFD_PRIVATE ? 0 : 0x66);
		page_has(door_at(&a, 0), 0, 1);
		close(a.uffd);
	}
}

/* Mapped, then swapped out again: the mapping has let it go. */
TEST(continue_then_swapped, NEEDS_SWAP)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 16, BOTH);
		fill(&a, 0, 16, 1);
		for (int round = 0; round < 3; round++) {
			must_continue(a.uffd, a.mem, a.len);
			for (int i = 0; i < 16; i++)
				page_has(at(&a, i), i, 1);
			page_out(&a, 0, 16);
			check(!is_mapped(a.mem), "%s: mapped and not resident", kind_name[kind]);
		}
		close(a.uffd);
	}
}
