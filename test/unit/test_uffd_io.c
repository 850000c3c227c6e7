// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/userfaultfd.h>

#include "processes.h"
#include "uffd_io.h"
#include "unit.h"

#define NR 16

/* An object of NR pages, and its mapping, registered */
static int fd, uffd;
static char *addr;

static void setup(void)
{
	fd = new_memfd(NR);
	uffd = new_uffd(FEATURES);
	addr = map_shared(fd, NR);
	register_range(uffd, addr, NR * PG);
}

static int continue_pages(size_t page, size_t nr, uint64_t *mapped)
{
	if (mapped)
		*mapped = 12345;
	return uffd_continue(uffd, (uintptr_t)addr + page * PG, nr * PG, mapped, PG);
}

/* They are mapped: no fault, and the right contents */
static void check_mapped(size_t page, size_t nr)
{
	for (; nr; page++, nr--)
		CHECK_EQ(((volatile unsigned char *)addr)[page * PG + 5], mark(page));
	CHECK(!uffd_readable(uffd, 0));
}

static void check_not_mapped(size_t page)
{
	struct toucher t;

	touch_start(&t, addr + page * PG);
	read_fault(uffd, addr + page * PG);
	/* it stays blocked, which the end of the test does not mind */
}

TEST(continue_window)
{
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, NR);
	CHECK_EQ(continue_pages(2, 10, &mapped), 0);
	CHECK_EQ(mapped, 10 * PG);
	check_mapped(2, 10);
	check_not_mapped(1);
	check_not_mapped(12);
}

TEST(continue_one_page)
{
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, NR);
	CHECK_EQ(continue_pages(NR - 1, 1, &mapped), 0);
	CHECK_EQ(mapped, PG);
	CHECK_EQ(continue_pages(NR - 1, 1, &mapped), 0);
	CHECK_EQ(mapped, 0);
	CHECK_EQ(continue_pages(0, 1, NULL), 0);
	check_mapped(0, 1);
	check_mapped(NR - 1, 1);
}

TEST(continue_nothing)
{
	uint64_t mapped;

	setup();
	CHECK_EQ(continue_pages(0, 0, &mapped), 0);
	CHECK_EQ(mapped, 0);
}

TEST(continue_wakes)
{
	struct toucher a, b;

	setup();
	touch_start(&a, addr + 3 * PG);
	read_fault(uffd, addr + 3 * PG);
	touch_start(&b, addr + 4 * PG);
	read_fault(uffd, addr + 4 * PG);
	fill_pages(fd, 0, NR);
	CHECK_EQ(a.value, -1);
	CHECK_EQ(continue_pages(0, NR, NULL), 0);
	CHECK_EQ(touch_join(&a), mark(3));
	CHECK_EQ(touch_join(&b), mark(4));
}

static void step_over(uint64_t set)
{
	uint64_t mapped, before = 0;
	size_t i;

	unit_note("mapped before: %#lx", set);
	setup();
	fill_pages(fd, 0, NR);
	for (i = 0; i < NR; i++) {
		if (set & 1UL << i) {
			CHECK_EQ(bare_continue(uffd, addr + i * PG, PG, NULL), 0);
			before += PG;
		}
	}
	CHECK_EQ(continue_pages(0, NR, &mapped), 0);
	CHECK_EQ(mapped, NR * PG - before);
	check_mapped(0, NR);
	close(uffd);
	munmap(addr, NR * PG);
	close(fd);
}

TEST(continue_steps_over_mapped)
{
	static const uint64_t sets[] = { 0x1, 0x8000, 0x8001, 0x0210, 0x00f0, 0x5555, 0xaaaa, 0xfffe, 0x7fff, 0xffff };
	size_t i;

	for (i = 0; i < sizeof(sets) / sizeof(*sets); i++)
		step_over(sets[i]);
}

/* A page was mapped, but not by whom waits for it: it must not sleep for ever */
TEST(continue_wakes_who_sleeps_on_mapped)
{
	struct uffdio_continue c = { .mode = UFFDIO_CONTINUE_MODE_DONTWAKE };
	struct toucher t;
	uint64_t mapped;

	setup();
	touch_start(&t, addr + 5 * PG);
	read_fault(uffd, addr + 5 * PG);
	fill_pages(fd, 0, NR);
	c.range = (struct uffdio_range){ .start = (uintptr_t)addr + 5 * PG, .len = PG };
	CHECK_SYS(ioctl(uffd, UFFDIO_CONTINUE, &c));
	unit_sleep_ms(20);
	CHECK_EQ(t.value, -1);

	CHECK_EQ(continue_pages(4, 3, &mapped), 0);
	CHECK_EQ(mapped, 2 * PG);
	CHECK_EQ(touch_join(&t), mark(5));
}

TEST(continue_up_to_hole)
{
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, 5);
	fill_pages(fd, 6, NR - 6);
	CHECK_EQ(continue_pages(0, NR, &mapped), -EFAULT);
	CHECK_EQ(mapped, 5 * PG);
	check_mapped(0, 5);

	/* the same once more: what is mapped is stepped over */
	CHECK_EQ(continue_pages(0, NR, &mapped), -EFAULT);
	CHECK_EQ(mapped, 0);

	CHECK_EQ(continue_pages(5, 1, &mapped), -EFAULT);
	CHECK_EQ(mapped, 0);
	CHECK_EQ(continue_pages(5, 4, NULL), -EFAULT);
	CHECK_EQ(continue_pages(6, NR - 6, &mapped), 0);
	CHECK_EQ(mapped, (NR - 6) * PG);
}

TEST(continue_hole_after_mapped)
{
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, 4);
	CHECK_EQ(continue_pages(2, 1, NULL), 0);
	CHECK_EQ(continue_pages(0, NR, &mapped), -EFAULT);
	CHECK_EQ(mapped, 3 * PG);
	check_mapped(0, 4);
}

TEST(continue_does_not_allocate)
{
	uint64_t mapped;

	setup();
	CHECK_EQ(continue_pages(0, NR, &mapped), -EFAULT);
	CHECK_EQ(mapped, 0);
	CHECK_EQ(lseek(fd, 0, SEEK_DATA), -1);
}

TEST(continue_over_split_mapping)
{
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, NR);
	CHECK_SYS(mprotect(addr + 4 * PG, 3 * PG, PROT_READ));
	CHECK_EQ(continue_pages(0, NR, &mapped), 0);
	CHECK_EQ(mapped, NR * PG);
	check_mapped(0, NR);
}

TEST(continue_over_split_mapping_with_mapped_pages)
{
	uint64_t mapped;
	size_t i;

	setup();
	fill_pages(fd, 0, NR);
	for (i = 0; i < NR; i += 2)
		CHECK_SYS(mprotect(addr + i * PG, PG, PROT_READ));
	CHECK_EQ(continue_pages(3, 2, NULL), 0);
	CHECK_EQ(continue_pages(0, 1, NULL), 0);
	CHECK_EQ(continue_pages(0, NR, &mapped), 0);
	CHECK_EQ(mapped, (NR - 3) * PG);
	check_mapped(0, NR);
}

TEST(continue_over_split_mapping_with_hole)
{
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, 9);
	CHECK_SYS(mprotect(addr + 4 * PG, 3 * PG, PROT_READ));
	CHECK_EQ(continue_pages(0, NR, &mapped), -EFAULT);
	CHECK_EQ(mapped, 9 * PG);
}

TEST(continue_of_prot_none)
{
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, NR);
	CHECK_SYS(mprotect(addr, NR * PG, PROT_NONE));
	CHECK_EQ(continue_pages(0, NR, &mapped), 0);
	CHECK_EQ(mapped, NR * PG);
	CHECK_SYS(mprotect(addr, NR * PG, PROT_READ));
	check_mapped(0, NR);
}

TEST(continue_unregistered)
{
	char *other;
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, NR);
	other = map_shared(fd, NR);
	mapped = 12345;
	CHECK_EQ(uffd_continue(uffd, (uintptr_t)other, NR * PG, &mapped, PG), -ENOENT);
	CHECK_EQ(mapped, 0);
	CHECK_EQ(uffd_continue(uffd, (uintptr_t)other, PG, NULL, PG), -ENOENT);
}

TEST(continue_partly_unmapped)
{
	struct uffdio_range range;
	uint64_t mapped;

	setup();
	fill_pages(fd, 0, NR);
	/* without an event, as we would wait for it here */
	range = (struct uffdio_range){ .start = (uintptr_t)addr + 10 * PG, .len = 2 * PG };
	CHECK_SYS(ioctl(uffd, UFFDIO_UNREGISTER, &range));
	CHECK_SYS(munmap(addr + 10 * PG, 2 * PG));

	CHECK_EQ(continue_pages(0, NR, &mapped), -ENOENT);
	CHECK_EQ(mapped, 10 * PG);
	check_mapped(0, 10);
	CHECK_EQ(continue_pages(10, 2, &mapped), -ENOENT);
	CHECK_EQ(mapped, 0);
	CHECK_EQ(continue_pages(12, 4, &mapped), 0);
	CHECK_EQ(mapped, 4 * PG);
}

TEST(continue_private_anonymous)
{
	uint64_t mapped = 12345;
	char *mem;

	uffd = new_uffd(FEATURES);
	mem = mmap(NULL, 4 * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	CHECK_EQ(try_register(uffd, mem, 4 * PG, UFFDIO_REGISTER_MODE_MISSING), 0);
	CHECK_EQ(uffd_continue(uffd, (uintptr_t)mem, 4 * PG, &mapped, PG), -EINVAL);
	CHECK_EQ(mapped, 0);
	CHECK_EQ(uffd_continue(uffd, (uintptr_t)mem, PG, NULL, PG), -EINVAL);
}

TEST(continue_private_mapping)
{
	uint64_t mapped;

	fd = new_memfd(NR);
	uffd = new_uffd(FEATURES);
	addr = mmap(NULL, NR * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(addr != MAP_FAILED);
	register_range(uffd, addr, NR * PG);
	fill_pages(fd, 0, NR);
	CHECK_EQ(continue_pages(0, NR, &mapped), 0);
	CHECK_EQ(mapped, NR * PG);
	check_mapped(0, NR);
	CHECK_EQ(continue_pages(0, NR, &mapped), 0);
	CHECK_EQ(mapped, 0);
}

/*
 * While an event waits to be read
 */

static void *unmap_the_end(void *arg)
{
	(void)arg;
	CHECK_SYS(munmap(addr + 12 * PG, 4 * PG));
	return NULL;
}

static void *remap_the_end(void *arg)
{
	(void)arg;
	CHECK(mremap(addr + 12 * PG, 4 * PG, 8 * PG, MREMAP_MAYMOVE) != MAP_FAILED);
	return NULL;
}

static void *give_up_the_end(void *arg)
{
	(void)arg;
	CHECK_SYS(madvise(addr + 12 * PG, 4 * PG, MADV_DONTNEED));
	return NULL;
}

static void again_after_event(void *(*call)(void *arg), int event)
{
	pthread_t thread;
	uint64_t mapped;
	int ret;

	setup();
	fill_pages(fd, 0, NR);
	CHECK_EQ(continue_pages(1, 1, NULL), 0);
	CHECK_EQ(pthread_create(&thread, NULL, call, NULL), 0);
	CHECK(uffd_readable(uffd, 5000));
	CHECK_EQ(continue_pages(0, 8, &mapped), -EAGAIN);
	CHECK_EQ(mapped, 0);
	CHECK_EQ(continue_pages(1, 1, &mapped), -EAGAIN);

	read_event(uffd, event);
	if (event == UFFD_EVENT_REMAP)
		read_event(uffd, UFFD_EVENT_UNMAP);
	/* until the thread has run on */
	WAIT_FOR((ret = continue_pages(0, 8, &mapped)) != -EAGAIN);
	CHECK_EQ(ret, 0);
	CHECK_EQ(mapped, 7 * PG);
	check_mapped(0, 8);
	pthread_join(thread, NULL);
}

TEST(continue_again_after_unmap)
{
	again_after_event(unmap_the_end, UFFD_EVENT_UNMAP);
}

TEST(continue_again_after_remap)
{
	again_after_event(remap_the_end, UFFD_EVENT_REMAP);
}

TEST(continue_again_after_remove)
{
	again_after_event(give_up_the_end, UFFD_EVENT_REMOVE);
}

/*
 * Tasks that are gone
 */

static void exit_at_once(char *mem, size_t pages, void *arg)
{
	(void)mem;
	(void)pages;
	(void)arg;
}

TEST_NS(task_is_gone)
{
	uint64_t mapped = 12345;
	struct task task;

	fd = new_memfd(NR);
	fill_pages(fd, 0, NR);
	task = task_start(fd, NR, FEATURES, exit_at_once, NULL);
	CHECK_EQ(uffd_continue(task.uffd, (uintptr_t)task.addr, 4 * PG, &mapped, PG), 0);
	CHECK_EQ(mapped, 4 * PG);
	CHECK_EQ(uffd_probe(task.uffd), -ENOENT);
	task_go(&task);
	check_exited(task.pid, 0);
	CHECK_EQ(uffd_probe(task.uffd), -ESRCH);
	CHECK_EQ(uffd_continue(task.uffd, (uintptr_t)task.addr, 8 * PG, &mapped, PG), -ESRCH);
	CHECK_EQ(mapped, 0);
	CHECK_EQ(uffd_continue(task.uffd, (uintptr_t)task.addr, PG, NULL, PG), -ESRCH);
}

static void fork_a_child(char *mem, size_t pages, void *arg)
{
	pid_t pid = (pid_t)CHECK_SYS(fork());

	(void)mem;
	(void)pages;
	(void)arg;
	if (!pid) {
		pause();
		_exit(0);
	}
	*(volatile pid_t *)arg = pid;
	check_killed(pid);
	pause();
}

TEST_NS(forked_child_is_gone)
{
	volatile pid_t *child = unit_shared_alloc(sizeof(pid_t));
	struct task task;
	uint64_t mapped;
	int child_uffd;

	fd = new_memfd(NR);
	fill_pages(fd, 0, NR);
	task = task_start(fd, NR, FEATURES, fork_a_child, (void *)child);
	task_go(&task);
	child_uffd = (int)read_event(task.uffd, UFFD_EVENT_FORK).arg.fork.ufd;
	WAIT_FOR(*child);
	CHECK_EQ(uffd_continue(child_uffd, (uintptr_t)task.addr, 4 * PG, &mapped, PG), 0);
	CHECK_EQ(mapped, 4 * PG);

	CHECK_SYS(kill(*child, SIGKILL));
	WAIT_FOR(uffd_continue(child_uffd, (uintptr_t)task.addr, PG, NULL, PG) == -ESRCH);
	/* its parent is not */
	CHECK_EQ(uffd_continue(task.uffd, (uintptr_t)task.addr, 4 * PG, &mapped, PG), 0);
	CHECK_EQ(mapped, 4 * PG);
}

TEST(bad_descriptor)
{
	CHECK_EQ(uffd_continue(-1, PG, PG, NULL, PG), -EBADF);
	CHECK_EQ(uffd_wake(-1, PG, PG), -EBADF);
}

TEST(wake)
{
	struct toucher a, b;

	setup();
	touch_start(&a, addr);
	read_fault(uffd, addr);
	touch_start(&b, addr + PG);
	read_fault(uffd, addr + PG);

	/* who is in the range faults again, the other sleeps on */
	CHECK_EQ(uffd_wake(uffd, (uintptr_t)addr + PG, 3 * PG), 0);
	read_fault(uffd, addr + PG);
	CHECK(!uffd_readable(uffd, 20));

	fill_pages(fd, 0, 2);
	CHECK_EQ(continue_pages(0, 2, NULL), 0);
	CHECK_EQ(touch_join(&a), mark(0));
	CHECK_EQ(touch_join(&b), mark(1));
}

TEST(wake_nobody)
{
	setup();
	CHECK_EQ(uffd_wake(uffd, (uintptr_t)addr, NR * PG), 0);
	CHECK(!uffd_readable(uffd, 20));
}

TEST(wake_unaligned)
{
	setup();
	CHECK_EQ(uffd_wake(uffd, (uintptr_t)addr + 1, PG), -EINVAL);
	CHECK_EQ(uffd_wake(uffd, (uintptr_t)addr, 0), -EINVAL);
}

/* Where it asks is an address as good as any: a page that is there must still wait for us */
TEST(probe_maps_nothing)
{
	void *there = (void *)(1UL << 30);

	fd = new_memfd(NR);
	fill_pages(fd, 0, NR);
	uffd = new_uffd(FEATURES);
	addr = mmap(there, NR * PG, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	CHECK(addr == there);
	register_range(uffd, addr, NR * PG);
	CHECK_EQ(uffd_probe(uffd), -ENOENT);
	check_not_mapped(0);
}
