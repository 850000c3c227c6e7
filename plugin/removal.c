// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "removal.h"

/*
 * After an event was read, threads whose own events wait are awake for a moment;
 * for longer if there are more threads than processors.
 */
#define SETTLE_NS 2000000L
#define LOOK_NS	  50000L

/* How long to wait for the owner of an event to move, in looks */
#define MOVE_LOOKS 2000

void removal_init(struct removal_watch *w)
{
	*w = (struct removal_watch){ .fdinfo = -1 };
}

void removal_fini(struct removal_watch *w)
{
	if (w->fdinfo >= 0)
		close(w->fdinfo);
	free(w->pids);
	free(w->calls.v);
	removal_init(w);
}

/* fs/userfaultfd.c, userfaultfd_show_fdinfo(): "pending:\t%lu\n..." */
static bool faults_pending(struct removal_watch *w, int uffd)
{
	unsigned long pending = 0;
	char buf[256];
	ssize_t ret;
	char *p;

	if (w->fdinfo < 0) {
		snprintf(buf, sizeof(buf), "/proc/self/fdinfo/%d", uffd);
		w->fdinfo = open(buf, O_RDONLY | O_CLOEXEC);
	}

	ret = pread(w->fdinfo, buf, sizeof(buf) - 1, 0);
	if (ret <= 0)
		return false;
	buf[ret] = '\0';

	p = strstr(buf, "pending:");
	return p && sscanf(p, "pending: %lu", &pending) == 1 && pending;
}

static int note_pid(pid_t pid, int pidfd, void *arg)
{
	struct removal_watch *w = arg;
	pid_t *pids;

	(void)pidfd;
	if (w->nr_pids == w->cap_pids) {
		pids = reallocarray(w->pids, w->cap_pids + 64, sizeof(*pids));
		if (!pids)
			return -ENOMEM;
		w->pids = pids;
		w->cap_pids += 64;
	}
	w->pids[w->nr_pids++] = pid;
	return 1;
}

/* Who owns a userfaultfd stays the same, so they are looked for once */
static int note_owners(struct removal_watch *w, const struct inode_id *ids, size_t nr)
{
	int ret;

	if (w->nr_pids)
		return 0;

	ret = for_each_mapper(ids, nr, note_pid, w);
	if (ret >= 0)
		return 0;

	/* some of them are as good as none: the owner could be one of the others */
	w->nr_pids = 0;
	return ret;
}

/* Whether some thread was running */
static bool look(struct removal_watch *w)
{
	bool running = false;
	size_t i;

	w->calls.look++;
	for (i = 0; i < w->nr_pids; i++)
		running |= look_for_madvise(w->pids[i], &w->calls) > 0;

	return running;
}

static int64_t ns_since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)(now.tv_sec - t->tv_sec) * 1000000000 + (now.tv_nsec - t->tv_nsec);
}

static void pause_ns(long ns)
{
	struct timespec t = { .tv_nsec = ns };

	nanosleep(&t, NULL);
}

void removal_peek(struct removal_watch *w, int uffd, const struct inode_id *ids, size_t nr)
{
	if (faults_pending(w, uffd))
		return;

	note_owners(w, ids, nr);
	while (look(w) && ns_since(&w->last_event) < SETTLE_NS)
		pause_ns(LOOK_NS);
	clock_gettime(CLOCK_MONOTONIC, &w->last_event);
}

/* The one among those noted that has the thread; 0 if it is none, or several */
static pid_t owner_of_thread(const struct removal_watch *w, pid_t tid)
{
	pid_t owner = 0;
	size_t i;

	for (i = 0; i < w->nr_pids; i++) {
		if (!has_thread(w->pids[i], tid))
			continue;
		if (owner)
			return 0;
		owner = w->pids[i];
	}

	return owner;
}

void removal_fault_of(struct removal_watch *w, pid_t tid, const struct inode_id *ids, size_t nr)
{
	pid_t owner;

	owner = owner_of_thread(w, tid);
	if (!owner) {
		/*
		 * Noted before it was born, perhaps. Or it is another process
		 * with the same memory: vfork() makes such.
		 */
		w->nr_pids = 0;
		note_owners(w, ids, nr);
		owner = owner_of_thread(w, tid);
	}
	if (owner) {
		w->pids[0] = owner;
		w->nr_pids = 1;
	}
}

int removal_locate(struct removal_watch *w, uint64_t addr, const struct inode_id *ids, size_t nr,
		   struct proc_mapping *m)
{
	struct proc_mapping other;
	bool ours = false, others = false;
	size_t i;

	if (note_owners(w, ids, nr))
		return -1;
	for (i = 0; i < w->nr_pids; i++) {
		int ret = find_mapping(w->pids[i], addr, &other);

		/* the only one we knew is dead, but somebody has its memory */
		if (ret < 0 && (ret != -ESRCH || w->nr_pids == 1))
			return -1;
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
	}

	if (ours && others)
		return -1;

	return ours;
}

static bool call_covers(const struct madvise_call *c, uint64_t start, uint64_t end)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return start >= c->start && end <= ((c->start + c->len + page - 1) & ~(page - 1));
}

/* A call of the owner, who is known, that covers the range */
static struct madvise_call *pick(struct removal_watch *w, uint64_t start, uint64_t end)
{
	size_t i;

	for (i = 0; i < w->calls.n; i++)
		if (w->calls.v[i].pid == w->pids[0] && call_covers(&w->calls.v[i], start, end))
			return &w->calls.v[i];

	return NULL;
}

/*
 * It is not known who of several owns the userfaultfd, and tasks that share memory
 * may use the same addresses. All whose calls cover the range were blocked when
 * we looked last; the one whose event was read is the only one to move on.
 */
static struct madvise_call *pick_who_moves(struct removal_watch *w, uint64_t start, uint64_t end)
{
	bool some = true;
	size_t i;
	int n;

	for (n = 0; some && n < MOVE_LOOKS; n++) {
		some = false;
		for (i = 0; i < w->calls.n; i++) {
			struct madvise_call *c = &w->calls.v[i];

			if (c->look != w->calls.look || !call_covers(c, start, end))
				continue;
			if (madvise_call_left(c))
				return c;
			some = true;
		}
		if (some)
			pause_ns(LOOK_NS);
	}

	return NULL;
}

enum removal_kind removal_classify(struct removal_watch *w, uint64_t start, uint64_t end, const struct inode_id *ids,
				   size_t nr)
{
	struct madvise_call *call;
	enum removal_kind kind;

	if (!w->nr_pids) {
		/* a fault was pending when we came, and is not any more */
		note_owners(w, ids, nr);
		look(w);
	}

	if (w->nr_pids == 1) {
		call = pick(w, start, end);
		if (!call) {
			/* not when we looked, but it may still be in its call */
			look(w);
			call = pick(w, start, end);
		}
	} else {
		call = pick_who_moves(w, start, end);
	}
	if (!call)
		return REMOVAL_UNKNOWN;

	kind = call->advice == MADV_REMOVE ? REMOVAL_DROPS : REMOVAL_KEEPS;
	w->pids[0] = call->pid;
	w->nr_pids = 1;
	*call = w->calls.v[--w->calls.n]; /* its event is read */
	return kind;
}
