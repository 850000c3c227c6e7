// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "criu_internals.h"
#include "filling.h"
#include "object.h"
#include "record.h"
#include "task.h"
#include "uffd_io.h"

static LIST_HEAD(tasks);
static bool some_dropped;

bool task_unfinished(const struct task *task)
{
	size_t i;

	for (i = 0; i < task->nr_objs; i++)
		if (task->objs[i]->state == OBJECT_FILLING)
			return true;

	return false;
}

void task_update_busy(struct task *task)
{
	bool busy = task_unfinished(task) || (record_holds_tasks() && task->nr_objs);

	if (task->lt->busy && !busy) {
		some_dropped = true;
		filling_kick();
	}
	task->lt->busy = busy;
}

void tasks_update_busy(void)
{
	struct task *task;

	list_for_each_entry(task, &tasks, l)
		task_update_busy(task);
}

bool tasks_some_dropped(void)
{
	bool ret = some_dropped;

	some_dropped = false;
	return ret;
}

static bool task_uses(const struct task *task, const struct object *obj)
{
	size_t i;

	for (i = 0; i < task->nr_objs; i++)
		if (task->objs[i] == obj)
			return true;

	return false;
}

unsigned int tasks_mapping(const struct object *obj)
{
	struct task *task;
	unsigned int nr = 0;

	list_for_each_entry(task, &tasks, l)
		nr += task_uses(task, obj);

	return nr;
}

int task_use_object(struct task *task, struct object *obj)
{
	size_t nr = task->nr_objs + 1;
	struct object **objs;
	struct inode_id *ids;

	if (task_uses(task, obj))
		return 0;

	objs = realloc(task->objs, nr * sizeof(struct object *));
	if (!objs)
		return -ENOMEM;
	task->objs = objs;
	ids = realloc(task->ids, nr * sizeof(*ids));
	if (!ids)
		return -ENOMEM;
	task->ids = ids;

	objs[task->nr_objs] = obj;
	ids[task->nr_objs++] = obj->id;
	obj->stats.tasks++;
	return 0;
}

struct task *task_new(struct cr_lazy_task *lt)
{
	struct task *task;

	task = calloc(1, sizeof(*task));
	if (!task) {
		pr_err("Task %d: no memory\n", lt->pid);
		return NULL;
	}

	task->lt = lt;
	task->stats = stats_task_new(lt->pid);
	removal_init(&task->removal);
	lt->priv = task;
	list_add_tail(&task->l, &tasks);
	return task;
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

		if (!vma.obj || vma.obj->delivery != CR_SHMEM_LAZY) {
			pr_err("Task %d maps object %#x, which is not a lazy one\n", lt->pid, vmas[i].shmid);
			return -1;
		}
		if (vma_table_insert(&task->vmas, &vma) || task_use_object(task, vma.obj)) {
			pr_err("Task %d: no memory for %u mappings\n", lt->pid, nr);
			return -1;
		}
		pr_debug("%d-%d: %#" PRIx64 "-%#" PRIx64 " is object %#x at %#" PRIx64 "\n", lt->pid, lt->uffd, vma.start,
			 vma.end, vma.obj->shmid, vma.pgoff);
	}

	task->owner.vpid = lt->pid;
	task_update_busy(task);
	return 0;
}

void task_gone(struct task *task)
{
	struct object **objs = task->objs;
	size_t i, nr = task->nr_objs;

	if (task->gone)
		return;

	pr_debug("%d-%d: no more faults to answer\n", task->lt->pid, task->lt->uffd);
	stats_task_end(task->stats, TASK_ENDED);
	task->gone = true;
	task->objs = NULL;
	task->nr_objs = 0;
	free(task->ids);
	task->ids = NULL;
	vma_table_free(&task->vmas);
	faults_forget(task);
	for (i = 0; i < nr; i++) {
		object_forget_waiters(objs[i], task);
		if (!tasks_mapping(objs[i]))
			object_unmapped(objs[i]);
	}
	free(objs);
	task_update_busy(task);
}

int task_exit(struct cr_lazy_task *lt)
{
	struct task *task = lt->priv;

	stats_task_end(task->stats, task->gone || task_unfinished(task) ? TASK_ENDED : TASK_RETIRED);
	task_gone(task);
	removal_fini(&task->removal);
	owner_fini(&task->owner);
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

/* A mapping may have been cut anywhere: only whole pages of the object */
static void publish_in(struct task *task, const struct vma *vma, uint64_t off, uint64_t end)
{
	struct object *obj = vma->obj;
	uint64_t size = obj->page_size, vma_end = vma->pgoff + (vma->end - vma->start);
	uint64_t mapped, ioctls = uffd_nr_continue;
	int ret;

	if (off < vma->pgoff)
		off = (vma->pgoff + size - 1) / size * size;
	if (end > vma_end)
		end = vma_end / size * size;
	if (off >= end)
		return;

	ret = uffd_continue(task->lt->uffd, vma->start + (off - vma->pgoff), end - off, &mapped, size);
	stats_mapped(&obj->stats, task->stats, uffd_nr_continue - ioctls, mapped / size, false);
	if (ret == -ESRCH)
		task_gone(task);
}

/* A run of pages that are filled */
static void publish_run(struct object *obj, unsigned long page, unsigned long nr)
{
	uint64_t off = (uint64_t)page * obj->page_size, end = off + (uint64_t)nr * obj->page_size;
	struct task *task;
	size_t i;

	list_for_each_entry(task, &tasks, l)
		for (i = 0; i < task->vmas.n; i++) /* none are left of a task that is gone */
			if (task->vmas.v[i].obj == obj)
				publish_in(task, &task->vmas.v[i], off, end);
}

void tasks_publish(struct object *obj, unsigned long page, unsigned long nr)
{
	unsigned long end = page + nr, run;

	for (; page < end && obj->state == OBJECT_FILLING; page += run) {
		run = page_map_run(&obj->map, page, end - page);
		if (page_map_get(&obj->map, page) == PAGE_FILLED)
			publish_run(obj, page, run);
	}
}

/* A task that exits raises no event, it shows when something is done to its memory. */
void tasks_probe(void)
{
	struct task *task;

	list_for_each_entry(task, &tasks, l)
		if (!task->gone && uffd_probe(task->lt->uffd) == -ESRCH)
			task_gone(task);
}
