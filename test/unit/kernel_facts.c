// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the plugin takes for granted of the kernel, without the plugin. If one
 * of these fails on some kernel, the plugin is wrong there.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "processes.h"
#include "unit.h"

static blkcnt_t blocks_of(int fd)
{
	struct stat st;

	CHECK_SYS(fstat(fd, &st));
	return st.st_blocks * 512 / (blkcnt_t)PG;
}

static int byte_of(int fd, size_t page)
{
	unsigned char c = 0;

	CHECK_EQ(pread(fd, &c, 1, (off_t)(page * PG)), 1);
	return c;
}

static void wake(int uffd, void *addr, size_t len)
{
	struct uffdio_range range = { .start = (uintptr_t)addr, .len = len };

	CHECK_SYS(ioctl(uffd, UFFDIO_WAKE, &range));
}

/*
 * Faults
 */

TEST(absent_is_missing_present_is_minor)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 4);
	struct toucher a, b;

	register_range(uffd, addr, 4 * PG);
	fill_pages(fd, 1, 1);

	touch_start(&a, addr);
	CHECK(!read_fault(uffd, addr));
	touch_start(&b, addr + PG);
	CHECK(read_fault(uffd, addr + PG));

	/* the page comes while somebody waits for it */
	fill_pages(fd, 0, 1);
	CHECK_EQ(a.value, -1);
	CHECK_EQ(bare_continue(uffd, addr, 2 * PG, NULL), 0);
	CHECK_EQ(touch_join(&a), mark(0));
	CHECK_EQ(touch_join(&b), mark(1));
}

TEST(continue_on_hole_is_efault)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 4);
	int64_t mapped;

	register_range(uffd, addr, 4 * PG);
	CHECK_EQ(bare_continue(uffd, addr, PG, &mapped), -EFAULT);
	CHECK_EQ(mapped, -EFAULT);
	CHECK_EQ(blocks_of(fd), 0);

	/* what came before it is told, with EAGAIN */
	fill_pages(fd, 0, 2);
	CHECK_EQ(bare_continue(uffd, addr, 4 * PG, &mapped), -EAGAIN);
	CHECK_EQ(mapped, 2 * PG);
}

TEST(continue_on_mapped_is_eexist)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 4);
	int64_t mapped;

	register_range(uffd, addr, 4 * PG);
	fill_pages(fd, 0, 4);
	CHECK_EQ(bare_continue(uffd, addr + 2 * PG, PG, &mapped), 0);
	CHECK_EQ(mapped, PG);

	CHECK_EQ(bare_continue(uffd, addr + 2 * PG, 2 * PG, &mapped), -EEXIST);
	CHECK_EQ(mapped, -EEXIST);
	CHECK_EQ(bare_continue(uffd, addr, 4 * PG, &mapped), -EAGAIN);
	CHECK_EQ(mapped, 2 * PG);
}

TEST(continue_is_for_one_mapping)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 4);
	int64_t mapped;

	register_range(uffd, addr, 4 * PG);
	fill_pages(fd, 0, 4);
	/* no event tells of this */
	CHECK_SYS(mprotect(addr + 2 * PG, PG, PROT_READ));
	CHECK(!uffd_readable(uffd, 0));
	CHECK_EQ(bare_continue(uffd, addr, 4 * PG, &mapped), -ENOENT);
	CHECK_EQ(bare_continue(uffd, addr, 2 * PG, &mapped), 0);
	CHECK_EQ(bare_continue(uffd, addr + 2 * PG, PG, &mapped), 0);
}

TEST(wake_raises_the_event_again)
{
	int fd = new_memfd(1), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 1);
	struct toucher t;

	register_range(uffd, addr, PG);
	touch_start(&t, addr);
	CHECK(!read_fault(uffd, addr));
	CHECK(!uffd_readable(uffd, 20));
	wake(uffd, addr, PG);
	CHECK(!read_fault(uffd, addr));
	fill_pages(fd, 0, 1);
	wake(uffd, addr, PG);
	CHECK(read_fault(uffd, addr));
	CHECK_EQ(bare_continue(uffd, addr, PG, NULL), 0);
	CHECK_EQ(touch_join(&t), mark(0));
}

TEST(fdinfo_counts_unread_faults_only)
{
	int fd = new_memfd(2), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 2);
	struct toucher a, b;

	register_range(uffd, addr, 2 * PG);
	CHECK_EQ(pending_faults(uffd), 0);
	touch_start(&a, addr);
	WAIT_FOR(pending_faults(uffd) == 1);
	touch_start(&b, addr + PG);
	WAIT_FOR(pending_faults(uffd) == 2);
	read_event(uffd, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(pending_faults(uffd), 1);
	read_event(uffd, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(pending_faults(uffd), 0);
	fill_pages(fd, 0, 2);
	CHECK_EQ(bare_continue(uffd, addr, 2 * PG, NULL), 0);
	touch_join(&a);
	touch_join(&b);
}

TEST(private_mapping_copies_on_write)
{
	int fd = new_memfd(2), uffd = new_uffd(FEATURES);
	volatile unsigned char *addr = mmap(NULL, 2 * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	struct toucher t;

	CHECK(addr != MAP_FAILED);
	register_range(uffd, (void *)addr, 2 * PG);
	touch_start(&t, (void *)addr);
	CHECK(!read_fault(uffd, (void *)addr));
	fill_pages(fd, 0, 1);
	CHECK_EQ(bare_continue(uffd, (void *)addr, PG, NULL), 0);
	CHECK_EQ(touch_join(&t), mark(0));

	addr[0] = 99;
	CHECK_EQ(addr[0], 99);
	CHECK_EQ(addr[1], mark(0));
	CHECK_EQ(byte_of(fd, 0), mark(0));
	CHECK_EQ(blocks_of(fd), 1);
}

static void fork_and_read(char *addr, size_t pages, void *arg)
{
	volatile int *seen = arg;
	pid_t pid;

	(void)pages;
	seen[0] = *(volatile unsigned char *)addr;
	pid = (pid_t)CHECK_SYS(fork());
	if (!pid) {
		seen[1] = *(volatile unsigned char *)addr;
		_exit(0);
	}
	check_exited(pid, 0);
}

/* also on pages that its parent has mapped */
TEST_NS(forked_child_faults_again)
{
	volatile int *seen = unit_shared_alloc(2 * sizeof(int));
	int fd = new_memfd(1), child_uffd;
	struct task task = task_start(fd, 1, FEATURES, fork_and_read, (void *)seen);

	fill_pages(fd, 0, 1);
	CHECK_EQ(bare_continue(task.uffd, task.addr, PG, NULL), 0);
	task_go(&task);
	child_uffd = (int)read_event(task.uffd, UFFD_EVENT_FORK).arg.fork.ufd;
	CHECK_EQ(seen[0], mark(0));

	CHECK(read_fault(child_uffd, task.addr)); /* it is a minor one */
	CHECK(!uffd_readable(task.uffd, 0));
	CHECK_EQ(seen[1], 0);
	CHECK_EQ(bare_continue(child_uffd, task.addr, PG, NULL), 0);
	check_exited(task.pid, 0);
	CHECK_EQ(seen[1], mark(0));
}

/*
 * The end of a userfaultfd
 */

static void read_first_byte(char *addr, size_t pages, void *arg)
{
	volatile int *seen = arg;

	(void)pages;
	seen[0] = -1;
	seen[0] = *(volatile unsigned char *)addr;
}

/* the reason for the guard */
TEST_NS(task_reads_zero_when_last_uffd_is_closed)
{
	volatile int *seen = unit_shared_alloc(sizeof(int));
	int fd = new_memfd(1), other;
	struct task task = task_start(fd, 1, FEATURES, read_first_byte, (void *)seen);

	task_go(&task);
	CHECK(!read_fault(task.uffd, task.addr));

	other = (int)CHECK_SYS(dup(task.uffd));
	close(task.uffd);
	unit_sleep_ms(50);
	CHECK(is_alive(task.pid));
	CHECK_EQ(seen[0], -1);

	close(other);
	check_exited(task.pid, 0);
	CHECK_EQ(seen[0], 0);
}

static pid_t clone_sharing_files(void)
{
	pid_t pid = (pid_t)CHECK_SYS(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, NULL, NULL, 0));

	if (!pid)
		while (1)
			pause();
	return pid;
}

/* ... and the way it works: also for a userfaultfd that comes after the clone */
TEST_NS(clone_files_sibling_keeps_it_blocked)
{
	volatile int *seen = unit_shared_alloc(sizeof(int));
	volatile pid_t *sibling = unit_shared_alloc(sizeof(pid_t));
	int fd = new_memfd(1);
	struct task task = task_start_uffd_pending(fd, 1, FEATURES, read_first_byte, (void *)seen);
	pid_t daemon = (pid_t)CHECK_SYS(fork());

	if (!daemon) {
		pid_t pid = clone_sharing_files();

		task_receive_uffd(&task);
		task_go(&task);
		read_fault(task.uffd, task.addr);
		*sibling = pid;
		while (1)
			pause();
	}
	WAIT_FOR(*sibling);
	CHECK_SYS(kill(daemon, SIGKILL));
	check_killed(daemon);

	unit_sleep_ms(100);
	CHECK(is_alive(task.pid));
	CHECK_EQ(seen[0], -1);

	/* an orphan, so ours */
	CHECK_SYS(kill(*sibling, SIGKILL));
	check_killed(*sibling);
	check_exited(task.pid, 0);
	CHECK_EQ(seen[0], 0);
}

TEST_NS(task_blocked_in_a_fault_can_be_killed)
{
	volatile int *seen = unit_shared_alloc(sizeof(int));
	int fd = new_memfd(1);
	struct task task = task_start(fd, 1, FEATURES, read_first_byte, (void *)seen);

	task_go(&task);
	read_fault(task.uffd, task.addr);
	CHECK_SYS(kill(task.pid, SIGKILL));
	check_killed(task.pid);
	CHECK_EQ(seen[0], -1);
	CHECK_EQ(bare_continue(task.uffd, task.addr, PG, NULL), -ESRCH);
}

/*
 * Events
 */

struct call {
	pthread_t thread;
	char *addr;
	size_t len;
	int advice;
	volatile int done;
};

static void *call_madvise(void *arg)
{
	struct call *c = arg;

	CHECK_SYS(madvise(c->addr, c->len, c->advice));
	c->done = 1;
	return NULL;
}

static struct uffd_msg madvise_event(int uffd, char *addr, size_t len, int advice)
{
	struct call c = { .addr = addr, .len = len, .advice = advice };
	struct uffd_msg msg;

	CHECK_EQ(pthread_create(&c.thread, NULL, call_madvise, &c), 0);
	CHECK(uffd_readable(uffd, 5000));
	/* it waits, no fault is pending, and nothing can be mapped meanwhile */
	unit_sleep_ms(20);
	CHECK_EQ(c.done, 0);
	CHECK_EQ(pending_faults(uffd), 0);
	CHECK_EQ(bare_continue(uffd, addr, PG, NULL), -EAGAIN);

	msg = read_event(uffd, UFFD_EVENT_REMOVE);
	pthread_join(c.thread, NULL);
	CHECK_EQ(msg.arg.remove.start, (uintptr_t)addr);
	CHECK_EQ(msg.arg.remove.end, (uintptr_t)addr + len);
	return msg;
}

TEST(dontneed_and_remove_look_alike)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 4);
	struct uffd_msg a, b;

	register_range(uffd, addr, 4 * PG);
	fill_pages(fd, 0, 4);

	a = madvise_event(uffd, addr + PG, 2 * PG, MADV_DONTNEED);
	CHECK_EQ(byte_of(fd, 1), mark(1));
	CHECK_EQ(byte_of(fd, 2), mark(2));
	CHECK_EQ(blocks_of(fd), 4);

	b = madvise_event(uffd, addr + PG, 2 * PG, MADV_REMOVE);
	CHECK_EQ(byte_of(fd, 1), 0);
	CHECK_EQ(byte_of(fd, 2), 0);
	CHECK_EQ(byte_of(fd, 3), mark(3));
	CHECK_EQ(blocks_of(fd), 2);

	CHECK(!memcmp(&a, &b, sizeof(a)));
}

struct remap {
	pthread_t thread;
	char *from, *to;
	size_t old_len, new_len;
};

static void *call_mremap(void *arg)
{
	struct remap *r = arg;

	r->to = mremap(r->from, r->old_len, r->new_len, MREMAP_MAYMOVE | (r->to ? MREMAP_FIXED : 0), r->to);
	CHECK(r->to != MAP_FAILED);
	return NULL;
}

TEST(mremap_raises_remap_and_unmap)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	struct remap r = { .from = map_shared(fd, 4), .old_len = 4 * PG, .new_len = 4 * PG };
	char *to = mmap(NULL, 4 * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffd_msg msg;

	r.to = to;
	register_range(uffd, r.from, 4 * PG);
	fill_pages(fd, 0, 4);
	CHECK_EQ(pthread_create(&r.thread, NULL, call_mremap, &r), 0);

	msg = read_event(uffd, UFFD_EVENT_REMAP);
	CHECK_EQ(msg.arg.remap.from, (uintptr_t)r.from);
	CHECK_EQ(msg.arg.remap.to, (uintptr_t)to);
	CHECK_EQ(msg.arg.remap.len, 4 * PG);
	msg = read_event(uffd, UFFD_EVENT_UNMAP);
	CHECK_EQ(msg.arg.remove.start, (uintptr_t)r.from);
	CHECK_EQ(msg.arg.remove.end, (uintptr_t)r.from + 4 * PG);
	pthread_join(r.thread, NULL);

	/* it is registered at its new place */
	CHECK_EQ(bare_continue(uffd, to, 4 * PG, NULL), 0);
}

TEST(mremap_of_old_size_0_tells_no_length)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	struct remap r = { .from = map_shared(fd, 4), .old_len = 0, .new_len = 3 * PG };
	struct uffd_msg msg;

	register_range(uffd, r.from, 4 * PG);
	fill_pages(fd, 0, 4);
	CHECK_EQ(pthread_create(&r.thread, NULL, call_mremap, &r), 0);
	msg = read_event(uffd, UFFD_EVENT_REMAP);
	pthread_join(r.thread, NULL);
	CHECK_EQ(msg.arg.remap.from, (uintptr_t)r.from);
	CHECK_EQ(msg.arg.remap.to, (uintptr_t)r.to);
	CHECK_EQ(msg.arg.remap.len, 0);
	CHECK(!uffd_readable(uffd, 0));

	/* both are registered */
	CHECK_EQ(bare_continue(uffd, r.from, 4 * PG, NULL), 0);
	CHECK_EQ(bare_continue(uffd, r.to, 3 * PG, NULL), 0);
}

TEST(mremap_in_place_raises_nothing)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	char *room = mmap(NULL, 4 * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *addr;

	CHECK(room != MAP_FAILED);
	addr = mmap(room, 2 * PG, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
	CHECK(addr == room);
	CHECK_SYS(munmap(room + 2 * PG, 2 * PG));
	register_range(uffd, addr, 2 * PG);
	fill_pages(fd, 0, 4);
	CHECK(mremap(addr, 2 * PG, 4 * PG, 0) == addr);
	CHECK(!uffd_readable(uffd, 20));
	CHECK_EQ(bare_continue(uffd, addr, 4 * PG, NULL), 0);
}

static void *call_munmap(void *arg)
{
	struct call *c = arg;

	CHECK_SYS(munmap(c->addr, c->len));
	c->done = 1;
	return NULL;
}

/* whatever else there would be to complain about */
TEST(changing_mappings_are_eagain_first)
{
	int fd = new_memfd(8), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 8), *elsewhere = map_shared(fd, 8);
	struct call c = { .addr = addr + 6 * PG, .len = 2 * PG };

	register_range(uffd, addr, 8 * PG);
	fill_pages(fd, 0, 2);
	CHECK_EQ(bare_continue(uffd, addr, PG, NULL), 0);

	CHECK_EQ(pthread_create(&c.thread, NULL, call_munmap, &c), 0);
	CHECK(uffd_readable(uffd, 5000));
	CHECK_EQ(bare_continue(uffd, addr, PG, NULL), -EAGAIN);		 /* not EEXIST */
	CHECK_EQ(bare_continue(uffd, addr + PG, PG, NULL), -EAGAIN);	 /* not 0 */
	CHECK_EQ(bare_continue(uffd, addr + 3 * PG, PG, NULL), -EAGAIN); /* not EFAULT */
	CHECK_EQ(bare_continue(uffd, addr + 6 * PG, PG, NULL), -EAGAIN); /* not ENOENT */
	CHECK_EQ(bare_continue(uffd, elsewhere, PG, NULL), -EAGAIN);
	CHECK_EQ(c.done, 0);

	read_event(uffd, UFFD_EVENT_UNMAP);
	pthread_join(c.thread, NULL);
	CHECK_EQ(bare_continue(uffd, addr, PG, NULL), -EEXIST);
	CHECK_EQ(bare_continue(uffd, addr + PG, PG, NULL), 0);
	CHECK_EQ(bare_continue(uffd, addr + 3 * PG, PG, NULL), -EFAULT);
	CHECK_EQ(bare_continue(uffd, addr + 6 * PG, PG, NULL), -ENOENT);
	CHECK_EQ(bare_continue(uffd, elsewhere, PG, NULL), -ENOENT);
}

/* a fault is read before an event that came earlier */
TEST(faults_are_read_before_events)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 4);
	struct call c = { .addr = addr + 2 * PG, .len = PG, .advice = MADV_DONTNEED };
	struct toucher t;

	register_range(uffd, addr, 4 * PG);
	CHECK_EQ(pthread_create(&c.thread, NULL, call_madvise, &c), 0);
	CHECK(uffd_readable(uffd, 5000));
	touch_start(&t, addr);
	WAIT_FOR(pending_faults(uffd) == 1);
	read_fault(uffd, addr);
	read_event(uffd, UFFD_EVENT_REMOVE);
	pthread_join(c.thread, NULL);
	fill_pages(fd, 0, 1);
	CHECK_EQ(bare_continue(uffd, addr, PG, NULL), 0);
	touch_join(&t);
}

static void advise_in_turn(char *addr, size_t pages, void *arg)
{
	struct call c[4];
	size_t i;

	(void)arg;
	for (i = 0; i < pages; i++) {
		c[i] = (struct call){ .addr = addr + i * PG, .len = PG, .advice = MADV_DONTNEED };
		CHECK_EQ(pthread_create(&c[i].thread, NULL, call_madvise, &c[i]), 0);
		task_wait();
	}
	for (i = 0; i < pages; i++)
		pthread_join(c[i].thread, NULL);
}

/* the oldest event is read first: its caller was seen before the read */
TEST_NS(events_are_read_in_order)
{
	int fd = new_memfd(4);
	struct task task = task_start(fd, 4, FEATURES, advise_in_turn, NULL);
	struct madvise_call calls[4];
	int i;

	for (i = 0; i < 4; i++) {
		task_go(&task);
		WAIT_FOR(madvise_calls_of(task.pid, calls, 4) == i + 1);
	}
	task_go(&task);
	for (i = 0; i < 4; i++) {
		struct uffd_msg msg = read_event(task.uffd, UFFD_EVENT_REMOVE);

		CHECK_EQ(msg.arg.remove.start, (uintptr_t)task.addr + (size_t)i * PG);
	}
	check_exited(task.pid, 0);
}

/*
 * What can be registered, and what can not: see eligible.c
 */

static int register_mapping(int fd, int prot, int flags, uint64_t mode)
{
	void *addr = mmap(NULL, PG, prot, flags, fd, 0);

	CHECK(addr != MAP_FAILED);
	return try_register(new_uffd(FEATURES), addr, PG, mode);
}

TEST(registers_memfd_mappings)
{
	int fd = new_memfd(1);

	CHECK_EQ(register_mapping(fd, PROT_READ | PROT_WRITE, MAP_SHARED, MODES), 0);
	CHECK_EQ(register_mapping(fd, PROT_READ, MAP_SHARED, MODES), 0);
	CHECK_EQ(register_mapping(fd, PROT_NONE, MAP_SHARED, MODES), 0);
	CHECK_EQ(register_mapping(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, MODES), 0);
	CHECK_EQ(register_mapping(fd, PROT_READ, MAP_PRIVATE, MODES), 0);
	CHECK_EQ(register_mapping(fd, PROT_NONE, MAP_PRIVATE, MODES), 0);
	CHECK_EQ(register_mapping(-1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, MODES), 0);
}

static int reopen_read_only(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return (int)CHECK_SYS(open(path, O_RDONLY | O_CLOEXEC));
}

TEST(read_only_shared_mapping_is_eperm)
{
	int ro = reopen_read_only(new_memfd(1));

	CHECK_EQ(register_mapping(ro, PROT_READ, MAP_SHARED, MODES), -EPERM);
	CHECK_EQ(register_mapping(ro, PROT_READ, MAP_PRIVATE, MODES), 0);
}

TEST(write_sealed_shared_mapping_is_eperm)
{
	int fd = new_memfd(1);

	CHECK_SYS(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	/* before Linux 6.7 there can be no such mapping to begin with */
	if (mmap(NULL, PG, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED) {
		CHECK_EQ(errno, EPERM);
		return;
	}
	CHECK_EQ(register_mapping(fd, PROT_READ, MAP_SHARED, MODES), -EPERM);
}

TEST(sysv_segment_is_einval)
{
	int id = shmget(IPC_PRIVATE, PG, IPC_CREAT | 0600);
	void *addr;

	if (id < 0)
		unit_skip("no System V shared memory: %s", strerror(errno));
	addr = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	CHECK(addr != (void *)-1);
	CHECK_EQ(try_register(new_uffd(FEATURES), addr, PG, MODES), -EINVAL);
}

TEST(locked_mapping_allocates_zeroes)
{
	int fd = new_memfd(4);

	CHECK(mmap(NULL, 2 * PG, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_LOCKED, fd, 0) != MAP_FAILED);
	CHECK_EQ(blocks_of(fd), 2);
	CHECK_EQ(byte_of(fd, 0), 0);
}

/* a door: an object with a descriptor open is not lazy */
TEST(descriptor_raises_no_event)
{
	int fd = new_memfd(2), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 2), *second = map_shared(fd, 2);

	register_range(uffd, addr, 2 * PG);
	CHECK_EQ(byte_of(fd, 0), 0);
	CHECK_EQ(*(volatile char *)second, 0);
	CHECK(!uffd_readable(uffd, 20));
}

/*
 * The page cache
 */

struct race {
	pthread_t thread;
	int uffd, fd;
	char *addr;
	size_t pages;
	volatile size_t at; /* the page that is waited for */
	volatile bool stop;
};

static void *fill_all(void *arg)
{
	struct race *r = arg;
	size_t i;

	for (i = 0; i < r->pages; i++) {
		while (r->at != i && !r->stop)
			sched_yield();
		if (r->stop)
			break;
		fill_pages(r->fd, i, 1);
	}
	return NULL;
}

/* a page that pwrite() makes can be mapped when it is complete, and not before */
TEST(written_page_is_seen_whole)
{
	struct race r = { .uffd = new_uffd(FEATURES), .pages = 4096, .at = 4096 };
	unsigned long early = 0;
	time_t end = time(NULL) + 2;
	size_t i, j;

	r.fd = new_memfd(r.pages);
	r.addr = map_shared(r.fd, r.pages);
	register_range(r.uffd, r.addr, r.pages * PG);
	CHECK_EQ(pthread_create(&r.thread, NULL, fill_all, &r), 0);

	/* both would like a processor of their own */
	for (i = 0; i < r.pages && time(NULL) < end; i++) {
		const unsigned char *page = (unsigned char *)r.addr + i * PG;
		int ret;

		r.at = i;
		while ((ret = bare_continue(r.uffd, r.addr + i * PG, PG, NULL)) == -EFAULT)
			early++;
		CHECK_EQ(ret, 0);
		/* from its end, which is written last */
		for (j = PG; j--;)
			if (page[j] != mark(i))
				CHECK_EQ(page[j], mark(i));
	}
	r.stop = true;
	pthread_join(r.thread, NULL);
	unit_note("%zu pages, %lu attempts came early", i, early);
	CHECK(i > 10);
	CHECK(early > i / 10);
}

TEST(fallocate_allocates_zeroes_and_keeps_pages)
{
	int fd = new_memfd(4), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 4);
	struct toucher t;
	struct stat st;

	register_range(uffd, addr, 4 * PG);
	fill_pages(fd, 1, 1);
	CHECK_SYS(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 2 * PG));
	CHECK_EQ(blocks_of(fd), 2);
	CHECK_EQ(byte_of(fd, 1), mark(1));

	/* what it has allocated is there for CONTINUE */
	touch_start(&t, addr);
	CHECK(read_fault(uffd, addr));
	CHECK_EQ(bare_continue(uffd, addr, 2 * PG, NULL), 0);
	CHECK_EQ(touch_join(&t), 0);
	CHECK_EQ(((volatile unsigned char *)addr)[PG], mark(1));

	/* the size stays, also beyond the end */
	CHECK_SYS(fallocate(fd, FALLOC_FL_KEEP_SIZE, 3 * PG, 4 * PG));
	CHECK_SYS(fstat(fd, &st));
	CHECK_EQ(st.st_size, 4 * PG);
}

/* a page that was stored to through a mapping is not lost to fallocate() either */
TEST(fallocate_keeps_what_a_task_stored)
{
	int fd = new_memfd(1);
	char *addr = map_shared(fd, 1);

	addr[7] = 42;
	CHECK_SYS(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, PG));
	CHECK_EQ(addr[7], 42);
}

/* punching takes the page away from those who have it mapped, too */
TEST(punched_page_is_missing_again)
{
	int fd = new_memfd(1), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 1);
	struct toucher t;

	register_range(uffd, addr, PG);
	fill_pages(fd, 0, 1);
	CHECK_EQ(bare_continue(uffd, addr, PG, NULL), 0);
	CHECK_SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PG));
	touch_start(&t, addr);
	CHECK(!read_fault(uffd, addr));
	fill_pages(fd, 0, 1);
	CHECK_EQ(bare_continue(uffd, addr, PG, NULL), 0);
	CHECK_EQ(touch_join(&t), mark(0));
}

/* after UNREGISTER the kernel maps by itself */
TEST(unregistered_mapping_raises_nothing)
{
	int fd = new_memfd(2), uffd = new_uffd(FEATURES);
	char *addr = map_shared(fd, 2);
	struct uffdio_range range = { .start = (uintptr_t)addr, .len = 2 * PG };
	struct toucher t;

	register_range(uffd, addr, 2 * PG);
	touch_start(&t, addr);
	read_fault(uffd, addr);
	fill_pages(fd, 0, 2);
	CHECK_SYS(ioctl(uffd, UFFDIO_UNREGISTER, &range)); /* wakes, too */
	CHECK_EQ(touch_join(&t), mark(0));
	CHECK_EQ(((volatile unsigned char *)addr)[PG], mark(1));
	CHECK(!uffd_readable(uffd, 0));
}
