// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>

#include "criu_internals.h"
#include "fill.h"
#include "filling.h"
#include "folios.h"
#include "modes.h"
#include "object.h"
#include "progress.h"
#include "record.h"
#include "route.h"
#include "settings.h"
#include "task.h"

/* The daemon looks for tasks that vanished once in so many jobs */
#define PROBE_JOBS 64

/* Small jobs for no fault that the event loop does itself before it looks for faults again */
#define MAX_AT_ONCE 32

static struct fill_pool *pool;
static struct epoll_rfd pool_rfd;
static int epoll_fd = -1;
static unsigned int nr_reaped;
static unsigned int nr_at_once; /* jobs that the event loop has done itself since it was last called */

static unsigned long job_pages(const struct fill_job *job)
{
	const struct object *obj = job->owner;

	return (unsigned long)(job->len / obj->page_size);
}

/* Whether a job that begins there is for who fetches from the page server, as make_job() has it */
static bool is_remote(const struct object *obj, unsigned long page)
{
	uint64_t off = (uint64_t)page * obj->page_size, end = off + (object_is_huge(obj) ? obj->page_size : 1);
	const struct extent *e;

	for (e = extents_from(&obj->extents, off); e && e->off < end; e = extents_next(&obj->extents, e))
		if (e->src_fd == SEG_REMOTE)
			return true;
	return false;
}

/*
 * Bytes of a job for no fault that begins with page: where folios may be large up to the
 * next multiple, so that each of them is written at once and nothing zeroed before.
 */
static uint64_t fill_unit(const struct object *obj, unsigned long page)
{
	if (object_is_huge(obj) || !folios_may_be_large() || is_remote(obj, page))
		return FILL_UNIT;
	return FILL_FOLIO_UNIT - (uint64_t)page * obj->page_size % FILL_FOLIO_UNIT;
}

/* Puts pages [page, page + nr), all EMPTY, into a new job: as many as fit, one at least */
static struct fill_job *make_job(struct object *obj, unsigned long page, unsigned long nr, enum fill_cause cause)
{
	uint64_t off = (uint64_t)page * obj->page_size;
	uint64_t end = off + (uint64_t)nr * obj->page_size;
	unsigned int nr_segs = FILL_SEGS;
	const struct extent *e;
	struct fill_job *job;

	if (object_is_huge(obj)) {
		/* a huge page is filled as a whole, however many extents it has */
		end = off + obj->page_size;
		nr_segs = extents_count(&obj->extents, off, end);
	} else {
		uint64_t unit = fill_unit(obj, page);

		if (end > off + unit)
			end = off + unit;
	}

	job = malloc(sizeof(*job) + nr_segs * sizeof(job->segs[0]));
	if (!job)
		return NULL;

	*job = (struct fill_job){
		.owner = obj,
		.cause = cause,
		.off = off,
		.shmid = obj->shmid,
		.way = object_is_huge(obj) ? FILL_MAPPED : FILL_PWRITE,
		.obj_fd = obj->fd,
		.obj_size = obj->size,
	};

	for (e = extents_from(&obj->extents, off); e && e->off < end && job->nr_segs < nr_segs;
	     e = extents_next(&obj->extents, e)) {
		uint64_t from = e->off > off ? e->off : off;
		uint64_t to = e->off + e->len < end ? e->off + e->len : end;
		bool remote = e->src_fd == SEG_REMOTE;

		/* who fetches pages does not read images as well, unless it must: a huge page is one job */
		if (job->nr_segs && remote != job->remote && !object_is_huge(obj))
			break;
		job->remote |= remote;
		job->segs[job->nr_segs++] = (struct fill_seg){
			.off = from,
			.src_off = e->src_off + (from - e->off),
			.len = (uint32_t)(to - from),
			.src_fd = e->src_fd,
		};
		off = to;
	}

	job->len = (object_is_huge(obj) ? end : off) - job->off;
	page_map_set(&obj->map, page, job_pages(job), PAGE_FILLING);
	return job;
}

bool filling_is_allowed(const struct object *obj, unsigned long page)
{
	return objects_started() || obj->delivery == CR_SHMEM_BEFORE_RESUME || !is_remote(obj, page);
}

static void job_failed(struct object *obj, const struct fill_job *job)
{
	char why[PATH_MAX + 128];

	/* a hole may be wanted when all else has come, but not by who was let go since */
	if (obj->state != OBJECT_FILLING && (job->way != FILL_ALLOCATE || list_empty(&obj->waiters)))
		return;

	switch (job->result) {
	case FILL_READ_ERROR:
		pr_err("Object %#x: can't read the contents of offset %#" PRIx64 ": %s; check the images' disk\n", obj->shmid,
		       job->err_off, strerror(job->err));
		break;
	case FILL_SHORT:
		pr_err("Object %#x: the images end before the contents of offset %#" PRIx64
		       "; were they truncated during restore?\n",
		       obj->shmid, job->err_off);
		break;
	case FILL_LANE_DIED:
		pr_err("Object %#x: can't get the contents of offset %#" PRIx64 ": the process that brings them %s\n",
		       obj->shmid, job->err_off, route_why_died(obj, job->err, why, sizeof(why)));
		break;
	case FILL_PEER_LOST:
		pr_err("Object %#x: the page server was lost before the contents of offset %#" PRIx64
		       " came: %s; is the source still there? See its log and the lines above\n",
		       obj->shmid, job->err_off, strerror(job->err));
		break;
	case FILL_PEER_REFUSED:
		pr_err("Object %#x: the page server refuses the contents of offset %#" PRIx64 "; see its log\n", obj->shmid,
		       job->err_off);
		break;
	default:
		pr_err("Object %#x: can't store the contents of offset %#" PRIx64
		       ": %s; check memory and the limits of the cgroup of %s\n",
		       obj->shmid, job->err_off, strerror(job->err), route_cgroup(obj));
		break;
	}
	object_fail(obj);
}

static void job_done(struct fill_job *job)
{
	struct object *obj = job->owner;

	if (job->result == FILL_OK)
		stats_job(&obj->stats, job);
	if (job->result != FILL_OK)
		job_failed(obj, job);
	else if (job->way == FILL_ALLOCATE)
		object_zeroed(obj, (unsigned long)(job->off / obj->page_size));
	else
		object_filled(obj, (unsigned long)(job->off / obj->page_size), job_pages(job), job->cause);
	record_filled(job);
	free(job);
}

/*
 * A copy from the page cache takes less time than to wake another thread for it, who may
 * have to wait for a processor. True: it is done, and was accounted for.
 */
static bool done_at_once(struct fill_job *job)
{
	struct object *obj = job->owner;
	char *map;

	if (job->way != FILL_PWRITE || !route_is_own(job))
		return false;
	map = object_door(obj);
	if (!map || !fill_run_cached(job, map))
		return false;

	job_done(job);
	return true;
}

/* Submits EMPTY pages that no fault waits for. How many; 0: not now, or obj has failed. */
static unsigned long submit_ahead(struct object *obj, unsigned long page, unsigned long nr, enum fill_cause cause)
{
	/* restore waits for those */
	bool wanted = obj->delivery == CR_SHMEM_BEFORE_RESUME;
	bool idle = route_is_idle(obj, is_remote(obj, page));
	/*
	 * Many small ones, and the event loop has faults to answer as well. Where it could not do
	 * the last one they are for the others, who must not be given more than they can do.
	 */
	bool at_once = cause == FILL_RECORD && nr <= WINDOW_FILL_PAGES && nr_at_once < MAX_AT_ONCE &&
		       (idle || !obj->not_at_once);
	struct fill_job *job;

	if (!filling_is_allowed(obj, page) || (!wanted && !modes_may_fill()))
		return 0;
	if (!at_once && !idle)
		return 0;

	job = make_job(obj, page, nr, cause);
	if (!job) {
		pr_err("Object %#x: no memory to fill offset %#" PRIx64 "\n", obj->shmid, (uint64_t)page * obj->page_size);
		object_fail(obj);
		return 0;
	}

	nr = job_pages(job);
	modes_spent(job->len, wanted);
	record_submitted(job);
	if (at_once && done_at_once(job)) {
		nr_at_once++;
		obj->not_at_once = false;
	} else {
		obj->not_at_once |= at_once;
		route_submit(pool, job);
	}
	return nr;
}

/* What an earlier restore wanted first */
static bool submit_record(struct object *obj)
{
	unsigned long page, nr;

	return record_next(obj, &page, &nr) && submit_ahead(obj, page, nr, FILL_RECORD);
}

/* Submits the next piece of obj for no fault; false if there is none. */
static bool submit_background(struct object *obj)
{
	unsigned long page, nr;

	if (!object_wants_fill(obj) || !obj->map.empty)
		return false;
	if (obj->delivery == CR_SHMEM_LAZY && !modes_background())
		return false;

	page = page_map_next_empty(&obj->map, obj->cursor);
	if (page == obj->map.pages)
		page = page_map_next_empty(&obj->map, 0);
	/* what is behind us need not be looked at again, it may be much */
	obj->cursor = page;

	nr = submit_ahead(obj, page, page_map_run(&obj->map, page, size_to_pages(fill_unit(obj, page), obj->page_size)),
			  FILL_BACKGROUND);
	obj->cursor = page + nr;
	return nr > 0;
}

/* What restore waits for must not wait for what was recorded */
static bool submit_before_resume(struct object *obj)
{
	return obj->delivery == CR_SHMEM_BEFORE_RESUME && submit_background(obj);
}

static void submit_in_turns(bool (*submit)(struct object *obj))
{
	struct object *obj, *n;
	bool some = true;

	while (some) {
		some = false;
		list_for_each_entry_safe(obj, n, &objects, l) {
			if (submit(obj)) {
				some = true;
				/* who was served goes to the end */
				list_move_tail(&obj->l, &objects);
			}
		}
	}
}

void filling_more(void)
{
	submit_in_turns(submit_before_resume);
	nr_at_once = 0;
	submit_in_turns(submit_record);
	if (nr_at_once == MAX_AT_ONCE)
		filling_kick();
	submit_in_turns(submit_background);
}

static void reap(struct fill_job *jobs)
{
	struct fill_job *job, *next;

	for (job = jobs; job; job = next) {
		next = job->next;
		route_done(job);
		job_done(job);

		if (++nr_reaped % PROBE_JOBS == 0)
			tasks_probe();
	}
}

int filling_event(void)
{
	tasks_retry();
	/* a process may have ended before there is work for threads */
	if (pool)
		reap(fill_reap(pool));
	reap(routes_reap());
	progress_activity();
	filling_more();
	if (objects_started())
		routes_trim();
	if (objects_answer_commit())
		return -1;

	return tasks_some_dropped();
}

/* Jobs of the threads are done, or somebody called filling_kick() */
static int pool_event(struct epoll_rfd *rfd)
{
	uint64_t n;

	if (read(rfd->fd, &n, sizeof(n)) < 0 && errno != EAGAIN) {
		pr_perror("Can't read eventfd");
		return -1;
	}

	return filling_event();
}

void filling_kick(void)
{
	uint64_t one = 1;

	if (pool && write(fill_pool_eventfd(pool), &one, sizeof(one)) < 0)
		pr_perror("Can't write eventfd");
}

void filling_init(int epollfd)
{
	epoll_fd = epollfd;
	routes_init(epollfd);
}

void filling_fini(void)
{
	routes_fini();
	fill_pool_destroy(pool);
	pool = NULL;
}

int filling_start(void)
{
	int err;

	if (pool)
		return 0;

	err = fill_pool_create(&pool, settings.workers, true);
	if (err) {
		pr_err("Can't start %u fill workers: %s\n", settings.workers, strerror(-err));
		return -1;
	}

	pool_rfd.fd = fill_pool_eventfd(pool);
	pool_rfd.read_event = pool_event;
	if (!epoll_add_rfd(epoll_fd, &pool_rfd))
		return 0;

	fill_pool_destroy(pool);
	pool = NULL;
	return -1;
}

/* Of win, the run of EMPTY pages that page is in */
static struct fill_job *make_urgent_job(struct object *obj, unsigned long page, const struct window *win)
{
	unsigned long first = page;

	while (first > win->first && page_map_get(&obj->map, first - 1) == PAGE_EMPTY)
		first--;

	return make_job(obj, first, page_map_run(&obj->map, first, win->end - first), FILL_FAULT);
}

int filling_urgent(struct object *obj, unsigned long page, const struct window *win)
{
	struct fill_job *job;

	if (page_map_get(&obj->map, page) != PAGE_EMPTY) {
		/* on its way; if it is still queued, then before all others */
		route_promote(pool, obj, (uint64_t)page * obj->page_size);
		return 0;
	}

	if (win->is_run) {
		/* what comes next in a run will be wanted next */
		obj->cursor = win->end;
		list_move(&obj->l, &objects);
	}

	/* a job holds a limited number of extents: go on until page itself is in one */
	while (page_map_get(&obj->map, page) == PAGE_EMPTY) {
		job = make_urgent_job(obj, page, win);
		if (!job)
			return -ENOMEM;
		modes_spent(job->len, true);
		if (!done_at_once(job))
			route_submit(pool, job);
	}
	return 0;
}

int filling_allocate(struct object *obj, uint64_t off, uint64_t len)
{
	struct fill_job *job;

	if (!route_is_foreign(obj))
		return 0;

	/* the threads are not needed, but to be told of a process that has died */
	job = filling_start() ? NULL : malloc(sizeof(*job));
	if (!job)
		return -ENOMEM;

	*job = (struct fill_job){
		.owner = obj,
		.off = off,
		.len = len,
		.shmid = obj->shmid,
		.way = FILL_ALLOCATE,
		.obj_fd = obj->fd,
		.obj_size = obj->size,
	};
	route_submit(pool, job);
	return 1;
}
