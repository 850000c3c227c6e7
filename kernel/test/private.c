// SPDX-License-Identifier: GPL-2.0-only
/*
 * Private mappings: CONTINUE maps the object's page, and a store copies it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "minor.h"

static void file_page_has(struct area *a, size_t page, int gen)
{
	char got[PAGE] __attribute__((aligned(8)));

	must(pread(a->fd, got, PAGE, page * PAGE) == PAGE);
	page_has(got, page, gen);
}

/* A read fault, CONTINUE, and then a store: it must not reach the object. */
TEST(private_read_then_store, 0)
{
	struct area a;

	area_ready(&a, MEMFD_PRIVATE, 4, BOTH);
	fill(&a, 0, 4, 1);
	touch_continue(a.uffd, at(&a, 1), READ);
	page_has(at(&a, 1), 1, 1);
	fill_page(at(&a, 1), 1, 2);
	page_has(at(&a, 1), 1, 2);
	file_page_has(&a, 1, 1);
	page_has(door_at(&a, 1), 1, 1);
	/* Nor does what is written to the object reach the copy. */
	fill(&a, 1, 1, 3);
	page_has(at(&a, 1), 1, 2);
	no_event(a.uffd);
	eq(smaps_kb(a.mem, "Anonymous"), 4);
}

/* The page is mapped before anybody has touched it, also for one who will store. */
TEST(private_continue_then_store, 0)
{
	struct area a;

	area_ready(&a, MEMFD_PRIVATE, 64, BOTH);
	fill(&a, 0, 64, 1);
	must_continue(a.uffd, a.mem, a.len);
	eq(smaps_kb(a.mem, "Anonymous"), 0);
	for (int i = 0; i < 64; i += 2)
		touch_native(a.uffd, at(&a, i) + 4, 0x77);
	for (int i = 0; i < 64; i++) {
		eq(at(&a, i)[4], i % 2 ? 0 : 0x77);
		file_page_has(&a, i, 1);
		page_has(door_at(&a, i), i, 1);
	}
	eq(smaps_kb(a.mem, "Anonymous"), 32 * 4);
}

/* The thread whose store faulted is woken, and copies. */
TEST(private_write_fault, 0)
{
	struct area a;

	area_ready(&a, MEMFD_PRIVATE, 4, BOTH);
	fill(&a, 0, 4, 1);
	touch_continue(a.uffd, at(&a, 1) + 4, 0x77);
	eq(at(&a, 1)[4], 0x77);
	at(&a, 1)[4] = 0;
	page_has(at(&a, 1), 1, 1);
	at(&a, 1)[4] = 1;
	file_page_has(&a, 1, 1);
	page_has(door_at(&a, 1), 1, 1);
	eq(smaps_kb(a.mem, "Anonymous"), 4);
}

/* A copy is mapped: there is nothing to continue. */
TEST(private_copied, 0)
{
	struct area a;

	area_ready(&a, MEMFD_PRIVATE, 4, BOTH);
	fill(&a, 0, 4, 1);
	touch_continue(a.uffd, at(&a, 1), 0x77);
	continue_fails(a.uffd, at(&a, 1), PAGE, EEXIST);
	eq(at(&a, 1)[0], 0x77);
	/* Dropped, it is the object's again, and a minor fault. */
	must(!madvise(at(&a, 1), PAGE, MADV_DONTNEED));
	touch_continue(a.uffd, at(&a, 1), READ);
	page_has(at(&a, 1), 1, 1);
}

/*
 * A debugger's store: it is made where the mapping may only be read, in a copy
 * like any other. A page table entry that passes for a copy's because it is
 * dirty would let it through to the object.
 */
TEST(private_force_store, 0)
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	struct area a;

	must(mem >= 0);
	area_make(&a, MEMFD_PRIVATE, 8, PROT_READ);
	area_register(&a, 0, BOTH);
	fill(&a, 0, 8, 1);
	must_continue(a.uffd, a.mem, a.len);
	for (int i = 0; i < 8; i += 2)
		must(pwrite(mem, "w", 1, (uintptr_t)at(&a, i) + 4) == 1);
	for (int i = 0; i < 8; i++) {
		eq(at(&a, i)[4], i % 2 ? 0 : 'w');
		file_page_has(&a, i, 1);
	}
	eq(smaps_kb(a.mem, "Anonymous"), 4 * 4);
}

/* Mapped while it may not be written, made writable, stored to. */
static void later_writable(enum kind kind, int prot)
{
	struct area a;

	area_make(&a, kind, 4, prot);
	area_register(&a, 0, BOTH);
	fill(&a, 0, 4, 1);
	must_continue(a.uffd, a.mem, a.len);
	must(!mprotect(a.mem, a.len, PROT_READ | PROT_WRITE));
	for (int i = 0; i < 4; i++)
		page_has(at(&a, i), i, 1);
	touch_native(a.uffd, at(&a, 2) + 4, 0x77);
	eq(at(&a, 2)[4], 0x77);
	if (kind == MEMFD_PRIVATE)
		file_page_has(&a, 2, 1);
	else
		eq(door_at(&a, 2)[4], 0x77);
	close(a.uffd);
	close(a.fd);
}

TEST(private_read_only_then_writable, 0)
{
	later_writable(MEMFD_PRIVATE, PROT_READ);
}

TEST(private_none_then_writable, 0)
{
	later_writable(MEMFD_PRIVATE, PROT_NONE);
}

TEST(shared_later_writable, 0)
{
	for (int prot = PROT_NONE; prot <= PROT_READ; prot++)
		later_writable(MEMFD_SHARED, prot);
}

/* What may only be read stays so: the kernel's own bit says no. */
TEST(shared_read_only_stays, 0)
{
	struct area a;
	int status;
	pid_t pid;

	area_make(&a, MEMFD_SHARED, 4, PROT_READ);
	area_register(&a, 0, BOTH);
	fill(&a, 0, 4, 1);
	must_continue(a.uffd, a.mem, a.len);
	page_has(at(&a, 1), 1, 1);
	/* system calls that store for us are refused, and a store is a SIGSEGV */
	eq(pread(a.fd, at(&a, 1), PAGE, 2 * PAGE) < 0 ? -errno : 0, -EFAULT);
	eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		at(&a, 1)[0] = 9;
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid);
	check(WIFSIGNALED(status) && WTERMSIG(status) == 11, "status 0x%x, not SIGSEGV", status);
	page_has(at(&a, 1), 1, 1);
}

static long faults_so_far(void)
{
	struct rusage usage;

	must(!getrusage(RUSAGE_THREAD, &usage));
	return usage.ru_minflt;
}

/* A store through a mapping that may write needs no second fault. */
TEST(shared_store_after_continue, 0)
{
	struct area a;
	long before;

	area_ready(&a, MEMFD_SHARED, 64, BOTH);
	fill(&a, 0, 64, 1);
	must_continue(a.uffd, a.mem, a.len);
	before = faults_so_far();
	for (int i = 0; i < 64; i++)
		at(&a, i)[4] = i + 1;
	/* Somebody may have reclaimed one of them, but not half. */
	check(faults_so_far() - before < 32, "%ld faults for 64 stores", faults_so_far() - before);
	no_event(a.uffd);
	for (int i = 0; i < 64; i++)
		eq(door_at(&a, i)[4], i + 1);
}

/* After fork the two have copies of their own, and the object has neither. */
TEST(private_fork_after_continue, 0)
{
	struct area a;
	int status;
	pid_t pid;

	area_ready(&a, MEMFD_PRIVATE, 8, BOTH);
	fill(&a, 0, 8, 1);
	must_continue(a.uffd, a.mem, a.len);
	touch_native(a.uffd, at(&a, 0) + 4, 0x11);
	pid = fork();
	must(pid >= 0);
	if (!pid) {
		eq(at(&a, 0)[4], 0x11);
		at(&a, 0)[4] = 0x22;
		at(&a, 1)[4] = 0x22;
		page_has(at(&a, 2), 2, 1);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid);
	check(!status, "the child ended with 0x%x", status);
	eq(at(&a, 0)[4], 0x11);
	page_has(at(&a, 1), 1, 1);
	touch_native(a.uffd, at(&a, 1) + 4, 0x33);
	for (int i = 0; i < 8; i++)
		file_page_has(&a, i, 1);
}

/* The object shrinks: its pages go, and the copies beyond the end do too. */
TEST(private_truncated, 0)
{
	struct area a;

	area_ready(&a, MEMFD_PRIVATE, 8, BOTH);
	fill(&a, 0, 8, 1);
	must_continue(a.uffd, a.mem, a.len);
	touch_native(a.uffd, at(&a, 6), 0x11);
	must(!ftruncate(a.fd, 4 * PAGE));
	check(!is_mapped(at(&a, 5)) && !is_mapped(at(&a, 6)), "mapped past the end");
	eq(touch_or_bus(at(&a, 6), READ), -1);
	page_has(at(&a, 3), 3, 1);
	/* A hole punched drops the object's pages, but not copies. */
	touch_native(a.uffd, at(&a, 1), 0x11);
	punch(&a, 0, 2);
	check(!is_mapped(at(&a, 0)) && is_mapped(at(&a, 1)), "the hole is in the wrong place");
	eq(at(&a, 1)[0], 0x11);
}
