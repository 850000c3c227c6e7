// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>

#include "criu_internals.h"
#include "filling.h"
#include "folios.h"
#include "modes.h"
#include "object.h"
#include "record.h"
#include "task.h"
#include "uffd_io.h"

static LIST_HEAD(deferred); /* struct waiter: answers that met -EAGAIN */

unsigned long vma_page(const struct vma *vma, uint64_t addr)
{
	return (unsigned long)((vma->pgoff + (addr - vma->start)) / vma->obj->page_size);
}

void faults_forget(const struct task *task)
{
	struct waiter *w, *n;

	list_for_each_entry_safe(w, n, &deferred, l) {
		if (w->task != task)
			continue;
		list_del(&w->l);
		free(w);
	}
}

static void defer(struct task *task, uint64_t addr, uint64_t flags)
{
	struct waiter *w;

	w = malloc(sizeof(*w));
	if (!w) {
		pr_err("Task %d: no memory to answer a fault at %#" PRIx64 "\n", task->lt->pid, addr);
		objects_fail_all();
		return;
	}

	*w = (struct waiter){ .task = task, .addr = addr, .flags = flags, .tid = task->faulter, .since = task->asked };
	list_add_tail(&w->l, &deferred);
	/* what kicks is the pool's, which need not be there before resume */
	if (filling_start())
		objects_fail_all();
	filling_kick();
}

/* Maps [addr, addr + len) of vma. What uffd_continue() returns. */
static int publish(struct task *task, const struct vma *vma, uint64_t addr, uint64_t len)
{
	uint64_t mapped, ioctls = uffd_nr_continue;
	int ret;

	ret = uffd_continue(task->lt->uffd, addr, len, &mapped, vma->obj->page_size);
	stats_mapped(&vma->obj->stats, task->stats, uffd_nr_continue - ioctls, mapped / vma->obj->page_size, task->asked != 0);
	if (!ret)
		stats_answered(&vma->obj->stats, task->stats, &task->asked);
	return ret;
}

/* The first of a larger window: who waits for page need not wait for all of it */
#define PUBLISH_FIRST WINDOW_PAGES

/* Maps what is filled around addr, which is filled itself */
static int publish_window(struct task *task, const struct vma *vma, uint64_t addr, unsigned long page)
{
	struct window win = window_to_map(&task->windows, vma->obj, page);
	const struct page_map *map = &vma->obj->map;
	uint64_t page_size = vma->obj->page_size;
	unsigned long first = page, end = page + 1;
	unsigned long vma_first = vma_page(vma, vma->start), vma_end = vma_page(vma, vma->end);
	unsigned long some;
	int ret;

	if (win.first < vma_first)
		win.first = vma_first;
	if (win.end > vma_end)
		win.end = vma_end;
	while (first > win.first && page_map_get(map, first - 1) == PAGE_FILLED)
		first--;
	while (end < win.end && page_map_get(map, end) == PAGE_FILLED)
		end++;
	window_mapped(&task->windows, vma->obj, page, end);

	addr -= (page - first) * page_size;
	some = end - first < PUBLISH_FIRST ? end - first : PUBLISH_FIRST;
	ret = publish(task, vma, addr, some * page_size);
	if (!ret && first + some < end)
		ret = publish(task, vma, addr + some * page_size, (end - first - some) * page_size);
	return ret;
}

/*
 * A page that the images have no contents for, or that a task punched. Whoever
 * reads it gets zeroes, whoever stored there gets that.
 */
static int publish_hole(struct task *task, const struct vma *vma, uint64_t addr, unsigned long page)
{
	int ret;

	ret = publish(task, vma, addr, vma->obj->page_size);
	if (ret != -EFAULT)
		return ret;

	if (object_zero(vma->obj, page, task, addr))
		return 0; /* the task was killed, or waits */

	return publish(task, vma, addr, vma->obj->page_size);
}

static void answer_failed(struct task *task, const struct vma *vma, uint64_t addr, int err)
{
	switch (err) {
	case -EAGAIN:
		/* an event is to be read first, never drop the fault */
		defer(task, addr, 0);
		break;
	case -ENOENT:
		/* unmapped meanwhile: let it fault again, and get what is due */
		uffd_wake(task->lt->uffd, addr, vma->obj->page_size);
		break;
	case -ESRCH:
		task_gone(task);
		break;
	default:
		pr_err("Task %d: can't map offset %#" PRIx64 " of object %#x at %#" PRIx64 ": %s\n", task->lt->pid,
		       vma->pgoff + (addr - vma->start), vma->obj->shmid, addr, strerror(-err));
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

	addr &= ~(uint64_t)(vma->obj->page_size - 1);
	if (addr < vma->start) {
		/* what is left of a doubtful mapping: it must be learned anew */
		vma_table_cut(&task->vmas, vma->start, vma->end);
		uffd_wake(task->lt->uffd, addr, PAGE_SIZE);
		return;
	}

	page = vma_page(vma, addr);
	if (vma->obj->state == OBJECT_FAILED)
		return; /* being killed: not even a hole any more */
	if (page >= vma->obj->map.pages) {
		uffd_wake(task->lt->uffd, addr, vma->obj->page_size);
		return;
	}

	record_note(vma->obj, page);
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

int task_learn_mapping(struct task *task, uint64_t addr)
{
	struct proc_mapping m;
	struct vma vma;
	size_t i;
	int ret;

	if (task->faulter)
		owner_find_by_fault(&task->owner, task->faulter, task->ids, task->nr_objs);
	ret = owner_locate(&task->owner, addr, task->ids, task->nr_objs, &m);
	if (ret <= 0)
		return ret;

	vma = (struct vma){ .start = m.start, .end = m.end, .pgoff = m.pgoff, .is_private = m.is_private };
	for (i = 0; i < task->nr_objs; i++)
		if (same_inode(&task->ids[i], &m.id))
			vma.obj = task->objs[i];
	if (!vma.obj)
		return -1;

	pr_debug("%d-%d: %#" PRIx64 "-%#" PRIx64 " is object %#x at %#" PRIx64 ", learned\n", task->lt->pid,
		 task->lt->uffd, vma.start, vma.end, vma.obj->shmid, vma.pgoff);
	return vma_table_insert(&task->vmas, &vma) ? -1 : 1;
}

static bool uses_huge_pages(const struct task *task)
{
	size_t i;

	for (i = 0; i < task->nr_objs; i++)
		if (object_is_huge(task->objs[i]))
			return true;

	return false;
}

/*
 * Tries to continue a page that is not there, at an address that is in no mapping
 * we know: that works on shmem only, and on hugetlbfs for no less than a huge page.
 * Returns what task_fault() does, or 1 if one of our objects is mapped there.
 */
static int probe(struct task *task, uint64_t addr, uint64_t flags)
{
	int ret;

	/* in a large folio it may be there by now without its contents, and must not be mapped to find out */
	folios_look();
	if (folios_may_be_large())
		return task_learn_mapping(task, addr) ? 1 : -ENOTSUP;

	ret = uffd_continue(task->lt->uffd, addr, PAGE_SIZE, NULL, PAGE_SIZE);
	switch (ret) {
	case 0: /* by now it is there, and mapped */
		return 0;
	case -EFAULT:
		return 1;
	case -EINVAL:
		return uses_huge_pages(task) && task_learn_mapping(task, addr) ? 1 : -ENOTSUP;
	case -EAGAIN:
		defer(task, addr, flags);
		return 0;
	case -ENOENT:
		uffd_wake(task->lt->uffd, addr, PAGE_SIZE);
		return 0;
	case -ESRCH:
		task_gone(task);
		return 0;
	default:
		pr_warn("Task %d: can't tell what is mapped at %#" PRIx64 ": %s\n", task->lt->pid, addr, strerror(-ret));
		return 1;
	}
}

/*
 * A fault outside of the mappings we know: CRIU's, in private memory, or in one
 * that we have to learn of. A page that is there must not be probed, it could be
 * one whose contents are still to come.
 */
static int fault_outside(struct task *task, uint64_t addr, uint64_t flags)
{
	int ret = 1;

	if (!(flags & UFFD_PAGEFAULT_FLAG_MINOR))
		ret = probe(task, addr, flags);
	if (ret <= 0)
		return ret;

	if (task_learn_mapping(task, addr) == 1) {
		stats_fault(&vma_table_find(&task->vmas, addr)->obj->stats, task->stats, flags);
		task_answer(task, addr);
	} else {
		/* right, if late: the userfaultfd is closed when all objects are complete */
		pr_warn("Task %d: the fault at %#" PRIx64 " waits for the end of the lazy restore\n", task->lt->pid,
			addr);
		modes_bring_all();
	}
	return 0;
}

static void answer_outside(struct task *task, uint64_t addr, uint64_t flags)
{
	/* CRIU is not asked a second time for one event: let the thread fault again */
	if (fault_outside(task, addr, flags) == -ENOTSUP)
		uffd_wake(task->lt->uffd, addr, PAGE_SIZE);
}

void tasks_retry(void)
{
	LIST_HEAD(again);

	list_splice_init(&deferred, &again);
	while (!list_empty(&again)) {
		struct waiter *w = list_first_entry(&again, struct waiter, l);
		struct task *task = w->task;
		uint64_t addr = w->addr, flags = w->flags, since = w->since;
		pid_t tid = w->tid;

		list_del(&w->l);
		free(w);
		if (task->gone)
			continue;

		task->faulter = tid;
		task->asked = since;
		if (vma_table_find(&task->vmas, addr))
			task_answer(task, addr);
		else
			answer_outside(task, addr, flags);
		task->faulter = 0;
	}
}

int task_fault(struct task *task, uint64_t addr, uint64_t flags, pid_t tid)
{
	const struct vma *vma;

	addr &= ~(uint64_t)(PAGE_SIZE - 1);
	if (tid)
		owner_guess(&task->owner, tid, task->ids, task->nr_objs);
	vma = vma_table_find(&task->vmas, addr);
	if (!vma) {
		int ret;

		task->faulter = tid;
		ret = fault_outside(task, addr, flags);
		task->faulter = 0;
		return ret;
	}

	stats_fault(&vma->obj->stats, task->stats, flags);
	task_answer(task, addr);
	return 0;
}
