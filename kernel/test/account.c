// SPDX-License-Identifier: GPL-2.0-only
/*
 * CONTINUE allocates nothing, counts what it maps, and keeps no page.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

#define N 64

#define BIG 1024

/*
 * The mm's own counter. Before 6.2 each thread keeps some of it to itself, up
 * to 64 pages: what is less than that is no difference.
 */
static long rss_shmem(void)
{
	return file_kb("/proc/self/status", "RssShmem");
}

#define near(expr, want)                                                                                     \
	do {                                                                                                 \
		long _got = (expr), _want = (want);                                                          \
		check(labs(_got - _want) <= 4 * 128, "%s is %ld kB, and not about %ld", #expr, _got, _want); \
	} while (0)

TEST(account_rss, 0)
{
	struct area a;
	long before;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, BIG, BOTH);
		fill(&a, 0, BIG, 1);
		before = rss_shmem();
		eq(smaps_kb(a.mem, "Rss"), 0);
		must_continue(a.uffd, a.mem, BIG / 2 * PAGE);
		eq(smaps_kb(a.mem, "Rss"), BIG / 2 * 4);
		near(rss_shmem(), before + BIG / 2 * 4);
		/* What fails counts nothing. */
		for (int i = 0; i < BIG / 2; i++)
			continue_fails(a.uffd, at(&a, i), PAGE, EEXIST);
		near(rss_shmem(), before + BIG / 2 * 4);
		must_continue(a.uffd, at(&a, BIG / 2), BIG / 2 * PAGE);
		eq(smaps_kb(a.mem, "Rss"), BIG * 4);
		near(rss_shmem(), before + BIG * 4);
		must(!munmap(a.mem, a.len));
		near(rss_shmem(), before);
		close(a.uffd);
	}
}

/* A copy of the object's page takes its place in the count. */
TEST(account_rss_private, 0)
{
	struct area a;
	long before = rss_shmem();

	area_ready(&a, MEMFD_PRIVATE, BIG, BOTH);
	fill(&a, 0, BIG, 1);
	must_continue(a.uffd, a.mem, a.len);
	near(rss_shmem(), before + BIG * 4);
	for (int i = 0; i < BIG; i++)
		at(&a, i)[4] = 1;
	no_event(a.uffd);
	near(rss_shmem(), before);
	eq(smaps_kb(a.mem, "Anonymous"), BIG * 4);
	must(!munmap(a.mem, a.len));
	near(rss_shmem(), before);
}

TEST(account_blocks, 0)
{
	struct area a;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		area_ready(&a, kind, 2 * N, BOTH);
		fill(&a, 0, N, 1);
		eq(blocks(a.fd), N);
		for (int i = 0; i < 2 * N; i++)
			uffd_continue(a.uffd, at(&a, i), PAGE, 0, NULL);
		eq(blocks(a.fd), N);
		eq(smaps_kb(a.mem, "Rss"), N * 4);
		close(a.uffd);
	}
}

/* How often a page is mapped shows in which mappings share it. */
TEST(account_shared, 0)
{
	struct area a;

	area_ready(&a, MEMFD_SHARED, N, BOTH);
	fill(&a, 0, N, 1);
	must_continue(a.uffd, a.mem, a.len);
	eq(smaps_kb(a.mem, "Pss"), N * 4);
	eq(smaps_kb(a.mem, "Private_Dirty") + smaps_kb(a.mem, "Private_Clean"), N * 4);
	for (int i = 0; i < N; i++)
		page_has(door_at(&a, i), i, 1);
	eq(smaps_kb(a.mem, "Shared_Dirty") + smaps_kb(a.mem, "Shared_Clean"), N * 4);
	eq(smaps_kb(a.mem, "Pss"), N * 2);
	must(!madvise(a.mem, a.len, MADV_DONTNEED));
	eq(smaps_kb(a.door, "Private_Dirty") + smaps_kb(a.door, "Private_Clean"), N * 4);
	eq(smaps_kb(a.door, "Pss"), N * 4);
}

/* A thousand times mapped, all is freed when the object is emptied. */
TEST(account_no_leak, 0)
{
	struct area a;
	long before = file_kb("/proc/meminfo", "Shmem"), rss;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		area_ready(&a, kind, N, BOTH);
		fill(&a, 0, N, 1);
		rss = rss_shmem();
		for (int i = 0; i < 1000; i++) {
			must_continue(a.uffd, a.mem, a.len);
			must(!madvise(a.mem, a.len, MADV_DONTNEED));
		}
		near(rss_shmem(), rss);
		eq(blocks(a.fd), N);
		for (int i = 0; i < N; i++)
			page_has(door_at(&a, i), i, 1);
		punch(&a, 0, N);
		eq(blocks(a.fd), 0);
		close(a.uffd);
	}
	/* Others use shmem too: 64000 pages would show. */
	check(file_kb("/proc/meminfo", "Shmem") < before + 100000, "Shmem has grown");
}

/*
 * A page that somebody still holds cannot be reclaimed: after calls that
 * succeed and calls that fail, all can.
 */
TEST(account_no_reference, NEEDS_SWAP)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, N, BOTH);
		fill(&a, 0, N, 1);
		for (int i = 0; i < 10; i++) {
			must_continue(a.uffd, a.mem, a.len);
			for (int page = 0; page < N; page++)
				continue_fails(a.uffd, at(&a, page), PAGE, EEXIST);
			must(!madvise(a.mem, a.len, MADV_DONTNEED));
		}
		page_out(&a, 0, N);
		for (int i = 0; i < N; i++)
			page_has(door_at(&a, i), i, 1);
		close(a.uffd);
	}
}

/* Nor does the event itself hold the page: a minor fault that is never answered. */
TEST(account_no_reference_by_event, NEEDS_SWAP)
{
	struct area a;
	struct toucher *t;

	area_ready(&a, MEMFD_SHARED, N, BOTH);
	fill(&a, 0, N, 1);
	t = touch_start(at(&a, 5), READ);
	expect_fault(a.uffd, at(&a, 5), F_MINOR);
	for (int i = 0; i < 50; i++) {
		eq(uffd_wake(a.uffd, at(&a, 5), PAGE), 0);
		expect_fault(a.uffd, at(&a, 5), F_MINOR);
	}
	page_out(&a, 0, N);
	/* And the page is not locked: who writes to it does not wait. */
	fill(&a, 5, 1, 2);
	must_continue(a.uffd, at(&a, 5), PAGE);
	touch_join(t);
	page_has(at(&a, 5), 5, 2);
}
