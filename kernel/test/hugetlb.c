// SPDX-License-Identifier: GPL-2.0-only
/*
 * Minor faults on hugetlb. A kernel need not offer them with those on shmem.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

#define N	 4
#define COUNTERS "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

static void needs_feature(void)
{
	if (!(features_offered() & UFFD_FEATURE_MINOR_HUGETLBFS))
		skip("this kernel has no minor faults on hugetlb");
}

/* The first half of the object has contents; page i begins with i + 1. */
static void huge_area(struct area *a, enum kind kind, uint64_t mode)
{
	int type = kind == MEMFD_PRIVATE ? MAP_PRIVATE : MAP_SHARED;

	*a = (struct area){ .kind = kind, .uffd = -1, .pages = N, .len = N * HUGE };
	a->fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	must(a->fd >= 0);
	must(!ftruncate(a->fd, a->len));
	a->door = mmap(NULL, a->len, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
	must(a->door != MAP_FAILED);
	a->mem = mmap(NULL, a->len, PROT_READ | PROT_WRITE, type, a->fd, 0);
	must(a->mem != MAP_FAILED);
	for (int i = 0; i < N / 2; i++)
		memset(a->door + i * HUGE, i + 1, HUGE);
	if (mode)
		area_register(a, 0, mode);
}

static void is_all(const char *mem, char value)
{
	for (size_t i = 0; i < HUGE; i += 64)
		check(mem[i] == value, "byte %zu is %d, not %d", i, mem[i], value);
}

static long counter(const char *name)
{
	char text[32] = "", path[128];
	int fd;

	snprintf(path, sizeof(path), COUNTERS "%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return atol(text);
}

TEST(hugetlb_register, NEEDS_HUGE)
{
	uint64_t ioctls;
	struct area a;

	needs_feature();
	huge_area(&a, MEMFD_SHARED, 0);
	a.uffd = uffd_open(UFFD_FEATURE_MINOR_HUGETLBFS);
	for (int mode = MISSING; mode <= (int)BOTH; mode++) {
		if (mode & ~BOTH || mode == UFFDIO_REGISTER_MODE_WP || mode == (MISSING | UFFDIO_REGISTER_MODE_WP))
			continue;
		eq(uffd_register(a.uffd, a.mem, a.len, mode, &ioctls), 0);
		check(!!(ioctls & (uint64_t)1 << _UFFDIO_CONTINUE) == !!(mode & MINOR), "mode %d: CONTINUE's bit", mode);
		check(has_flag(a.mem, "ui") == !!(mode & MINOR), "mode %d: ui is wrong", mode);
		eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	}
}

TEST(hugetlb_events, NEEDS_HUGE)
{
	struct toucher *t;
	struct area a;

	needs_feature();
	huge_area(&a, MEMFD_SHARED, BOTH);
	t = touch_start(a.mem + 12345, READ);
	expect_fault(a.uffd, a.mem, F_MINOR);
	must_continue(a.uffd, a.mem, HUGE);
	touch_join(t);
	is_all(a.mem, 1);
	t = touch_start(a.mem + HUGE, 0x77);
	expect_fault(a.uffd, a.mem + HUGE, F_MINOR | F_WRITE);
	must_continue(a.uffd, a.mem + HUGE, HUGE);
	touch_join(t);
	eq(a.door[HUGE], 0x77);
	t = touch_start(a.mem + 2 * HUGE, 0x66);
	expect_fault(a.uffd, a.mem + 2 * HUGE, F_WRITE);
	eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	touch_join(t);
	eq(a.door[2 * HUGE], 0x66);
}

TEST(hugetlb_minor_only, NEEDS_HUGE)
{
	struct toucher *t;
	struct area a;

	needs_feature();
	huge_area(&a, MEMFD_SHARED, MINOR);
	eq(touch_native(a.uffd, a.mem + 2 * HUGE, READ), 0);
	t = touch_start(a.mem, READ);
	expect_fault(a.uffd, a.mem, F_MINOR);
	must_continue(a.uffd, a.mem, HUGE);
	eq(touch_join(t), 1);
}

TEST(hugetlb_continue, NEEDS_HUGE)
{
	struct area a;
	int64_t mapped;

	needs_feature();
	huge_area(&a, MEMFD_SHARED, BOTH);
	eq(uffd_continue(a.uffd, a.mem, PAGE, 0, &mapped), -EINVAL);
	eq(uffd_continue(a.uffd, a.mem + PAGE, HUGE, 0, &mapped), -EINVAL);
	continue_fails(a.uffd, a.mem + 2 * HUGE, HUGE, EFAULT);
	eq(uffd_continue(a.uffd, a.mem, a.len, 0, &mapped), -EAGAIN);
	eq(mapped, 2 * HUGE);
	is_all(a.mem, 1);
	is_all(a.mem + HUGE, 2);
	continue_fails(a.uffd, a.mem, HUGE, EEXIST);
	continue_fails(a.uffd, a.mem + HUGE, 2 * HUGE, EEXIST);
	a.mem[HUGE + 5] = 0x55;
	eq(a.door[HUGE + 5], 0x55);
	must(!ftruncate(a.fd, 0));
	mapped = uffd_continue(a.uffd, a.mem, HUGE, 0, NULL);
	check(mapped == -EFAULT || mapped == -EINVAL, "past the end: %ld", (long)mapped);
}

TEST(hugetlb_counters, NEEDS_HUGE)
{
	long free_pages = counter("free_hugepages"), reserved = counter("resv_hugepages"), f, r;
	struct area a;

	needs_feature();
	huge_area(&a, MEMFD_SHARED, BOTH);
	f = counter("free_hugepages");
	r = counter("resv_hugepages");
	for (int i = 0; i < 20; i++) {
		must_continue(a.uffd, a.mem, 2 * HUGE);
		continue_fails(a.uffd, a.mem, HUGE, EEXIST);
		continue_fails(a.uffd, a.mem + 2 * HUGE, HUGE, EFAULT);
		eq(counter("free_hugepages"), f);
		eq(counter("resv_hugepages"), r);
		/* A new mapping: hugetlb has no MADV_DONTNEED before 5.18. */
		must(!munmap(a.mem, a.len));
		eq(counter("free_hugepages"), f);
		must(mmap(a.mem, a.len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a.fd, 0) == a.mem);
		area_register(&a, 0, BOTH);
	}
	must(!munmap(a.mem, a.len));
	must(!munmap(a.door, a.len));
	close(a.fd);
	eq(counter("free_hugepages"), free_pages);
	eq(counter("resv_hugepages"), reserved);
}

TEST(hugetlb_unregister_wakes, NEEDS_HUGE)
{
	struct toucher *t;
	struct area a;

	needs_feature();
	huge_area(&a, MEMFD_SHARED, BOTH);
	t = touch_start(a.mem, READ);
	expect_fault(a.uffd, a.mem, F_MINOR);
	eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	eq(touch_join(t), 1);
}

/* The object's page, read only; a store copies it, and the object has what it had. */
TEST(hugetlb_private, NEEDS_HUGE)
{
	struct toucher *t;
	struct area a;

	needs_feature();
	huge_area(&a, MEMFD_PRIVATE, BOTH);
	t = touch_start(a.mem, READ);
	expect_fault(a.uffd, a.mem, F_MINOR);
	must_continue(a.uffd, a.mem, HUGE);
	eq(touch_join(t), 1);
	touch_native(a.uffd, a.mem + 640, 0x77);
	eq(a.mem[640], 0x77);
	is_all(a.door, 1);
	a.mem[640] = 1;
	is_all(a.mem, 1);
}

#define GIB (1UL << 30)

/* Mappings of one whole GiB of an object, side by side. */
static void giant_mappings(struct area *a, int count)
{
	char *room = mmap(NULL, (count + 1) * GIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	must(room != MAP_FAILED);
	room = (char *)(((uintptr_t)room + GIB - 1) & ~(GIB - 1));
	*a = (struct area){ .door = room, .mem = room + GIB, .len = GIB };
	a->fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	must(a->fd >= 0 && !ftruncate(a->fd, GIB));
	for (int i = 0; i < count; i++) {
		char *mem = room + i * GIB;

		must(mmap(mem, GIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, a->fd, 0) == mem);
	}
	a->uffd = uffd_open(0);
}

static void huge_event(struct area *a, char *mem, int value)
{
	struct toucher *t = touch_start(mem, READ);

	expect_fault(a->uffd, mem, F_MINOR);
	must_continue(a->uffd, mem, HUGE);
	eq(touch_join(t), value);
}

/*
 * Mappings of a whole GiB share their page tables, and then one has mapped
 * what the other does: not where faults are to be told.
 */
TEST(hugetlb_no_shared_tables, NEEDS_HUGE)
{
	struct area a;

	needs_feature();
	giant_mappings(&a, 2);
	memset(a.door, 1, HUGE);
	/* Shared by now, if they ever are: registering must undo it. */
	is_all(a.mem, 1);
	eq(uffd_register(a.uffd, a.mem, a.len, MINOR, NULL), 0);
	memset(a.door + HUGE, 2, HUGE);
	check(!is_mapped(a.mem + HUGE), "mapped by the other mapping's fault");
	huge_event(&a, a.mem + HUGE, 2);
	is_all(a.mem + HUGE, 2);
}

/* Nor do two share them that are both registered. */
TEST(hugetlb_no_tables_shared_later, NEEDS_HUGE)
{
	struct area a;

	needs_feature();
	giant_mappings(&a, 3);
	memset(a.door, 1, 2 * HUGE);
	eq(uffd_register(a.uffd, a.mem, GIB, MINOR, NULL), 0);
	eq(uffd_register(a.uffd, a.mem + GIB, GIB, MINOR, NULL), 0);
	huge_event(&a, a.mem, 1);
	huge_event(&a, a.mem + GIB, 1);
	must_continue(a.uffd, a.mem + HUGE, HUGE);
	check(!is_mapped(a.mem + GIB + HUGE), "mapped by CONTINUE in the other mapping");
	huge_event(&a, a.mem + GIB + HUGE, 1);
}

/* COPY shares code with CONTINUE here too, and needs no minor faults. */
TEST(hugetlb_copy, NEEDS_HUGE | EVERYWHERE)
{
	char *src = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long free_pages = counter("free_hugepages"), reserved = counter("resv_hugepages");
	struct area a;
	int64_t copied;

	must(src != MAP_FAILED);
	memset(src, 9, HUGE);
	huge_area(&a, MEMFD_SHARED, MISSING);
	for (int i = 0; i < 50; i++)
		eq(uffd_copy(a.uffd, a.mem, src, HUGE, &copied), -EEXIST);
	eq(counter("free_hugepages"), free_pages - 2);
	eq(uffd_copy(a.uffd, a.mem + 2 * HUGE, src, HUGE, &copied), 0);
	eq(copied, HUGE);
	is_all(a.mem + 2 * HUGE, 9);
	is_all(a.door + 2 * HUGE, 9);
	eq(counter("free_hugepages"), free_pages - 3);
	munmap(a.mem, a.len);
	munmap(a.door, a.len);
	close(a.fd);
	eq(counter("free_hugepages"), free_pages);
	eq(counter("resv_hugepages"), reserved);
}
