// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <poll.h>
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

/* How long it may take a thread that has raised an event to get to sleep */
#define ASLEEP_NS 100000000L

/* Between two looks */
#define LOOK_NS 50000L

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

/* uffd is readable, and what will be read is not a fault */
static bool event_is_next(struct removal_watch *w, int uffd)
{
	struct pollfd pfd = { .fd = uffd, .events = POLLIN };

	return !faults_pending(w, uffd) && poll(&pfd, 1, 0) == 1;
}

struct looking {
	struct madvise_calls *calls;
	unsigned int seen; /* LOOK_* */
};

static void look_at_one(pid_t pid, pid_t owner, void *arg)
{
	struct looking *l = arg;
	size_t i;

	l->seen |= look_for_madvise(pid, l->calls);

	/* a vfork()ed child may be gone when we ask whose memory it had */
	for (i = 0; i < l->calls->n; i++)
		if (l->calls->v[i].pid == pid && l->calls->v[i].look == l->calls->look)
			l->calls->v[i].owner = owner;
}

/* Returns LOOK_*: what was seen of the threads of all who might be the owner */
static unsigned int look(struct removal_watch *w, const struct owner *o)
{
	struct looking l = { .calls = &w->calls };

	w->calls.look++;
	owner_for_each(o, look_at_one, &l);
	return l.seen;
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

void removal_peek(struct removal_watch *w, struct owner *o, int uffd, const struct inode_id *ids, size_t nr)
{
	struct timespec began;
	unsigned int seen;
	bool known;

	clock_gettime(CLOCK_MONOTONIC, &began);
	while (event_is_next(w, uffd)) {
		owner_find(o, ids, nr);
		seen = look(w, o);
		if (!(seen & LOOK_RUNNING) || ns_since(&began) > ASLEEP_NS)
			break;
		/* there is an event, but who raised it may not be asleep yet, and who waits be another one */
		known = o->known && ns_since(&w->last_event) > SETTLE_NS;
		if ((seen & LOOK_WAITS) && !(seen & LOOK_DOUBT) && (known || ns_since(&began) > SETTLE_NS))
			break;
		pause_ns(LOOK_NS);
	}
	clock_gettime(CLOCK_MONOTONIC, &w->last_event);
}

static uint64_t call_end(const struct madvise_call *c)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return (c->start + c->len + page - 1) & ~(page - 1);
}

static bool call_covers(const struct madvise_call *c, uint64_t start, uint64_t end)
{
	return start >= c->start && end <= call_end(c);
}

/* Whether a call that was noted may be the one whose event, for this range, was read */
static bool may_be(const struct removal_watch *w, const struct owner *o, const struct madvise_call *c, uint64_t start,
		   uint64_t end, bool blocked)
{
	if ((c->look == w->calls.look) != blocked || !call_covers(c, start, end))
		return false;

	return c->owner == o->pids[0] || owner_may_be(o, c->pid);
}

struct event {
	uint64_t start, end;
	const struct proc_mapping *m; /* where start is */
	const struct inode_id *ids;
	size_t nr;
};

/*
 * Whether the event may be the next of a call: a call raises one for each mapping
 * that it covers, in their order, and waits for it to be read. But it may fail
 * before it gets to the last one.
 */
static bool is_due(const struct madvise_call *c, const struct owner *o, const struct event *e)
{
	if (e->start != c->start && e->start != c->passed &&
	    (e->start != e->m->start || maps_between(o->pids[0], c->passed, e->start, e->ids, e->nr)))
		return false;

	return e->end == e->m->end || e->end == call_end(c);
}

/* Calls of both kinds cover the range: the one whose event it is */
static struct madvise_call *pick_due(struct removal_watch *w, const struct owner *o, const struct event *e)
{
	struct madvise_call *found = NULL;
	size_t i;

	for (i = 0; i < w->calls.n; i++) {
		struct madvise_call *c = &w->calls.v[i];

		if (may_be(w, o, c, e->start, e->end, true) && is_due(c, o, e) && (!found || c->advice == MADV_REMOVE))
			found = c;
	}

	return found;
}

/*
 * Of the calls that were, or were not, seen blocked when we looked last, one that
 * covers the range. *mixed if there are some of both kinds.
 */
static struct madvise_call *pick_kind(struct removal_watch *w, const struct owner *o, uint64_t start, uint64_t end,
				      bool blocked, bool *mixed)
{
	struct madvise_call *found = NULL;
	size_t i;

	*mixed = false;
	for (i = 0; i < w->calls.n; i++) {
		struct madvise_call *c = &w->calls.v[i];

		if (!may_be(w, o, c, start, end, blocked))
			continue;
		if (found && (found->advice == MADV_REMOVE) != (c->advice == MADV_REMOVE))
			*mixed = true;
		found = c;
	}

	return found;
}

/*
 * The call whose event was read, of those who have the owner's memory: blocked when
 * we looked last. Of several it does not matter which, if they are of one kind. If
 * they are not, and both wait with an event for just this range, it is taken for
 * that of MADV_REMOVE: what that is about to drop may as well be gone now, and its
 * own event, if this is not it, will find it in its call again.
 *
 * If there is none, one of those about whom we are in doubt.
 */
static struct madvise_call *pick(struct removal_watch *w, const struct owner *o, uint64_t start, uint64_t end,
				 const struct inode_id *ids, size_t nr)
{
	struct event e = { .start = start, .end = end, .ids = ids, .nr = nr };
	struct madvise_call *found;
	struct proc_mapping m;
	bool mixed;

	found = pick_kind(w, o, start, end, true, &mixed);
	if (mixed) {
		e.m = &m;
		return find_mapping(o->pids[0], start, &m) == 1 ? pick_due(w, o, &e) : NULL;
	}
	if (found)
		return found;

	found = pick_kind(w, o, start, end, false, &mixed);
	return mixed ? NULL : found;
}

/* Its event, up to end, is read: it may have more */
static void pass(struct removal_watch *w, struct madvise_call *c, uint64_t end)
{
	if (end >= call_end(c)) {
		*c = w->calls.v[--w->calls.n];
		return;
	}

	c->passed = end;
	c->look = w->calls.look - 1; /* it is not seen in its call any more */
}

/*
 * It is not known who of several owns the userfaultfd, and tasks that share memory
 * may use the same addresses. All whose calls cover the range were blocked when
 * we looked last; the one whose event was read is the only one to move on.
 */
static pid_t who_moves(struct removal_watch *w, uint64_t start, uint64_t end)
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
				return c->owner;
			some = true;
		}
		if (some)
			pause_ns(LOOK_NS);
	}

	return 0;
}

enum removal_kind removal_classify(struct removal_watch *w, struct owner *o, uint64_t start, uint64_t end,
				   const struct inode_id *ids, size_t nr)
{
	struct madvise_call *call;
	enum removal_kind kind;
	pid_t pid;

	if (!o->nr) {
		/* a fault was pending when we came, and is not any more */
		owner_find(o, ids, nr);
		look(w, o);
	}

	if (!o->known) {
		pid = who_moves(w, start, end);
		if (!pid)
			return REMOVAL_UNKNOWN;
		owner_is(o, pid);
	}

	call = pick(w, o, start, end, ids, nr);
	if (!call) {
		/* not when we looked, but it may still be in its call */
		look(w, o);
		call = pick(w, o, start, end, ids, nr);
	}
	if (!call)
		return REMOVAL_UNKNOWN;

	kind = call->advice == MADV_REMOVE ? REMOVAL_DROPS : REMOVAL_KEEPS;
	pass(w, call, end);
	return kind;
}

void removal_pass(struct removal_watch *w, uint64_t start, uint64_t end)
{
	struct madvise_call *found = NULL;
	size_t i;

	for (i = 0; i < w->calls.n; i++) {
		if (!call_covers(&w->calls.v[i], start, end))
			continue;
		if (found)
			return;
		found = &w->calls.v[i];
	}
	if (found)
		pass(w, found, end);
}
