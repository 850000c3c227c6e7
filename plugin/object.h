/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_OBJECT_H
#define LSHM_OBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/list.h"
#include "extents.h"
#include "page_map.h"
#include "proc_scan.h"

struct fill_job;
struct images;
struct task;

/* Only object.c changes it */
enum object_state {
	OBJECT_FILLING,	  /* some of its contents are not in the page cache yet */
	OBJECT_COMPLETE,  /* all are */
	OBJECT_FAILED,	  /* they can not be had, whoever maps it was killed */
	OBJECT_ABANDONED, /* nobody maps it any more */
};

/* A shmem inode that is being filled. The event loop's alone. */
struct object {
	struct list_head l;
	uint32_t shmid;
	uint64_t size; /* bytes */
	int fd;
	struct inode_id id;
	enum object_state state;

	struct images *images; /* keeps the sources of the extents open */
	struct extents extents;
	struct page_map map;
	unsigned long cursor; /* page where background fill goes on */

	struct list_head waiters; /* struct waiter, faults on pages that are not filled */

	struct timespec began;
	uint64_t filled;    /* pages written from the images */
	uint64_t zeroed;    /* pages of holes allocated for a fault */
	uint64_t faults;    /* events */
	uint64_t mapped;    /* pages mapped by UFFDIO_CONTINUE */
	unsigned int tasks; /* that mapped it, children included */
};

/* A thread of task waits at addr for a page */
struct waiter {
	struct list_head l;
	struct task *task;
	uint64_t addr;	/* of the page */
	uint64_t flags; /* of the fault, where addr is in no known mapping */
	unsigned long page;
};

/*
 * All functions belong to the event loop. Those that can fail log the reason
 * and return 0 or -1. Pages are counted from the beginning of the object.
 */

/* Takes fd over if it succeeds. */
int object_add(uint32_t shmid, uint64_t size, int fd);
struct object *object_find(uint32_t shmid);

/* Where events are waited for, and how many threads may fill. */
void objects_init(int epollfd, unsigned int workers);

/* The tasks run: all objects are filled now, and complete when they are. */
int objects_start(void);

/*
 * Has the event loop call tasks_retry() soon, after it has looked at the
 * userfaultfds, and look for tasks that are not busy any more.
 */
void objects_kick(void);

/* A fault must wait for page: it is filled next, before objects_start() as well. */
int object_wait(struct object *obj, unsigned long page, struct task *task, uint64_t addr);

/*
 * A task punched pages: their contents are gone, what comes from the images must
 * not come back.
 */
void object_punched(struct object *obj, unsigned long page, unsigned long nr);

/* Allocates a hole for a fault; pages that are there stay as they are. */
int object_zero(struct object *obj, unsigned long page);

/* No more faults of this task will be answered. */
void object_forget_waiters(struct object *obj, const struct task *task);

/*
 * No task maps it any more, or CRIU has let go of the last one that does. If it
 * is not complete it is abandoned: nobody can look at its contents.
 */
void object_unmapped(struct object *obj);

/*
 * Gives the object up, for the reason already logged: kills whoever maps it,
 * because none of them can go on.
 */
void object_fail(struct object *obj);

/* Gives up all that are not complete. */
void objects_fail_all(void);

/* Some object had to be given up. */
bool objects_failed(void);

/* Pages that hold size bytes. */
unsigned long size_to_pages(uint64_t size);

/* Stops the workers and frees all. */
void objects_fini(void);

#endif
