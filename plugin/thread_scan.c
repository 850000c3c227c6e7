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
#include <sys/utsname.h>

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

bool find_thread(pid_t pid, bool (*fn)(pid_t pid, pid_t tid, void *arg), void *arg)
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
		pid_t tid = (pid_t)strtol(de->d_name, NULL, 10);

		found = tid > 0 && fn(pid, tid, arg);
	}
	closedir(dir);
	return found;
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
 * Before Linux 5.16 x86 finds the function for wchan by frame pointers, and most
 * kernels are built without these: it may be "0", or any word on the stack that
 * looks like a function.
 */
static bool wchan_is_right(void)
{
	static int right = -1;
	unsigned int major, minor;
	struct utsname u;

	if (right < 0)
		right = !uname(&u) && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
			(major > 5 || (major == 5 && minor >= 16));

	return right;
}

/*
 * Whether a blocked thread waits for its event to be read: all do so in one function
 * of fs/userfaultfd.c. Where the kernel does not tell, what call it is in.
 */
static bool waits_for_reader(pid_t pid, pid_t tid, long nr)
{
	char buf[128];

	if (!wchan_is_right() || !read_thread_file(pid, tid, "wchan", buf, sizeof(buf)) || !strcmp(buf, "0"))
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

/* The next line that begins with name: what follows that, or NULL */
static char *next_field(struct field *f, const char *name)
{
	while (fgets(f->line, sizeof(f->line), f->status))
		if (!strncmp(f->line, name, strlen(name)))
			return f->line + strlen(name);

	return NULL;
}

static uint64_t count_switches(pid_t pid, pid_t tid)
{
	uint64_t sum = 0;
	struct field f;
	char *p;

	if (!open_status(&f, pid, tid))
		return UINT64_MAX;
	p = next_field(&f, "voluntary_ctxt_switches:");
	sum += p ? strtoull(p, NULL, 10) : 0;
	p = next_field(&f, "nonvoluntary_ctxt_switches:");
	sum += p ? strtoull(p, NULL, 10) : 0;
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
	p = next_field(&f, "NSpid:");
	if (!p)
		last = tid; /* a kernel without pid namespaces */
	for (; p && *p == '\t'; p = end) {
		last = (pid_t)strtol(p, &end, 10);
		(*nr)++;
	}
	fclose(f.status);
	return last;
}

pid_t innermost_pid(pid_t pid)
{
	unsigned int nr;

	return innermost_tid(pid, pid, &nr);
}

/* A field of /proc/<pid>/status that is one number; pid may be any thread */
static pid_t status_number(pid_t pid, const char *name)
{
	struct field f;
	pid_t nr = 0;
	char *p;

	if (!open_status(&f, pid, pid))
		return 0;
	p = next_field(&f, name);
	if (p)
		nr = (pid_t)strtol(p, NULL, 10);
	fclose(f.status);
	return nr;
}

pid_t parent_of(pid_t pid)
{
	return status_number(pid, "PPid:");
}

pid_t process_of(pid_t tid)
{
	pid_t tgid = status_number(tid, "Tgid:");
	unsigned int nr;

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

static bool is_in_own_fault(pid_t pid, pid_t tid, void *arg)
{
	const pid_t *wanted = arg;
	unsigned int nr;

	return innermost_tid(pid, tid, &nr) == *wanted && !in_call_on_others(pid, tid);
}

bool thread_in_own_fault(pid_t pid, pid_t tid)
{
	return find_thread(pid, is_in_own_fault, &tid);
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

struct thread_look {
	struct madvise_calls *calls;
	unsigned int seen;
};

static bool look_at_thread(pid_t pid, pid_t tid, void *arg)
{
	struct thread_look *l = arg;
	struct madvise_call call;

	switch (where_is(pid, tid, &call)) {
	case THREAD_RUNNING:
		l->seen |= LOOK_RUNNING | doubt(l->calls, pid, tid);
		break;
	case THREAD_IN_MADVISE:
		/* without memory for it the event will not be known, see removal_classify() */
		note_call(l->calls, &call);
		l->seen |= LOOK_WAITS;
		break;
	case THREAD_WAITS:
		l->seen |= LOOK_WAITS;
		forget_thread(l->calls, tid);
		break;
	case THREAD_ELSEWHERE:
		forget_thread(l->calls, tid);
		break;
	}
	return false;
}

unsigned int look_for_madvise(pid_t pid, struct madvise_calls *calls)
{
	struct thread_look l = { .calls = calls };

	find_thread(pid, look_at_thread, &l);
	return l.seen;
}

int madvise_call_left(const struct madvise_call *call)
{
	struct madvise_call now;

	/* it may be in the next call already, with the same arguments */
	return where_is(call->pid, call->tid, &now) != THREAD_IN_MADVISE || now.start != call->start ||
	       now.len != call->len || now.advice != call->advice || count_switches(call->pid, call->tid) != call->switches;
}
