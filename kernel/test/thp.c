// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects whose page cache has huge pages: CONTINUE maps small pages of them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

#define N 1024 /* pages: two huge ones */

/* Both mappings begin where a huge page may be mapped whole. */
static char *aligned(struct area *a, int prot, int type)
{
	char *mem = mmap(NULL, a->len + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	must(mem != MAP_FAILED);
	mem = (char *)(((uintptr_t)mem + HUGE - 1) & ~(HUGE - 1));
	must(mmap(mem, a->len, prot, type | MAP_FIXED, a->fd, 0) == mem);
	/* Both, or the kernel would not map them huge. */
	must(!madvise(mem, a->len, MADV_HUGEPAGE));
	return mem;
}

static void huge_area(struct area *a, enum kind kind, uint64_t mode)
{
	*a = (struct area){ .kind = kind, .uffd = -1, .pages = N, .len = N * PAGE };
	a->fd = memfd_create("thp", MFD_CLOEXEC);
	must(a->fd >= 0);
	must(!ftruncate(a->fd, a->len));
	a->door = aligned(a, PROT_READ | PROT_WRITE, MAP_SHARED);
	a->mem = aligned(a, PROT_READ | PROT_WRITE, kind == MEMFD_PRIVATE ? MAP_PRIVATE : MAP_SHARED);
	for (int i = 0; i < N; i++)
		fill_page(door_at(a, i), i, 1);
	if (smaps_kb(a->door, "ShmemPmdMapped") < (long)a->len / 1024)
		skip("no huge page was to be had");
	if (mode)
		area_register(a, 0, mode);
}

static void done(struct area *a)
{
	close(a->uffd);
	close(a->fd);
	munmap(a->mem, a->len);
	munmap(a->door, a->len);
}

static void only_mapped(struct area *a, int first, int end)
{
	for (int i = 0; i < N; i++)
		check(is_mapped(at(a, i)) == (i >= first && i < end), "page %d is %smapped", i,
		      is_mapped(at(a, i)) ? "" : "not ");
}

TEST(thp_one_page, NEEDS_THP)
{
	struct area a;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		huge_area(&a, kind, BOTH);
		must_continue(a.uffd, at(&a, 700), PAGE);
		page_has(at(&a, 700), 700, 1);
		only_mapped(&a, 700, 701);
		continue_fails(a.uffd, at(&a, 700), PAGE, EEXIST);
		eq(smaps_kb(a.mem, "Rss"), 4);
		done(&a);
	}
}

/* A fault is one of a small page, with neighbours that will fault too. */
static void faults(int value)
{
	struct area a;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		huge_area(&a, kind, MINOR);
		touch_continue(a.uffd, at(&a, 100) + 4, value);
		only_mapped(&a, 100, 101);
		touch_continue(a.uffd, at(&a, 101) + 4, value);
		touch_continue(a.uffd, at(&a, 512) + 4, value);
		eq(smaps_kb(a.mem, "ShmemPmdMapped"), 0);
		eq(at(&a, 101)[4], value == READ ? 0 : value);
		eq(door_at(&a, 101)[4], value == READ || kind == MEMFD_PRIVATE ? 0 : value);
		done(&a);
	}
}

TEST(thp_read_faults, NEEDS_THP)
{
	faults(READ);
}

TEST(thp_write_faults, NEEDS_THP)
{
	faults(0x77);
}

TEST(thp_range, NEEDS_THP)
{
	struct area a;
	int64_t mapped;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		huge_area(&a, kind, BOTH);
		must_continue(a.uffd, at(&a, 500), 100 * PAGE);
		only_mapped(&a, 500, 600);
		eq(uffd_continue(a.uffd, a.mem, a.len, 0, &mapped), -EAGAIN);
		eq(mapped, 500 * PAGE);
		must_continue(a.uffd, at(&a, 600), 424 * PAGE);
		for (int i = 0; i < N; i++)
			page_has(at(&a, i), i, 1);
		eq(smaps_kb(a.mem, "Rss"), N * 4);
		no_event(a.uffd);
		if (kind == MEMFD_SHARED) {
			fill_page(at(&a, 77), 77, 2);
			page_has(door_at(&a, 77), 77, 2);
		}
		done(&a);
	}
}

/* The door lets go of it: the huge page is mapped by CONTINUE alone. */
TEST(thp_after_door, NEEDS_THP)
{
	struct area a;

	huge_area(&a, MEMFD_SHARED, BOTH);
	must(!madvise(a.door, a.len, MADV_DONTNEED));
	must_continue(a.uffd, at(&a, 3), 600 * PAGE);
	for (int i = 3; i < 603; i++)
		page_has(at(&a, i), i, 1);
	must(!madvise(at(&a, 3), 600 * PAGE, MADV_DONTNEED));
	eq(smaps_kb(a.mem, "Rss"), 0);
	touch_continue(a.uffd, at(&a, 3), READ);
	done(&a);
}

/* Holes and ends in the middle of a huge page split it, or zero a part of it. */
TEST(thp_punch_and_truncate, NEEDS_THP)
{
	struct area a;
	int ret;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		huge_area(&a, kind, BOTH);
		must_continue(a.uffd, a.mem, 512 * PAGE);
		punch(&a, 100, 10);
		check(!is_mapped(at(&a, 105)), "what was punched is mapped");
		for (int i = 0; i < 512; i++)
			if (i < 100 || i >= 110)
				check(!is_mapped(at(&a, i)) || page_is(at(&a, i), i, 1), "page %d is another", i);
		/* A huge page that is not split keeps the part, as zeros. */
		ret = uffd_continue(a.uffd, at(&a, 105), PAGE, 0, NULL);
		check(ret == -EFAULT || !ret, "CONTINUE in the hole: %d", ret);
		if (!ret)
			page_has(at(&a, 105), 105, 0);
		must(!ftruncate(a.fd, 700 * PAGE));
		ret = uffd_continue(a.uffd, at(&a, 700), PAGE, 0, NULL);
		check(ret == -EFAULT || ret == -EINVAL, "CONTINUE past the end: %d", ret);
		check(!is_mapped(at(&a, 700)), "mapped past the end");
		must_continue(a.uffd, at(&a, 600), 100 * PAGE);
		for (int i = 600; i < 700; i++)
			page_has(at(&a, i), i, 1);
		must(!ftruncate(a.fd, 0));
		eq(blocks(a.fd), 0);
		done(&a);
	}
}

/* Mapped whole before it was registered: it is mapped. */
TEST(thp_mapped_whole, NEEDS_THP)
{
	struct area a;

	huge_area(&a, MEMFD_SHARED, 0);
	page_has(at(&a, 5), 5, 1);
	if (!smaps_kb(a.mem, "ShmemPmdMapped"))
		skip("the huge page is not mapped whole");
	area_register(&a, 0, BOTH);
	continue_fails(a.uffd, at(&a, 6), PAGE, EEXIST);
	continue_fails(a.uffd, a.mem, 512 * PAGE, EEXIST);
	touch_native(a.uffd, at(&a, 7) + 4, 0x77);
	/* The second one is not. */
	must_continue(a.uffd, at(&a, 512), 512 * PAGE);
	page_has(at(&a, 513), 513, 1);
	done(&a);
}

/* A private page, copied out of a huge one. */
TEST(thp_private_store, NEEDS_THP)
{
	struct area a;

	huge_area(&a, MEMFD_PRIVATE, BOTH);
	must_continue(a.uffd, a.mem, a.len);
	for (int i = 0; i < N; i += 3)
		touch_native(a.uffd, at(&a, i) + 4, 0x77);
	for (int i = 0; i < N; i++) {
		eq(at(&a, i)[4], i % 3 ? 0 : 0x77);
		page_has(door_at(&a, i), i, 1);
	}
	done(&a);
}

TEST(thp_leak, NEEDS_THP)
{
	struct area a;

	huge_area(&a, MEMFD_SHARED, BOTH);
	for (int i = 0; i < 50; i++) {
		must_continue(a.uffd, a.mem, a.len);
		continue_fails(a.uffd, at(&a, i), PAGE, EEXIST);
		must(!madvise(a.mem, a.len, MADV_DONTNEED));
	}
	eq(smaps_kb(a.door, "Pss"), N * 4);
	punch(&a, 0, N);
	eq(blocks(a.fd), 0);
	done(&a);
}

TEST(thp_swapped, NEEDS_THP | NEEDS_SWAP)
{
	struct area a;

	huge_area(&a, MEMFD_SHARED, BOTH);
	must_continue(a.uffd, a.mem, 300 * PAGE);
	must(!madvise(a.mem, a.len, MADV_DONTNEED));
	page_out(&a, 0, N);
	touch_continue(a.uffd, at(&a, 300), READ);
	must_continue(a.uffd, a.mem, 300 * PAGE);
	must_continue(a.uffd, at(&a, 301), 723 * PAGE);
	for (int i = 0; i < N; i++)
		page_has(at(&a, i), i, 1);
	done(&a);
}
