/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_REMOVAL_H
#define LSHM_REMOVAL_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <sys/types.h>

#include "proc_scan.h"

/*
 * MADV_DONTNEED and MADV_REMOVE raise the same event, but after the first the
 * contents of shared memory must be what they were, and after the second zero.
 * The thread that made the call is blocked in it until the event is read, so
 * before that its arguments are looked up in /proc. The way to know that there
 * is an event to be read, and not a fault: a userfaultfd that is readable
 * though its fdinfo has no pending faults.
 */
struct removal_watch {
	int fdinfo;  /* of the userfaultfd, or -1 */
	pid_t *pids; /* who might be its owner; one, once that is known */
	size_t nr_pids, cap_pids;
	struct madvise_calls calls;
	struct timespec last_event; /* when removal_peek() saw one */
};

enum removal_kind {
	REMOVAL_KEEPS,	 /* MADV_DONTNEED */
	REMOVAL_DROPS,	 /* MADV_REMOVE */
	REMOVAL_UNKNOWN, /* nobody found who made that call */
};

/* Event loop only, all of them. ids: the objects that the owner of uffd maps. */

void removal_init(struct removal_watch *w);
void removal_fini(struct removal_watch *w);

/* To be called when uffd is readable, before it is read. */
void removal_peek(struct removal_watch *w, int uffd, const struct inode_id *ids, size_t nr);

/*
 * Thread tid, as its own pid namespace counts, is blocked in a fault: that tells
 * who of several is the owner, unless they have equal ones in different namespaces.
 */
void removal_fault_of(struct removal_watch *w, pid_t tid, const struct inode_id *ids, size_t nr);

/*
 * What is mapped at addr by those who might be the owner of the userfaultfd: 1
 * one of the objects, *m tells; 0 none of them has an object there; -1 they
 * contradict each other.
 */
int removal_locate(struct removal_watch *w, uint64_t addr, const struct inode_id *ids, size_t nr,
		   struct proc_mapping *m);

/* What a remove event for [start, end) means, which was read after removal_peek(). */
enum removal_kind removal_classify(struct removal_watch *w, uint64_t start, uint64_t end, const struct inode_id *ids,
				   size_t nr);

#endif
