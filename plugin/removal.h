/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_REMOVAL_H
#define LSHM_REMOVAL_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <sys/types.h>

#include "owner.h"
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
	int fdinfo; /* of the userfaultfd, or -1 */
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
void removal_peek(struct removal_watch *w, struct owner *o, int uffd, const struct inode_id *ids, size_t nr);

/*
 * What a remove event for [start, end) means, which was read after removal_peek().
 * The owner is known then, unless it returns REMOVAL_UNKNOWN.
 */
enum removal_kind removal_classify(struct removal_watch *w, struct owner *o, uint64_t start, uint64_t end,
				   const struct inode_id *ids, size_t nr);

/* The same, where it does not matter: so that the call is not taken for a later one. */
void removal_pass(struct removal_watch *w, uint64_t start, uint64_t end);

#endif
