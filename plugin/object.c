// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "criu_internals.h"
#include "fill.h"
#include "guard.h"
#include "images.h"
#include "object.h"
#include "task.h"

/* The daemon looks for tasks that vanished once in so many jobs */
#define PROBE_JOBS 64

static LIST_HEAD(objects);
static struct fill_pool *pool;
static struct epoll_rfd pool_rfd;
static unsigned int nr_workers;
static int epoll_fd = -1;
static bool resumed;		   /* the tasks run: fill without being asked */
static unsigned int nr_background; /* jobs submitted for no fault */
static unsigned int nr_reaped;
static bool failed;

unsigned long size_to_pages(uint64_t size)
{
	return (size + PAGE_SIZE - 1) / PAGE_SIZE;
}

struct object *object_find(uint32_t shmid)
{
	struct object *obj;

	list_for_each_entry(obj, &objects, l)
		if (obj->shmid == shmid)
			return obj;

	return NULL;
}

static bool object_of_inode(const struct inode_id *id)
{
	struct object *obj;

	list_for_each_entry(obj, &objects, l)
		if (same_inode(&obj->id, id))
			return true;

	return false;
}

static void drop_waiters(struct object *obj)
{
	struct waiter *w, *n;

	list_for_each_entry_safe(w, n, &obj->waiters, l) {
		list_del(&w->l);
		free(w);
	}
}

static void object_free(struct object *obj)
{
	drop_waiters(obj);
	images_close(obj->images);
	extents_free(&obj->extents);
	page_map_fini(&obj->map);
	if (obj->fd >= 0)
		close(obj->fd);
	free(obj);
}

int object_add(uint32_t shmid, uint64_t size, int fd)
{
	struct object *obj;
	struct stat st;
	char name[64];
	size_t i;
	int err;

	obj = calloc(1, sizeof(*obj));
	if (!obj) {
		pr_err("Object %#x: no memory\n", shmid);
		return -1;
	}

	INIT_LIST_HEAD(&obj->l);
	INIT_LIST_HEAD(&obj->waiters);
	obj->shmid = shmid;
	obj->size = size;
	obj->fd = -1; /* the caller's until we succeed */
	obj->map.fd = -1;
	obj->state = OBJECT_FILLING;

	if (images_open(&obj->images, &obj->extents, shmid, size))
		goto err;

	snprintf(name, sizeof(name), "lazy-shmem-pages-%#x", shmid);
	err = page_map_init(&obj->map, name, size_to_pages(size));
	if (err) {
		pr_err("Object %#x: no memory to track %" PRIu64 " bytes: %s\n", shmid, size, strerror(-err));
		goto err;
	}
	for (i = 0; i < obj->extents.n; i++)
		page_map_set(&obj->map, obj->extents.v[i].off / PAGE_SIZE, obj->extents.v[i].len / PAGE_SIZE, PAGE_EMPTY);

	if (fstat(fd, &st)) {
		pr_perror("Object %#x: fstat", shmid);
		goto err;
	}
	obj->id = (struct inode_id){ .dev = st.st_dev, .ino = st.st_ino };
	if (object_of_inode(&obj->id)) {
		pr_err("Object %#x is the same inode as another object\n", shmid);
		goto err;
	}

	err = guard_start();
	if (!err)
		err = guard_watch(&obj->id);
	if (err) {
		pr_err("Object %#x: nobody would look after its users if this daemon died: %s\n", shmid, strerror(-err));
		goto err;
	}

	obj->fd = fd;
	list_add_tail(&obj->l, &objects);
	pr_info("Object %#x: %" PRIu64 " bytes, %lu pages to fill in %zu extents\n", shmid, size, obj->map.left,
		obj->extents.n);
	return 0;
err:
	object_free(obj);
	return -1;
}

static uint64_t ms_since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)(now.tv_sec - t->tv_sec) * 1000 + (uint64_t)(now.tv_nsec / 1000000) - (uint64_t)(t->tv_nsec / 1000000);
}

static void object_complete(struct object *obj)
{
	obj->state = OBJECT_COMPLETE;
	tasks_update_busy();
	pr_note("object %#x done: size=%" PRIu64 " pages_filled=%" PRIu64 " pages_zeroed=%" PRIu64 " faults=%" PRIu64
		" pages_continue=%" PRIu64 " tasks=%u ms=%" PRIu64 "\n",
		obj->shmid, obj->size, obj->filled, obj->zeroed, obj->faults, obj->mapped, obj->tasks,
		ms_since(&obj->began));
}

void object_unmapped(struct object *obj)
{
	/*
	 * Until here its users' private memory, which CRIU brings, was not
	 * complete either: they would have been killed with the daemon.
	 */
	guard_unwatch(&obj->id);

	if (obj->state != OBJECT_FILLING)
		return;

	obj->state = OBJECT_ABANDONED;
	drop_waiters(obj);
	pr_note("object %#x abandoned: no task maps it any more, %lu pages are not filled\n", obj->shmid,
		obj->map.left);
	objects_kick();
}

void object_fail(struct object *obj)
{
	if (obj->state != OBJECT_FILLING)
		return;

	failed = true;
	obj->state = OBJECT_FAILED;
	guard_kill(&obj->id, 1);
	guard_unwatch(&obj->id);
	drop_waiters(obj);
	pr_err("object %#x failed: %lu of %lu pages were not filled, nobody maps it any more\n", obj->shmid, obj->map.left,
	       obj->map.pages);
	tasks_update_busy();
}

void objects_fail_all(void)
{
	struct object *obj;

	list_for_each_entry(obj, &objects, l)
		object_fail(obj);
}

bool objects_failed(void)
{
	return failed;
}

/*
 * Jobs
 */

/* Puts pages [page, page + nr), all EMPTY, into a new job: as many as fit */
static struct fill_job *make_job(struct object *obj, unsigned long page, unsigned long nr)
{
	uint64_t off = (uint64_t)page * PAGE_SIZE;
	uint64_t end = (uint64_t)(page + nr) * PAGE_SIZE;
	struct fill_job *job;

	job = malloc(sizeof(*job));
	if (!job)
		return NULL;

	job->owner = obj;
	job->background = 0;
	job->obj_fd = obj->fd;
	job->nr_segs = 0;

	if (end > (uint64_t)(page * PAGE_SIZE) + FILL_UNIT)
		end = (uint64_t)page * PAGE_SIZE + FILL_UNIT;

	while (off < end && job->nr_segs < FILL_SEGS) {
		const struct extent *e = extents_find(&obj->extents, off);
		uint64_t len = e->off + e->len - off;

		if (len > end - off)
			len = end - off;
		job->segs[job->nr_segs++] = (struct fill_seg){
			.off = off,
			.src_off = e->src_off + (off - e->off),
			/* the tail of the last page is not part of the object */
			.len = (uint32_t)(len < obj->size - off ? len : obj->size - off),
			.src_fd = e->src_fd,
		};
		off += len;
	}

	page_map_set(&obj->map, page, (unsigned long)(off / PAGE_SIZE) - page, PAGE_FILLING);
	return job;
}

static unsigned long job_first_page(const struct fill_job *job)
{
	return (unsigned long)(job->segs[0].off / PAGE_SIZE);
}

static unsigned long job_pages(const struct fill_job *job)
{
	const struct fill_seg *last = &job->segs[job->nr_segs - 1];

	return (unsigned long)size_to_pages(last->off + last->len) - job_first_page(job);
}

/* Submits the next piece of obj for no fault; false if there is none. */
static bool submit_background(struct object *obj)
{
	struct fill_job *job;
	unsigned long page;

	if (obj->state != OBJECT_FILLING)
		return false;

	page = page_map_next_empty(&obj->map, obj->cursor);
	if (page == obj->map.pages)
		page = page_map_next_empty(&obj->map, 0);
	if (page == obj->map.pages)
		return false;

	job = make_job(obj, page, page_map_run(&obj->map, page, FILL_UNIT / PAGE_SIZE));
	if (!job) {
		pr_err("Object %#x: no memory to fill offset %#" PRIx64 "\n", obj->shmid, (uint64_t)page * PAGE_SIZE);
		object_fail(obj);
		return false;
	}

	obj->cursor = page + job_pages(job);
	job->background = 1;
	nr_background++;
	fill_submit(pool, job, 0);
	return true;
}

/* Keeps the workers busy, with the objects taking turns */
static void submit_more(void)
{
	struct object *obj, *n;
	bool some = true;

	if (!resumed)
		return;

	while (some && nr_background < 2 * nr_workers) {
		some = false;
		list_for_each_entry_safe(obj, n, &objects, l) {
			if (nr_background == 2 * nr_workers)
				break;
			if (submit_background(obj)) {
				some = true;
				/* who was served goes to the end */
				list_move_tail(&obj->l, &objects);
			}
		}
	}
}

static void punch(struct object *obj, unsigned long page)
{
	if (fallocate(obj->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)page * PAGE_SIZE, PAGE_SIZE)) {
		pr_perror("Object %#x: can't punch offset %#lx again", obj->shmid, page * PAGE_SIZE);
		object_fail(obj);
	}
}

static void answer_waiters(struct object *obj, unsigned long page, unsigned long nr)
{
	struct waiter *w, *n;
	LIST_HEAD(ready);

	list_for_each_entry_safe(w, n, &obj->waiters, l)
		if (w->page >= page && w->page < page + nr)
			list_move_tail(&w->l, &ready);

	while (!list_empty(&ready)) {
		struct task *task;
		uint64_t addr;

		w = list_first_entry(&ready, struct waiter, l);
		task = w->task;
		addr = w->addr;
		list_del(&w->l);
		free(w);
		task_answer(task, addr);
	}
}

static void job_failed(struct object *obj, const struct fill_job *job)
{
	if (obj->state != OBJECT_FILLING)
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
	default:
		pr_err("Object %#x: can't store the contents of offset %#" PRIx64
		       ": %s; check memory and the limits of this daemon's cgroup\n",
		       obj->shmid, job->err_off, strerror(job->err));
		break;
	}
	object_fail(obj);
}

static void job_done(struct object *obj, const struct fill_job *job)
{
	unsigned long page = job_first_page(job), end = page + job_pages(job), i;

	for (i = page; i < end; i++) {
		if (page_map_get(&obj->map, i) == PAGE_DOOMED) {
			punch(obj, i);
			page_map_set(&obj->map, i, 1, PAGE_HOLE);
		} else {
			page_map_set(&obj->map, i, 1, PAGE_FILLED);
			obj->filled++;
		}
	}

	if (obj->state != OBJECT_FILLING)
		return;

	answer_waiters(obj, page, end - page);
	if (resumed && obj->state == OBJECT_FILLING && !obj->map.left)
		object_complete(obj);
}

static void reap(void)
{
	struct fill_job *job, *next;

	for (job = fill_reap(pool); job; job = next) {
		struct object *obj = job->owner;

		next = job->next;
		nr_background -= (unsigned int)job->background;
		if (job->result == FILL_OK)
			job_done(obj, job);
		else
			job_failed(obj, job);
		free(job);

		if (++nr_reaped % PROBE_JOBS == 0)
			tasks_probe();
	}
}

/* Jobs are done, or somebody called objects_kick() */
static int pool_event(struct epoll_rfd *rfd)
{
	uint64_t n;

	if (read(rfd->fd, &n, sizeof(n)) < 0 && errno != EAGAIN) {
		pr_perror("Can't read eventfd");
		return -1;
	}

	tasks_retry();
	reap();
	submit_more();

	return tasks_some_dropped();
}

void objects_kick(void)
{
	uint64_t one = 1;

	if (pool && write(fill_pool_eventfd(pool), &one, sizeof(one)) < 0)
		pr_perror("Can't write eventfd");
}

void objects_init(int epollfd, unsigned int workers)
{
	epoll_fd = epollfd;
	nr_workers = workers;
}

/* After the guard, which is made when the first object comes */
static int start_pool(void)
{
	int err;

	if (pool)
		return 0;

	err = fill_pool_create(&pool, nr_workers);
	if (err) {
		pr_err("Can't start %u fill workers: %s\n", nr_workers, strerror(-err));
		return -1;
	}

	pool_rfd.fd = fill_pool_eventfd(pool);
	pool_rfd.read_event = pool_event;
	return epoll_add_rfd(epoll_fd, &pool_rfd);
}

int objects_start(void)
{
	struct object *obj, *n;

	if (list_empty(&objects))
		return 0;
	if (start_pool())
		return -1;

	resumed = true;
	list_for_each_entry_safe(obj, n, &objects, l) {
		clock_gettime(CLOCK_MONOTONIC, &obj->began);
		if (!obj->map.left)
			object_complete(obj);
	}

	submit_more();
	objects_kick();
	return 0;
}

/*
 * Faults
 */

/* Of the window around page, the run of EMPTY pages that page is in */
static struct fill_job *make_urgent_job(struct object *obj, unsigned long page)
{
	unsigned long lo = page & ~(WINDOW_PAGES - 1);
	unsigned long first = page, end = lo + WINDOW_PAGES;

	while (first > lo && page_map_get(&obj->map, first - 1) == PAGE_EMPTY)
		first--;

	return make_job(obj, first, page_map_run(&obj->map, first, end - first));
}

int object_wait(struct object *obj, unsigned long page, struct task *task, uint64_t addr)
{
	struct fill_job *job;
	struct waiter *w;

	w = malloc(sizeof(*w));
	if (!w)
		goto nomem;
	*w = (struct waiter){ .task = task, .addr = addr, .page = page };
	list_add_tail(&w->l, &obj->waiters);

	/* a thread whose stack is in shared memory faults before it is resumed */
	if (start_pool()) {
		object_fail(obj);
		return -1;
	}

	if (page_map_get(&obj->map, page) != PAGE_EMPTY) {
		/* on its way; if it is still queued, then before all others */
		fill_promote(pool, obj, (uint64_t)page * PAGE_SIZE);
		return 0;
	}

	/* a job holds a limited number of extents: go on until page itself is in one */
	while (page_map_get(&obj->map, page) == PAGE_EMPTY) {
		job = make_urgent_job(obj, page);
		if (!job)
			goto nomem;
		fill_submit(pool, job, 1);
	}
	return 0;
nomem:
	pr_err("Object %#x: no memory to answer a fault at offset %#lx\n", obj->shmid, page * PAGE_SIZE);
	object_fail(obj);
	return -1;
}

void object_forget_waiters(struct object *obj, const struct task *task)
{
	struct waiter *w, *n;

	list_for_each_entry_safe(w, n, &obj->waiters, l) {
		if (w->task != task)
			continue;
		list_del(&w->l);
		free(w);
	}
}

void object_punched(struct object *obj, unsigned long page, unsigned long nr)
{
	page_map_punched(&obj->map, page, nr);
	answer_waiters(obj, page, nr);
	if (resumed && obj->state == OBJECT_FILLING && !obj->map.left)
		object_complete(obj);
}

int object_zero(struct object *obj, unsigned long page)
{
	/* allocates what is absent and does not touch what is there, i_size included */
	if (!fallocate(obj->fd, FALLOC_FL_KEEP_SIZE, (off_t)page * PAGE_SIZE, PAGE_SIZE)) {
		obj->zeroed++;
		return 0;
	}

	pr_perror("Object %#x: can't allocate offset %#lx", obj->shmid, page * PAGE_SIZE);
	object_fail(obj);
	return -1;
}

void objects_fini(void)
{
	struct object *obj, *n;

	fill_pool_destroy(pool);
	pool = NULL;

	list_for_each_entry_safe(obj, n, &objects, l) {
		list_del(&obj->l);
		object_free(obj);
	}
}
