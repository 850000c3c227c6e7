// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>

#include "criu.h"
#include "object.h"
#include "task.h"
#include "uffd_io.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "page.h"
#pragma GCC diagnostic pop

static LIST_HEAD(tasks);
static LIST_HEAD(deferred); /* struct waiter: answers that met -EAGAIN */
static bool some_dropped;

static unsigned long vma_page(const struct vma *vma, uint64_t addr)
{
	return (unsigned long)((vma->pgoff + (addr - vma->start)) / PAGE_SIZE);
}

/*
 * The life of a task
 */

/* Whether task still needs its userfaultfd; tells the event loop when that ends */
static void update_busy(struct task *task)
{
	bool busy = false;
	size_t i;

	for (i = 0; i < task->vmas.n && !busy; i++)
		busy = task->vmas.v[i].obj->state == OBJECT_FILLING;

	if (task->lt->busy && !busy) {
		some_dropped = true;
		objects_kick();
	}
	task->lt->busy = busy;
}

void tasks_update_busy(void)
{
	struct task *task;

	list_for_each_entry(task, &tasks, l)
		update_busy(task);
}

bool tasks_some_dropped(void)
{
	bool ret = some_dropped;

	some_dropped = false;
	return ret;
}

static bool task_maps(const struct task *task, const struct object *obj)
{
	size_t i;

	for (i = 0; i < task->vmas.n; i++)
		if (task->vmas.v[i].obj == obj)
			return true;

	return false;
}

unsigned int tasks_mapping(const struct object *obj)
{
	struct task *task;
	unsigned int nr = 0;

	list_for_each_entry(task, &tasks, l)
		nr += task_maps(task, obj);

	return nr;
}

/* Each object that task maps, once */
#define for_each_task_object(i, obj, task)   \
	for (i = 0; i < (task)->vmas.n; i++) \
		if (obj = (task)->vmas.v[i].obj, first_vma_of(task, i))

static bool first_vma_of(const struct task *task, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++)
		if (task->vmas.v[i].obj == task->vmas.v[nr].obj)
			return false;

	return true;
}

static struct task *task_new(struct cr_lazy_task *lt)
{
	struct task *task;

	task = calloc(1, sizeof(*task));
	if (!task) {
		pr_err("Task %d: no memory\n", lt->pid);
		return NULL;
	}

	task->lt = lt;
	removal_init(&task->removal);
	lt->priv = task;
	list_add_tail(&task->l, &tasks);
	return task;
}

static void count_task(const struct task *task)
{
	struct object *obj;
	size_t i;

	for_each_task_object(i, obj, task)
		obj->tasks++;
}

int task_add(struct cr_lazy_task *lt, const struct cr_shmem_vma *vmas, unsigned int nr)
{
	struct task *task;
	unsigned int i;

	task = task_new(lt);
	if (!task)
		return -1;

	for (i = 0; i < nr; i++) {
		struct vma vma = {
			.start = vmas[i].start,
			.end = vmas[i].end,
			.pgoff = vmas[i].pgoff,
			.obj = object_find(vmas[i].shmid),
			.is_private = vmas[i].flags & CR_SHMEM_VMA_PRIVATE,
		};

		if (!vma.obj) {
			pr_err("Task %d maps object %#x, which is not known\n", lt->pid, vmas[i].shmid);
			return -1;
		}
		if (vma_table_insert(&task->vmas, &vma)) {
			pr_err("Task %d: no memory for %u mappings\n", lt->pid, nr);
			return -1;
		}
		pr_debug("%d-%d: %#" PRIx64 "-%#" PRIx64 " is object %#x at %#" PRIx64 "\n", lt->pid, lt->uffd, vma.start,
			 vma.end, vma.obj->shmid, vma.pgoff);
	}

	count_task(task);
	update_busy(task);
	return 0;
}

static void forget_deferred(const struct task *task)
{
	struct waiter *w, *n;

	list_for_each_entry_safe(w, n, &deferred, l) {
		if (w->task != task)
			continue;
		list_del(&w->l);
		free(w);
	}
}

/* Its memory is gone: no fault will come, none needs an answer */
static void task_gone(struct task *task)
{
	struct vma_table vmas = task->vmas;
	size_t i;

	if (task->gone)
		return;

	pr_debug("%d-%d: gone\n", task->lt->pid, task->lt->uffd);
	task->gone = true;
	task->vmas = (struct vma_table){ 0 };
	forget_deferred(task);
	for (i = 0; i < vmas.n; i++) {
		object_forget_waiters(vmas.v[i].obj, task);
		if (!tasks_mapping(vmas.v[i].obj))
			object_unmapped(vmas.v[i].obj);
	}
	vma_table_free(&vmas);
	update_busy(task);
}

int task_exit(struct cr_lazy_task *lt)
{
	struct task *task = lt->priv;

	task_gone(task);
	removal_fini(&task->removal);
	list_del(&task->l);
	free(task);
	return 0;
}

void tasks_fini(void)
{
	struct task *task, *n;

	list_for_each_entry_safe(task, n, &tasks, l) {
		struct cr_lazy_task *lt = task->lt;

		task_exit(lt);
		lt->priv = NULL;
	}
}

/*
 * A task that exits raises no event, it shows when something is done to its
 * memory. To map a page that may be mapped anyway is harmless.
 */
void tasks_probe(void)
{
	struct task *task;

	list_for_each_entry(task, &tasks, l) {
		const struct vma *vma = task->vmas.v;
		unsigned long page;

		if (!task->vmas.n)
			continue;

		page = vma_page(vma, vma->start);
		if (page >= vma->obj->map.pages || page_map_get(&vma->obj->map, page) != PAGE_FILLED)
			continue;
		if (uffd_continue(task->lt->uffd, vma->start, PAGE_SIZE, NULL, PAGE_SIZE) == -ESRCH)
			task_gone(task);
	}
}

/*
 * Faults
 */

static void defer(struct task *task, uint64_t addr)
{
	struct waiter *w;

	w = malloc(sizeof(*w));
	if (!w) {
		pr_err("Task %d: no memory to answer a fault at %#" PRIx64 "\n", task->lt->pid, addr);
		objects_fail_all();
		return;
	}

	*w = (struct waiter){ .task = task, .addr = addr };
	list_add_tail(&w->l, &deferred);
	objects_kick();
}

void tasks_retry(void)
{
	LIST_HEAD(again);

	list_splice_init(&deferred, &again);
	while (!list_empty(&again)) {
		struct waiter *w = list_first_entry(&again, struct waiter, l);
		struct task *task = w->task;
		uint64_t addr = w->addr;

		list_del(&w->l);
		free(w);
		task_answer(task, addr);
	}
}

/* Maps [addr, addr + len) of vma. What uffd_continue() returns. */
static int publish(struct task *task, const struct vma *vma, uint64_t addr, uint64_t len)
{
	uint64_t mapped;
	int ret;

	ret = uffd_continue(task->lt->uffd, addr, len, &mapped, PAGE_SIZE);
	vma->obj->mapped += mapped / PAGE_SIZE;
	return ret;
}

/* Maps what is filled around addr, which is filled itself */
static int publish_window(struct task *task, const struct vma *vma, uint64_t addr, unsigned long page)
{
	const struct page_map *map = &vma->obj->map;
	unsigned long first = page, end = page + 1;
	unsigned long lo = page & ~(WINDOW_PAGES - 1), hi = lo + WINDOW_PAGES;
	unsigned long vma_first = vma_page(vma, vma->start), vma_end = vma_page(vma, vma->end);

	lo = lo > vma_first ? lo : vma_first;
	hi = hi < vma_end ? hi : vma_end;
	hi = hi < map->pages ? hi : map->pages;

	while (first > lo && page_map_get(map, first - 1) == PAGE_FILLED)
		first--;
	while (end < hi && page_map_get(map, end) == PAGE_FILLED)
		end++;

	return publish(task, vma, addr - (uint64_t)(page - first) * PAGE_SIZE, (uint64_t)(end - first) * PAGE_SIZE);
}

/*
 * A page that the images have no contents for, or that a task punched. Whoever
 * reads it gets zeroes, whoever stored there gets that.
 */
static int publish_hole(struct task *task, const struct vma *vma, uint64_t addr, unsigned long page)
{
	int ret;

	ret = publish(task, vma, addr, PAGE_SIZE);
	if (ret != -EFAULT)
		return ret;

	if (object_zero(vma->obj, page))
		return 0; /* the task was killed */

	return publish(task, vma, addr, PAGE_SIZE);
}

static void answer_failed(struct task *task, const struct vma *vma, uint64_t addr, int err)
{
	switch (err) {
	case -EAGAIN:
		/* an event is to be read first, never drop the fault */
		defer(task, addr);
		break;
	case -ENOENT:
		/* unmapped meanwhile: let it fault again, and get what is due */
		uffd_wake(task->lt->uffd, addr, PAGE_SIZE);
		break;
	case -ESRCH:
		task_gone(task);
		break;
	default:
		pr_err("Task %d: can't map offset %#lx of object %#x at %#" PRIx64 ": %s\n", task->lt->pid,
		       vma_page(vma, addr) * PAGE_SIZE, vma->obj->shmid, addr, strerror(-err));
		object_fail(vma->obj);
		break;
	}
}

void task_answer(struct task *task, uint64_t addr)
{
	const struct vma *vma = vma_table_find(&task->vmas, addr);
	unsigned long page;
	int ret = 0;

	if (task->gone)
		return;
	if (!vma) {
		/* unmapped while the page was on its way */
		uffd_wake(task->lt->uffd, addr, PAGE_SIZE);
		return;
	}

	page = vma_page(vma, addr);
	if (vma->obj->state == OBJECT_FAILED)
		return; /* being killed: not even a hole any more */
	if (page >= vma->obj->map.pages) {
		uffd_wake(task->lt->uffd, addr, PAGE_SIZE);
		return;
	}

	switch (page_map_get(&vma->obj->map, page)) {
	case PAGE_EMPTY:
	case PAGE_FILLING:
	case PAGE_DOOMED:
		object_wait(vma->obj, page, task, addr);
		return;
	case PAGE_FILLED:
		ret = publish_window(task, vma, addr, page);
		if (ret == -EFAULT) /* punched by now, somewhere in the window */
			ret = publish_hole(task, vma, addr, page);
		break;
	case PAGE_HOLE:
		ret = publish_hole(task, vma, addr, page);
		break;
	}

	if (ret)
		answer_failed(task, vma, addr, ret);
}

/*
 * A fault outside of what we know as mappings. It may be CRIU's, in private
 * memory; or a mapping was extended in place, or doubled by mremap() with an
 * old_size of 0, of whose length no event tells. A CONTINUE knows which: it
 * works on shmem only.
 */
static int fault_outside(struct task *task, uint64_t addr)
{
	struct vma *near = vma_table_before(&task->vmas, addr), vma;
	int ret;

	if (!near)
		return -ENOTSUP;

	vma = *near;
	ret = uffd_continue(task->lt->uffd, addr, PAGE_SIZE, NULL, PAGE_SIZE);
	if (ret == -EINVAL)
		return -ENOTSUP;
	if (ret == -EFAULT || !ret) {
		pr_debug("%d-%d: %#" PRIx64 "-%#" PRIx64 " grew to %#" PRIx64 "\n", task->lt->pid, task->lt->uffd,
			 vma.start, vma.end, addr + PAGE_SIZE);
		vma.end = addr + PAGE_SIZE;
		if (vma_table_insert(&task->vmas, &vma)) {
			pr_err("Task %d: no memory for a mapping\n", task->lt->pid);
			return -1;
		}
		task_answer(task, addr);
		return 0;
	}
	if (ret == -EAGAIN)
		defer(task, addr);
	else
		answer_failed(task, near, addr, ret);
	return 0;
}

static int page_fault(struct task *task, uint64_t addr)
{
	const struct vma *vma;

	addr &= ~(uint64_t)(PAGE_SIZE - 1);
	vma = vma_table_find(&task->vmas, addr);
	if (!vma)
		return fault_outside(task, addr);

	vma->obj->faults++;
	task_answer(task, addr);
	return 0;
}

/*
 * Other events
 */

/* Objects of which pages are still to come. The number of ids, at most max. */
static size_t unfinished_ids(const struct task *task, struct inode_id *ids, size_t max)
{
	struct object *obj;
	size_t i, nr = 0;

	for_each_task_object(i, obj, task) if (obj->state == OBJECT_FILLING && nr < max)
		ids[nr++] = obj->id;

	return nr;
}

#define MAX_IDS 64

int task_peek(struct cr_lazy_task *lt)
{
	struct inode_id ids[MAX_IDS];
	struct task *task = lt->priv;
	size_t nr;

	nr = unfinished_ids(task, ids, MAX_IDS);
	if (nr)
		removal_peek(&task->removal, lt->uffd, ids, nr);

	return 0;
}

static int pages_removed(struct task *task, uint64_t start, uint64_t end)
{
	const struct vma *vma = vma_table_find(&task->vmas, start);
	struct inode_id ids[MAX_IDS];
	unsigned long page, last;

	if (!vma)
		return -ENOTSUP;

	/* one event is for one mapping */
	page = vma_page(vma, start);
	last = vma_page(vma, end < vma->end ? end : vma->end);
	if (last > vma->obj->map.pages)
		last = vma->obj->map.pages;

	/* MADV_REMOVE is for shared mappings; and what was filled is in the kernel's hands */
	if (page >= last || vma->is_private || !page_map_unfilled(&vma->obj->map, page, last - page))
		return 0;

	switch (removal_classify(&task->removal, start, end, ids, unfinished_ids(task, ids, MAX_IDS))) {
	case REMOVAL_KEEPS:
		break;
	case REMOVAL_DROPS:
		object_punched(vma->obj, page, last - page);
		break;
	case REMOVAL_UNKNOWN:
		pr_err("Task %d gave up %#" PRIx64 "-%#" PRIx64 " of object %#x at offset %#lx by a call that could not be"
		       " found: it is not known whether the contents are to be kept\n",
		       task->lt->pid, start, end, vma->obj->shmid, page * PAGE_SIZE);
		object_fail(vma->obj);
		break;
	}
	return 0;
}

static int unmapped(struct task *task, uint64_t start, uint64_t end)
{
	struct vma_table old = { 0 };
	size_t i;

	if (vma_table_copy(&old, &task->vmas) || vma_table_cut(&task->vmas, start, end)) {
		vma_table_free(&old);
		pr_err("Task %d: no memory to unmap %#" PRIx64 "-%#" PRIx64 "\n", task->lt->pid, start, end);
		return -1;
	}

	/* who faulted there before gets what is due after munmap() */
	uffd_wake(task->lt->uffd, start, end - start);
	for (i = 0; i < old.n; i++)
		if (old.v[i].end > start && old.v[i].start < end && !tasks_mapping(old.v[i].obj))
			object_unmapped(old.v[i].obj);
	vma_table_free(&old);
	update_busy(task);
	return -ENOTSUP; /* the range may have private memory as well */
}

static int forked(struct task *parent, struct cr_lazy_task *lt)
{
	struct task *child;

	child = task_new(lt);
	if (!child)
		return -1;

	if (vma_table_copy(&child->vmas, &parent->vmas)) {
		pr_err("Child of task %d: no memory for its mappings\n", lt->pid);
		return -1;
	}

	count_task(child);
	update_busy(child);
	return 0;
}

int task_event(struct cr_lazy_task *lt, const struct uffd_msg *msg, struct cr_lazy_task *child)
{
	struct task *task = lt->priv;

	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		return page_fault(task, msg->arg.pagefault.address);
	case UFFD_EVENT_FORK:
		return forked(task, child);
	case UFFD_EVENT_REMOVE:
		return pages_removed(task, msg->arg.remove.start, msg->arg.remove.end);
	case UFFD_EVENT_UNMAP:
		return unmapped(task, msg->arg.remove.start, msg->arg.remove.end);
	case UFFD_EVENT_REMAP:
		if (vma_table_remap(&task->vmas, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len, PAGE_SIZE)) {
			pr_err("Task %d: no memory to remap %#" PRIx64 "\n", lt->pid, (uint64_t)msg->arg.remap.from);
			return -1;
		}
		return -ENOTSUP; /* it may be private memory */
	default:
		return -ENOTSUP;
	}
}
