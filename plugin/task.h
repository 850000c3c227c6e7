/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_TASK_H
#define LSHM_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "criu.h"
#include "owner.h"
#include "removal.h"
#include "stats.h"
#include "vma_table.h"
#include "window.h"

struct object;
struct uffd_msg;

/* An address space with lazy mappings: a restored task or a child it forked. The event loop's alone. */
struct task {
	struct list_head l;
	struct cr_lazy_task *lt; /* CRIU's side of it */
	struct vma_table vmas;
	/*
	 * All objects it ever mapped. As long as one of them is not complete the
	 * userfaultfd stays open, whatever the table of mappings says: events
	 * do not tell of mappings that mremap() made longer.
	 */
	struct object **objs;
	struct inode_id *ids; /* of objs, in the same order */
	size_t nr_objs;
	struct owner owner;
	struct removal_watch removal;
	struct windows windows;
	pid_t faulter; /* thread, as its own pid namespace counts, whose fault is being answered, or 0 */
	bool gone;     /* no fault will be answered any more */

	struct task_stats *stats;
	uint64_t asked; /* when the fault that is being answered was read, stats_now(); or 0 */
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
 * task.c: who there is
 */

/* A task without mappings yet; NULL, with the reason logged. */
struct task *task_new(struct cr_lazy_task *lt);

/* Its fate is bound to obj's from here on. 0 or -ENOMEM. */
int task_use_object(struct task *task, struct object *obj);

/* Whether it still needs its userfaultfd; tells the event loop when that ends. */
void task_update_busy(struct task *task);

/* No fault will come any more, or none that needs an answer from us. */
void task_gone(struct task *task);

/* Whether pages of any of its objects are still to come. */
bool task_unfinished(const struct task *task);

/*
 * fault.c: what they wait for
 */

/* In pages, from the beginning of vma's object. */
unsigned long vma_page(const struct vma *vma, uint64_t addr);

/* A fault at addr (bytes) of thread tid; flags are UFFD_PAGEFAULT_FLAG_*. Returns what the EVENT hook does. */
int task_fault(struct task *task, uint64_t addr, uint64_t flags, pid_t tid);

/*
 * What is known of a task's mappings is what restore announced, less what events
 * made doubtful; the rest is learned from /proc when it is needed. Events do not
 * tell of a mapping that mremap() made longer or doubled; and those of several
 * threads, and of fork(), come in another order than the changes were made in,
 * so nothing is derived from them. 1: addr is in the table now; 0: no object is
 * mapped there; -1: not known.
 */
int task_learn_mapping(struct task *task, uint64_t addr);

/* None of its faults will be answered. */
void faults_forget(const struct task *task);

/*
 * Answers a fault at addr (bytes) as things are now: maps what is filled there,
 * or waits for it.
 */
void task_answer(struct task *task, uint64_t addr);

/* Tries again what had to wait for an event. */
void tasks_retry(void);

/* An object has left OBJECT_FILLING: who waits only for it is not busy any more. */
void tasks_update_busy(void);

/* Whether some task has turned not busy since the last call. */
bool tasks_some_dropped(void);

/*
 * Maps these pages of obj, as far as they are filled, wherever a task is known to map
 * them: ahead of any fault, so that nothing is lost where it does not succeed.
 */
void tasks_publish(struct object *obj, unsigned long page, unsigned long nr);

/* Notices tasks that are gone without having said so. */
void tasks_probe(void);

/* How many tasks map obj, or once did and are still there. */
unsigned int tasks_mapping(const struct object *obj);

void tasks_fini(void);

#endif
