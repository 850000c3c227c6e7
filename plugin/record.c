// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "criu_internals.h"
#include "fill.h"
#include "filling.h"
#include "object.h"
#include "order.h"
#include "record.h"
#include "settings.h"
#include "task.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "servicefd.h"
#pragma GCC diagnostic pop

struct record {
	struct order order;

	/* recording */
	uint8_t *seen; /* a bit for each page that is in order */

	/* using */
	size_t run;	      /* next to fill is this one of order, ... */
	uint64_t done;	      /* ... from this page of it on */
	unsigned int nr_jobs; /* submitted, not done */
};

static enum {
	RECORD_NOT, /* it is not wanted, or has ended */
	RECORD_RUNNING,
	RECORD_SPOILT, /* no memory: nothing is written in the end */
} state;

static bool let_go;	/* some task must be retired as soon as it can be */
static bool committed;	/* all mappings are registered */
static uint64_t filled; /* bytes, by jobs of records */

static struct order_object identity(const struct object *obj)
{
	return (struct order_object){ .shmid = obj->shmid, .size = obj->size, .page_size = obj->page_size };
}

int record_init(void)
{
	int err;

	if (settings.record_seconds == NO_RECORD)
		return 0;

	err = order_check_dir(get_service_fd(IMG_FD_OFF));
	if (err) {
		pr_err("CRIU_LAZY_SHMEM_RECORD is set, but no file can be made in the images directory %s: %s\n",
		       opts.imgs_dir, strerror(-err));
		return -1;
	}

	state = RECORD_RUNNING;
	return 0;
}

static int open_recording(struct object *obj)
{
	obj->record->seen = calloc(obj->map.pages / 8 + 1, 1);
	if (obj->record->seen)
		return 0;

	pr_err("Object %#x: no memory to record accesses to %lu pages\n", obj->shmid, obj->map.pages);
	return -1;
}

/* It is only an order: without one that is any good the restore is as ever */
static void load_order(struct object *obj)
{
	const struct order_object id = identity(obj);
	char name[ORDER_NAME_LEN];
	const char *why;
	int err;

	err = order_load(&obj->record->order, &id, get_service_fd(IMG_FD_OFF), &why);
	if (!err) {
		pr_info("Object %#x: a record of %zu runs says what to fill first\n", obj->shmid, obj->record->order.n);
		return;
	}
	if (err != -ENOENT) {
		order_name(name, obj->shmid);
		pr_warn("Object %#x: %s in the images directory is ignored: %s; remove it, or record again\n", obj->shmid, name, why);
	}
	record_close(obj);
}

int record_open(struct object *obj)
{
	if (obj->delivery != CR_SHMEM_LAZY || (state == RECORD_NOT && settings.ignore_order))
		return 0;

	obj->record = calloc(1, sizeof(*obj->record));
	if (!obj->record) {
		pr_err("Object %#x: no memory\n", obj->shmid);
		return -1;
	}

	if (settings.record_seconds != NO_RECORD)
		return open_recording(obj);
	load_order(obj);
	return 0;
}

void record_close(struct object *obj)
{
	if (!obj->record)
		return;

	order_free(&obj->record->order);
	free(obj->record->seen);
	free(obj->record);
	obj->record = NULL;
}

/*
 * Recording
 */

bool record_is_running(void)
{
	return state == RECORD_RUNNING;
}

bool record_holds_tasks(void)
{
	return state == RECORD_RUNNING && settings.record_seconds > 0 && !let_go;
}

void record_let_go(void)
{
	if (!record_holds_tasks())
		return;

	let_go = true;
	tasks_update_busy();
}

void record_note(struct object *obj, unsigned long page)
{
	struct record *r = obj->record;

	if (state != RECORD_RUNNING || !r || r->seen[page / 8] & 1U << page % 8)
		return;
	/* there is nothing to fill */
	if (page_map_get(&obj->map, page) == PAGE_HOLE)
		return;

	r->seen[page / 8] |= (uint8_t)(1U << page % 8);
	if (!order_add(&r->order, page))
		return;

	pr_warn("Object %#x: no memory to record more accesses, so nothing will be written\n", obj->shmid);
	state = RECORD_SPOILT;
	tasks_update_busy();
}

static void write_record(const struct object *obj)
{
	const struct order_object id = identity(obj);
	char name[ORDER_NAME_LEN];
	uint64_t pages = 0;
	size_t i;
	int err;

	order_name(name, obj->shmid);
	for (i = 0; i < obj->record->order.n; i++)
		pages += obj->record->order.v[i].nr;

	err = order_save(&obj->record->order, &id, get_service_fd(IMG_FD_OFF));
	if (err)
		pr_err("Object %#x: can't write %s to the images directory %s: %s\n", obj->shmid, name, opts.imgs_dir,
		       strerror(-err));
	else
		pr_note("object %#x recorded: pages=%" PRIu64 " runs=%zu file=%s\n", obj->shmid, pages,
			obj->record->order.n, name);
}

void record_end(bool good)
{
	struct object *obj;

	if (state == RECORD_NOT)
		return;

	good = good && state == RECORD_RUNNING && objects_started();
	state = RECORD_NOT;
	if (!good)
		pr_warn("Nothing was recorded: the restore did not go as it should\n");

	list_for_each_entry(obj, &objects, l) {
		if (!obj->record)
			continue;
		if (good && obj->state != OBJECT_FAILED)
			write_record(obj);
		record_close(obj);
	}
}

bool record_tick(long seconds)
{
	if (!record_is_running() || !settings.record_seconds || seconds < settings.record_seconds)
		return false;

	record_end(true);
	tasks_update_busy();
	return true;
}

/*
 * Using
 */

/* Whether obj was recorded, and is not being */
static bool is_used(const struct object *obj)
{
	return obj->record && !obj->record->seen && obj->state == OBJECT_FILLING;
}

bool record_next(struct object *obj, unsigned long *page, unsigned long *nr)
{
	struct record *r = obj->record;

	if (!is_used(obj))
		return false;

	while (obj->map.empty && r->run < r->order.n) {
		const struct order_run *run = &r->order.v[r->run];
		uint64_t left = run->nr - r->done, most = size_to_pages(FILL_UNIT, obj->page_size);

		if (r->done == run->nr) {
			r->run++;
			r->done = 0;
			continue;
		}
		*page = (unsigned long)(run->page + r->done);
		*nr = page_map_run(&obj->map, *page, (unsigned long)(left < most ? left : most));
		if (page_map_get(&obj->map, *page) == PAGE_EMPTY)
			return true;
		r->done += *nr; /* a fault was faster, or there is nothing to fill any more */
	}
	return false;
}

void record_submitted(const struct fill_job *job)
{
	struct object *obj = job->owner;

	if (job->cause == FILL_RECORD)
		obj->record->nr_jobs++;
}

void record_filled(const struct fill_job *job)
{
	struct object *obj = job->owner;

	if (job->cause != FILL_RECORD)
		return;

	obj->record->nr_jobs--;
	if (job->result != FILL_OK)
		return;
	filled += job->len;
	/* when all has come the kernel maps pages without help */
	if (committed && obj->state == OBJECT_FILLING)
		tasks_publish(obj, (unsigned long)(job->off / obj->page_size), (unsigned long)(job->len / obj->page_size));
}

bool record_prefills(void)
{
	unsigned long page, nr;
	struct object *obj;

	if (filled >= settings.prefill)
		return false;

	list_for_each_entry(obj, &objects, l)
		if (is_used(obj) && (obj->record->nr_jobs || (record_next(obj, &page, &nr) && filling_is_allowed(obj, page))))
			return true;
	return false;
}

void record_commit(void)
{
	struct object *obj;

	if (committed)
		return;

	committed = true;
	list_for_each_entry(obj, &objects, l)
		if (is_used(obj))
			tasks_publish(obj, 0, obj->map.pages);
}
