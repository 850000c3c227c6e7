// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>

#include "criu_internals.h"
#include "object.h"
#include "task.h"
#include "uffd_io.h"

int task_peek(struct cr_lazy_task *lt)
{
	struct task *task = lt->priv;

	if (task_unfinished(task))
		removal_peek(&task->removal, &task->owner, lt->uffd, task->ids, task->nr_objs);

	return 0;
}

/* What a remove event is about: the part of it that is in one mapping we know */
struct removed_part {
	struct object *obj;
	uint64_t off, len; /* bytes, in obj */
};

/* The part of [start, end) in vma; false if nothing there is still to be filled */
static bool part_of(const struct vma *vma, uint64_t start, uint64_t end, struct removed_part *part)
{
	struct object *obj = vma->obj;
	uint64_t limit = (uint64_t)obj->map.pages * obj->page_size;
	uint64_t first = start > vma->start ? start : vma->start;
	uint64_t last = end < vma->end ? end : vma->end;
	unsigned long page;

	part->obj = obj;
	part->off = vma->pgoff + (first - vma->start);
	part->len = last - first;
	if (part->off >= limit)
		return false;
	if (part->len > limit - part->off)
		part->len = limit - part->off;

	/* MADV_REMOVE works on shared mappings only; what was filled is in the kernel's hands */
	if (vma->is_private || obj->state != OBJECT_FILLING)
		return false;

	page = (unsigned long)(part->off / obj->page_size);
	return page_map_unfilled(&obj->map, page, size_to_pages(part->off + part->len, obj->page_size) - page);
}

static void give_up_task(struct task *task, uint64_t start, uint64_t end, const char *why)
{
	size_t i;

	pr_err("Task %d gave up the memory at %#" PRIx64 "-%#" PRIx64 " before its contents had come, and %s. Whether they "
	       "are to be kept is not known, so nobody who maps them can go on; restore again, eagerly if it happens "
	       "again (CRIU_LAZY_SHMEM=off)\n",
	       task->lt->pid, start, end, why);
	for (i = 0; i < task->nr_objs; i++)
		if (task->objs[i]->state == OBJECT_FILLING)
			object_fail(task->objs[i]);
}

/*
 * The kernel has one event for each mapping that an madvise() covers. What is one
 * mapping for it may be several of ours: after an mprotect() neighbours may have
 * become one.
 */
static int drop_pages(struct task *task, uint64_t start, uint64_t end, bool *classified)
{
	enum removal_kind kind = REMOVAL_UNKNOWN;
	uint64_t addr = start;

	while (addr < end && task_unfinished(task)) {
		const struct vma *vma = vma_table_find(&task->vmas, addr);
		struct removed_part part;
		int ret;

		if (!vma) {
			if (!*classified && !task->owner.known) {
				/* who could be the owner may have different things there */
				kind = removal_classify(&task->removal, &task->owner, start, end, task->ids, task->nr_objs);
				*classified = true;
			}
			ret = task_learn_mapping(task, addr);
			if (!ret && addr == start)
				return -ENOTSUP; /* private memory */
			if (ret <= 0) {
				give_up_task(task, start, end, "what is mapped there is not known");
				return 0;
			}
			continue;
		}

		addr = vma->end;
		if (!part_of(vma, start, end, &part))
			continue;
		if (!*classified)
			kind = removal_classify(&task->removal, &task->owner, start, end, task->ids, task->nr_objs);
		*classified = true;

		if (kind == REMOVAL_UNKNOWN) {
			give_up_task(task, start, end, "the call that did it was not found");
			return 0;
		}
		if (kind == REMOVAL_DROPS)
			object_punched(part.obj, part.off, part.len);
	}

	/* once all is complete it does not matter who takes care of it */
	return task->gone || *classified || addr > start ? 0 : -ENOTSUP;
}

static int pages_removed(struct task *task, uint64_t start, uint64_t end)
{
	bool classified = false;
	int ret;

	ret = drop_pages(task, start, end, &classified);
	if (!classified)
		removal_pass(&task->removal, start, end);
	return ret;
}

static int forget_range(struct task *task, uint64_t start, uint64_t end)
{
	if (vma_table_cut(&task->vmas, start, end)) {
		pr_err("Task %d: no memory to unmap %#" PRIx64 "-%#" PRIx64 "\n", task->lt->pid, start, end);
		return -1;
	}

	/* who faulted there before gets what is due now */
	uffd_wake(task->lt->uffd, start, end - start);
	return -ENOTSUP; /* the range may have private memory as well */
}

/* What was in both places is doubtful; a len of 0 doubles a mapping */
static int remapped(struct task *task, uint64_t from, uint64_t to, uint64_t len)
{
	if (!len)
		return forget_range(task, to, to + PAGE_SIZE);
	if (forget_range(task, from, from + len) == -1)
		return -1;

	return forget_range(task, to, to + len);
}

static int forked(struct task *parent, struct cr_lazy_task *lt)
{
	struct task *child;
	size_t i;

	child = task_new(lt);
	if (!child)
		return -1;
	child->stats->forked = true;

	for (i = 0; i < parent->nr_objs; i++) {
		if (task_use_object(child, parent->objs[i])) {
			pr_err("Child of task %d: no memory for its objects\n", lt->pid);
			return -1;
		}
	}

	task_update_busy(child);
	return 0;
}

int task_event(struct cr_lazy_task *lt, const struct uffd_msg *msg, struct cr_lazy_task *child)
{
	struct task *task = lt->priv;

	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		task->asked = stats_now();
		return task_fault(task, msg->arg.pagefault.address, msg->arg.pagefault.flags,
				  (pid_t)msg->arg.pagefault.feat.ptid);
	case UFFD_EVENT_FORK:
		return forked(task, child);
	case UFFD_EVENT_REMOVE:
		return pages_removed(task, msg->arg.remove.start, msg->arg.remove.end);
	case UFFD_EVENT_UNMAP:
		return forget_range(task, msg->arg.remove.start, msg->arg.remove.end);
	case UFFD_EVENT_REMAP:
		return remapped(task, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
	default:
		return -ENOTSUP;
	}
}
