/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_TASK_H
#define LSHM_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "criu.h"
#include "removal.h"
#include "vma_table.h"

struct object;
struct uffd_msg;

/*
 * Pages mapped around a fault: this many, aligned to as many. A fault costs two
 * context switches, a page more in the same ioctl next to nothing.
 */
#define WINDOW_PAGES 64UL

/* An address space with lazy mappings: a restored task or a child it forked. The event loop's alone. */
struct task {
	struct list_head l;
	struct cr_lazy_task *lt; /* CRIU's side of it */
	struct vma_table vmas;
	struct removal_watch removal;
	bool gone; /* its memory is, but CRIU has not dropped it yet */
};

/*
 * The functions with a cr_lazy_task are the hooks of the same names; they log
 * errors and return what the hook does.
 */
int task_add(struct cr_lazy_task *lt, const struct cr_shmem_vma *vmas, unsigned int nr);
int task_event(struct cr_lazy_task *lt, const struct uffd_msg *msg, struct cr_lazy_task *child);
int task_peek(struct cr_lazy_task *lt);
int task_exit(struct cr_lazy_task *lt);

/*
 * Answers a fault at addr (page aligned) as things are now: maps what is filled
 * there, or waits for it.
 */
void task_answer(struct task *task, uint64_t addr);

/* Tries again what had to wait for an event. */
void tasks_retry(void);

/* An object has left OBJECT_FILLING: who waits only for it is not busy any more. */
void tasks_update_busy(void);

/* Whether some task has turned not busy since the last call. */
bool tasks_some_dropped(void);

/* Notices tasks that are gone without having said so. */
void tasks_probe(void);

/* How many tasks map obj. */
unsigned int tasks_mapping(const struct object *obj);

void tasks_fini(void);

#endif
