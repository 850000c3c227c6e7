// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "removal.h"

void removal_init(struct removal_watch *w)
{
	w->fdinfo = -1;
	w->nr_pids = 0;
	w->nr_calls = 0;
}

void removal_fini(struct removal_watch *w)
{
	if (w->fdinfo >= 0)
		close(w->fdinfo);
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

	(void)pidfd;
	if (w->nr_pids < REMOVAL_MAX_PIDS)
		w->pids[w->nr_pids++] = pid;
	return 1;
}

/* Who owns a userfaultfd stays the same, so they are looked for once */
static void note_owners(struct removal_watch *w, const struct inode_id *ids, size_t nr)
{
	if (!w->nr_pids)
		for_each_mapper(ids, nr, note_pid, w);
}

static void note_calls(struct removal_watch *w)
{
	unsigned int i;

	for (i = 0; i < w->nr_pids; i++) {
		int nr = find_madvise_calls(w->pids[i], w->calls + w->nr_calls, REMOVAL_MAX_CALLS - w->nr_calls);

		if (nr > 0)
			w->nr_calls += nr;
	}
}

void removal_peek(struct removal_watch *w, int uffd, const struct inode_id *ids, size_t nr)
{
	w->nr_calls = 0;
	if (faults_pending(w, uffd))
		return;

	note_owners(w, ids, nr);
	note_calls(w);
}

static bool is_object(const struct proc_mapping *m, const struct inode_id *ids, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++)
		if (m->id.ino == ids[i].ino && m->id.dev == ids[i].dev)
			return true;

	return false;
}

int removal_locate(struct removal_watch *w, uint64_t addr, const struct inode_id *ids, size_t nr,
		   struct proc_mapping *m)
{
	struct proc_mapping other;
	bool ours = false, others = false;
	unsigned int i;

	note_owners(w, ids, nr);
	for (i = 0; i < w->nr_pids; i++) {
		if (!find_mapping(w->pids[i], addr, &other))
			continue;
		if (!is_object(&other, ids, nr)) {
			others = true;
			continue;
		}
		if (ours && (other.id.ino != m->id.ino || other.start - other.pgoff != m->start - m->pgoff ||
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

/* UNKNOWN as well if callers contradict each other: two tasks may use one address */
static enum removal_kind match(const struct removal_watch *w, uint64_t start, uint64_t end)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	bool keeps = false, drops = false;
	int i;

	for (i = 0; i < w->nr_calls; i++) {
		const struct madvise_call *c = &w->calls[i];

		if (start < c->start || end > ((c->start + c->len + page - 1) & ~(page - 1)))
			continue;
		if (c->advice == MADV_REMOVE)
			drops = true;
		else
			keeps = true;
	}

	if (keeps == drops)
		return REMOVAL_UNKNOWN;

	return drops ? REMOVAL_DROPS : REMOVAL_KEEPS;
}

enum removal_kind removal_classify(struct removal_watch *w, uint64_t start, uint64_t end, const struct inode_id *ids,
				   size_t nr)
{
	enum removal_kind kind = match(w, start, end);

	if (kind != REMOVAL_UNKNOWN || w->nr_calls)
		return kind;

	/* not where we looked, but it may still be in its call */
	w->nr_pids = 0;
	for_each_mapper(ids, nr, note_pid, w);
	note_calls(w);
	return match(w, start, end);
}
