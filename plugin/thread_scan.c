// SPDX-License-Identifier: GPL-2.0-only
/* What /proc tells of threads */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "proc_scan.h"

/* /proc/<pid>/task/<tid>/<file> as a string; false if the thread is gone */
static bool read_thread_file(pid_t pid, pid_t tid, const char *file, char *buf, size_t size)
{
	char path[96];
	ssize_t ret;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ret = read(fd, buf, size - 1);
	close(fd);
	if (ret <= 0)
		return false;
	buf[ret] = '\0';
	return true;
}

enum thread_place {
	THREAD_RUNNING,
	THREAD_IN_MADVISE,
	THREAD_WAITS, /* in another call, for its event to be read */
	THREAD_ELSEWHERE,
};

static bool call_raises_events(long nr)
{
	switch (nr) {
	case SYS_madvise:
	case SYS_mmap:
	case SYS_munmap:
	case SYS_mremap:
	case SYS_brk:
	case SYS_shmat:
	case SYS_shmdt:
	case SYS_clone:
	case SYS_clone3:
#ifdef SYS_fork
	case SYS_fork:
#endif
#ifdef SYS_process_madvise
	case SYS_process_madvise:
#endif
		return true;
	default:
		return false;
	}
}

/* mm/madvise.c, madvise_dontneed_free() and madvise_remove(); the others may wait for faults of their own */
static bool advice_raises_event(int advice)
{
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_FREE:
	case MADV_REMOVE:
#ifdef MADV_DONTNEED_LOCKED
	case MADV_DONTNEED_LOCKED:
#endif
		return true;
	default:
		return false;
	}
}

/*
 * Whether a blocked thread waits for its event to be read: all do so in one function
 * of fs/userfaultfd.c. Where the kernel does not tell ("0"), what call it is in.
 */
static bool waits_for_reader(pid_t pid, pid_t tid, long nr)
{
	char buf[128];

	if (!read_thread_file(pid, tid, "wchan", buf, sizeof(buf)) || !strcmp(buf, "0"))
		return call_raises_events(nr);

	return strstr(buf, "userfaultfd") != NULL;
}

/* "nr arg0 arg1 arg2 ..." in hex but for nr, or "running" */
static enum thread_place where_is(pid_t pid, pid_t tid, struct madvise_call *call)
{
	unsigned long a0, a1, a2;
	char buf[256];
	long nr;

	if (!read_thread_file(pid, tid, "syscall", buf, sizeof(buf)))
		return THREAD_ELSEWHERE;
	if (!strncmp(buf, "running", 7))
		return THREAD_RUNNING;
	if (sscanf(buf, "%ld %lx %lx %lx", &nr, &a0, &a1, &a2) != 4)
		return THREAD_ELSEWHERE;
	if (!waits_for_reader(pid, tid, nr))
		return THREAD_ELSEWHERE;
	if (nr != SYS_madvise)
		return THREAD_WAITS;
	if (!advice_raises_event((int)a2))
		return THREAD_ELSEWHERE;

	*call = (struct madvise_call){ .pid = pid, .tid = tid, .start = a0, .len = a1, .advice = (int)a2 };
	return THREAD_IN_MADVISE;
}

/* Lines of /proc/<pid>/task/<tid>/status; that of groups can be long */
struct field {
	FILE *status;
	char line[256];
};

static bool open_status(struct field *f, pid_t pid, pid_t tid)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	f->status = fopen(path, "re");
	return f->status != NULL;
}

/* The next line that has name in it */
static bool next_field(struct field *f, const char *name)
{
	while (fgets(f->line, sizeof(f->line), f->status))
		if (strstr(f->line, name))
			return true;

	return false;
}

static uint64_t count_switches(pid_t pid, pid_t tid)
{
	static const char name[] = "voluntary_ctxt_switches:"; /* and "nonvoluntary..." */
	uint64_t sum = 0;
	struct field f;

	if (!open_status(&f, pid, tid))
		return UINT64_MAX;
	while (next_field(&f, name))
		sum += strtoull(strstr(f.line, name) + sizeof(name) - 1, NULL, 10);
	fclose(f.status);
	return sum;
}

/* Numbers of a thread, from our namespace to its own: the last one; *nr how many. 0: gone */
static pid_t innermost_tid(pid_t pid, pid_t tid, unsigned int *nr)
{
	pid_t last = 0;
	struct field f;
	char *p, *end;

	*nr = 0;
	if (!open_status(&f, pid, tid))
		return 0;
	if (!next_field(&f, "NSpid:")) {
		last = tid; /* a kernel without pid namespaces */
	} else {
		for (p = f.line + strlen("NSpid:"); *p == '\t'; p = end) {
			last = (pid_t)strtol(p, &end, 10);
			(*nr)++;
		}
	}
	fclose(f.status);
	return last;
}

pid_t innermost_pid(pid_t pid)
{
	unsigned int nr;

	return innermost_tid(pid, pid, &nr);
}

pid_t process_of(pid_t tid)
{
	char path[64], line[256];
	unsigned int nr;
	int tgid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (!tgid && fgets(line, sizeof(line), f))
		if (sscanf(line, "Tgid: %d", &tgid) == 1)
			break;
	fclose(f);

	return tgid && innermost_tid(tgid, tid, &nr) == tid && nr <= 1 ? tgid : 0;
}

static bool in_call_on_others(pid_t pid, pid_t tid)
{
	char buf[256];
	long nr;

	if (!read_thread_file(pid, tid, "syscall", buf, sizeof(buf)) || sscanf(buf, "%ld", &nr) != 1)
		return false;
	switch (nr) {
	case SYS_process_vm_readv:
	case SYS_process_vm_writev:
#ifdef SYS_process_madvise
	case SYS_process_madvise:
#endif
		return true; /* ptrace() and /proc/<pid>/mem do not wait for a userfaultfd */
	default:
		return false;
	}
}

bool thread_in_own_fault(pid_t pid, pid_t tid)
{
	struct dirent *de;
	bool found = false;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return false;

	while (!found && (de = readdir(dir))) {
		pid_t t = (pid_t)strtol(de->d_name, NULL, 10);
		unsigned int nr;

		found = t > 0 && innermost_tid(pid, t, &nr) == tid && !in_call_on_others(pid, t);
	}

	closedir(dir);
	return found;
}

/* Nanoseconds; 0 where the kernel does not count them (CONFIG_SCHED_INFO). Of a running thread as of the last tick. */
static uint64_t run_time(pid_t pid, pid_t tid)
{
	char buf[128];

	return read_thread_file(pid, tid, "schedstat", buf, sizeof(buf)) ? strtoull(buf, NULL, 10) : 0;
}

/* To wake up, see that its event was not read, and sleep again takes less */
#define WAKE_NS 200000

/* One that is running: what becomes of the note of its call */
static unsigned int doubt(struct madvise_calls *calls, pid_t pid, pid_t tid)
{
	size_t i;

	for (i = 0; i < calls->n; i++) {
		if (calls->v[i].tid != tid)
			continue;
		if (run_time(pid, tid) - calls->v[i].run_ns <= WAKE_NS)
			return LOOK_DOUBT;
		calls->v[i] = calls->v[--calls->n];
		break;
	}

	return 0;
}

static void forget_thread(struct madvise_calls *calls, pid_t tid)
{
	size_t i;

	for (i = 0; i < calls->n; i++)
		if (calls->v[i].tid == tid)
			calls->v[i--] = calls->v[--calls->n];
}

static int note_call(struct madvise_calls *calls, struct madvise_call *call)
{
	struct madvise_call *v;
	size_t i;

	call->passed = call->start;
	for (i = 0; i < calls->n; i++) {
		v = &calls->v[i];
		if (v->tid == call->tid && v->start == call->start && v->len == call->len && v->advice == call->advice)
			call->passed = v->passed;
	}

	forget_thread(calls, call->tid);
	if (calls->n == calls->cap) {
		v = reallocarray(calls->v, calls->cap + 16, sizeof(*v));
		if (!v)
			return -ENOMEM;
		calls->v = v;
		calls->cap += 16;
	}

	call->switches = count_switches(call->pid, call->tid);
	call->run_ns = run_time(call->pid, call->tid);
	call->look = calls->look;
	calls->v[calls->n++] = *call;
	return 0;
}

unsigned int look_for_madvise(pid_t pid, struct madvise_calls *calls)
{
	struct madvise_call call;
	struct dirent *de;
	unsigned int seen = 0;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return 0;

	while ((de = readdir(dir))) {
		pid_t tid = (pid_t)strtol(de->d_name, NULL, 10);

		if (tid <= 0)
			continue;
		switch (where_is(pid, tid, &call)) {
		case THREAD_RUNNING:
			seen |= LOOK_RUNNING | doubt(calls, pid, tid);
			break;
		case THREAD_IN_MADVISE:
			/* without memory for it the event will not be known, see removal_classify() */
			note_call(calls, &call);
			seen |= LOOK_WAITS;
			break;
		case THREAD_WAITS:
			seen |= LOOK_WAITS;
			forget_thread(calls, tid);
			break;
		case THREAD_ELSEWHERE:
			forget_thread(calls, tid);
			break;
		}
	}

	closedir(dir);
	return seen;
}

int madvise_call_left(const struct madvise_call *call)
{
	struct madvise_call now;

	/* it may be in the next call already, with the same arguments */
	return where_is(call->pid, call->tid, &now) != THREAD_IN_MADVISE || now.start != call->start ||
	       now.len != call->len || now.advice != call->advice || count_switches(call->pid, call->tid) != call->switches;
}
