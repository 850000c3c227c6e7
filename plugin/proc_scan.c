// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

/* Passes over /proc in a row that find nobody to kill */
#define KILL_CLEAN_PASSES 3

/*
 * Gone, a zombie, or a thread; or a process that even CAP_SYS_PTRACE, without
 * which there are no fork events to begin with, does not let us look at: it is of
 * a user namespace above ours, and what was restored here is not.
 */
static bool not_ours(int err)
{
	return err == ENOENT || err == ESRCH || err == EINVAL || err == EACCES || err == EPERM;
}

/* Calls fn for each mapping of pid until it returns true: 1 if it did, 0, -errno */
static int find_in_maps(pid_t pid, bool (*fn)(const struct proc_mapping *m, void *arg), void *arg)
{
	bool fresh = true;
	int found = 0;
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return not_ours(errno) ? 0 : -errno;

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

	if (!found && ferror(f))
		found = errno == ESRCH ? 0 : -EIO;
	fclose(f);
	return found;
}

struct id_list {
	const struct inode_id *ids;
	size_t nr;
};

bool inode_is_in(const struct inode_id *id, const struct inode_id *ids, size_t nr)
{
	size_t i;

	for (i = 0; id->ino && i < nr; i++)
		if (same_inode(id, &ids[i]))
			return true;

	return false;
}

static bool is_of(const struct proc_mapping *m, void *arg)
{
	const struct id_list *list = arg;

	return inode_is_in(&m->id, list->ids, list->nr);
}

struct addr_query {
	uint64_t addr;
	struct proc_mapping *result;
	bool some; /* the process has memory */
};

static bool is_at(const struct proc_mapping *m, void *arg)
{
	struct addr_query *q = arg;

	q->some = true;
	if (q->addr < m->start || q->addr >= m->end)
		return false;
	*q->result = *m;
	return true;
}

int find_mapping(pid_t pid, uint64_t addr, struct proc_mapping *m)
{
	struct addr_query q = { .addr = addr, .result = m };
	int ret;

	ret = find_in_maps(pid, is_at, &q);
	return !ret && !q.some ? -ESRCH : ret;
}

static bool is_any(const struct proc_mapping *m, void *arg)
{
	(void)m;
	(void)arg;
	return true;
}

bool has_memory(pid_t pid)
{
	return find_in_maps(pid, is_any, NULL) != 0;
}

struct range_query {
	struct id_list list;
	uint64_t start, end;
};

static bool is_of_in(const struct proc_mapping *m, void *arg)
{
	struct range_query *q = arg;

	return m->start < q->end && m->end > q->start && is_of(m, &q->list);
}

bool maps_between(pid_t pid, uint64_t start, uint64_t end, const struct inode_id *ids, size_t nr)
{
	struct range_query q = { .list = { .ids = ids, .nr = nr }, .start = start, .end = end };

	return find_in_maps(pid, is_of_in, &q) > 0;
}

bool maps_one_of(pid_t pid, const struct inode_id *ids, size_t nr)
{
	struct id_list list = { .ids = ids, .nr = nr };

	return find_in_maps(pid, is_of, &list) > 0;
}

/* What fn says of pid if it maps one of the list, 0, or -errno */
static int look_at(pid_t pid, struct id_list *list, int (*fn)(pid_t pid, int pidfd, void *arg), void *arg)
{
	int pidfd, ret;

	/* opened before the look, so that it is the same process after it */
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return not_ours(errno) ? 0 : -errno;

	ret = find_in_maps(pid, is_of, list);
	if (ret > 0)
		ret = fn(pid, pidfd, arg);
	close(pidfd);
	return ret;
}

static pid_t *spared;
static size_t nr_spared;

static bool is_spared(pid_t pid)
{
	size_t i;

	for (i = 0; i < nr_spared; i++)
		if (spared[i] == pid)
			return true;
	return false;
}

int scan_spare(pid_t pid, bool spare)
{
	pid_t *more;
	size_t i;

	if (!spare) {
		for (i = 0; i < nr_spared; i++)
			if (spared[i] == pid)
				spared[i--] = spared[--nr_spared];
		return 0;
	}

	more = reallocarray(spared, nr_spared + 1, sizeof(*spared));
	if (!more)
		return -ENOMEM;
	spared = more;
	spared[nr_spared++] = pid;
	return 0;
}

int for_each_mapper(const struct inode_id *ids, size_t nr, int (*fn)(pid_t pid, int pidfd, void *arg), void *arg)
{
	struct id_list list = { .ids = ids, .nr = nr };
	struct dirent *de;
	int sum = 0, err = 0;
	bool seen_self = false;
	DIR *dir;

	dir = opendir("/proc");
	if (!dir)
		return -errno;

	while (errno = 0, (de = readdir(dir))) {
		pid_t pid = (pid_t)strtol(de->d_name, NULL, 10);
		int ret;

		seen_self |= pid == getpid();
		if (pid <= 0 || pid == getpid() || is_spared(pid))
			continue;

		ret = look_at(pid, &list, fn, arg);
		if (ret < 0)
			err = ret;
		else
			sum += ret;
	}
	if (errno)
		err = -errno;
	else if (!seen_self) /* this is not /proc */
		err = -ENOENT;

	closedir(dir);
	return err ? err : sum;
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

struct killing {
	void (*told)(pid_t pid, const char *comm, int err);
	bool first; /* nobody was told yet of all there are */
};

static int kill_one(pid_t pid, int pidfd, void *arg)
{
	const struct killing *k = arg;
	char comm[32] = "";
	int err = 0;

	if (k->first)
		read_comm(pid, comm, sizeof(comm));
	if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0))
		err = errno == ESRCH ? 0 : errno;
	if (k->told && k->first)
		k->told(pid, comm, err);
	return 1;
}

void kill_mappers(const struct inode_id *ids, size_t nr, void (*told)(pid_t pid, const char *comm, int err))
{
	struct timespec pause = { .tv_nsec = 1000000 };
	struct killing k = { .told = told, .first = true };
	int clean = 0, ret, last_err = 0;

	/*
	 * The dying still have their memory for a while, and may just have
	 * forked: a child is not in what was read of /proc before it was born,
	 * while its parent is gone when we come to it.
	 */
	while (clean < KILL_CLEAN_PASSES) {
		ret = for_each_mapper(ids, nr, kill_one, &k);
		clean = ret ? 0 : clean + 1;
		if (ret >= 0)
			k.first = false;
		if (ret < 0 && ret != last_err && told)
			told(0, "", -ret);
		last_err = ret < 0 ? ret : last_err;
		nanosleep(&pause, NULL);
	}
}
