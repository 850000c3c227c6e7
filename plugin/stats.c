// SPDX-License-Identifier: GPL-2.0-only
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "fill.h"
#include "stats.h"

static struct task_stats *tasks, **last_task = &tasks;
static struct task_stats others; /* of the tasks that are not told apart; in the list if there are any */
static unsigned int nr_tasks;

uint64_t stats_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static unsigned int bucket_of(uint64_t us)
{
	unsigned int i = us ? 63 - (unsigned int)__builtin_clzll(us) : 0;

	return i < STALL_BUCKETS ? i : STALL_BUCKETS - 1;
}

void stalls_add(struct stalls *s, uint64_t ns)
{
	s->bucket[bucket_of(ns / 1000)]++;
	s->nr++;
	s->total += ns;
	if (ns > s->max)
		s->max = ns;
}

/* As if those of a bucket were spread over it evenly; none is longer than the longest */
uint64_t stalls_quantile(const struct stalls *s, unsigned int permille)
{
	double rank = (double)s->nr * permille / 1000, before = 0;
	unsigned int i;

	for (i = 0; i < STALL_BUCKETS; i++) {
		double from = i ? (double)(1ULL << i) : 0, to = (double)(2ULL << i);
		double nr = (double)s->bucket[i], ns;

		if (!s->bucket[i] || before + nr < rank) {
			before += nr;
			continue;
		}
		if (i == STALL_BUCKETS - 1 && (double)s->max > to * 1000)
			to = (double)s->max / 1000;
		ns = (from + (to - from) * (rank - before) / nr) * 1000;
		return ns < (double)s->max ? (uint64_t)ns : s->max;
	}
	return s->max;
}

static void stalls_sum(struct stalls *sum, const struct stalls *s)
{
	unsigned int i;

	for (i = 0; i < STALL_BUCKETS; i++)
		sum->bucket[i] += s->bucket[i];
	sum->nr += s->nr;
	sum->total += s->total;
	if (s->max > sum->max)
		sum->max = s->max;
}

void fault_stats_add(struct fault_stats *sum, const struct fault_stats *f)
{
	sum->missing += f->missing;
	sum->minor += f->minor;
	sum->windows += f->windows;
	sum->mapped += f->mapped;
	sum->ahead += f->ahead;
	stalls_sum(&sum->stalls, &f->stalls);
}

void object_stats_add(struct object_stats *sum, const struct object_stats *s)
{
	unsigned int i;

	fault_stats_add(&sum->faults, &s->faults);
	for (i = 0; i < NR_FILLED_BY; i++)
		sum->filled[i] += s->filled[i];
	for (i = 0; i < NR_SOURCES; i++)
		sum->bytes[i] += s->bytes[i];
	sum->zeroed += s->zeroed;
	sum->to_fill += s->to_fill;
}

uint64_t stats_filled(const struct object_stats *s)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < NR_FILLED_BY; i++)
		sum += s->filled[i];
	return sum;
}

uint64_t stats_faults(const struct fault_stats *f)
{
	return f->missing + f->minor;
}

/*
 * Objects
 */

void stats_object_init(struct object_stats *s, int fd, uint64_t to_fill, int image_fd)
{
	static const char gone[] = " (deleted)";
	char path[64], name[256];
	ssize_t len;

	s->to_fill = to_fill;
	s->image_fd = image_fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, name, sizeof(name) - 1);
	if (len <= 0)
		return;
	name[len] = 0;
	/* the kernel says so of every file without a name in a directory */
	if (len > (ssize_t)strlen(gone) && !strcmp(name + len - strlen(gone), gone))
		name[len - (ssize_t)strlen(gone)] = 0;
	s->name = strdup(name);
}

void stats_object_fini(struct object_stats *s)
{
	free(s->name);
	s->name = NULL;
}

/*
 * Tasks
 */

static void append(struct task_stats *t)
{
	*last_task = t;
	last_task = &t->next;
}

struct task_stats *stats_task_new(int pid)
{
	struct task_stats *t = nr_tasks < MAX_TASK_STATS ? calloc(1, sizeof(*t)) : NULL;

	if (t) {
		t->pid = pid;
		t->nr_tasks = 1;
		nr_tasks++;
		append(t);
		return t;
	}

	if (!others.nr_tasks++)
		append(&others);
	others.end = TASK_SERVED;
	return &others;
}

void stats_task_end(struct task_stats *t, enum task_end end)
{
	if (t->end != TASK_SERVED)
		return;
	t->end = end;
	t->ended = stats_now();
}

const struct task_stats *stats_tasks(void)
{
	return tasks;
}

const char *task_end_name(enum task_end end)
{
	switch (end) {
	case TASK_RETIRED:
		return "retired";
	case TASK_ENDED:
		return "ended";
	default:
		return "served";
	}
}

void stats_fini(void)
{
	struct task_stats *t, *next;

	for (t = tasks; t; t = next) {
		next = t->next;
		if (t != &others)
			free(t);
	}
	others = (struct task_stats){ 0 };
	tasks = NULL;
	last_task = &tasks;
	nr_tasks = 0;
}

/*
 * What happens to them
 */

void stats_fault(struct object_stats *s, struct task_stats *t, uint64_t flags)
{
	if (flags & UFFD_PAGEFAULT_FLAG_MINOR) {
		s->faults.minor++;
		t->faults.minor++;
	} else {
		s->faults.missing++;
		t->faults.missing++;
	}
}

static void add_mapped(struct fault_stats *f, uint64_t ioctls, uint64_t pages, bool asked)
{
	f->windows += ioctls;
	f->mapped += pages;
	f->ahead += pages - (asked && pages);
}

void stats_mapped(struct object_stats *s, struct task_stats *t, uint64_t ioctls, uint64_t pages, bool asked)
{
	add_mapped(&s->faults, ioctls, pages, asked);
	add_mapped(&t->faults, ioctls, pages, asked);
}

void stats_answered(struct object_stats *s, struct task_stats *t, uint64_t *since)
{
	uint64_t ns;

	if (!*since)
		return;
	ns = stats_now() - *since;
	*since = 0;
	stalls_add(&s->faults.stalls, ns);
	stalls_add(&t->faults.stalls, ns);
}

void stats_job(struct object_stats *s, const struct fill_job *job)
{
	unsigned int i;

	for (i = 0; i < job->nr_segs; i++) {
		const struct fill_seg *seg = &job->segs[i];
		enum source from = seg->src_fd == SEG_REMOTE  ? SOURCE_SERVER :
				   seg->src_fd == s->image_fd ? SOURCE_IMAGE :
								SOURCE_PARENT;

		s->bytes[from] += seg->len;
	}
}
