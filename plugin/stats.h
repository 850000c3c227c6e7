/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_STATS_H
#define LSHM_STATS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What is counted of each object and each task, for report.h and progress.h. The
 * event loop's alone. Nothing here decides anything.
 */

#define STALL_BUCKETS 24

/*
 * How long threads stood still: from the moment a fault was read to the one at which its
 * page was mapped. Bucket i counts those of [2^i, 2^(i+1)) us; the first one has
 * what was shorter as well, the last one what was longer.
 */
struct stalls {
	uint64_t bucket[STALL_BUCKETS];
	uint64_t nr;
	uint64_t total, max; /* ns */
};

/* Of the faults of a task, or of those on an object */
struct fault_stats {
	uint64_t missing; /* events: nothing was at that page of the object */
	uint64_t minor;	  /* events: it was there, and not mapped */
	uint64_t windows; /* UFFDIO_CONTINUE */
	uint64_t mapped;  /* pages, by these */
	uint64_t ahead;	  /* of which no fault was answered with, but one on a neighbour */
	struct stalls stalls;
};

/* Why a page was filled */
enum filled_by {
	FILLED_FAULT,	   /* a fault waited for it */
	FILLED_WINDOW,	   /* one waited for a page nearby */
	FILLED_BACKGROUND, /* nobody asked */
	FILLED_RECORD,	   /* nobody asked, but an earlier restore went there early */
	NR_FILLED_BY,
};

/* Where its contents came from */
enum source {
	SOURCE_IMAGE,
	SOURCE_PARENT, /* an image of an earlier dump */
	SOURCE_SERVER, /* the page server */
	NR_SOURCES,
};

struct object_stats {
	struct fault_stats faults;
	uint64_t filled[NR_FILLED_BY]; /* pages */
	uint64_t zeroed;	       /* pages of holes allocated for a fault */
	uint64_t bytes[NR_SOURCES];
	uint64_t to_fill;   /* pages the images have */
	unsigned int tasks; /* that mapped it, children included */
	int image_fd;	    /* segments of this one are not a parent's; -1: none */
	uint64_t completed; /* stats_now(), or 0 */
	char *name;	    /* of its file, for people; or NULL */
};

enum task_end {
	TASK_SERVED,  /* not yet */
	TASK_RETIRED, /* let go: all of its memory had come */
	TASK_ENDED,   /* it exited, or was killed, before that */
};

/* Stays when the task has gone. */
struct task_stats {
	struct task_stats *next;
	int pid;	       /* as its own pid namespace counts; 0: of several tasks together */
	unsigned int nr_tasks; /* 1, unless these are several */
	bool forked;	       /* in the lazy window, by one of this pid or a child of it */
	enum task_end end;
	uint64_t ended; /* stats_now(), or 0 */
	struct fault_stats faults;
};

/* So many tasks are told apart, the others are one: a task may fork without end */
#define MAX_TASK_STATS 4096

struct fill_job;

/* CLOCK_MONOTONIC in ns: never 0 */
uint64_t stats_now(void);

void stalls_add(struct stalls *s, uint64_t ns);

/* An estimate, from the buckets, of what so many of a thousand are not longer than. In ns; 0 if there are none. */
uint64_t stalls_quantile(const struct stalls *s, unsigned int permille);

/* Adds up, into *sum */
void fault_stats_add(struct fault_stats *sum, const struct fault_stats *f);
void object_stats_add(struct object_stats *sum, const struct object_stats *s);

uint64_t stats_filled(const struct object_stats *s);
uint64_t stats_faults(const struct fault_stats *f);

/* fd: of the object */
void stats_object_init(struct object_stats *s, int fd, uint64_t to_fill, int image_fd);
void stats_object_fini(struct object_stats *s);

/* Never NULL: without memory they are those of the tasks that are not told apart. */
struct task_stats *stats_task_new(int pid);
void stats_task_end(struct task_stats *t, enum task_end end);
const struct task_stats *stats_tasks(void);
const char *task_end_name(enum task_end end);
void stats_fini(void);

/* A fault was read; flags are UFFD_PAGEFAULT_FLAG_* */
void stats_fault(struct object_stats *s, struct task_stats *t, uint64_t flags);

/* So many pages were mapped, with so many ioctls; asked: a fault waited for one of them */
void stats_mapped(struct object_stats *s, struct task_stats *t, uint64_t ioctls, uint64_t pages,
		  bool asked);

/* The thread goes on. *since: when its fault was read, 0: that was counted before; 0 from here on. */
void stats_answered(struct object_stats *s, struct task_stats *t, uint64_t *since);

/* A job that went well */
void stats_job(struct object_stats *s, const struct fill_job *job);

#endif
