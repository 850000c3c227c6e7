// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shared memory of which only a part is used: processes that inherited it touch a
 * known set of its pages, in a known order that jumps about.
 *
 *   scatter REPORT MIB PERCENT PROCESSES [huge | open]
 *
 * huge: in huge pages; open: a memfd of which a descriptor stays open.
 *
 * On SIGUSR1 each process checks its set and reports; on SIGUSR2 it has a new
 * child do that. Every page has its number in it, and the set is the same for all.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define WRONG 99

static volatile uint64_t *mem;
static unsigned long page_size = 4096, pages, wanted;
static int report_fd;

/* The nth page of the order: the number of pages is a power of two, and the step is odd */
static unsigned long nth(unsigned long n)
{
	unsigned long step = (unsigned long)((double)pages * 0.618) | 1;

	return n * step % pages;
}

static uint64_t content(unsigned long page)
{
	return (page + 1) * 0x9e3779b97f4a7c15ULL | 1;
}

static volatile uint64_t *word(unsigned long page)
{
	return mem + page * (page_size / sizeof(*mem)) + page % 8;
}

static unsigned long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (unsigned long)(ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
}

static void walk(const char *what)
{
	unsigned long i, max = 0, begin = now_us(), last = begin, now = begin;
	char line[160];
	int n;

	for (i = 0; i < wanted; i++) {
		unsigned long page = nth(i);

		if (*word(page) != content(page)) {
			n = snprintf(line, sizeof(line), "wrong pid=%d page=%lu\n", getpid(), page);
			_exit(write(report_fd, line, (size_t)n) == n ? WRONG : WRONG - 1);
		}
		now = now_us();
		if (now - last > max)
			max = now - last;
		last = now;
	}

	n = snprintf(line, sizeof(line), "%s pid=%d pages=%lu us=%lu max_us=%lu\n", what, getpid(), wanted, now - begin, max);
	if (write(report_fd, line, (size_t)n) != n)
		_exit(WRONG - 1);
}

static void serve(void)
{
	char line[64];
	sigset_t set;
	int sig, n;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	n = snprintf(line, sizeof(line), "ready pid=%d\n", getpid());
	if (write(report_fd, line, (size_t)n) != n)
		_exit(WRONG - 1);

	while (!sigwait(&set, &sig)) {
		if (sig == SIGUSR1) {
			walk("walk");
			continue;
		}
		pid_t pid = fork();

		if (!pid) {
			walk("child");
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS, fd = -1;
	unsigned long i, processes;

	if (argc < 5)
		return 2;
	if (argc > 5 && !strcmp(argv[5], "huge")) {
		page_size = 2UL << 20;
		flags |= MAP_HUGETLB;
	}
	pages = strtoul(argv[2], NULL, 10) * (1UL << 20) / page_size;
	wanted = pages * strtoul(argv[3], NULL, 10) / 100;
	processes = strtoul(argv[4], NULL, 10);

	if (argc > 5 && !strcmp(argv[5], "open")) {
		fd = memfd_create("scatter", 0);
		if (fd < 0 || ftruncate(fd, (off_t)(pages * page_size)))
			return 1;
		flags = MAP_SHARED;
	}

	report_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0600);
	mem = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (report_fd < 0 || mem == MAP_FAILED) {
		perror("scatter");
		return 1;
	}
	for (i = 0; i < pages; i++)
		*word(i) = content(i);

	for (i = 1; i < processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (!pid)
			break;
	}
	serve();
	return 1;
}
