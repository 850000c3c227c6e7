// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "proc_scan.h"

/* Calls fn for each mapping of pid until it returns true; whether it did */
static bool find_in_maps(pid_t pid, bool (*fn)(const struct proc_mapping *m, void *arg), void *arg)
{
	bool fresh = true, found = false;
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return false;

	/* a path longer than the buffer comes in several pieces */
	while (!found && fgets(line, sizeof(line), f)) {
		struct proc_mapping m = { 0 };
		unsigned long start, end, pgoff, ino;
		unsigned int maj, min;
		char perms[5];

		if (fresh && sscanf(line, "%lx-%lx %4s %lx %x:%x %lu", &start, &end, perms, &pgoff, &maj, &min, &ino) == 7) {
			m.start = start;
			m.end = end;
			m.pgoff = pgoff;
			m.id = (struct inode_id){ .dev = makedev(maj, min), .ino = ino };
			m.is_private = perms[3] == 'p';
			found = fn(&m, arg);
		}
		fresh = strchr(line, '\n') != NULL;
	}

	fclose(f);
	return found;
}

struct id_list {
	const struct inode_id *ids;
	size_t nr;
};

static bool is_of(const struct proc_mapping *m, void *arg)
{
	const struct id_list *list = arg;
	size_t i;

	for (i = 0; m->id.ino && i < list->nr; i++)
		if (list->ids[i].ino == m->id.ino && list->ids[i].dev == m->id.dev)
			return true;

	return false;
}

struct addr_query {
	uint64_t addr;
	struct proc_mapping *result;
};

static bool is_at(const struct proc_mapping *m, void *arg)
{
	const struct addr_query *q = arg;

	if (q->addr < m->start || q->addr >= m->end)
		return false;
	*q->result = *m;
	return true;
}

int find_mapping(pid_t pid, uint64_t addr, struct proc_mapping *m)
{
	struct addr_query q = { .addr = addr, .result = m };

	return find_in_maps(pid, is_at, &q);
}

int for_each_mapper(const struct inode_id *ids, size_t nr, int (*fn)(pid_t pid, int pidfd, void *arg), void *arg)
{
	struct id_list list = { .ids = ids, .nr = nr };
	struct dirent *de;
	int sum = 0;
	DIR *dir;

	dir = opendir("/proc");
	if (!dir)
		return 0;

	while ((de = readdir(dir))) {
		pid_t pid = (pid_t)strtol(de->d_name, NULL, 10);
		int pidfd;

		if (pid <= 0 || pid == getpid())
			continue;

		/* opened before the look, so that it is the same process after it */
		pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (pidfd < 0)
			continue;
		if (find_in_maps(pid, is_of, &list))
			sum += fn(pid, pidfd, arg);
		close(pidfd);
	}

	closedir(dir);
	return sum;
}

static void read_comm(pid_t pid, char *comm, size_t size)
{
	char path[64];
	ssize_t ret = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ret = read(fd, comm, size - 1);
		close(fd);
	}
	comm[ret > 0 ? ret : 0] = '\0';
	comm[strcspn(comm, "\n")] = '\0';
}

static int kill_one(pid_t pid, int pidfd, void *arg)
{
	void (*killed)(pid_t pid, const char *comm) = *(void (**)(pid_t, const char *))arg;
	char comm[32];

	read_comm(pid, comm, sizeof(comm));
	if (!syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) && killed)
		killed(pid, comm);
	return 1;
}

static int kill_again(pid_t pid, int pidfd, void *arg)
{
	(void)pid;
	(void)arg;
	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	return 1;
}

void kill_mappers(const struct inode_id *ids, size_t nr, void (*killed)(pid_t pid, const char *comm))
{
	struct timespec pause = { .tv_nsec = 1000000 };

	if (!for_each_mapper(ids, nr, kill_one, &killed))
		return;

	/* the dying still have their memory for a while, and may just have forked */
	while (for_each_mapper(ids, nr, kill_again, NULL))
		nanosleep(&pause, NULL);
}

/* /proc/<pid>/task/<tid>/syscall: "nr arg0 arg1 arg2 ..." in hex but for nr, or "running" */
static bool thread_in_madvise(const char *path, struct madvise_call *call, bool *running)
{
	unsigned long a0, a1, a2;
	char buf[256];
	ssize_t ret;
	long nr;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ret = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (ret <= 0)
		return false;
	buf[ret] = '\0';

	*running |= !strncmp(buf, "running", 7);
	if (sscanf(buf, "%ld %lx %lx %lx", &nr, &a0, &a1, &a2) != 4 || nr != SYS_madvise)
		return false;

	*call = (struct madvise_call){ .start = a0, .len = a1, .advice = (int)a2 };
	return true;
}

static int find_madvise_calls_once(pid_t pid, struct madvise_call *calls, int max, bool *running)
{
	struct dirent *de;
	char path[320];
	int nr = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return -errno;

	while (nr < max && (de = readdir(dir))) {
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", pid, de->d_name);
		if (thread_in_madvise(path, &calls[nr], running))
			nr++;
	}

	closedir(dir);
	return nr;
}

int find_madvise_calls(pid_t pid, struct madvise_call *calls, int max)
{
	int nr, tries;

	/*
	 * Who has raised an event has set its state to sleeping before we are
	 * woken, but we may have come for another event, a moment too early
	 * (userfaultfd_event_wait_completion() in the kernel). It can't get
	 * away, its event is not read.
	 */
	for (tries = 0; tries < 4; tries++) {
		bool running = false;

		nr = find_madvise_calls_once(pid, calls, max, &running);
		if (nr || !running)
			break;
		sched_yield();
	}

	return nr;
}
