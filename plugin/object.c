// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "criu_internals.h"
#include "filling.h"
#include "guard.h"
#include "images.h"
#include "modes.h"
#include "object.h"
#include "record.h"
#include "route.h"
#include "task.h"

LIST_HEAD(objects);
static bool resumed; /* the tasks run: fill without being asked */
static bool failed;
static bool commit_waits; /* for objects that must be complete before resume */

unsigned long size_to_pages(uint64_t size, unsigned int page_size)
{
	return (unsigned long)((size + page_size - 1) / page_size);
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

/* The sources of its contents, and what is still to come */
static int open_contents(struct object *obj)
{
	char name[64];
	size_t i;
	int err;

	if (images_open(&obj->images, &obj->extents, obj->shmid, obj->size))
		return -1;

	snprintf(name, sizeof(name), "lazy-shmem-pages-%#x", obj->shmid);
	err = page_map_init(&obj->map, name, size_to_pages(obj->size, obj->page_size));
	if (err) {
		pr_err("Object %#x: no memory to track %" PRIu64 " bytes: %s\n", obj->shmid, obj->size, strerror(-err));
		return -1;
	}

	for (i = 0; i < obj->extents.n; i++) {
		const struct extent *e = &obj->extents.v[i];
		unsigned long first = (unsigned long)(e->off / obj->page_size);

		page_map_set(&obj->map, first, size_to_pages(e->off + e->len, obj->page_size) - first, PAGE_EMPTY);
	}
	return 0;
}

char *object_door(struct object *obj)
{
	size_t len = (size_t)obj->map.pages * obj->page_size;
	char *mem;

	if (obj->door)
		return obj->door;

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, obj->fd, 0);
	if (mem == MAP_FAILED)
		return NULL;

	/* no process that is made later may be one of those who map it */
	madvise(mem, len, MADV_DONTFORK);
	obj->door = mem;
	return mem;
}

static void close_door(struct object *obj)
{
	if (obj->door)
		munmap(obj->door, (size_t)obj->map.pages * obj->page_size);
	obj->door = NULL;
}

static void close_contents(struct object *obj)
{
	close_door(obj);
	images_close(obj->images);
	obj->images = NULL;
	extents_free(&obj->extents);
	page_map_fini(&obj->map);
	if (obj->fd >= 0)
		close(obj->fd);
	obj->fd = -1;
}

static void object_free(struct object *obj)
{
	struct partial_punch *p, *n;

	list_for_each_entry_safe(p, n, &obj->partial_punches, l)
		free(p);
	drop_waiters(obj);
	record_close(obj);
	close_contents(obj);
	stats_object_fini(&obj->stats);
	free(obj);
}

/*
 * Huge pages may run out: better before resume than when a task waits for one. A
 * shared mapping reserves them for the inode, whatever becomes of the mapping
 * (mm/hugetlb.c, hugetlb_reserve_pages()). Filling, or a punch, uses that up.
 */
static int reserve_huge_pages(const struct object *obj, int fd)
{
	unsigned long page, nr;

	if (!object_is_huge(obj))
		return 0;

	for (page = page_map_next_empty(&obj->map, 0); page < obj->map.pages;
	     page = page_map_next_empty(&obj->map, page + nr)) {
		size_t len;
		void *mem;

		nr = page_map_run(&obj->map, page, obj->map.pages);
		len = (size_t)nr * obj->page_size;
		mem = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)page * obj->page_size);
		if (mem == MAP_FAILED) {
			pr_perror("Object %#x: can't reserve %lu pages of %u kB (are there enough huge pages, see vm.nr_hugepages?)",
				  obj->shmid, nr, obj->page_size >> 10);
			return -1;
		}
		munmap(mem, len);
	}

	return 0;
}

static int identify(struct object *obj, int fd)
{
	struct stat st;

	if (fstat(fd, &st)) {
		pr_perror("Object %#x: fstat", obj->shmid);
		return -1;
	}

	obj->id = (struct inode_id){ .dev = st.st_dev, .ino = st.st_ino };
	if (object_of_inode(&obj->id)) {
		pr_err("Object %#x is the same inode as another object\n", obj->shmid);
		return -1;
	}
	return 0;
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
	close_door(obj);
	obj->stats.completed = stats_now();

	if (obj->delivery == CR_SHMEM_BEFORE_RESUME) {
		pr_note("object %#x filled before resume: size=%" PRIu64 " pages_filled=%" PRIu64 " ms=%" PRIu64 "\n",
			obj->shmid, obj->size, stats_filled(&obj->stats), ms_since(&obj->began));
		close_contents(obj); /* from here on it is the tasks' alone */
		return;
	}

	tasks_update_busy();
	pr_note("object %#x done: size=%" PRIu64 " pages_filled=%" PRIu64 " pages_zeroed=%" PRIu64 " faults=%" PRIu64
		" pages_continue=%" PRIu64 " tasks=%u ms=%" PRIu64 "\n",
		obj->shmid, obj->size, stats_filled(&obj->stats), obj->stats.zeroed, stats_faults(&obj->stats.faults),
		obj->stats.faults.mapped, obj->stats.tasks, ms_since(&obj->began));
}

bool object_wants_fill(const struct object *obj)
{
	return obj->state == OBJECT_FILLING && (resumed || obj->delivery == CR_SHMEM_BEFORE_RESUME);
}

void object_check_complete(struct object *obj)
{
	if (object_wants_fill(obj) && !obj->map.left)
		object_complete(obj);
}

/* It is not left alone until resume */
static bool fills_at_once(const struct object *obj)
{
	return obj->delivery == CR_SHMEM_BEFORE_RESUME || obj->record;
}

/* The guard is made before the pool: it must not have threads */
static int start_helpers(struct object *obj, pid_t opener)
{
	int err;

	err = guard_start();
	if (!err && obj->delivery == CR_SHMEM_LAZY)
		err = guard_watch(&obj->id);
	if (err) {
		pr_err("Object %#x: nobody would look after its users if this daemon died: %s\n", obj->shmid,
		       strerror(-err));
		return -1;
	}

	if (route_of(obj, opener))
		return -1;
	return fills_at_once(obj) ? filling_start() : 0;
}

int object_add(const struct cr_shmem_object *desc, int fd)
{
	struct object *obj;

	obj = calloc(1, sizeof(*obj));
	if (!obj) {
		pr_err("Object %#x: no memory\n", desc->shmid);
		return -1;
	}

	INIT_LIST_HEAD(&obj->l);
	INIT_LIST_HEAD(&obj->waiters);
	INIT_LIST_HEAD(&obj->partial_punches);
	obj->shmid = desc->shmid;
	obj->size = desc->size;
	obj->page_size = desc->page_size;
	obj->delivery = desc->flags & CR_SHMEM_FILL_FIRST ? CR_SHMEM_BEFORE_RESUME : CR_SHMEM_LAZY;
	obj->fd = -1; /* the caller's until we succeed */
	obj->map.fd = -1;
	obj->state = OBJECT_FILLING;
	clock_gettime(CLOCK_MONOTONIC, &obj->began);

	if (open_contents(obj) || record_open(obj) || identify(obj, fd) || reserve_huge_pages(obj, fd) || start_helpers(obj, desc->opener)) {
		object_free(obj);
		return -1;
	}

	list_add_tail(&obj->l, &objects);
	/* what is filled at once must not wait for COMMIT to find that there is no room */
	if (fills_at_once(obj) && routes_check_room(NULL)) {
		list_del(&obj->l);
		object_free(obj);
		return -1;
	}

	obj->fd = fd;
	stats_object_init(&obj->stats, fd, obj->map.left, images_top_fd(obj->images));
	pr_info("Object %#x: %" PRIu64 " bytes, %lu pages of %u bytes to fill in %zu extents\n", obj->shmid, obj->size,
		obj->map.left, obj->page_size, obj->extents.n);

	object_check_complete(obj);
	filling_more();
	return 0;
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
	close_door(obj);
	drop_waiters(obj);
	pr_note("object %#x abandoned: no task maps it any more, %lu pages are not filled\n", obj->shmid,
		obj->map.left);
	filling_kick();
}

void object_fail(struct object *obj)
{
	/* a hole that can not be had is as bad when all else has come */
	if (obj->state != OBJECT_FILLING && !(obj->state == OBJECT_COMPLETE && obj->delivery == CR_SHMEM_LAZY))
		return;

	failed = true;
	obj->state = OBJECT_FAILED;
	if (obj->delivery == CR_SHMEM_BEFORE_RESUME) {
		/* no task has been resumed, and none will be: COMMIT is refused */
		pr_err("object %#x failed: %lu of %lu pages were not filled, so restore can not go on\n", obj->shmid, obj->map.left,
		       obj->map.pages);
		return;
	}

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
		if (obj->state == OBJECT_FILLING)
			object_fail(obj);
}

bool objects_failed(void)
{
	return failed;
}

/*
 * Before and after resume
 */

/* 0 all that must be complete before resume is, 1 not yet, -1 it never will be */
static int commit_status(void)
{
	struct object *obj;

	if (failed)
		return -1;

	list_for_each_entry(obj, &objects, l)
		if (obj->delivery == CR_SHMEM_BEFORE_RESUME && obj->state == OBJECT_FILLING)
			return 1;

	if (record_prefills())
		return 1;

	/* the last moment at which it costs nothing: who dumped the tasks lets them go after that */
	return routes_alive() ? 0 : -1;
}

int objects_commit(void)
{
	int status;

	if (routes_check_room(NULL))
		failed = true;

	status = commit_status();
	commit_waits = status == 1;
	if (!status)
		record_commit();
	return status;
}

int objects_answer_commit(void)
{
	int status;

	if (!commit_waits)
		return 0;

	status = commit_status();
	if (status == 1)
		return 0;

	commit_waits = false;
	if (!status)
		record_commit();
	return lazy_shmem_committed(status);
}

bool objects_started(void)
{
	return resumed;
}

int objects_start(void)
{
	struct object *obj, *n;

	if (list_empty(&objects))
		return 0;
	if (filling_start() || modes_resume())
		return -1;

	resumed = true;
	/* the limits in the images are set after COMMIT */
	routes_check_room(object_fail);
	list_for_each_entry_safe(obj, n, &objects, l) {
		if (obj->state == OBJECT_FILLING)
			clock_gettime(CLOCK_MONOTONIC, &obj->began);
		object_check_complete(obj);
	}

	filling_more();
	filling_kick();
	return 0;
}

void objects_fini(void)
{
	struct object *obj, *n;

	filling_fini();

	list_for_each_entry_safe(obj, n, &objects, l) {
		list_del(&obj->l);
		object_free(obj);
	}
}
