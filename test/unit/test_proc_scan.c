// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "processes.h"
#include "unit.h"

/*
 * These all are in a PID namespace of their own: a mistake in what they test
 * could kill everybody.
 */

/* A child that maps a page of each, and sleeps. -1: none */
static pid_t mapper(int fd1, int fd2)
{
	volatile int *ready = unit_shared_alloc(sizeof(int));
	pid_t pid = (pid_t)CHECK_SYS(fork());

	if (!pid) {
		prctl(PR_SET_NAME, "unit-mapper");
		if (fd1 >= 0)
			map_shared(fd1, 1);
		if (fd2 >= 0)
			map_shared(fd2, 1);
		*ready = 1;
		while (1)
			pause();
	}
	WAIT_FOR(*ready);
	return pid;
}

struct found {
	unsigned int nr;
	pid_t pids[64];
};

static int note(pid_t pid, int pidfd, void *arg)
{
	struct found *f = arg;

	CHECK(f->nr < 64);
	f->pids[f->nr++] = pid;
	/* it is a pidfd, and still open */
	CHECK_SYS(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
	return 1;
}

static bool has(const struct found *f, pid_t pid)
{
	unsigned int i, nr = 0;

	for (i = 0; i < f->nr; i++)
		nr += f->pids[i] == pid;
	CHECK(nr <= 1);
	return nr;
}

static struct found find(const struct inode_id *ids, size_t nr)
{
	struct found f = { 0 };
	int sum = for_each_mapper(ids, nr, note, &f);

	CHECK_EQ(sum, f.nr);
	return f;
}

TEST_NS(finds_who_maps)
{
	int a = new_memfd(1), b = new_memfd(1), c = new_memfd(1), fds;
	struct inode_id ids[] = { id_of(a), id_of(b), id_of(c) };
	pid_t pa = mapper(a, -1), pb = mapper(b, -1), pab = mapper(a, b), none = mapper(-1, -1);
	struct found f;

	fds = unit_count_fds();
	f = find(&ids[0], 1);
	CHECK_EQ(f.nr, 2);
	CHECK(has(&f, pa));
	CHECK(has(&f, pab));

	f = find(&ids[1], 1);
	CHECK_EQ(f.nr, 2);
	CHECK(has(&f, pb));
	CHECK(has(&f, pab));

	f = find(ids, 3);
	CHECK_EQ(f.nr, 3);
	CHECK(!has(&f, none));

	CHECK_EQ(find(&ids[2], 1).nr, 0);
	CHECK_EQ(find(ids, 0).nr, 0);
	CHECK_EQ(unit_count_fds(), fds);
}

TEST_NS(not_ourselves)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);

	map_shared(fd, 1);
	CHECK_EQ(find(&id, 1).nr, 0);
	mapper(-1, -1); /* this one has inherited the mapping */
	CHECK_EQ(find(&id, 1).nr, 1);
}

/* Processes that fill map what they fill for a moment */
TEST_NS(spared)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	pid_t a = mapper(fd, -1), b = mapper(fd, -1);
	struct found f;

	CHECK_EQ(scan_spare(a, true), 0);
	CHECK_EQ(scan_spare(b, true), 0);
	CHECK_EQ(find(&id, 1).nr, 0);
	CHECK_EQ(scan_spare(b, false), 0);
	f = find(&id, 1);
	CHECK_EQ(f.nr, 1);
	CHECK(has(&f, b));

	kill_mappers(&id, 1, NULL);
	CHECK_EQ(waitpid(b, NULL, 0), b);
	CHECK_EQ(waitpid(a, NULL, WNOHANG), 0);
	CHECK_EQ(scan_spare(a, false), 0);
	CHECK_EQ(find(&id, 1).nr, 1);
}

TEST_NS(private_and_read_only_mappings_count)
{
	int fd = new_memfd(1), i;
	struct inode_id id = id_of(fd);

	for (i = 0; i < 3; i++) {
		volatile int *ready = unit_shared_alloc(sizeof(int));

		if (!CHECK_SYS(fork())) {
			CHECK(mmap(NULL, PG, i ? PROT_READ : PROT_NONE, i == 2 ? MAP_PRIVATE : MAP_SHARED, fd, 0) !=
			      MAP_FAILED);
			*ready = 1;
			pause();
		}
		WAIT_FOR(*ready);
	}
	CHECK_EQ(find(&id, 1).nr, 3);
}

TEST_NS(descriptor_alone_does_not_count)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);

	mapper(-1, -1); /* has the descriptor */
	CHECK_EQ(find(&id, 1).nr, 0);
}

static int new_file(const char *path)
{
	int fd = (int)CHECK_SYS(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));

	CHECK_SYS(ftruncate(fd, PG));
	return fd;
}

static void mount_tmpfs(const char *path)
{
	CHECK_SYS(mkdir(path, 0700));
	CHECK_SYS(mount("unit", path, "tmpfs", 0, NULL));
}

/* Inode numbers are unique on one device only */
TEST_NS(device_is_compared)
{
	struct inode_id a, b;
	int fa, fb;

	CHECK_SYS(mount("unit", "/tmp", "tmpfs", 0, NULL));
	mount_tmpfs("/tmp/a");
	mount_tmpfs("/tmp/b");
	fa = new_file("/tmp/a/x");
	fb = new_file("/tmp/b/x");
	a = id_of(fa);
	b = id_of(fb);
	CHECK(a.dev != b.dev);
	if (a.ino != b.ino)
		unit_skip("two file systems number their first files %lu and %lu", (long)a.ino, (long)b.ino);

	mapper(fa, -1);
	CHECK_EQ(find(&a, 1).nr, 1);
	CHECK_EQ(find(&b, 1).nr, 0);
	mapper(fb, -1);
	mapper(fb, -1);
	CHECK_EQ(find(&a, 1).nr, 1);
	CHECK_EQ(find(&b, 1).nr, 2);
}

/*
 * A line of maps that is longer than the buffer, whose rest looks like a line
 * of its own: a task chooses the names of the files it maps.
 */
TEST_NS(long_path_is_not_taken_for_a_line)
{
	int victim = new_memfd(1), fd, pad;
	struct inode_id id = id_of(victim);
	char path[600];

	CHECK_SYS(mount("unit", "/tmp", "tmpfs", 0, NULL));
	memset(path, 'x', sizeof(path));
	memcpy(path, "/tmp/", 5);
	path[250] = '\0';
	CHECK_SYS(mkdir(path, 0700));
	path[250] = '/';

	/* one of these is cut right before what looks like a line */
	for (pad = 0; pad < 64; pad++) {
		memset(path + 251, 'y', 256);
		sprintf(path + 390 + pad, "1-2 r 0 %x:%x %lu z", major(id.dev), minor(id.dev), (unsigned long)id.ino);
		fd = new_file(path);
		mapper(fd, -1);
		close(fd);
	}
	CHECK_EQ(find(&id, 1).nr, 0);
	mapper(victim, -1);
	CHECK_EQ(find(&id, 1).nr, 1);
}

/* The mapping is behind thousands of others */
TEST_NS(last_of_many_mappings)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	volatile int *ready = unit_shared_alloc(sizeof(int));
	pid_t pid = (pid_t)CHECK_SYS(fork());

	if (!pid) {
		char *room = mmap(NULL, 10001 * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		size_t i;

		CHECK(room != MAP_FAILED);
		for (i = 0; i < 10000; i += 2)
			CHECK_SYS(mprotect(room + i * PG, PG, PROT_READ));
		CHECK(mmap(room + 10000 * PG, PG, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
		*ready = 1;
		pause();
	}
	WAIT_FOR(*ready);
	CHECK_EQ(find(&id, 1).nr, 1);
}

/* Who could not be looked at may be one of those */
static void look_with_fds_left(int left)
{
	int fd = new_memfd(1), fds;
	struct inode_id id = id_of(fd);
	struct found f = { 0 };
	pid_t pid = mapper(fd, -1);
	unsigned long limit;

	limit = use_up_fds(left);
	/* /proc, a pidfd, maps */
	if (left < 3) {
		CHECK_EQ(for_each_mapper(&id, 1, note, &f), -EMFILE);
		CHECK_EQ(f.nr, 0);
		CHECK_EQ(for_each_mapper(&id, 0, note, &f), -EMFILE);
	} else {
		CHECK_EQ(for_each_mapper(&id, 1, note, &f), 1);
		CHECK(has(&f, pid));
	}

	set_fd_limit(limit);
	fds = unit_count_fds();
	CHECK_EQ(find(&id, 1).nr, 1);
	CHECK_EQ(unit_count_fds(), fds);
}

TEST_NS(no_descriptor_for_proc)
{
	look_with_fds_left(0);
}

TEST_NS(no_descriptor_for_processes)
{
	look_with_fds_left(1);
}

TEST_NS(no_descriptor_for_maps)
{
	look_with_fds_left(2);
}

TEST_NS(just_enough_descriptors)
{
	look_with_fds_left(3);
}

static void become_nobody(unsigned int caps)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = caps, .permitted = caps } };

	CHECK_SYS(prctl(PR_SET_KEEPCAPS, 1));
	CHECK_SYS(syscall(SYS_setresgid, 65534, 65534, 65534));
	CHECK_SYS(syscall(SYS_setresuid, 65534, 65534, 65534));
	CHECK_SYS(syscall(SYS_capset, &head, data));
	CHECK_SYS(prctl(PR_SET_DUMPABLE, 1));
}

/* Who may not even be looked at is no task of ours, and no reason not to be sure */
TEST_NS(who_is_above_us_is_passed_over)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	struct found f = { 0 };
	pid_t pid;

	mapper(fd, -1); /* of root */
	become_nobody(0);
	pid = mapper(fd, -1);
	CHECK_EQ(for_each_mapper(&id, 1, note, &f), 1);
	CHECK_EQ(f.nr, 1);
	CHECK(has(&f, pid));
}

/* The dead have no mappings, and are no reason not to be sure */
TEST_NS(zombies_are_looked_at)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	pid_t pid = mapper(fd, -1);
	siginfo_t info;

	CHECK_SYS(kill(pid, SIGKILL));
	CHECK_SYS(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	CHECK_EQ(find(&id, 1).nr, 0);
}

/*
 * find_mapping()
 */

/* Eight pages in a child: 0-1 private, 2 nothing, 3-4 shared, 5 read-only, 6 without a file, 7 nothing */
static pid_t mosaic(int a, int b, char **addr)
{
	volatile int *ready = unit_shared_alloc(sizeof(int));
	char *at = mmap(NULL, 8 * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	CHECK(at != MAP_FAILED);
	pid = (pid_t)CHECK_SYS(fork());
	if (!pid) {
		CHECK_SYS(munmap(at, 8 * PG));
		CHECK(mmap(at, 2 * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, a, PG) == at);
		CHECK(mmap(at + 3 * PG, 2 * PG, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, b, 3 * PG) == at + 3 * PG);
		CHECK(mmap(at + 5 * PG, PG, PROT_READ, MAP_SHARED | MAP_FIXED, a, 0) == at + 5 * PG);
		CHECK(mmap(at + 6 * PG, PG, PROT_READ, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == at + 6 * PG);
		*ready = 1;
		while (1)
			pause();
	}
	WAIT_FOR(*ready);
	*addr = at;
	return pid;
}

static void check_mapping(pid_t pid, char *addr, size_t from, size_t to, size_t pgoff, struct inode_id id, int is_private)
{
	uint64_t base = (uintptr_t)addr, probe[3];
	struct proc_mapping m;
	int i;

	probe[0] = base + from * PG;
	probe[1] = base + from * PG + 5;
	probe[2] = base + to * PG - 1;
	for (i = 0; i < 3; i++) {
		memset(&m, 0xff, sizeof(m));
		CHECK_EQ(find_mapping(pid, probe[i], &m), 1);
		CHECK_EQ(m.start, base + from * PG);
		CHECK_EQ(m.end, base + to * PG);
		CHECK_EQ(m.pgoff, pgoff * PG);
		CHECK_EQ(m.id.dev, id.dev);
		CHECK_EQ(m.id.ino, id.ino);
		CHECK_EQ(m.is_private, is_private);
	}
}

TEST_NS(mapping_is_found)
{
	int a = new_memfd(8), b = new_memfd(8), fds = unit_count_fds();
	struct inode_id none = { 0 };
	char *addr;
	pid_t pid = mosaic(a, b, &addr);

	check_mapping(pid, addr, 0, 2, 1, id_of(a), 1);
	check_mapping(pid, addr, 3, 5, 3, id_of(b), 0);
	check_mapping(pid, addr, 5, 6, 0, id_of(a), 0);
	check_mapping(pid, addr, 6, 7, 0, none, 1);
	CHECK_EQ(unit_count_fds(), fds);
}

TEST_NS(no_mapping_there)
{
	int a = new_memfd(8), b = new_memfd(8), fds = unit_count_fds();
	struct proc_mapping m;
	char *addr;
	pid_t pid = mosaic(a, b, &addr);
	uint64_t base = (uintptr_t)addr;

	CHECK_EQ(find_mapping(pid, base + 2 * PG, &m), 0);
	CHECK_EQ(find_mapping(pid, base + 3 * PG - 1, &m), 0);
	CHECK_EQ(find_mapping(pid, 0, &m), 0);
	CHECK_EQ(find_mapping(pid, UINT64_MAX, &m), 0);
	CHECK_EQ(unit_count_fds(), fds);
}

TEST_NS(no_such_process)
{
	struct proc_mapping m;
	siginfo_t info;
	char here;
	pid_t pid = mapper(-1, -1);

	CHECK_EQ(find_mapping(pid, (uintptr_t)&here, &m), 1); /* the stack is where ours is */
	CHECK_SYS(kill(pid, SIGKILL));
	CHECK_SYS(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	CHECK_EQ(find_mapping(pid, (uintptr_t)&here, &m), -ESRCH); /* a zombie */
	check_killed(pid);
	CHECK_EQ(find_mapping(pid, (uintptr_t)&here, &m), -ESRCH);
	CHECK_EQ(find_mapping(pid + 1000, (uintptr_t)&here, &m), -ESRCH);
}

TEST_NS(mapping_can_not_be_looked_for)
{
	struct proc_mapping m;
	unsigned long limit;
	char here;
	pid_t pid = mapper(-1, -1);

	limit = use_up_fds(0);
	CHECK_EQ(find_mapping(pid, (uintptr_t)&here, &m), -EMFILE);
	set_fd_limit(limit);
	CHECK_EQ(find_mapping(pid, (uintptr_t)&here, &m), 1);
	become_nobody(0);
	CHECK_EQ(find_mapping(pid, (uintptr_t)&here, &m), -ESRCH); /* not ours */
}

/*
 * thread_in_own_fault(), process_of()
 */

TEST_NS(thread_of_a_process)
{
	pid_t pid = mapper(-1, -1);

	CHECK(thread_in_own_fault(pid, pid));
	CHECK(!thread_in_own_fault(pid, pid + 1));
	CHECK(!thread_in_own_fault(pid, getpid()));
	CHECK(thread_in_own_fault(getpid(), getpid()));
	CHECK_EQ(process_of(pid), pid);
	CHECK_EQ(process_of(getpid()), getpid());
	CHECK_SYS(kill(pid, SIGKILL));
	check_killed(pid);
	CHECK(!thread_in_own_fault(pid, pid));
}

/* What counts is the number in the thread's own namespace */
TEST_NS(thread_in_another_pid_namespace)
{
	pid_t pid;
	int status;

	CHECK_SYS(unshare(CLONE_NEWPID));
	pid = (pid_t)CHECK_SYS(fork());
	if (!pid)
		for (;;)
			pause();

	CHECK(thread_in_own_fault(pid, 1));
	CHECK(!thread_in_own_fault(pid, pid));
	CHECK_EQ(process_of(pid), 0);
	CHECK_SYS(kill(pid, SIGKILL));
	CHECK_SYS(waitpid(pid, &status, 0));
}

/*
 * kill_mappers()
 */

static struct {
	struct found found;
	char comms[64][32];
} killed;

static void note_killed(pid_t pid, const char *comm, int err)
{
	CHECK_EQ(err, 0);
	CHECK(killed.found.nr < 64);
	snprintf(killed.comms[killed.found.nr], sizeof(killed.comms[0]), "%s", comm);
	killed.found.pids[killed.found.nr++] = pid;
}

/* A tree of depth generations, all of which map fd. Its pids, the eldest first */
static void family(int fd, int depth, volatile pid_t *pids)
{
	pid_t pid = (pid_t)CHECK_SYS(fork());

	if (pid)
		return;
	prctl(PR_SET_NAME, "unit-family");
	map_shared(fd, 1);
	if (depth > 1)
		family(fd, depth - 1, pids + 1);
	*pids = getpid();
	while (1)
		pause();
}

TEST_NS(kills_the_family_and_nobody_else)
{
	volatile pid_t *pids = unit_shared_alloc(4 * sizeof(pid_t));
	int fd = new_memfd(1), other = new_memfd(1), i;
	struct inode_id id = id_of(fd);
	pid_t stranger = mapper(other, -1), bystander = mapper(-1, -1);

	map_shared(fd, 1); /* we have it, too */
	family(fd, 4, pids);
	for (i = 0; i < 4; i++)
		WAIT_FOR(pids[i]);

	kill_mappers(&id, 1, note_killed);
	CHECK_EQ(killed.found.nr, 4);
	for (i = 0; i < 4; i++) {
		CHECK(has(&killed.found, pids[i]));
		CHECK(!strcmp(killed.comms[i], "unit-family"));
	}
	CHECK_EQ(find(&id, 1).nr, 0);

	for (i = 0; i < 4; i++) /* orphans are ours */
		check_killed(pids[i]);
	CHECK(is_alive(stranger));
	CHECK(is_alive(bystander));
}

TEST_NS(kills_orphans)
{
	volatile pid_t *pids = unit_shared_alloc(2 * sizeof(pid_t));
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);

	family(fd, 2, pids);
	WAIT_FOR(pids[0] && pids[1]);
	CHECK_SYS(kill(pids[0], SIGKILL));
	check_killed(pids[0]);
	kill_mappers(&id, 1, note_killed);
	CHECK_EQ(killed.found.nr, 1);
	check_killed(pids[1]);
}

/* How it ends must not depend on who reaps: the dead are zombies all along */
TEST_NS(is_done_when_nobody_maps)
{
	int fd = new_memfd(1), i;
	struct inode_id id = id_of(fd);
	pid_t pids[20];

	for (i = 0; i < 20; i++)
		pids[i] = mapper(fd, -1);
	kill_mappers(&id, 1, NULL);
	CHECK_EQ(find(&id, 1).nr, 0);
	for (i = 0; i < 20; i++)
		check_killed(pids[i]);
}

TEST_NS(kills_the_stopped_and_the_deaf)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	pid_t stopped = mapper(fd, -1), deaf;

	CHECK_SYS(kill(stopped, SIGSTOP));
	signal(SIGTERM, SIG_IGN);
	deaf = mapper(fd, -1);
	kill_mappers(&id, 1, NULL);
	check_killed(stopped);
	check_killed(deaf);
}

/* Whoever is not killed in time has a child, and so on */
TEST_NS(kills_who_runs_away)
{
	volatile int *runs = unit_shared_alloc(sizeof(int));
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);

	signal(SIGCHLD, SIG_IGN);
	if (!CHECK_SYS(fork())) {
		map_shared(fd, 1);
		while (1) {
			struct timespec t = { .tv_nsec = 500000 };

			++*runs;
			if (fork())
				_exit(0);
			nanosleep(&t, NULL);
		}
	}
	WAIT_FOR(*runs > 10);
	kill_mappers(&id, 1, NULL);
	CHECK_EQ(find(&id, 1).nr, 0);
	WAIT_FOR(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

/* What kill_mappers() has said of what stands in its way, and whether it is done */
static struct obstacle {
	volatile int nr, err;
	volatile pid_t pid;
	volatile bool done;
	char comm[32];
} * obstacle;

static void note_obstacle(pid_t pid, const char *comm, int err)
{
	if (!err)
		return;
	obstacle->pid = pid;
	obstacle->err = err;
	snprintf(obstacle->comm, sizeof(obstacle->comm), "%s", comm);
	obstacle->nr++;
}

static void *kill_in_thread(void *arg)
{
	kill_mappers(arg, 1, note_obstacle);
	obstacle->done = true;
	return NULL;
}

/* As long as it can not look it does not say that nobody is left */
static void kill_with_fds_left(int left)
{
	int fd = new_memfd(1), i;
	struct inode_id id = id_of(fd);
	unsigned long limit;
	pthread_t thread;
	pid_t pids[3];

	for (i = 0; i < 3; i++)
		pids[i] = mapper(fd, -1);
	obstacle = unit_shared_alloc(sizeof(*obstacle));
	limit = use_up_fds(left);
	CHECK_EQ(pthread_create(&thread, NULL, kill_in_thread, &id), 0);
	WAIT_FOR(obstacle->nr);
	unit_sleep_ms(100);
	CHECK(!obstacle->done);
	for (i = 0; i < 3; i++)
		CHECK(is_alive(pids[i]));

	set_fd_limit(limit);
	pthread_join(thread, NULL);
	CHECK(obstacle->done);
	for (i = 0; i < 3; i++)
		check_killed(pids[i]);
	CHECK_EQ(find(&id, 1).nr, 0);

	/* said once, not with each try */
	CHECK_EQ(obstacle->nr, 1);
	CHECK_EQ(obstacle->err, EMFILE);
	CHECK_EQ(obstacle->pid, 0);
}

TEST_NS(waits_until_it_can_read_proc)
{
	kill_with_fds_left(0);
}

TEST_NS(waits_until_it_can_look_at_processes)
{
	kill_with_fds_left(1);
}

TEST_NS(waits_until_it_can_read_maps)
{
	kill_with_fds_left(2);
}

/* It may look, but not kill: who is told does */
TEST_NS(waits_for_who_can_not_be_killed)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	pid_t pid = mapper(fd, -1), killer;

	obstacle = unit_shared_alloc(sizeof(*obstacle));
	killer = (pid_t)CHECK_SYS(fork());
	if (!killer) {
		become_nobody(1U << CAP_SYS_PTRACE);
		kill_in_thread(&id);
		_exit(0);
	}
	WAIT_FOR(obstacle->nr);
	unit_sleep_ms(50);
	CHECK(!obstacle->done);
	CHECK(is_alive(pid));
	CHECK_EQ(obstacle->nr, 1);
	CHECK_EQ(obstacle->err, EPERM);
	CHECK_EQ(obstacle->pid, pid);
	CHECK(!strcmp(obstacle->comm, "unit-mapper"));

	CHECK_SYS(kill(pid, SIGKILL));
	check_killed(pid);
	check_exited(killer, 0);
	CHECK(obstacle->done);
}

TEST_NS(kills_nobody)
{
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd), nothing = { 0 };
	pid_t pid = mapper(-1, -1);

	kill_mappers(&id, 1, note_killed);
	kill_mappers(NULL, 0, note_killed);
	/* 00:00 0 is what mappings of no file show */
	kill_mappers(&nothing, 1, note_killed);
	CHECK_EQ(killed.found.nr, 0);
	CHECK(is_alive(pid));
}

/*
 * madvise_calls_of(), which sees threads that wait for their event to be read
 */

struct advice {
	size_t page, nr;
	int advice;
};

static void *advise(void *arg)
{
	const struct advice *a = arg;

	CHECK_SYS(madvise((char *)a->page, a->nr * PG, a->advice));
	return NULL;
}

static void two_threads_advise(char *addr, size_t pages, void *arg)
{
	struct advice a = { .page = (size_t)addr, .nr = 1, .advice = MADV_DONTNEED };
	struct advice b = { .page = (size_t)addr + 2 * PG, .nr = 2, .advice = MADV_REMOVE };
	pthread_t ta, tb;

	(void)pages;
	(void)arg;
	CHECK_EQ(pthread_create(&ta, NULL, advise, &a), 0);
	CHECK_EQ(pthread_create(&tb, NULL, advise, &b), 0);
	pthread_join(ta, NULL);
	pthread_join(tb, NULL);
}

TEST_NS(finds_calls)
{
	int fd = new_memfd(4), nr;
	struct task task = task_start(fd, 4, FEATURES, two_threads_advise, NULL);
	struct madvise_call calls[8];
	pid_t idle = mapper(-1, -1);

	CHECK_EQ(madvise_calls_of(task.pid, calls, 8), 0);
	task_go(&task);
	WAIT_FOR((nr = madvise_calls_of(task.pid, calls, 8)) == 2);
	if (calls[0].start > calls[1].start) {
		calls[2] = calls[0];
		calls[0] = calls[1];
		calls[1] = calls[2];
	}
	CHECK_EQ(calls[0].start, (uintptr_t)task.addr);
	CHECK_EQ(calls[0].len, PG);
	CHECK_EQ(calls[0].advice, MADV_DONTNEED);
	CHECK_EQ(calls[1].start, (uintptr_t)task.addr + 2 * PG);
	CHECK_EQ(calls[1].len, 2 * PG);
	CHECK_EQ(calls[1].advice, MADV_REMOVE);

	CHECK_EQ(madvise_calls_of(idle, calls, 8), 0);
	CHECK_EQ(madvise_calls_of(idle + 1000, calls, 8), 0);

	read_event(task.uffd, UFFD_EVENT_REMOVE);
	read_event(task.uffd, UFFD_EVENT_REMOVE);
	check_exited(task.pid, 0);
}
