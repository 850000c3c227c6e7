/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_CGROUP_H
#define LSHM_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/*
 * Memory cgroups, version 1 or 2, as the daemon sees them. Pages of the page cache
 * are charged to the one of the process that allocates them.
 */
struct memcg {
	char path[PATH_MAX]; /* its directory */
	size_t mount_len;    /* how much of that is the mount point */
	size_t charged_len;  /* the directory of the one that is charged: with version 2 it may be an ancestor */
	bool v2;
};

/*
 * The one of a process. 0; -ENOENT: there is no memory controller; -EXDEV: it is not
 * below what is mounted here; or another -errno.
 */
int memcg_of(struct memcg *cg, pid_t pid);

/* The same from the texts of /proc/<pid>/cgroup and /proc/self/mountinfo. */
int memcg_parse(struct memcg *cg, FILE *cgroup, FILE *mountinfo);

/* Whether pages of both are charged to the same. */
bool memcg_same(const struct memcg *a, const struct memcg *b);

/* The file that moves processes to it. 0 or -ENAMETOOLONG. */
int memcg_procs(const struct memcg *cg, char *path, size_t size);

/*
 * Limits. A level is the length of a part of path: charged_len, and its parents.
 */

/* The parent of a level, or 0. */
size_t memcg_parent(const struct memcg *cg, size_t level);

/* Whether what is charged to cg counts for the level of other. */
bool memcg_is_below(const struct memcg *cg, const struct memcg *other, size_t level);

struct memcg_room {
	uint64_t limit; /* bytes; UINT64_MAX: none */
	uint64_t room;	/* how many bytes more it takes, by swapping if that may be; what can be read again from files is not counted as in use */
};

/* 0 or -errno. swap_free: bytes of swap that the machine has left. */
int memcg_room(const struct memcg *cg, size_t level, uint64_t swap_free, struct memcg_room *room);

/* Bytes; 0 if that can't be told. */
uint64_t free_swap(void);

/* How often a process of it was killed for lack of memory. */
uint64_t memcg_oom_kills(const struct memcg *cg);

#endif
