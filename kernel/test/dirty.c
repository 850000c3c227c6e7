// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nothing that a mapping shows is lost when its page is reclaimed, and whoever
 * asks the kernel which pages were written is told.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

#define N 16

/* Contents came by write(), CONTINUE only mapped them. */
static void mapped_and_reclaimed(int kind, int prot)
{
	struct area a;

	area_make(&a, kind, N, prot);
	area_register(&a, 0, BOTH);
	fill(&a, 0, N, 1);
	for (int round = 0; round < 3; round++) {
		must_continue(a.uffd, a.mem, a.len);
		page_has(at(&a, 1), 1, 1);
		page_out(&a, 0, N);
		check(!is_mapped(at(&a, 1)), "%s: mapped and reclaimed", kind_name[kind]);
	}
	for (int i = 0; i < N; i++)
		page_has(door_at(&a, i), i, 1);
	touch_continue(a.uffd, at(&a, 3), READ);
	page_has(at(&a, 3), 3, 1);
	close(a.uffd);
}

TEST(dirty_read_only_reclaimed, NEEDS_SWAP)
{
	for (int kind = 0; kind < KINDS; kind++)
		mapped_and_reclaimed(kind, PROT_READ);
}

TEST(dirty_writable_reclaimed, NEEDS_SWAP)
{
	for (int kind = 0; kind < KINDS; kind++)
		mapped_and_reclaimed(kind, PROT_READ | PROT_WRITE);
}

/* Stored through the mapping that CONTINUE made, and by nothing else. */
static void stored_and_reclaimed(bool from_swap)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		if (kind == MEMFD_PRIVATE)
			continue;
		area_ready(&a, kind, N, BOTH);
		fill(&a, 0, N, 1);
		if (from_swap)
			page_out(&a, 0, N);
		must_continue(a.uffd, a.mem, a.len);
		for (int i = 0; i < N; i++)
			fill_page(at(&a, i), i, 2);
		page_out(&a, 0, N);
		for (int i = 0; i < N; i++)
			page_has(door_at(&a, i), i, 2);
		close(a.uffd);
	}
}

TEST(dirty_stored_reclaimed, NEEDS_SWAP)
{
	stored_and_reclaimed(false);
}

TEST(dirty_swapped_stored_reclaimed, NEEDS_SWAP)
{
	stored_and_reclaimed(true);
}

/*
 * A hole that was read is a page of zeros, and clean: nothing says that it
 * must be kept. What is stored after CONTINUE must be.
 */
TEST(dirty_clean_page_stored_reclaimed, NEEDS_SWAP)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		if (kind == MEMFD_PRIVATE)
			continue;
		area_ready(&a, kind, N, BOTH);
		for (int i = 0; i < N; i++)
			page_has(door_at(&a, i), i, 0);
		must_continue(a.uffd, a.mem, a.len);
		for (int i = 0; i < N; i += 2)
			fill_page(at(&a, i), i, 2);
		page_out(&a, 0, N);
		for (int i = 0; i < N; i++)
			page_has(door_at(&a, i), i, i % 2 ? 0 : 2);
		close(a.uffd);
	}
}

TEST(dirty_fallocated_stored_reclaimed, NEEDS_SWAP)
{
	struct area a;

	area_ready(&a, MEMFD_SHARED, N, BOTH);
	must(!posix_fallocate(a.fd, 0, a.len));
	must_continue(a.uffd, a.mem, a.len);
	for (int i = 0; i < N; i += 2)
		fill_page(at(&a, i), i, 2);
	page_out(&a, 0, N);
	for (int i = 0; i < N; i++)
		page_has(door_at(&a, i), i, i % 2 ? 0 : 2);
}

static long dirty_kb(const char *mem)
{
	return smaps_kb(mem, "Private_Dirty") + smaps_kb(mem, "Shared_Dirty");
}

/*
 * The bit itself: of a page that is clean, seen through a mapping whose page
 * table entry CONTINUE has made, smaps tells that it is dirty. Linux has it so
 * since 5.18, whether the mapping may be written or not; in 5.14, if it may.
 */
static void marks_dirty(int prot)
{
	struct area a;

	area_make(&a, MEMFD_SHARED, N, prot);
	area_register(&a, 0, BOTH);
	for (int i = 0; i < N; i++)
		page_has(door_at(&a, i), i, 0);
	eq(dirty_kb(a.door), 0);
	must_continue(a.uffd, a.mem, a.len);
	eq(dirty_kb(a.mem), N * 4);
	close(a.uffd);
}

TEST(dirty_bit_writable, 0)
{
	marks_dirty(PROT_READ | PROT_WRITE);
}

TEST(dirty_bit_read_only, 0)
{
	marks_dirty(PROT_READ);
}

static void clear_soft_dirty(void)
{
	if (!has_soft_dirty())
		skip("this kernel has no soft-dirty bits");
	must(put_string("/proc/self/clear_refs", "4"));
}

/* An incremental dump takes the pages that this bit names. */
static void soft_dirty(int kind, bool continue_first)
{
	struct area a;

	area_ready(&a, kind, N, BOTH);
	fill(&a, 0, N, 1);
	if (continue_first)
		must_continue(a.uffd, a.mem, a.len);
	clear_soft_dirty();
	for (int i = 0; i < N; i++)
		check(!is_soft_dirty(at(&a, i)), "%s: page %d is soft-dirty too early", kind_name[kind], i);
	if (!continue_first)
		must_continue(a.uffd, a.mem, a.len);
	for (int i = 0; i < N; i += 2)
		touch_native(a.uffd, at(&a, i) + 4, 0x77);
	for (int i = 0; i < N; i += 2)
		check(is_soft_dirty(at(&a, i)), "%s: the store to page %d is not told", kind_name[kind], i);
	for (int i = 1; i < N && continue_first; i += 2)
		check(!is_soft_dirty(at(&a, i)), "%s: page %d was not stored to", kind_name[kind], i);
	close(a.uffd);
}

TEST(soft_dirty_store_after_continue, 0)
{
	for (int kind = 0; kind < KINDS; kind++)
		soft_dirty(kind, false);
}

TEST(soft_dirty_cleared_after_continue, 0)
{
	for (int kind = 0; kind < KINDS; kind++)
		soft_dirty(kind, true);
}

TEST(soft_dirty_write_fault, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, N, BOTH);
		fill(&a, 0, N, 1);
		clear_soft_dirty();
		touch_continue(a.uffd, at(&a, 3), 0x77);
		check(is_soft_dirty(at(&a, 3)), "%s: the store is not told", kind_name[kind]);
		close(a.uffd);
	}
}
