/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_OWNER_H
#define LSHM_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proc_scan.h"

/*
 * Whose userfaultfd it is: a process, as it has no pid in it. Until something
 * tells, all who map the objects might be. Processes that share the owner's memory
 * (vfork(), clone(CLONE_VM)) use the same userfaultfd. Zeroed is: nobody noted.
 * The event loop's alone. ids: the objects that the owner maps.
 */
struct owner {
	pid_t *pids; /* who might be the owner; the one, once it is known */
	size_t nr, cap;
	bool known;
	pid_t vpid; /* its pid in its own namespace where that is known, or 0 */
	unsigned int guesses;
};

void owner_fini(struct owner *o);

/* Looks for who might be it, unless that is known. 0 or -errno, with nobody noted. */
int owner_find(struct owner *o, const struct inode_id *ids, size_t nr);

/* It is pid. */
void owner_is(struct owner *o, pid_t pid);

/*
 * Thread tid, as its own pid namespace counts, is blocked in the fault that is to be
 * answered: that tells who of several is the owner, unless they have equal ones in
 * different namespaces, or it reaches into the memory of another.
 */
void owner_find_by_fault(struct owner *o, pid_t tid, const struct inode_id *ids, size_t nr);

/* The same where that costs little, with the first faults: tid may be one of our own namespace. */
void owner_guess(struct owner *o, pid_t tid, const struct inode_id *ids, size_t nr);

/* Whether pid is one of those, or has the same memory. */
bool owner_may_be(const struct owner *o, pid_t pid);

/* Calls fn for each process that has the memory of one of those noted; owner is the eldest of them. */
void owner_for_each(const struct owner *o, void (*fn)(pid_t pid, pid_t owner, void *arg), void *arg);

/*
 * What is mapped at addr by those who might be the owner: 1 one of the objects, *m
 * tells, for as far as all agree; 0 none of them has an object there; -1 they
 * contradict each other.
 */
int owner_locate(struct owner *o, uint64_t addr, const struct inode_id *ids, size_t nr, struct proc_mapping *m);

#endif
