// SPDX-License-Identifier: GPL-2.0-only
/*
 * UFFDIO_COPY and UFFDIO_ZEROPAGE on shmem, which share their last steps with
 * CONTINUE. None of this needs minor faults: it holds before and after.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

static char source[8 * PAGE] __attribute__((aligned(4096)));

static void make_source(size_t page, size_t count, int gen)
{
	for (size_t i = 0; i < count; i++)
		fill_page(source + i * PAGE, page + i, gen);
}

#define copy_fails(uffd, addr, len, error)                                  \
	do {                                                                \
		int64_t _copied;                                            \
		eq(uffd_copy(uffd, addr, source, len, &_copied), -(error)); \
		eq(_copied, -(error));                                      \
	} while (0)
#define must_copy(uffd, addr, len)                                   \
	do {                                                         \
		int64_t _copied;                                     \
		eq(uffd_copy(uffd, addr, source, len, &_copied), 0); \
		eq(_copied, (int64_t)(len));                         \
	} while (0)

TEST(copy_shared, EVERYWHERE)
{
	struct area a;
	struct toucher *t;

	for (int kind = 0; kind < KINDS; kind++) {
		if (kind == MEMFD_PRIVATE)
			continue;
		area_ready(&a, kind, 8, MISSING);
		make_source(2, 1, 1);
		t = touch_start(at(&a, 2) + 4, 0x77);
		expect_fault(a.uffd, at(&a, 2), F_WRITE);
		must_copy(a.uffd, at(&a, 2), PAGE);
		touch_join(t);
		eq(door_at(&a, 2)[4], 0x77);
		at(&a, 2)[4] = 0;
		page_has(door_at(&a, 2), 2, 1);
		if (a.fd >= 0)
			eq(blocks(a.fd), 1);
		make_source(3, 4, 1);
		must_copy(a.uffd, at(&a, 3), 4 * PAGE);
		for (int i = 3; i < 7; i++)
			page_has(door_at(&a, i), i, 1);
		eq(smaps_kb(a.mem, "Rss"), 20);
		close(a.uffd);
	}
}

/* The page is in the page cache, mapped here or not: COPY is not for it. */
TEST(copy_present, EVERYWHERE)
{
	struct area a;
	int64_t copied;

	area_ready(&a, MEMFD_SHARED, 8, MISSING);
	fill(&a, 3, 1, 1);
	make_source(3, 1, 2);
	copy_fails(a.uffd, at(&a, 3), PAGE, EEXIST);
	page_has(door_at(&a, 3), 3, 1);
	touch_native(a.uffd, at(&a, 3), READ);
	copy_fails(a.uffd, at(&a, 3), PAGE, EEXIST);
	make_source(0, 8, 2);
	eq(uffd_copy(a.uffd, a.mem, source, 8 * PAGE, &copied), -EAGAIN);
	eq(copied, 3 * PAGE);
	page_has(at(&a, 2), 2, 2);
	page_has(at(&a, 3), 3, 1);
	eq(blocks(a.fd), 4);
}

/* In swap is present too. */
TEST(copy_swapped, NEEDS_SWAP | EVERYWHERE)
{
	struct area a;

	area_ready(&a, MEMFD_SHARED, 8, MISSING);
	fill(&a, 0, 8, 1);
	page_out(&a, 0, 8);
	make_source(3, 1, 2);
	copy_fails(a.uffd, at(&a, 3), PAGE, EEXIST);
	page_has(door_at(&a, 3), 3, 1);
}

/* A private mapping gets a page of its own; the object stays as it was. */
TEST(copy_private, EVERYWHERE)
{
	struct area a;

	area_ready(&a, MEMFD_PRIVATE, 8, MISSING);
	make_source(2, 2, 1);
	must_copy(a.uffd, at(&a, 2), 2 * PAGE);
	page_has(at(&a, 2), 2, 1);
	page_has(at(&a, 3), 3, 1);
	eq(blocks(a.fd), 0);
	eq(smaps_kb(a.mem, "Anonymous"), 8);
	copy_fails(a.uffd, at(&a, 2), PAGE, EEXIST);
	/* Over a page of the object as well. */
	fill(&a, 5, 1, 3);
	make_source(5, 1, 4);
	must_copy(a.uffd, at(&a, 5), PAGE);
	page_has(at(&a, 5), 5, 4);
	page_has(door_at(&a, 5), 5, 3);
	touch_native(a.uffd, at(&a, 2) + 4, 0x77);
	eq(at(&a, 2)[4], 0x77);
}

/* A copy that fails charges nothing, and leaves nothing behind. */
TEST(copy_past_end, EVERYWHERE)
{
	struct area a;
	int64_t copied;

	for (int kind = MEMFD_SHARED; kind <= MEMFD_PRIVATE; kind++) {
		area_ready(&a, kind, 8, MISSING);
		must(!ftruncate(a.fd, 4 * PAGE));
		make_source(0, 8, 1);
		for (int i = 0; i < 500; i++)
			copy_fails(a.uffd, at(&a, 4 + i % 4), PAGE, EFAULT);
		eq(blocks(a.fd), 0);
		eq(uffd_copy(a.uffd, at(&a, 2), source, 4 * PAGE, &copied), -EAGAIN);
		eq(copied, 2 * PAGE);
		eq(blocks(a.fd), kind == MEMFD_SHARED ? 2 : 0);
		must(!ftruncate(a.fd, 0));
		eq(blocks(a.fd), 0);
		close(a.uffd);
		close(a.fd);
	}
}

TEST(copy_fails_without_leak, EVERYWHERE)
{
	struct area a;
	long before;

	area_ready(&a, MEMFD_SHARED, 8, MISSING);
	make_source(0, 8, 1);
	must_copy(a.uffd, a.mem, a.len);
	before = file_kb("/proc/meminfo", "Shmem");
	for (int i = 0; i < 20000; i++)
		uffd_copy(a.uffd, at(&a, i % 8), source, PAGE, NULL);
	eq(blocks(a.fd), 8);
	/* Others use shmem too, but not 80 MiB of it now. */
	check(file_kb("/proc/meminfo", "Shmem") < before + 20000, "Shmem grows by failed copies");
	must(!ftruncate(a.fd, 0));
	eq(blocks(a.fd), 0);
}

TEST(copy_zeropage, EVERYWHERE)
{
	struct area a;
	int64_t zeroed;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 8, MISSING);
		eq(uffd_zeropage(a.uffd, at(&a, 1), 3 * PAGE, &zeroed), 0);
		eq(zeroed, 3 * PAGE);
		eq(uffd_zeropage(a.uffd, at(&a, 1), PAGE, &zeroed), -EEXIST);
		for (int i = 1; i < 4; i++)
			page_has(at(&a, i), i, 0);
		touch_native(a.uffd, at(&a, 2) + 4, 0x77);
		eq(door_at(&a, 2)[4], kind == MEMFD_PRIVATE ? 0 : 0x77);
		if (kind == MEMFD_SHARED)
			eq(blocks(a.fd), 3);
		close(a.uffd);
	}
}

/*
 * Where the mapping may not be written, there is nothing but the page itself
 * to remember that it is dirty. Reclaimed, it must come back.
 */
static void reclaimed(int kind, int prot)
{
	struct area a;

	area_make(&a, kind, 8, prot);
	area_register(&a, 0, MISSING);
	make_source(0, 8, 1);
	must_copy(a.uffd, a.mem, a.len);
	eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	page_out(&a, 0, 8);
	for (int i = 0; i < 8; i++) {
		page_has(door_at(&a, i), i, 1);
		page_has(at(&a, i), i, 1);
	}
	close(a.uffd);
}

TEST(copy_read_only_reclaimed, NEEDS_SWAP | EVERYWHERE)
{
	reclaimed(MEMFD_SHARED, PROT_READ);
	reclaimed(ANON_SHARED, PROT_READ);
}

TEST(copy_writable_reclaimed, NEEDS_SWAP | EVERYWHERE)
{
	reclaimed(MEMFD_SHARED, PROT_READ | PROT_WRITE);
	reclaimed(ANON_SHARED, PROT_READ | PROT_WRITE);
}

struct cutter {
	struct area *a;
	volatile bool stop;
};

static long cut(void *arg)
{
	struct cutter *c = arg;
	long n = 0;

	while (!c->stop) {
		must(!ftruncate(c->a->fd, n % 3 * PAGE));
		must(!ftruncate(c->a->fd, c->a->len));
		n++;
	}
	return n;
}

/* A page is copied in while the object is cut: it is there, or it is not. */
TEST(copy_race_truncate, EVERYWHERE)
{
	struct cutter c;
	struct area a;
	struct caller *call;
	long end = now_ms() + race_ms, done = 0;
	char got[PAGE] __attribute__((aligned(8)));

	area_ready(&a, MEMFD_SHARED, 8, MISSING);
	make_source(0, 8, 1);
	c = (struct cutter){ .a = &a };
	call = call_start(cut, &c);
	do {
		for (int i = 0; i < 8; i++) {
			int64_t copied;
			int ret = uffd_copy(a.uffd, at(&a, i), source + i * PAGE, PAGE, &copied);

			check(!ret || ret == -EFAULT || ret == -EEXIST, "COPY says %d", ret);
			eq(copied, ret ? ret : (int64_t)PAGE);
			done += !ret;
		}
	} while (now_ms() < end);
	c.stop = true;
	check(call_join(call) > 0 && done > 0, "there was no race");
	for (int i = 0; i < 8; i++) {
		must(pread(a.fd, got, PAGE, i * PAGE) == PAGE);
		check(page_is(got, i, 0) || page_is(got, i, 1), "page %d holds something else", i);
	}
	must(!ftruncate(a.fd, 0));
	eq(blocks(a.fd), 0);
}

/* A source that cannot be read at first is read outside of the lock. */
TEST(copy_bad_source, EVERYWHERE)
{
	struct area a;
	char *src = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int64_t copied;

	must(src != MAP_FAILED);
	area_ready(&a, MEMFD_SHARED, 8, MISSING);
	/* Not populated: the copy faults, and is made again. */
	eq(uffd_copy(a.uffd, at(&a, 0), src, 2 * PAGE, &copied), 0);
	eq(copied, 2 * PAGE);
	page_has(at(&a, 1), 1, 0);
	must(!munmap(src + PAGE, PAGE));
	for (int i = 0; i < 200; i++) {
		eq(uffd_copy(a.uffd, at(&a, 3), src + PAGE, PAGE, &copied), -EFAULT);
		eq(copied, -EFAULT);
	}
	eq(blocks(a.fd), 2);
	must(!ftruncate(a.fd, 0));
	eq(blocks(a.fd), 0);
}
