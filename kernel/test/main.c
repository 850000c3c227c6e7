// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of userfaultfd's minor faults on shmem and hugetlb, as an ABI.
 *
 *   minor [-l] [--expect-absent] [--mark] [--race-ms N] [--timeout S] [NAME]...
 *
 * NAME selects a test, or with a '*' at its end all that begin so. Each test
 * is a process of its own. The results are test/run.sh's lines; the status is
 * 0 if none failed.
 *
 * --mark writes each test's name to the kernel's log before it runs.
 * --expect-absent: what a kernel without minor faults must answer, and
 * the tests that need none.
 */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "minor.h"
#include "machine.h"

#define SKIPPED 77

int race_ms = 700;
int wait_ms = 10000;

static struct test *tests, **last = &tests;
static int timeout = 30;
static bool absent, mark;
static int verdict_fd = -1;
static volatile sig_atomic_t interrupted;

void test_add(struct test *t)
{
	*last = t;
	last = &t->next;
}

/* One write, so that two threads that fail at once do not mix their words. */
static void say(const char *fmt, va_list args)
{
	char text[512];
	int n = vsnprintf(text, sizeof(text), fmt, args);

	if (n >= (int)sizeof(text))
		n = sizeof(text) - 1;
	for (int i = 0; i < n; i++)
		if (text[i] == '\n')
			text[i] = ' ';
	if (write(verdict_fd, text, n) != n)
		_exit(3);
}

void fail_at(const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	char where[640];
	va_list args;

	snprintf(where, sizeof(where), "%s:%d: %s; ", base ? base + 1 : file, line, fmt);
	va_start(args, fmt);
	say(where, args);
	va_end(args);
	_exit(1);
}

void skip(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(fmt, args);
	va_end(args);
	_exit(SKIPPED);
}

static void run_child(struct test *t, int fd)
{
	verdict_fd = fd;
	/* All that a test starts is in its group, and can be ended with it. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGALRM, SIG_DFL);
	alarm(timeout);
	t->run();
	_exit(0);
}

/* What the test's process, or one of its children, had to say; then its end. */
static int end_of(pid_t pid, int fd, char *reason, size_t size)
{
	size_t n = 0;
	ssize_t got;
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (interrupted)
			kill(-pid, SIGKILL);
	kill(-pid, SIGKILL);
	/* Orphans come to us: see PR_SET_CHILD_SUBREAPER below. */
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	while (n + 1 < size && (got = read(fd, reason + n, size - 1 - n)) > 0)
		n += got;
	/* Without the mark at the end of the last one. */
	while (n && strchr("; ", reason[n - 1]))
		n--;
	reason[n] = 0;
	return status;
}

/* Returns whether the test did not fail. */
static bool run_test(struct test *t)
{
	char reason[600] = "";
	int p[2], status;
	pid_t pid;

	if (mark) {
		snprintf(reason, sizeof(reason), "minor: begin %s\n", t->name);
		put_string("/dev/kmsg", reason);
		reason[0] = 0;
	}
	if (machine_prepare(t->flags, reason, sizeof(reason))) {
		printf("skip %s: %s\n", t->name, reason);
		return true;
	}
	if (pipe2(p, O_CLOEXEC)) {
		printf("not ok %s: pipe: errno %d\n", t->name, errno);
		return false;
	}
	pid = fork();
	if (!pid) {
		close(p[0]);
		run_child(t, p[1]);
	}
	if (pid < 0) {
		printf("not ok %s: fork: errno %d\n", t->name, errno);
		return false;
	}
	setpgid(pid, pid);
	close(p[1]);
	status = end_of(pid, p[0], reason, sizeof(reason));
	close(p[0]);
	machine_restore();

	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
		printf("skip %s: %s\n", t->name, reason);
		return true;
	}
	if (WIFEXITED(status) && !WEXITSTATUS(status) && !reason[0]) {
		printf("ok %s\n", t->name);
		return true;
	}
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		printf("not ok %s: not done after %d s%s%s\n", t->name, timeout, reason[0] ? "; " : "", reason);
	else if (WIFSIGNALED(status))
		printf("not ok %s: signal %d%s%s\n", t->name, WTERMSIG(status), reason[0] ? "; " : "", reason);
	else
		printf("not ok %s: %s\n", t->name, reason[0] ? reason : "ended before its end");
	return false;
}

static bool matches(const char *pattern, const char *name)
{
	size_t n = strlen(pattern);

	if (n && pattern[n - 1] == '*')
		return !strncmp(pattern, name, n - 1);
	return !strcmp(pattern, name);
}

static bool selected(struct test *t, int argc, char **argv)
{
	if (!(t->flags & EVERYWHERE) && !!(t->flags & WHERE_ABSENT) != absent)
		return false;
	for (int i = 0; i < argc; i++)
		if (matches(argv[i], t->name))
			return true;
	return !argc;
}

static void on_signal(int sig)
{
	interrupted = sig;
}

static void usage(void)
{
	fprintf(stderr, "usage: minor [-l] [--expect-absent] [--mark] [--race-ms N] [--timeout S] [NAME]...\n");
	exit(2);
}

static bool options(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "expect-absent", no_argument, NULL, 'a' },
		{ "mark", no_argument, NULL, 'm' },
		{ "race-ms", required_argument, NULL, 'r' },
		{ "timeout", required_argument, NULL, 't' },
		{},
	};
	bool list = false;
	int c;

	while ((c = getopt_long(argc, argv, "l", longs, NULL)) != -1) {
		if (c == 'l')
			list = true;
		else if (c == 'a')
			absent = true;
		else if (c == 'm')
			mark = true;
		else if (c == 'r' && atoi(optarg) > 0)
			race_ms = atoi(optarg);
		else if (c == 't' && atoi(optarg) > 0)
			timeout = atoi(optarg);
		else
			usage();
	}
	/* What is waited for in vain is reported as that, and not as a timeout of all. */
	if (wait_ms > timeout * 500)
		wait_ms = timeout * 500;
	return list;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_signal };
	bool list = options(argc, argv);
	int count = 0, failed = 0;

	argc -= optind;
	argv += optind;
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (struct test *t = tests; t; t = t->next)
		count += selected(t, argc, argv);
	if (!count) {
		fprintf(stderr, "minor: there is no such test\n");
		return 2;
	}
	if (!list)
		printf("1..%d\n", count);

	/* Without SA_RESTART: the one who waits looks at 'interrupted'. */
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (struct test *t = tests; t && !interrupted; t = t->next) {
		if (!selected(t, argc, argv))
			continue;
		if (list)
			printf("%s\n", t->name);
		else
			failed += !run_test(t);
	}
	return failed || interrupted;
}
