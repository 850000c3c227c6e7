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

int task_peek(struct cr_lazy_task *lt)
{
	struct inode_id ids[TASK_MAX_IDS];
	struct task *task = lt->priv;
	size_t nr;

	nr = task_unfinished_ids(task, ids, TASK_MAX_IDS);
	if (nr)
		removal_peek(&task->removal, lt->uffd, ids, nr);

	return 0;
}

/* Whether [start, end), all of it in one mapping, is of an object: 1, 0, or -1 if that is not known */
static int range_is_ours(struct task *task, uint64_t start, uint64_t end)
{
	const struct vma *near = vma_table_before(&task->vmas, end - 1);

	/* neighbours in the table may be one mapping by now, after an mprotect() */
	if (near && near->end > start)
		return 1;
	/* what is below of all that we know did not grow out of it */
	if (!near)
		return 0;

	return task_learn_mapping(task, start);
}

/* The part of [start, end) in vma, which is shared, was given up by its task */
static void part_removed(struct task *task, const struct vma *vma, uint64_t start, uint64_t end)
{
	struct object *obj = vma->obj;
	struct inode_id ids[TASK_MAX_IDS];
	unsigned long page, last;

	page = vma_page(vma, start > vma->start ? start : vma->start);
	last = vma_page(vma, end < vma->end ? end : vma->end);
	if (last > obj->map.pages)
		last = obj->map.pages;

	/* what was filled is in the kernel's hands */
	if (page >= last || obj->state != OBJECT_FILLING || !page_map_unfilled(&obj->map, page, last - page))
		return;

	switch (removal_classify(&task->removal, start, end, ids, task_unfinished_ids(task, ids, TASK_MAX_IDS))) {
	case REMOVAL_KEEPS:
		break;
	case REMOVAL_DROPS:
		object_punched(obj, page, last - page);
		break;
	case REMOVAL_UNKNOWN:
		pr_err("Task %d gave up %#" PRIx64 "-%#" PRIx64 ", object %#x from offset %#lx, by a call that could not "
		       "be found: it is not known whether the contents are to be kept\n",
		       task->lt->pid, start, end, obj->shmid, page * PAGE_SIZE);
		object_fail(obj);
		break;
	}
}

static void task_fail(struct task *task)
{
	size_t i;

	for (i = 0; i < task->nr_objs; i++)
		object_fail(task->objs[i]);
}

static int pages_removed(struct task *task, uint64_t start, uint64_t end)
{
	struct inode_id ids[TASK_MAX_IDS];
	uint64_t addr = start;
	int ours;

	/* once all is complete CRIU may unregister what it likes */
	if (!task_unfinished_ids(task, ids, TASK_MAX_IDS))
		return -ENOTSUP;

	ours = range_is_ours(task, start, end);
	if (!ours)
		return -ENOTSUP;

	while (ours > 0 && addr < end) {
		const struct vma *vma = vma_table_find(&task->vmas, addr);

		if (!vma) {
			ours = task_learn_mapping(task, addr) == 1 ? 1 : -1;
			continue;
		}
		addr = vma->end;
		/* MADV_REMOVE works on shared mappings only */
		if (!vma->is_private)
			part_removed(task, vma, start, end);
		if (task->gone)
			return 0;
	}

	if (ours < 0) {
		pr_err("Task %d gave up %#" PRIx64 "-%#" PRIx64 ", of which it is not known what is mapped there\n",
		       task->lt->pid, start, end);
		task_fail(task);
	}
	return 0;
}

static int unmapped(struct task *task, uint64_t start, uint64_t end)
{
	if (vma_table_cut(&task->vmas, start, end)) {
		pr_err("Task %d: no memory to unmap %#" PRIx64 "-%#" PRIx64 "\n", task->lt->pid, start, end);
		return -1;
	}

	/* who faulted there before gets what is due after munmap() */
	uffd_wake(task->lt->uffd, start, end - start);
	return -ENOTSUP; /* the range may have private memory as well */
}

static int remapped(struct task *task, uint64_t from, uint64_t to, uint64_t len)
{
	if (vma_table_remap(&task->vmas, from, to, len, PAGE_SIZE)) {
		pr_err("Task %d: no memory to remap %#" PRIx64 "\n", task->lt->pid, from);
		return -1;
	}

	return -ENOTSUP; /* it may be private memory */
}

static int forked(struct task *parent, struct cr_lazy_task *lt)
{
	struct task *child;
	size_t i;
	int err;

	child = task_new(lt);
	if (!child)
		return -1;

	err = vma_table_copy(&child->vmas, &parent->vmas);
	for (i = 0; i < parent->nr_objs && !err; i++)
		err = task_use_object(child, parent->objs[i]);
	if (err) {
		pr_err("Child of task %d: no memory for its mappings\n", lt->pid);
		return -1;
	}

	task_update_busy(child);
	return 0;
}

int task_event(struct cr_lazy_task *lt, const struct uffd_msg *msg, struct cr_lazy_task *child)
{
	struct task *task = lt->priv;

	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		return task_fault(task, msg->arg.pagefault.address, msg->arg.pagefault.flags);
	case UFFD_EVENT_FORK:
		return forked(task, child);
	case UFFD_EVENT_REMOVE:
		return pages_removed(task, msg->arg.remove.start, msg->arg.remove.end);
	case UFFD_EVENT_UNMAP:
		return unmapped(task, msg->arg.remove.start, msg->arg.remove.end);
	case UFFD_EVENT_REMAP:
		return remapped(task, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
	default:
		return -ENOTSUP;
	}
}
