// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <linux/falloc.h>

#include "criu_internals.h"
#include "filling.h"
#include "object.h"
#include "task.h"

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
		task->asked = w->since;
		list_del(&w->l);
		free(w);
		task_answer(task, addr);
	}
}

static void punch(struct object *obj, uint64_t off, uint64_t len)
{
	if (fallocate(obj->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len)) {
		pr_perror("Object %#x: can't punch %#" PRIx64 " bytes at offset %#" PRIx64 " again", obj->shmid, len, off);
		object_fail(obj);
	}
}

/* Parts of huge pages that were punched before their contents had come */
static void punch_parts(struct object *obj, uint64_t off, uint64_t end)
{
	struct partial_punch *p, *n;

	list_for_each_entry_safe(p, n, &obj->partial_punches, l) {
		if (p->off < off || p->off >= end)
			continue;
		punch(obj, p->off, p->len);
		list_del(&p->l);
		free(p);
	}
}

/* The pages that are waited for, whatever the job was made for */
static void count_asked_for(struct object *obj, unsigned long page, unsigned long nr)
{
	const struct waiter *w;

	list_for_each_entry(w, &obj->waiters, l) {
		if (w->page < page || w->page >= page + nr || page_map_get(&obj->map, w->page) != PAGE_FILLING)
			continue;
		page_map_set(&obj->map, w->page, 1, PAGE_FILLED);
		obj->stats.filled[FILLED_FAULT]++;
	}
}

static enum filled_by filled_by(enum fill_cause cause)
{
	switch (cause) {
	case FILL_FAULT:
		return FILLED_WINDOW;
	case FILL_RECORD:
		return FILLED_RECORD;
	default:
		return FILLED_BACKGROUND;
	}
}

void object_filled(struct object *obj, unsigned long page, unsigned long nr, enum fill_cause cause)
{
	uint64_t off = (uint64_t)page * obj->page_size;
	enum filled_by by = filled_by(cause);
	unsigned long i;

	count_asked_for(obj, page, nr);

	for (i = page; i < page + nr; i++) {
		if (page_map_get(&obj->map, i) == PAGE_DOOMED) {
			punch(obj, (uint64_t)i * obj->page_size, obj->page_size);
			page_map_set(&obj->map, i, 1, PAGE_HOLE);
		} else if (page_map_get(&obj->map, i) == PAGE_FILLING) {
			page_map_set(&obj->map, i, 1, PAGE_FILLED);
			obj->stats.filled[by]++;
		}
	}
	punch_parts(obj, off, off + (uint64_t)nr * obj->page_size);

	if (obj->state != OBJECT_FILLING)
		return;

	answer_waiters(obj, page, nr);
	object_check_complete(obj);
}

/*
 * Faults
 */

static int add_waiter(struct object *obj, unsigned long page, struct task *task, uint64_t addr)
{
	struct waiter *w;

	w = malloc(sizeof(*w));
	if (!w)
		return -1;
	*w = (struct waiter){ .task = task, .addr = addr, .page = page, .since = task->asked };
	task->asked = 0;
	list_add_tail(&w->l, &obj->waiters);
	return 0;
}

int object_wait(struct object *obj, unsigned long page, struct task *task, uint64_t addr)
{
	struct window win;

	if (add_waiter(obj, page, task, addr))
		goto nomem;

	/* a thread whose stack is in shared memory faults before it is resumed */
	if (filling_start()) {
		object_fail(obj);
		return -1;
	}

	win = window_to_fill(&task->windows, obj, page);
	if (!filling_urgent(obj, page, &win))
		return 0;
nomem:
	pr_err("Object %#x: no memory to answer a fault at offset %#" PRIx64 "\n", obj->shmid,
	       (uint64_t)page * obj->page_size);
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

/* [off, end) is a part of one huge page */
static void punch_part_later(struct object *obj, uint64_t off, uint64_t end)
{
	struct partial_punch *p;

	if (off >= end || !page_map_unfilled(&obj->map, (unsigned long)(off / obj->page_size), 1))
		return; /* the kernel has done it */

	p = malloc(sizeof(*p));
	if (!p) {
		pr_err("Object %#x: no memory to punch offset %#" PRIx64 "\n", obj->shmid, off);
		object_fail(obj);
		return;
	}

	*p = (struct partial_punch){ .off = off, .len = end - off };
	list_add_tail(&p->l, &obj->partial_punches);
}

void object_punched(struct object *obj, uint64_t off, uint64_t len)
{
	uint64_t size = obj->page_size, end = off + len;
	unsigned long first = size_to_pages(off, obj->page_size), last = (unsigned long)(end / size);

	if (first > last) {
		punch_part_later(obj, off, end);
		return;
	}

	punch_part_later(obj, off, first * size);
	punch_part_later(obj, last * size, end);
	page_map_punched(&obj->map, first, last - first);
	answer_waiters(obj, first, last - first);
	object_check_complete(obj);
}

int object_zero(struct object *obj, unsigned long page, struct task *task, uint64_t addr)
{
	uint64_t off = (uint64_t)page * obj->page_size, len = obj->page_size;
	int ret;

	/* behind the end F_SEAL_GROW would have a say */
	if (len > obj->size - off)
		len = obj->size - off;

	ret = filling_allocate(obj, off, len);
	if (ret > 0)
		ret = add_waiter(obj, page, task, addr) ? -ENOMEM : 1;
	if (!ret) {
		/* allocates what is absent and does not touch what is there, i_size included */
		ret = fallocate(obj->fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) ? -errno : 0;
		obj->stats.zeroed += !ret;
	}
	if (ret >= 0)
		return ret;

	pr_err("Object %#x: can't allocate offset %#" PRIx64 ": %s\n", obj->shmid, off, strerror(-ret));
	object_fail(obj);
	return -1;
}

void object_zeroed(struct object *obj, unsigned long page)
{
	obj->stats.zeroed++;
	answer_waiters(obj, page, 1);
}
