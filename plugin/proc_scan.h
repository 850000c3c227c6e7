/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PROC_SCAN_H
#define LSHM_PROC_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* An inode as /proc/<pid>/maps shows it */
struct inode_id {
	dev_t dev;
	ino_t ino;
};

/*
 * Who maps an object is not asked of tables, but of the kernel: a userfaultfd
 * has no pid, and children of children of restored tasks are in no table of
 * pids. All processes of this /proc are looked at, ourselves excepted.
 */

/* Calls fn for each process that maps one of ids. The sum of what fn returned. */
int for_each_mapper(const struct inode_id *ids, size_t nr, int (*fn)(pid_t pid, int pidfd, void *arg), void *arg);

/*
 * Kills whoever maps one of ids, until nobody does. Called with each pid that
 * is killed. Blocks for as long as that takes; whoever calls it must keep the
 * userfaultfds open, or the tasks would run on zeroes instead.
 */
void kill_mappers(const struct inode_id *ids, size_t nr, void (*killed)(pid_t pid, const char *comm));

/* A line of /proc/<pid>/maps, in bytes */
struct proc_mapping {
	uint64_t start, end, pgoff;
	struct inode_id id;
	int is_private;
};

/* The mapping of pid that contains addr: 1 found, 0 none (or no such process). */
int find_mapping(pid_t pid, uint64_t addr, struct proc_mapping *m);

/* A madvise() that a thread of the process is blocked in */
struct madvise_call {
	uint64_t start, len;
	int advice;
};

/* Fills calls with what threads of pid are in, at most max. How many there are, or -errno. */
int find_madvise_calls(pid_t pid, struct madvise_call *calls, int max);

#endif
