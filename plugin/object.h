/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_OBJECT_H
#define LSHM_OBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/list.h"
#include "criu.h"
#include "extents.h"
#include "fill.h"
#include "page_map.h"
#include "proc_scan.h"
#include "record.h"
#include "stats.h"

struct images;
struct record;
struct route;
struct task;

/* Only object.c changes it */
enum object_state {
	OBJECT_FILLING,	  /* some of its contents are not in the page cache yet */
	OBJECT_COMPLETE,  /* all are */
	OBJECT_FAILED,	  /* they can not be had: whoever maps it was killed, or restore fails */
	OBJECT_ABANDONED, /* nobody maps it any more */
};

/* A shmem inode that is being filled. The event loop's alone. */
struct object {
	struct list_head l;
	uint32_t shmid;
	uint64_t size;		/* bytes */
	unsigned int page_size; /* bytes; what one page of map stands for */
	enum cr_shmem_delivery delivery;
	int fd;
	bool not_at_once; /* the event loop could not do the last job that it tried: the images are not cached, say */
	char *door;	  /* all of it, mapped for small jobs of the event loop itself; or NULL */
	struct inode_id id;
	enum object_state state;

	struct route *route;   /* who fills it */
	struct images *images; /* keeps the sources of the extents open */
	struct extents extents;
	struct page_map map;
	struct record *record; /* which pages are wanted first; or NULL */
	unsigned long cursor;  /* page where background fill goes on */

	struct list_head waiters;	  /* struct waiter, faults on pages that are not filled */
	struct list_head partial_punches; /* struct partial_punch */

	struct timespec began; /* to be filled without being asked */
	struct object_stats stats;
};

/* A thread of task waits at addr for a page */
struct waiter {
	struct list_head l;
	struct task *task;
	uint64_t addr;	/* of the page */
	uint64_t flags; /* of the fault, where addr is in no known mapping */
	pid_t tid;	/* as in task_fault(), there as well */
	uint64_t since; /* task->asked of the fault */
	unsigned long page;
};

/*
 * A task punched a part of a huge page that is not filled: it is punched again
 * when it is. In bytes, from the beginning of the object.
 */
struct partial_punch {
	struct list_head l;
	uint64_t off, len;
};

/* All of them, in the order in which background fill takes turns */
extern struct list_head objects;

static inline bool object_is_huge(const struct object *obj)
{
	return obj->page_size > PAGE_SIZE;
}

/* Its door, opened if need be; NULL: can't be had. */
char *object_door(struct object *obj);

/* Pages that hold size bytes. */
unsigned long size_to_pages(uint64_t size, unsigned int page_size);

/*
 * All functions belong to the event loop. Those that can fail log the reason
 * and return 0 or -1. Pages are counted from the beginning of the object.
 */

/* Takes fd over if it succeeds. */
int object_add(const struct cr_shmem_object *desc, int fd);
struct object *object_find(uint32_t shmid);

/* What the COMMIT hook returns. */
int objects_commit(void);

/* Answers COMMIT if that had to wait and need not any more. */
int objects_answer_commit(void);

/* The tasks run: all objects are filled now, and complete when they are. */
int objects_start(void);
bool objects_started(void);

/* Whether its pages should be filled without anybody having asked for them. */
bool object_wants_fill(const struct object *obj);

/* All of it may have come: tasks that map it lazily are not let go before they run, though. */
void object_check_complete(struct object *obj);

/*
 * contents.c: what becomes of its pages
 */

/* The fill workers brought these pages, all of which were FILLING or DOOMED. */
void object_filled(struct object *obj, unsigned long page, unsigned long nr, enum fill_cause cause);

/* A fault must wait for page: it is filled next, before objects_start() as well. */
int object_wait(struct object *obj, unsigned long page, struct task *task, uint64_t addr);

/*
 * A task punched this range (bytes): the contents are gone, what comes from the
 * images must not come back.
 */
void object_punched(struct object *obj, uint64_t off, uint64_t len);

/*
 * Allocates a hole for a fault of task at addr; pages that are there stay as they are.
 * 1: somebody else has to, for the sake of the cgroup; task_answer() is called then.
 */
int object_zero(struct object *obj, unsigned long page, struct task *task, uint64_t addr);
void object_zeroed(struct object *obj, unsigned long page);

/* No more faults of this task will be answered. */
void object_forget_waiters(struct object *obj, const struct task *task);

/*
 * object.c: its end
 */

/*
 * No task maps it any more, or CRIU has let go of the last one that does. If it
 * is not complete it is abandoned: nobody can look at its contents.
 */
void object_unmapped(struct object *obj);

/*
 * Gives the object up, for the reason already logged: kills whoever maps it,
 * because none of them can go on, or has restore fail if it is not lazy.
 */
void object_fail(struct object *obj);

/* Gives up all that are not complete. */
void objects_fail_all(void);

/* Some object had to be given up. */
bool objects_failed(void);

/* Stops the workers and frees all. */
void objects_fini(void);

#endif
