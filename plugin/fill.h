/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_FILL_H
#define LSHM_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Fill workers: threads that copy from an image to the page cache of an object
 * and know nothing else. They do not log (CRIU's log is not thread-safe), touch
 * no userfaultfd and no table; they hand results back through fill_reap().
 */

/*
 * The largest piece a worker moves before it looks for something more urgent, huge pages
 * excepted; and one of an object whose page cache may have large folios, see folios.h.
 */
#define FILL_UNIT	(512UL << 10)
#define FILL_FOLIO_UNIT (2UL << 20)
#define FILL_SEGS	64 /* in such a piece */

#define SEG_REMOTE -1 /* instead of a descriptor: the same offset of object shmid at the page server */

/* One run to copy: lengths and offsets in bytes. */
struct fill_seg {
	uint64_t off;	  /* in the object */
	uint64_t src_off; /* in the image */
	uint32_t len;
	int src_fd;
};

enum fill_result {
	FILL_OK,
	FILL_READ_ERROR,   /* err: errno of reading the image */
	FILL_SHORT,	   /* the image ends before the segment does */
	FILL_WRITE_ERROR,  /* err: errno of writing to the object */
	FILL_LANE_DIED,	   /* err: wait status of the process that had the job, see lane.h */
	FILL_PEER_LOST,	   /* err: what became of the connection to the page server, EPROTO: it lied */
	FILL_PEER_REFUSED, /* the page server will not send it */
};

enum fill_way {
	FILL_PWRITE,   /* len is FILL_FOLIO_UNIT at most */
	FILL_MAPPED,   /* pwrite() is not for hugetlbfs; off and len are a page of it */
	FILL_ALLOCATE, /* what is absent of a hole is to be zeroes; there are no segments */
};

/* Why a job was made */
enum fill_cause {
	FILL_FAULT,	 /* a fault waits for it */
	FILL_BACKGROUND, /* nobody asked */
	FILL_RECORD,	 /* nobody asked, but somebody will: an earlier restore went there early */
};

/*
 * Self-contained: nothing a job needs is behind a pointer into the daemon's
 * state, so that a filler could be a process of its own. The submitter owns it
 * before fill_submit() and after fill_reap(). What no segment covers is a hole
 * and not touched.
 */
struct fill_job {
	struct fill_job *next; /* the pool's */
	void *owner;	       /* the submitter's */
	uint64_t cookie;       /* the lane's, see lane.h; and so is urgent */
	int urgent;
	enum fill_cause cause; /* the submitter's; it may be urgent even so, when a fault came later */
	int remote;	       /* the submitter's: some segment is SEG_REMOTE */
	int obj_fd;
	uint32_t shmid; /* of the object */
	enum fill_way way;
	uint64_t obj_size; /* bytes; segments may end behind it, in the same page */
	uint64_t off, len; /* bytes of the object, all segments are in there */

	/* filled in by the worker */
	enum fill_result result;
	int err;	  /* errno value */
	uint64_t err_off; /* in the object */

	unsigned int nr_segs;
	struct fill_seg segs[];
};

struct fill_pool;

/*
 * Starts nr threads with all signals blocked, and if hurry one more that takes urgent jobs
 * only, so that no fault waits until one of the others has finished what it is at. 0 or -errno.
 */
int fill_pool_create(struct fill_pool **pool, unsigned int nr, bool hurry);

/* Readable when fill_reap() has something to return; read it before reaping. */
int fill_pool_eventfd(const struct fill_pool *pool);

/* Urgent jobs go before all others, in the order they came. */
void fill_submit(struct fill_pool *pool, struct fill_job *job, int urgent);

/*
 * Makes the job of owner that writes offset off of the object urgent; does
 * nothing if a worker has it already.
 */
void fill_promote(struct fill_pool *pool, const void *owner, uint64_t off);

/* Finished jobs, linked by next, oldest first; NULL if there are none. */
struct fill_job *fill_reap(struct fill_pool *pool);

/*
 * Lets the workers finish what they have in hand and frees everything, jobs
 * that were not reaped included.
 */
void fill_pool_destroy(struct fill_pool *pool);

/* Copies one job in the calling thread; buf holds FILL_FOLIO_UNIT bytes. */
void fill_run(struct fill_job *job, void *buf);

/*
 * The same, if the images are in the page cache: it does not wait for a disk. False: the job is
 * as it was and is to be given to somebody else. FILL_PWRITE only. map: all of the object, whole
 * pages. While it runs pages may be there that are not full yet, so it is for the event loop.
 */
bool fill_run_cached(struct fill_job *job, char *map);

#endif
