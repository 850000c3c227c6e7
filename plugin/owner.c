// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>

#include "owner.h"

/* Faults of a task that are looked at in the hope to learn at once who it is */
#define MAX_GUESSES 4

void owner_fini(struct owner *o)
{
	free(o->pids);
	*o = (struct owner){ 0 };
}

static int note(pid_t pid, int pidfd, void *arg)
{
	struct owner *o = arg;
	pid_t *pids;

	(void)pidfd;
	if (o->nr == o->cap) {
		pids = reallocarray(o->pids, o->cap + 64, sizeof(*pids));
		if (!pids)
			return -ENOMEM;
		o->pids = pids;
		o->cap += 64;
	}
	o->pids[o->nr++] = pid;
	return 1;
}

static void forget(struct owner *o)
{
	o->nr = 0;
	o->known = false;
}

void owner_is(struct owner *o, pid_t pid)
{
	o->nr = 0;
	o->known = note(pid, -1, o) == 1;
}

static bool same_memory(pid_t a, pid_t b)
{
	return !syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0);
}

#define MAX_DEPTH 8 /* of vfork()s in vfork()s */

/* Of those with the memory of pid, the one that the others come from: it will be there for longest */
static pid_t eldest(pid_t pid)
{
	pid_t parent;
	int n;

	for (n = 0; n < MAX_DEPTH && (parent = parent_of(pid)) > 0 && same_memory(pid, parent); n++)
		pid = parent;

	return pid;
}

/* The one among those noted whose thread is in a fault of its own; 0 if it is none, or several */
static pid_t noted_with_thread(const struct owner *o, pid_t tid)
{
	pid_t owner = 0, pid;
	size_t i;

	for (i = 0; i < o->nr; i++) {
		if (!thread_in_own_fault(o->pids[i], tid))
			continue;
		pid = eldest(o->pids[i]);
		if (owner && owner != pid)
			return 0;
		owner = pid;
	}

	return owner;
}

/* A restored task has the pid of the images; there may be more of the kind in other namespaces */
static void narrow(struct owner *o)
{
	pid_t owner = 0;
	size_t i;

	if (!o->vpid) {
		o->known = o->nr == 1;
		return;
	}

	for (i = 0; i < o->nr; i++) {
		if (innermost_pid(o->pids[i]) != o->vpid)
			continue;
		if (owner)
			return;
		owner = o->pids[i];
	}
	if (owner)
		owner_is(o, owner);
}

int owner_find(struct owner *o, const struct inode_id *ids, size_t nr)
{
	int ret;

	/* one that is gone may have left its memory to another */
	if (o->known && !has_memory(o->pids[0]))
		forget(o);
	if (o->nr)
		return 0;

	ret = for_each_mapper(ids, nr, note, o);
	if (ret >= 0) {
		narrow(o);
		return 0;
	}

	/* some of them are as good as none: the owner could be one of the others */
	forget(o);
	return ret;
}

void owner_find_by_fault(struct owner *o, pid_t tid, const struct inode_id *ids, size_t nr)
{
	pid_t owner;

	owner = noted_with_thread(o, tid);
	if (!owner) {
		/* noted before it was born, perhaps, or one with the same memory */
		forget(o);
		owner_find(o, ids, nr);
		owner = noted_with_thread(o, tid);
	}
	if (owner)
		owner_is(o, owner);
}

void owner_guess(struct owner *o, pid_t tid, const struct inode_id *ids, size_t nr)
{
	pid_t pid;

	if (o->known || o->guesses == MAX_GUESSES)
		return;

	o->guesses++;
	pid = process_of(tid);
	if (pid && thread_in_own_fault(pid, tid) && maps_one_of(pid, ids, nr))
		owner_is(o, eldest(pid));
}

bool owner_may_be(const struct owner *o, pid_t pid)
{
	size_t i;

	for (i = 0; i < o->nr; i++)
		if (o->pids[i] == pid || (o->known && same_memory(o->pids[i], pid)))
			return true;

	return false;
}

/* What is called for each process, and for whom it is looked for */
struct visit {
	void (*fn)(pid_t pid, pid_t owner, void *arg);
	pid_t owner;
	void *arg;
	int depth; /* of the processes below */
};

static void visit_below(const struct visit *v, pid_t pid);

/* The children of one thread that have its memory */
static bool visit_children(pid_t pid, pid_t tid, void *arg)
{
	struct visit v = *(struct visit *)arg;
	char path[64];
	int child;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tid);
	f = fopen(path, "re");
	if (!f)
		return false; /* gone, or a kernel without CONFIG_PROC_CHILDREN */

	v.depth--;
	while (fscanf(f, "%d", &child) == 1)
		if (same_memory(pid, child))
			visit_below(&v, child);
	fclose(f);
	return false;
}

/* pid, and its descendants as long as they have the same memory */
static void visit_below(const struct visit *v, pid_t pid)
{
	v->fn(pid, v->owner, v->arg);
	if (v->depth)
		find_thread(pid, visit_children, (void *)v);
}

void owner_for_each(const struct owner *o, void (*fn)(pid_t pid, pid_t owner, void *arg), void *arg)
{
	size_t i;

	for (i = 0; i < o->nr; i++) {
		struct visit v = { .fn = fn, .owner = eldest(o->pids[i]), .arg = arg, .depth = 2 * MAX_DEPTH };

		visit_below(&v, v.owner);
	}
}

/* Only what they have in common is known to be the owner's, whoever that is */
static void clip(struct proc_mapping *m, const struct proc_mapping *other)
{
	if (m->start < other->start) {
		m->pgoff += other->start - m->start;
		m->start = other->start;
	}
	if (m->end > other->end)
		m->end = other->end;
}

int owner_locate(struct owner *o, uint64_t addr, const struct inode_id *ids, size_t nr, struct proc_mapping *m)
{
	struct proc_mapping other;
	bool ours = false, others = false;
	size_t i, gone = 0;

	if (owner_find(o, ids, nr))
		return -1;
	for (i = 0; i < o->nr; i++) {
		int ret = find_mapping(o->pids[i], addr, &other);

		if (ret < 0 && ret != -ESRCH)
			return -1;
		gone += ret == -ESRCH;
		if (ret <= 0)
			continue;
		if (!inode_is_in(&other.id, ids, nr)) {
			others = true;
			continue;
		}
		if (ours && (!same_inode(&other.id, &m->id) || other.start - other.pgoff != m->start - m->pgoff ||
			     other.is_private != m->is_private))
			return -1;
		if (!ours)
			*m = other;
		ours = true;
		clip(m, &other);
	}

	if ((ours && others) || (o->nr && gone == o->nr))
		return -1;

	return ours;
}
