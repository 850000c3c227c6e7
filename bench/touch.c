// SPDX-License-Identifier: GPL-2.0-only
/*
 * Touches an object of MIB MiB from the first instruction after restore.
 *
 *   touch REPORT PLAN MIB seq|random|zipf TASKS THREADS [private]
 *
 * The object is one anonymous shared mapping of all tasks, or private memory. Each
 * thread of each task has its share of as many accesses as there are pages, and
 * records them in the file PLAN (touching.h). "ready pid=P" is appended to REPORT by
 * each task when all of its threads wait, "done pid=P accesses=N wrong=N" at the end.
 *
 * What lets the threads go: they are in a nanosleep() without end. It can not be
 * resumed by restore, which makes it end with EINTR instead; so no help from outside
 * is needed, and nothing comes before the first access.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "touching.h"

static const char *report_file;
static struct plan *plan;
static uint64_t *mem;
static unsigned int nr_tasks, nr_threads;

struct toucher {
	pthread_t thread;
	unsigned int lane;
	volatile pid_t tid;
};

static void report(const char *line)
{
	int fd = open(report_file, O_WRONLY | O_APPEND | O_CREAT, 0644);
	size_t len = strlen(line);

	if (fd < 0 || write(fd, line, len) != (ssize_t)len)
		exit(1);
	close(fd);
}

static void *touch(void *arg)
{
	struct timespec forever = { .tv_sec = 1000000 };
	struct toucher *toucher = arg;

	toucher->tid = (pid_t)syscall(SYS_gettid);
	if (!syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &forever, NULL) || errno != EINTR)
		exit(1);
	touch_all(plan, toucher->lane, mem, 0);
	return NULL;
}

/* Is the thread in its system call? Before that it would sleep after restore. */
static int sleeps(const struct toucher *toucher)
{
	char path[64], text[64] = "";
	int fd;

	if (!toucher->tid)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", toucher->tid);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		exit(1);
	close(fd);
	return strtol(text, NULL, 10) == SYS_clock_nanosleep && text[0] != 'r';
}

static void run(unsigned int task)
{
	static struct toucher touchers[TOUCH_LANES];
	uint64_t accesses = 0, wrong = 0;
	char line[128];
	unsigned int i;

	for (i = 0; i < nr_threads; i++) {
		touchers[i].lane = task * nr_threads + i;
		if (pthread_create(&touchers[i].thread, NULL, touch, &touchers[i]))
			exit(1);
	}
	for (i = 0; i < nr_threads; i++)
		while (!sleeps(&touchers[i]))
			usleep(1000);
	snprintf(line, sizeof(line), "ready pid=%d\n", getpid());
	report(line);

	for (i = 0; i < nr_threads; i++) {
		const struct lane *lane = &plan->lane[touchers[i].lane];

		pthread_join(touchers[i].thread, NULL);
		accesses += lane->end - lane->first;
		wrong += lane->wrong;
	}
	snprintf(line, sizeof(line), "done pid=%d accesses=%" PRIu64 " wrong=%" PRIu64 "\n", getpid(), accesses, wrong);
	report(line);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	uint64_t size;
	unsigned int i;
	int flags = MAP_ANONYMOUS | MAP_SHARED;

	if (argc < 7)
		return 2;
	report_file = argv[1];
	size = strtoul(argv[3], NULL, 10) << 20;
	nr_tasks = (unsigned int)atoi(argv[5]);
	nr_threads = (unsigned int)atoi(argv[6]);
	if (!size || !nr_tasks || !nr_threads || nr_tasks * nr_threads > TOUCH_LANES)
		return 2;
	if (argc > 7 && !strcmp(argv[7], "private"))
		flags = MAP_ANONYMOUS | MAP_PRIVATE;

	plan = touch_plan(argv[2], size / TOUCH_PAGE, argv[4], nr_tasks * nr_threads);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (!plan || mem == MAP_FAILED)
		return 1;
	touch_fill(mem, size);

	for (i = 1; i < nr_tasks; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (!pid)
			run(i);
	}
	run(0);
}
