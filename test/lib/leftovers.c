// SPDX-License-Identifier: GPL-2.0-only
/*
 * A tree of tasks with every kind of memory; test/e2e/leftovers.py compares what
 * an eager and a lazy restore make of it.
 *
 *   leftovers REPORT [hugetlb] [noreserve] [sysv]
 *
 * Three tasks: "main" (with two more threads), "left" and "right". REPORT gets a
 * line for each that is ready. On SIGUSR1 a task checks all data that it maps and
 * reports it. On SIGUSR2 it makes a child that does the same from then on.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>

#define PAGE   4096UL
#define WORDS  (PAGE / sizeof(uint64_t))
#define MiB    (1UL << 20)
#define HUGE   (2 * MiB)
#define RW     (PROT_READ | PROT_WRITE)
#define SPARSE 256 /* a run of data begins every so many pages */
#define RUN    16  /* and has so many */

#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif

enum role { MAIN,
	    LEFT,
	    RIGHT,
	    NR_ROLES };

static const char *const role_names[] = { "main", "left", "right" };
static const char *report_file;
static enum role role;
static int generation;

/* A mapping with known contents */
struct area {
	const char *name;
	size_t size;
	bool sparse;
	uint64_t *p;
	uint64_t seed; /* 0: not mapped in this task */
};

enum {
	ANON,	 /* shared by all */
	MEMFD,	 /* sparse, by all */
	COPIED,	 /* a private mapping of a memfd, some pages copied: right only */
	OPEN,	 /* a memfd with a descriptor: left keeps that */
	LOCKED,	 /* by main only, mapped by all */
	RDONLY,	 /* through a read-only descriptor */
	SEALED,	 /* against writing; a private mapping */
	PRIVATE, /* memory of each task's own, with holes */
	HUGETLB,
	SYSV,
	NR_AREAS
};

static struct area areas[NR_AREAS] = {
	[ANON] = { "anon", 8 * MiB, false, NULL, 1 },
	[MEMFD] = { "memfd", 64 * MiB, true, NULL, 2 },
	[COPIED] = { "copied", 4 * MiB, false, NULL, 3 },
	[OPEN] = { "open", 2 * MiB, false, NULL, 4 },
	[LOCKED] = { "locked", MiB, false, NULL, 5 },
	[RDONLY] = { "rdonly", 2 * MiB, true, NULL, 6 },
	[SEALED] = { "sealed", 2 * MiB, false, NULL, 7 },
	[PRIVATE] = { "private", 4 * MiB, true, NULL, 8 },
	[HUGETLB] = { "hugetlb", 2 * HUGE, false, NULL, 9 },
	[SYSV] = { "sysv", 2 * MiB, false, NULL, 10 },
};

/* Each line with a descriptor of its own: none is left to be dumped */
static void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void report(const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n, fd;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fd = open(report_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		_exit(1);
	close(fd);
}

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	report("wrong call pid=%d %s errno=%d\n", getpid(), what, errno);
	_exit(1);
}

#define NEED(call) need(call, #call)

static uint64_t word(const struct area *a, unsigned long i)
{
	return (a->seed << 56 | (i + 1)) * 0x9e3779b97f4a7c15ULL;
}

static bool has_data(const struct area *a, unsigned long page)
{
	return !a->sparse || page % SPARSE < RUN;
}

static void fill(const struct area *a)
{
	unsigned long page, i;

	for (page = 0; page < a->size / PAGE; page++)
		for (i = page * WORDS; has_data(a, page) && i < (page + 1) * WORDS; i++)
			a->p[i] = word(a, i);
}

static unsigned long check_area(const struct area *a)
{
	const volatile uint64_t *p = a->p;
	unsigned long page, i, checked = 0;

	for (page = 0; page < a->size / PAGE; page++) {
		if (!has_data(a, page))
			continue;
		checked++;
		for (i = page * WORDS; i < (page + 1) * WORDS; i++) {
			uint64_t got = p[i];

			if (got == word(a, i))
				continue;
			report("wrong pid=%d %s page=%lu got=%#llx\n", getpid(), a->name, page, (unsigned long long)got);
			_exit(1);
		}
	}
	return checked;
}

static void walk(void)
{
	unsigned long pages = 0;
	int i;

	for (i = 0; i < NR_AREAS; i++)
		if (areas[i].seed)
			pages += check_area(&areas[i]);
	report("walk pid=%d pages=%lu\n", getpid(), pages);
}

static void map(struct area *a, int prot, int flags, int fd)
{
	a->p = mmap(NULL, a->size, prot, flags, fd, 0);
	NEED(a->p != MAP_FAILED);
}

static void drop(struct area *a)
{
	NEED(munmap(a->p, a->size) == 0);
	a->seed = 0;
}

static int make_memfd(struct area *a)
{
	int fd = memfd_create(a->name, MFD_ALLOW_SEALING);

	NEED(fd >= 0);
	NEED(ftruncate(fd, (off_t)a->size) == 0);
	map(a, RW, MAP_SHARED, fd);
	fill(a);
	return fd;
}

/* The mapping is replaced; there is no descriptor left */
static void map_again(struct area *a, int fd, int prot, int flags)
{
	NEED(munmap(a->p, a->size) == 0);
	map(a, prot, flags, fd);
	close(fd);
}

static void make_special(void)
{
	char path[64];
	int fd, ro;

	fd = make_memfd(&areas[SEALED]);
	NEED(munmap(areas[SEALED].p, areas[SEALED].size) == 0);
	NEED(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW) == 0);
	map(&areas[SEALED], PROT_READ, MAP_PRIVATE, fd);
	close(fd);

	fd = make_memfd(&areas[RDONLY]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY);
	NEED(ro >= 0);
	close(fd);
	map_again(&areas[RDONLY], ro, PROT_READ, MAP_SHARED);

	map_again(&areas[COPIED], make_memfd(&areas[COPIED]), RW, MAP_PRIVATE);
	NEED(mlock(areas[LOCKED].p, areas[LOCKED].size) == 0);
}

static void make_sysv(void)
{
	int id;

	/* Only with a namespace of its own is a segment dumped */
	NEED(unshare(CLONE_NEWIPC) == 0);
	id = shmget(IPC_PRIVATE, areas[SYSV].size, IPC_CREAT | 0600);
	NEED(id >= 0);
	areas[SYSV].p = shmat(id, NULL, 0);
	NEED(areas[SYSV].p != (void *)-1);
	fill(&areas[SYSV]);
}

static void make_hugetlb(int flags)
{
	map(&areas[HUGETLB], RW, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB | flags, -1);
	fill(&areas[HUGETLB]);
}

/* Returns the descriptor that is kept */
static int make_shared(void)
{
	map(&areas[ANON], RW, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill(&areas[ANON]);
	map(&areas[LOCKED], RW, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill(&areas[LOCKED]);
	close(make_memfd(&areas[MEMFD]));
	make_special();
	return make_memfd(&areas[OPEN]);
}

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

/* What each task has for itself */
static void make_own(int fd)
{
	unsigned long i;
	pthread_t id;

	areas[PRIVATE].seed += (unsigned long)role << 4;
	map(&areas[PRIVATE], RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(&areas[PRIVATE]);
	if (role != LEFT)
		close(fd);
	if (role != RIGHT)
		drop(&areas[COPIED]);
	else
		for (i = 0; i < RUN * WORDS; i++)
			areas[COPIED].p[i] = word(&areas[COPIED], i);
	if (role == LEFT)
		drop(&areas[RDONLY]);
	for (i = 0; role == MAIN && i < 2; i++)
		NEED(pthread_create(&id, NULL, idle, NULL) == 0);
}

static void make_child(void)
{
	pid_t pid = fork();

	NEED(pid >= 0);
	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	generation++;
	report("forked pid=%d role=%s%d\n", getpid(), role_names[role], generation);
}

static void __attribute__((noreturn)) serve(void)
{
	sigset_t set;
	int sig;

	report("ready pid=%d role=%s\n", getpid(), role_names[role]);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	for (;;) {
		if (sigwait(&set, &sig))
			continue;
		if (sig == SIGUSR1)
			walk();
		else
			make_child();
	}
}

/* What not every machine can have */
static void make_wanted(int argc, char **argv)
{
	bool hugetlb = false, sysv = false;
	int i, flags = 0;

	for (i = 2; i < argc; i++) {
		hugetlb = hugetlb || !strcmp(argv[i], "hugetlb");
		sysv = sysv || !strcmp(argv[i], "sysv");
		if (!strcmp(argv[i], "noreserve"))
			flags = MAP_NORESERVE;
	}

	if (sysv)
		make_sysv();
	else
		areas[SYSV].seed = 0;
	if (hugetlb)
		make_hugetlb(flags);
	else
		areas[HUGETLB].seed = 0;
}

int main(int argc, char **argv)
{
	sigset_t set;
	int fd, i;

	if (argc < 2)
		return 2;
	report_file = argv[1];
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);

	make_wanted(argc, argv);
	fd = make_shared();
	for (i = LEFT; i < NR_ROLES; i++) {
		pid_t pid = fork();

		NEED(pid >= 0);
		if (!pid) {
			role = (enum role)i;
			break;
		}
	}
	make_own(fd);
	serve();
}
