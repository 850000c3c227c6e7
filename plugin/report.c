// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/stat.h>

#include "criu_internals.h"
#include "json.h"
#include "object.h"
#include "report.h"
#include "route.h"
#include "settings.h"
#include "stats.h"

/* Of the file: readers that know a version ignore fields they do not know */
#define VERSION	  1
#define TEMPORARY REPORT_FILE ".tmp"

/* In the log: of a restore of thousands of tasks nobody wants to read each */
#define MAX_LINES 24

#define NSEC_PER_MSEC 1000000

static struct timespec started;	     /* CLOCK_REALTIME */
static uint64_t start_ns, resume_ns; /* stats_now() */

void report_start(void)
{
	start_ns = stats_now();
	clock_gettime(CLOCK_REALTIME, &started);
	if (unlink(REPORT_FILE) && errno != ENOENT)
		pr_warn("Can't remove the old %s: %s\n", REPORT_FILE, strerror(errno));
}

void report_resumed(void)
{
	resume_ns = stats_now();
}

/*
 * The file
 */

static const char *state_name(enum object_state state)
{
	switch (state) {
	case OBJECT_COMPLETE:
		return "complete";
	case OBJECT_FAILED:
		return "failed";
	case OBJECT_ABANDONED:
		return "abandoned";
	default:
		return "filling";
	}
}

/* ms after resume; what was before that is at 0 */
static void put_ms(struct json *j, const char *key, uint64_t when)
{
	if (!when || !resume_ns)
		json_put_null(j, key);
	else
		json_put_number(j, key, when > resume_ns ? (when - resume_ns) / NSEC_PER_MSEC : 0);
}

static void put_us(struct json *j, const char *key, uint64_t ns)
{
	json_put_fixed(j, key, ns, 3);
}

static void put_stalls(struct json *j, const struct stalls *s)
{
	unsigned int i;

	json_put_open_line(j, "stalls", '{');
	json_put_number(j, "count", s->nr);
	put_us(j, "total_us", s->total);
	put_us(j, "max_us", s->max);
	put_us(j, "p50_us", stalls_quantile(s, 500));
	put_us(j, "p99_us", stalls_quantile(s, 990));
	json_put_open(j, "histogram", '[');
	for (i = 0; i < STALL_BUCKETS; i++)
		json_put_number(j, NULL, s->bucket[i]);
	json_put_close(j, ']');
	json_put_close(j, '}');
}

static void put_faults(struct json *j, const struct fault_stats *f)
{
	json_put_open_line(j, "faults", '{');
	json_put_number(j, "missing", f->missing);
	json_put_number(j, "minor", f->minor);
	json_put_close(j, '}');
	json_put_number(j, "windows", f->windows);
	json_put_number(j, "pages_mapped", f->mapped);
	json_put_number(j, "pages_mapped_ahead", f->ahead);
	put_stalls(j, &f->stalls);
}

static void put_fill(struct json *j, const struct object_stats *s)
{
	json_put_open_line(j, "pages_filled", '{');
	json_put_number(j, "fault", s->filled[FILLED_FAULT]);
	json_put_number(j, "window", s->filled[FILLED_WINDOW]);
	json_put_number(j, "background", s->filled[FILLED_BACKGROUND]);
	json_put_number(j, "record", s->filled[FILLED_RECORD]);
	json_put_close(j, '}');
	json_put_number(j, "pages_zeroed", s->zeroed);
}

static void put_bytes(struct json *j, const struct object_stats *s, uint64_t zeroed)
{
	json_put_open_line(j, "bytes", '{');
	json_put_number(j, "image", s->bytes[SOURCE_IMAGE]);
	json_put_number(j, "parent", s->bytes[SOURCE_PARENT]);
	json_put_number(j, "page_server", s->bytes[SOURCE_SERVER]);
	json_put_number(j, "zeroed", zeroed);
	json_put_close(j, '}');
}

static void put_object(struct json *j, const struct object *obj)
{
	const struct object_stats *s = &obj->stats;
	char id[16];

	snprintf(id, sizeof(id), "%#x", obj->shmid);
	json_put_open(j, NULL, '{');
	json_put_string(j, "id", id);
	json_put_string(j, "name", s->name);
	json_put_string(j, "delivery", obj->delivery == CR_SHMEM_LAZY ? "lazy" : "before-resume");
	json_put_string(j, "state", state_name(obj->state));
	json_put_string(j, "charged_to", obj->route ? route_cgroup(obj) : NULL);
	json_put_number(j, "size", obj->size);
	json_put_number(j, "page_size", obj->page_size);
	json_put_number(j, "tasks", s->tasks);
	put_ms(j, "complete_ms", s->completed);
	json_put_number(j, "pages_in_images", s->to_fill);
	put_fill(j, s);
	put_bytes(j, s, s->zeroed * obj->page_size);
	put_faults(j, &s->faults);
	json_put_close(j, '}');
}

static void put_task(struct json *j, const struct task_stats *t)
{
	json_put_open(j, NULL, '{');
	if (t->pid)
		json_put_number(j, "pid", (uint64_t)t->pid);
	else
		json_put_null(j, "pid");
	json_put_number(j, "tasks", t->nr_tasks);
	json_put_string(j, "origin", t->nr_tasks > 1 ? "several" : t->forked ? "forked" :
									       "restored");
	json_put_string(j, "state", t->nr_tasks > 1 ? "several" : task_end_name(t->end));
	if (t->nr_tasks > 1)
		json_put_null(j, "let_go_ms");
	else
		put_ms(j, "let_go_ms", t->ended);
	put_faults(j, &t->faults);
	json_put_close(j, '}');
}

/* Over all objects, of which each has its page size */
static void sum_up(struct object_stats *sum, uint64_t *zeroed)
{
	const struct object *obj;

	list_for_each_entry(obj, &objects, l) {
		object_stats_add(sum, &obj->stats);
		*zeroed += obj->stats.zeroed * obj->page_size;
	}
}

static void put_totals(struct json *j)
{
	struct object_stats sum = { 0 };
	const struct task_stats *t;
	const struct object *obj;
	uint64_t zeroed = 0, nr_objects = 0, nr_tasks = 0;

	list_for_each_entry(obj, &objects, l)
		nr_objects++;
	for (t = stats_tasks(); t; t = t->next)
		nr_tasks += t->nr_tasks;
	sum_up(&sum, &zeroed);

	json_put_open(j, "totals", '{');
	json_put_number(j, "objects", nr_objects);
	json_put_number(j, "tasks", nr_tasks);
	json_put_number(j, "pages_in_images", sum.to_fill);
	put_fill(j, &sum);
	put_bytes(j, &sum, zeroed);
	put_faults(j, &sum.faults);
	json_put_close(j, '}');
}

/* As they were used, defaults included */
static void put_settings(struct json *j)
{
	json_put_open_line(j, "settings", '{');
	json_put_number(j, "workers", settings.workers);
	json_put_number(j, "inflight_kib", settings.remote_ahead >> 10);
	json_put_string(j, "fill", settings.on_demand ? "on-demand" : "background");
	json_put_number(j, "bandwidth_mib_s", settings.bandwidth >> 20);
	json_put_number(j, "prefill_mib", settings.prefill >> 20);
	json_put_number(j, "recording", settings.record_seconds != NO_RECORD);
	json_put_string(j, "progress",
			settings.progress == PROGRESS_OFF  ? "off" :
			settings.progress == PROGRESS_AUTO ? "auto" :
							     "log");
	json_put_number(j, "progress_seconds", settings.progress_seconds);
	json_put_close(j, '}');
}

static void put_all(struct json *j, bool failed)
{
	const struct task_stats *t;
	const struct object *obj;
	uint64_t now = stats_now();

	json_put_open(j, NULL, '{');
	json_put_number(j, "version", VERSION);
	json_put_string(j, "result", failed ? "failed" : "ok");
	json_put_string(j, "images", opts.imgs_dir);
	json_put_fixed(j, "started", (uint64_t)started.tv_sec * 1000 + (uint64_t)(started.tv_nsec / NSEC_PER_MSEC), 3);
	if (resume_ns)
		json_put_number(j, "resumed_ms", (resume_ns - start_ns) / NSEC_PER_MSEC);
	else
		json_put_null(j, "resumed_ms");
	json_put_number(j, "ended_ms", (now - start_ns) / NSEC_PER_MSEC);
	put_settings(j);
	put_totals(j);

	json_put_open(j, "objects", '[');
	list_for_each_entry(obj, &objects, l)
		put_object(j, obj);
	json_put_close(j, ']');

	json_put_open(j, "tasks", '[');
	for (t = stats_tasks(); t; t = t->next)
		put_task(j, t);
	json_put_close(j, ']');
	json_put_close(j, '}');
}

/* A reader sees all of it or nothing, also if the disk is full. 0 or -errno. */
static int write_file(bool failed)
{
	struct json j = { 0 };
	int fd, err = 0;

	/* not through a link that somebody has put there */
	if (unlink(TEMPORARY) && errno != ENOENT)
		return -errno;
	fd = open(TEMPORARY, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;

	j.out = fdopen(fd, "w");
	if (!j.out) {
		err = -errno;
		close(fd);
		goto out;
	}

	errno = 0;
	put_all(&j, failed);
	if (fflush(j.out) || ferror(j.out))
		err = errno ? -errno : -EIO;
	if (fclose(j.out) && !err)
		err = -errno;
	if (!err && rename(TEMPORARY, REPORT_FILE))
		err = -errno;
out:
	if (err)
		unlink(TEMPORARY);
	return err;
}

/*
 * The log
 */

/* "faults_missing=1 ... stall_max_us=1", and what there is too much of for a line is in the file */
static const char *faults_text(char *buf, size_t size, const struct fault_stats *f)
{
	snprintf(buf, size,
		 "faults_missing=%" PRIu64 " faults_minor=%" PRIu64 " windows=%" PRIu64 " pages_mapped=%" PRIu64
		 " stall_ms=%" PRIu64 " stall_p50_us=%" PRIu64 " stall_p99_us=%" PRIu64 " stall_max_us=%" PRIu64,
		 f->missing, f->minor, f->windows, f->mapped, f->stalls.total / NSEC_PER_MSEC,
		 stalls_quantile(&f->stalls, 500) / 1000, stalls_quantile(&f->stalls, 990) / 1000, f->stalls.max / 1000);
	return buf;
}

static const char *fill_text(char *buf, size_t size, const struct object_stats *s)
{
	snprintf(buf, size,
		 "by_fault=%" PRIu64 " by_window=%" PRIu64 " by_background=%" PRIu64 " by_record=%" PRIu64
		 " bytes_image=%" PRIu64 " bytes_parent=%" PRIu64 " bytes_server=%" PRIu64,
		 s->filled[FILLED_FAULT], s->filled[FILLED_WINDOW], s->filled[FILLED_BACKGROUND], s->filled[FILLED_RECORD],
		 s->bytes[SOURCE_IMAGE], s->bytes[SOURCE_PARENT], s->bytes[SOURCE_SERVER]);
	return buf;
}

static void note_left_out(unsigned int all, const char *what)
{
	if (all > MAX_LINES)
		pr_note("and %u %s more, see " REPORT_FILE "\n", all - MAX_LINES, what);
}

static void note_objects(void)
{
	char fill[256], faults[256];
	const struct object *obj;
	unsigned int nr = 0;

	list_for_each_entry(obj, &objects, l) {
		if (nr++ >= MAX_LINES)
			continue;
		pr_note("object %#x: %s %s\n", obj->shmid, fill_text(fill, sizeof(fill), &obj->stats),
			faults_text(faults, sizeof(faults), &obj->stats.faults));
	}
	note_left_out(nr, "objects");
}

static void note_tasks(void)
{
	const struct task_stats *t;
	unsigned int nr = 0;
	char faults[256];

	for (t = stats_tasks(); t; t = t->next) {
		nr += t->nr_tasks;
		if (nr > MAX_LINES)
			continue;
		pr_note("task %d %s%s: ms=%" PRId64 " %s\n", t->pid, t->forked ? "(child) " : "", task_end_name(t->end),
			t->ended > resume_ns && resume_ns ? (int64_t)((t->ended - resume_ns) / NSEC_PER_MSEC) : 0,
			faults_text(faults, sizeof(faults), &t->faults));
	}
	note_left_out(nr, "tasks");
}

static void note_totals(void)
{
	struct object_stats sum = { 0 };
	char fill[256], faults[256];
	uint64_t zeroed = 0;

	sum_up(&sum, &zeroed);
	pr_note("total: %s %s\n", fill_text(fill, sizeof(fill), &sum), faults_text(faults, sizeof(faults), &sum.faults));
}

void report_write(bool failed)
{
	int err;

	if (!start_ns)
		return;

	if (!list_empty(&objects)) {
		note_objects();
		note_tasks();
		note_totals();
	}

	err = write_file(failed);
	if (err)
		pr_warn("Can't write %s in the work directory: %s; the restore does not need it\n", REPORT_FILE,
			strerror(-err));
}
