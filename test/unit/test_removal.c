// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/syscall.h>

#include "processes.h"
#include "removal.h"
#include "unit.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

#define NR 16

/*
 * What tasks do: steps in shared memory, each in a thread of its own
 */
struct step {
	size_t page, len; /* len in bytes */
	int advice;	  /* -1: read the first byte */
	bool ends;	  /* the last of them */
};

static char *base; /* of the mapping in the task */

static void *do_step(void *arg)
{
	const struct step *s = arg;
	char *addr = base + s->page * PG;

	if (s->advice < 0)
		(void)*(volatile char *)addr;
	else
		CHECK_SYS(madvise(addr, s->len, s->advice));
	return NULL;
}

/* one after the other */
static void do_steps(char *addr, size_t pages, void *arg)
{
	struct step *s = arg;

	(void)pages;
	base = addr;
	for (;; s++) {
		do_step(s);
		if (s->ends)
			break;
	}
}

/* all at once */
static void do_steps_together(char *addr, size_t pages, void *arg)
{
	struct step *s = arg;
	pthread_t threads[32];
	unsigned int i, nr = 0;

	(void)pages;
	base = addr;
	do {
		CHECK_EQ(pthread_create(&threads[nr++], NULL, do_step, s), 0);
	} while (!s++->ends);
	for (i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
}

/* the first at once, the second when there is another task_go() */
static void do_when_told(char *addr, size_t pages, void *arg)
{
	struct step *s = arg;
	pthread_t threads[2];

	(void)pages;
	base = addr;
	CHECK_EQ(pthread_create(&threads[0], NULL, do_step, &s[0]), 0);
	task_wait();
	CHECK_EQ(pthread_create(&threads[1], NULL, do_step, &s[1]), 0);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
}

/*
 * What the daemon does
 */
static int fd;
static struct inode_id id;
static struct task task;
static struct owner owner;
static struct removal_watch watch;

static void setup(task_work work, void *arg)
{
	fd = new_memfd(NR);
	id = id_of(fd);
	task = task_start(fd, NR, FEATURES, work, arg);
	removal_init(&watch);
	task_go(&task);
}

static struct uffd_msg peek_and_read(int uffd)
{
	struct uffd_msg msg;

	CHECK(uffd_readable(uffd, 5000));
	removal_peek(&watch, &owner, uffd, &id, 1);
	CHECK_EQ(read(uffd, &msg, sizeof(msg)), sizeof(msg));
	return msg;
}

/* The next event is the removal of these pages; what kind of? */
static enum removal_kind next_removal(size_t page, size_t nr)
{
	struct uffd_msg msg = peek_and_read(task.uffd);

	CHECK_EQ(msg.event, UFFD_EVENT_REMOVE);
	CHECK_EQ(msg.arg.remove.start, (uintptr_t)task.addr + page * PG);
	CHECK_EQ(msg.arg.remove.end, (uintptr_t)task.addr + (page + nr) * PG);
	return removal_classify(&watch, &owner, msg.arg.remove.start, msg.arg.remove.end, &id, 1);
}

static void finish(void)
{
	int fds = unit_count_fds(), had = watch.fdinfo >= 0;

	check_exited(task.pid, 0);
	removal_fini(&watch);
	owner_fini(&owner);
	CHECK_EQ(watch.fdinfo, -1);
	CHECK_EQ(unit_count_fds(), fds - had);
}

TEST_NS(dontneed_keeps)
{
	struct step steps[] = { { 3, 2 * PG, MADV_DONTNEED, true } };

	setup(do_steps, steps);
	CHECK_EQ(next_removal(3, 2), REMOVAL_KEEPS);
	finish();
}

TEST_NS(remove_drops)
{
	struct step steps[] = { { 3, 2 * PG, MADV_REMOVE, true } };

	setup(do_steps, steps);
	CHECK_EQ(next_removal(3, 2), REMOVAL_DROPS);
	finish();
}

TEST_NS(dontneed_locked_keeps)
{
	struct step steps[] = { { 0, NR * PG, MADV_DONTNEED_LOCKED, true } };

	if (madvise(unit_shared_alloc(PG), PG, MADV_DONTNEED_LOCKED))
		unit_skip("MADV_DONTNEED_LOCKED: %s (Linux 5.18 has it)", strerror(errno));
	setup(do_steps, steps);
	CHECK_EQ(next_removal(0, NR), REMOVAL_KEEPS);
	finish();
}

/* The kernel rounds the length up, and tells it so */
TEST_NS(length_is_rounded)
{
	struct step steps[] = { { 3, 1, MADV_DONTNEED, false }, { 5, PG + 1, MADV_REMOVE, true } };

	setup(do_steps, steps);
	CHECK_EQ(next_removal(3, 1), REMOVAL_KEEPS);
	CHECK_EQ(next_removal(5, 2), REMOVAL_DROPS);
	finish();
}

TEST_NS(one_after_the_other)
{
	struct step steps[] = {
		{ 1, PG, MADV_DONTNEED, false },
		{ 1, PG, MADV_REMOVE, false },
		{ 1, PG, MADV_DONTNEED, false },
		{ 2, PG, MADV_REMOVE, false },
		{ 0, 4 * PG, MADV_REMOVE, true },
	};

	setup(do_steps, steps);
	CHECK_EQ(next_removal(1, 1), REMOVAL_KEEPS);
	CHECK_EQ(next_removal(1, 1), REMOVAL_DROPS);
	CHECK_EQ(next_removal(1, 1), REMOVAL_KEEPS);
	CHECK_EQ(next_removal(2, 1), REMOVAL_DROPS);
	CHECK_EQ(next_removal(0, 4), REMOVAL_DROPS);
	finish();
}

static void split_and_remove(char *addr, size_t pages, void *arg)
{
	(void)pages;
	CHECK_SYS(mprotect(addr + 4 * PG, 4 * PG, PROT_READ));
	/* older kernels remove only where the mapping itself may be written */
	if (madvise(addr + 2 * PG, 10 * PG, *(int *)arg))
		CHECK(errno == EACCES && *(int *)arg == MADV_REMOVE);
}

/* One call over several mappings is an event for each */
TEST_NS(one_call_several_events)
{
	int advice = MADV_DONTNEED;

	setup(split_and_remove, &advice);
	CHECK_EQ(next_removal(2, 2), REMOVAL_KEEPS);
	CHECK_EQ(next_removal(4, 4), REMOVAL_KEEPS);
	CHECK_EQ(next_removal(8, 4), REMOVAL_KEEPS);
	finish();
}

/* Reads the removals of two_steps, in whichever order they come */
static struct step two_steps[] = { { 1, 2 * PG, MADV_DONTNEED, false }, { 8, 3 * PG, MADV_REMOVE, true } };

static void read_one_of_two(void)
{
	struct uffd_msg msg = peek_and_read(task.uffd);
	enum removal_kind kind;

	CHECK_EQ(msg.event, UFFD_EVENT_REMOVE);
	kind = removal_classify(&watch, &owner, msg.arg.remove.start, msg.arg.remove.end, &id, 1);
	if (msg.arg.remove.start == (uintptr_t)task.addr + PG)
		CHECK_EQ(kind, REMOVAL_KEEPS);
	else
		CHECK_EQ(kind, REMOVAL_DROPS);
}

static int calls_in_task(void)
{
	struct madvise_call calls[8];

	return madvise_calls_of(task.pid, calls, 8);
}

/* Two threads in different calls, both asleep whenever we look */
TEST_NS(two_threads)
{
	int left;

	setup(do_steps_together, two_steps);
	for (left = 2; left; left--) {
		WAIT_FOR(calls_in_task() == left);
		read_one_of_two();
	}
	finish();
}

/* The second calls between our look and our read, which gets the first */
TEST_NS(second_call_after_peek)
{
	struct uffd_msg msg;

	setup(do_when_told, two_steps);
	CHECK(uffd_readable(task.uffd, 5000));
	removal_peek(&watch, &owner, task.uffd, &id, 1);
	CHECK_EQ(watch.calls.n, 1);
	task_go(&task);
	WAIT_FOR(calls_in_task() == 2);

	msg = read_event(task.uffd, UFFD_EVENT_REMOVE);
	CHECK_EQ(msg.arg.remove.start, (uintptr_t)task.addr + PG);
	CHECK_EQ(removal_classify(&watch, &owner, msg.arg.remove.start, msg.arg.remove.end, &id, 1), REMOVAL_KEEPS);
	WAIT_FOR(calls_in_task() == 1);
	CHECK_EQ(next_removal(8, 3), REMOVAL_DROPS);
	finish();
}

static void peek_past_faults(int advice, enum removal_kind expect)
{
	struct step steps[] = { { 0, 0, -1, false }, { 1, 0, -1, false }, { 8, 2 * PG, advice, true } };
	struct uffd_msg msg;
	int i;

	setup(do_steps_together, steps);
	/* all of it is there before we look */
	WAIT_FOR(pending_faults(task.uffd) == 2);
	WAIT_FOR(bare_continue(task.uffd, task.addr, PG, NULL) == -EAGAIN);

	for (i = 0; i < 2; i++) {
		msg = peek_and_read(task.uffd);
		CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	}
	CHECK_EQ(next_removal(8, 2), expect);
	fill_pages(fd, 0, 2);
	WAIT_FOR(bare_continue(task.uffd, task.addr, 2 * PG, NULL) == 0);
	finish();
}

TEST_NS(faults_pending_first_keeps)
{
	peek_past_faults(MADV_DONTNEED, REMOVAL_KEEPS);
}

TEST_NS(faults_pending_first_drops)
{
	peek_past_faults(MADV_REMOVE, REMOVAL_DROPS);
}

static void fork_then_remove(char *addr, size_t pages, void *arg)
{
	pid_t pid = (pid_t)CHECK_SYS(fork());

	(void)pages;
	if (!pid) {
		CHECK_SYS(madvise(addr, 2 * PG, *(int *)arg));
		_exit(0);
	}
	check_exited(pid, 0);
}

/* A child has a userfaultfd of its own, and is in no table of pids */
static void child_removes(int advice, enum removal_kind expect)
{
	struct uffd_msg msg;
	int child_uffd;

	setup(fork_then_remove, &advice);
	msg = peek_and_read(task.uffd);
	CHECK_EQ(msg.event, UFFD_EVENT_FORK);
	child_uffd = (int)msg.arg.fork.ufd;
	removal_fini(&watch);
	owner_fini(&owner);

	msg = peek_and_read(child_uffd);
	CHECK_EQ(msg.event, UFFD_EVENT_REMOVE);
	CHECK_EQ(removal_classify(&watch, &owner, msg.arg.remove.start, msg.arg.remove.end, &id, 1), expect);
	finish();
}

TEST_NS(forked_child_keeps)
{
	child_removes(MADV_DONTNEED, REMOVAL_KEEPS);
}

TEST_NS(forked_child_drops)
{
	child_removes(MADV_REMOVE, REMOVAL_DROPS);
}

/*
 * UNKNOWN
 */

TEST_NS(unknown_if_nobody_calls)
{
	struct step steps[] = { { 0, 0, -1, true } };

	setup(do_steps, steps);
	read_fault(task.uffd, task.addr);
	removal_peek(&watch, &owner, task.uffd, &id, 1);
	CHECK_EQ(removal_classify(&watch, &owner, (uintptr_t)task.addr, (uintptr_t)task.addr + PG, &id, 1), REMOVAL_UNKNOWN);
	removal_peek(&watch, &owner, task.uffd, &id, 0);
	CHECK_EQ(removal_classify(&watch, &owner, (uintptr_t)task.addr, (uintptr_t)task.addr + PG, &id, 0), REMOVAL_UNKNOWN);
}

TEST_NS(unknown_if_range_is_not_in_the_call)
{
	struct step steps[] = { { 4, 4 * PG, MADV_REMOVE, true } };
	uint64_t at;

	setup(do_steps, steps);
	CHECK(uffd_readable(task.uffd, 5000));
	removal_peek(&watch, &owner, task.uffd, &id, 1);
	CHECK_EQ(watch.calls.n, 1);

	at = (uintptr_t)task.addr + 4 * PG;
	CHECK_EQ(removal_classify(&watch, &owner, at - PG, at, &id, 1), REMOVAL_UNKNOWN);
	CHECK_EQ(removal_classify(&watch, &owner, at - PG, at + PG, &id, 1), REMOVAL_UNKNOWN);
	CHECK_EQ(removal_classify(&watch, &owner, at + 3 * PG, at + 5 * PG, &id, 1), REMOVAL_UNKNOWN);
	CHECK_EQ(removal_classify(&watch, &owner, at + 4 * PG, at + 5 * PG, &id, 1), REMOVAL_UNKNOWN);
	CHECK_EQ(removal_classify(&watch, &owner, at - PG, at + 5 * PG, &id, 1), REMOVAL_UNKNOWN);
	CHECK_EQ(removal_classify(&watch, &owner, at + PG, at + 2 * PG, &id, 1), REMOVAL_DROPS);

	CHECK_EQ(next_removal(4, 4), REMOVAL_DROPS);
	finish();
}

/* Two tasks use the same addresses, and say the contrary of each other: who moves on it was */
TEST_NS(callers_contradict)
{
	struct step keep[] = { { 4, 2 * PG, MADV_DONTNEED, true } }, drop[] = { { 4, 2 * PG, MADV_REMOVE, true } };
	struct task other;

	setup(do_steps, keep);
	other = task_start(fd, NR, FEATURES, do_steps, drop);
	CHECK(other.addr == task.addr); /* both are forks of ours */
	task_go(&other);
	CHECK(uffd_readable(other.uffd, 5000));

	CHECK_EQ(next_removal(4, 2), REMOVAL_KEEPS);
	/* now there is one left */
	check_exited(task.pid, 0);
	task = other;
	removal_fini(&watch);
	owner_fini(&owner);
	CHECK_EQ(next_removal(4, 2), REMOVAL_DROPS);
	finish();
}

/*
 * Not found by removal_peek() as a fault was pending that then went away, but
 * found afterwards if it is still in the call: here as another event is unread.
 */
TEST_NS(looks_again)
{
	int advice = MADV_REMOVE;
	uint64_t at;

	setup(split_and_remove, &advice);
	CHECK(uffd_readable(task.uffd, 5000));
	at = (uintptr_t)task.addr + 2 * PG;
	CHECK_EQ(removal_classify(&watch, &owner, at, at + 2 * PG, &id, 1), REMOVAL_DROPS);
}

/*
 * owner_locate()
 */

/* A child with page of a memfd at addr, in place of what was there; -1: nothing at all */
static pid_t put_at(char *addr, int memfd, size_t page, int flags)
{
	volatile int *ready = unit_shared_alloc(sizeof(int));
	pid_t pid = (pid_t)CHECK_SYS(fork());

	if (!pid) {
		map_shared(fd, 1); /* it is a user of the object in any case */
		CHECK_SYS(munmap(addr, 4 * PG));
		if (memfd >= 0)
			CHECK(mmap(addr, 4 * PG, PROT_READ, flags | MAP_FIXED, memfd, (off_t)(page * PG)) == addr);
		*ready = 1;
		while (1)
			pause();
	}
	WAIT_FOR(*ready);
	return pid;
}

/* A free place in all of them */
static char *setup_locate(void)
{
	char *addr = mmap(NULL, 4 * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(addr != MAP_FAILED);
	fd = new_memfd(NR);
	id = id_of(fd);
	removal_init(&watch);
	return addr;
}

static int locate(char *addr, struct proc_mapping *m)
{
	int fds = unit_count_fds(), ret;

	removal_fini(&watch);
	owner_fini(&owner);
	ret = owner_locate(&owner, (uintptr_t)addr, &id, 1, m);
	/* they are known by now */
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, &id, 1, m), ret);
	CHECK_EQ(unit_count_fds(), fds);
	return ret;
}

static void check_located(char *addr, size_t page, int is_private)
{
	struct proc_mapping m;

	memset(&m, 0xff, sizeof(m));
	CHECK_EQ(locate(addr + PG + 3, &m), 1);
	CHECK_EQ(m.start, (uintptr_t)addr);
	CHECK_EQ(m.end, (uintptr_t)addr + 4 * PG);
	CHECK_EQ(m.pgoff, page * PG);
	CHECK_EQ(m.id.ino, id.ino);
	CHECK_EQ(m.id.dev, id.dev);
	CHECK_EQ(m.is_private, is_private);
}

TEST_NS(locates)
{
	char *addr = setup_locate();

	put_at(addr, fd, 3, MAP_SHARED);
	check_located(addr, 3, 0);
	/* another with the same there, and one with nothing */
	put_at(addr, fd, 3, MAP_SHARED);
	put_at(addr, -1, 0, 0);
	check_located(addr, 3, 0);
}

TEST_NS(locates_private)
{
	char *addr = setup_locate();

	put_at(addr, fd, 2, MAP_PRIVATE);
	check_located(addr, 2, 1);
}

/* Parts of a mapping may have become mappings of their own: the offset is the same */
TEST_NS(locates_parts)
{
	char *addr = setup_locate();
	volatile int *ready = unit_shared_alloc(sizeof(int));
	struct proc_mapping m;

	put_at(addr, fd, 3, MAP_SHARED);
	if (!CHECK_SYS(fork())) {
		CHECK(mmap(addr, 4 * PG, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 3 * PG) == addr);
		CHECK_SYS(mprotect(addr, PG, PROT_NONE));
		*ready = 1;
		pause();
	}
	WAIT_FOR(*ready);
	CHECK_EQ(locate(addr + PG, &m), 1);
	CHECK_EQ(m.start - m.pgoff, (uintptr_t)addr - 3 * PG);
}

TEST_NS(locates_nothing)
{
	char *addr = setup_locate();
	struct proc_mapping m;

	CHECK_EQ(locate(addr, &m), 0); /* no mapper at all */
	put_at(addr, -1, 0, 0);
	CHECK_EQ(locate(addr, &m), 0);
	put_at(addr, new_memfd(4), 0, MAP_SHARED); /* not one of the objects */
	CHECK_EQ(locate(addr, &m), 0);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, NULL, 0, &m), 0);
}

static void contradict(int memfd, size_t page, int flags)
{
	char *addr = setup_locate();
	struct proc_mapping m;

	put_at(addr, fd, 3, MAP_SHARED);
	check_located(addr, 3, 0);
	put_at(addr, memfd >= 0 ? memfd : fd, page, flags);
	CHECK_EQ(locate(addr, &m), -1);
	CHECK_EQ(locate(addr + 4 * PG - 1, &m), -1);
}

TEST_NS(offsets_contradict)
{
	contradict(-1, 4, MAP_SHARED);
}

TEST_NS(private_contradicts_shared)
{
	contradict(-1, 3, MAP_PRIVATE);
}

/* One maps something else there, which may as well be the owner */
TEST_NS(other_file_contradicts)
{
	contradict(new_memfd(8), 3, MAP_SHARED);
}

TEST_NS(objects_contradict)
{
	char *addr = setup_locate();
	int other = new_memfd(NR);
	struct inode_id ids[2] = { id, id_of(other) };
	struct proc_mapping m;

	put_at(addr, other, 3, MAP_SHARED);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, ids, 2, &m), 1);
	CHECK_EQ(m.id.ino, ids[1].ino);
	put_at(addr, fd, 3, MAP_SHARED);
	removal_fini(&watch);
	owner_fini(&owner);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, ids, 2, &m), -1);
}

/* Once it is known who the owner is, the others do not matter */
/* A fault tells who is the owner, also if another of them was taken for it */
TEST_NS(locates_of_who_faults)
{
	char *addr = setup_locate();
	pid_t one = put_at(addr, fd, 1, MAP_SHARED), two = put_at(addr, fd, 3, MAP_SHARED), three;
	struct proc_mapping m;
	int status;

	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, &id, 1, &m), -1);
	owner_find_by_fault(&owner, two, &id, 1);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, &id, 1, &m), 1);
	CHECK_EQ(m.pgoff, 3 * PG);
	owner_find_by_fault(&owner, one, &id, 1);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, &id, 1, &m), 1);
	CHECK_EQ(m.pgoff, PG);

	/* born later */
	three = put_at(addr, -1, 0, 0);
	owner_find_by_fault(&owner, three, &id, 1);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, &id, 1, &m), 0);

	/* nobody we can see: as if there had been no fault */
	owner_find_by_fault(&owner, 12345, &id, 1);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, &id, 1, &m), -1);

	/* somebody else has the memory of a dead owner, if it has events still: one, or three, who has nothing there */
	owner_find_by_fault(&owner, two, &id, 1);
	CHECK_SYS(kill(two, SIGKILL));
	CHECK_SYS(waitpid(two, &status, 0));
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr, &id, 1, &m), 1);
	CHECK_EQ(m.pgoff, PG);
}

/* Who is not known to be the owner may have something else a little further on */
TEST_NS(locates_what_all_agree_on)
{
	char *addr = setup_locate();
	volatile int *ready = unit_shared_alloc(sizeof(int));
	struct proc_mapping m;
	pid_t one;

	one = put_at(addr, fd, 1, MAP_SHARED);
	if (!CHECK_SYS(fork())) {
		CHECK_SYS(munmap(addr, 4 * PG));
		CHECK(mmap(addr + PG, 2 * PG, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 2 * PG) == addr + PG);
		*ready = 1;
		while (1)
			pause();
	}
	WAIT_FOR(*ready);

	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr + 2 * PG, &id, 1, &m), 1);
	CHECK_EQ(m.start, (uintptr_t)addr + PG);
	CHECK_EQ(m.end, (uintptr_t)addr + 3 * PG);
	CHECK_EQ(m.pgoff, 2 * PG);

	/* the pid in the images tells */
	owner_fini(&owner);
	owner.vpid = one;
	CHECK_EQ(owner_locate(&owner, (uintptr_t)addr + 2 * PG, &id, 1, &m), 1);
	CHECK_EQ(m.start, (uintptr_t)addr);
	CHECK_EQ(m.end, (uintptr_t)addr + 4 * PG);
	CHECK_EQ(m.pgoff, PG);
}

TEST_NS(locates_of_the_owner)
{
	struct step steps[] = { { 3, PG, MADV_DONTNEED, false }, { 0, 0, -1, true } };
	volatile int *ready = unit_shared_alloc(sizeof(int));
	struct proc_mapping m;

	setup(do_steps, steps);
	if (!CHECK_SYS(fork())) {
		CHECK(mmap(task.addr, NR * PG, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 2 * PG) == task.addr);
		*ready = 1;
		pause();
	}
	WAIT_FOR(*ready);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)task.addr + PG, &id, 1, &m), -1);
	CHECK_EQ(next_removal(3, 1), REMOVAL_KEEPS);
	CHECK_EQ(owner_locate(&owner, (uintptr_t)task.addr + PG, &id, 1, &m), 1);
	CHECK_EQ(m.start, (uintptr_t)task.addr);
	CHECK_EQ(m.pgoff, 0);

	read_fault(task.uffd, task.addr);
	fill_pages(fd, 0, 1);
	CHECK_EQ(bare_continue(task.uffd, task.addr, PG, NULL), 0);
	finish();
}

/*
 * When an event is read the kernel wakes all threads that wait with one, and all
 * but one go to sleep again. Until then /proc says that they are "running", and
 * on a busy machine that takes a while.
 */
TEST_NS(two_threads_at_once)
{
	int round, i;

	for (round = 0; round < 200; round++) {
		setup(do_steps_together, two_steps);
		for (i = 0; i < 2; i++)
			read_one_of_two();
		finish();
		close(task.uffd);
		close(task.sock);
		close(fd);
	}
}

/* The same, with threads that only read among them */
TEST_NS(many_threads_and_faults)
{
	struct step steps[NR + 1];
	int events = 0, faults = 0;
	size_t i;

	for (i = 0; i < NR; i++)
		steps[i] = (struct step){ i, PG, i % 3 == 2 ? -1 : i % 3 ? MADV_REMOVE :
									   MADV_DONTNEED,
					  i == NR - 1 };
	setup(do_steps_together, steps);

	while (events + faults < NR) {
		struct uffd_msg msg = peek_and_read(task.uffd);
		enum removal_kind kind;

		if (msg.event == UFFD_EVENT_PAGEFAULT) {
			faults++;
			continue;
		}
		CHECK_EQ(msg.event, UFFD_EVENT_REMOVE);
		events++;
		i = (msg.arg.remove.start - (uintptr_t)task.addr) / PG;
		kind = removal_classify(&watch, &owner, msg.arg.remove.start, msg.arg.remove.end, &id, 1);
		CHECK_EQ(kind, i % 3 ? REMOVAL_DROPS : REMOVAL_KEEPS);
	}

	/* let the readers go; MADV_REMOVE may yet come to the other pages */
	fill_pages(fd, 0, NR);
	for (i = 2; i < NR; i += 3) {
		int ret;

		WAIT_FOR((ret = bare_continue(task.uffd, (char *)task.addr + i * PG, PG, NULL)) == 0 || ret == -EEXIST);
	}
	finish();
}

/*
 * Many tasks map the object, and the owner of the
 * userfaultfd is the last of them in /proc.
 */
static void many_mappers(int advice, enum removal_kind expect)
{
	struct step steps[] = { { 3, 2 * PG, advice, true } };
	int i;

	fd = new_memfd(NR);
	id = id_of(fd);
	for (i = 0; i < 70; i++) {
		volatile int *ready = unit_shared_alloc(sizeof(int));

		if (!CHECK_SYS(fork())) {
			map_shared(fd, NR);
			*ready = 1;
			while (1)
				pause();
		}
		WAIT_FOR(*ready);
	}
	task = task_start(fd, NR, FEATURES, do_steps, steps);
	removal_init(&watch);
	task_go(&task);
	CHECK_EQ(next_removal(3, 2), expect);
	finish();
}

TEST_NS(many_mappers_keeps)
{
	many_mappers(MADV_DONTNEED, REMOVAL_KEEPS);
}

TEST_NS(many_mappers_drops)
{
	many_mappers(MADV_REMOVE, REMOVAL_DROPS);
}
