// SPDX-License-Identifier: GPL-2.0-only
/*
 * Processes that write some of their pages at each step, so that what a dump
 * takes from its parent can be told from what it has to write itself.
 *
 *   writer REPORT SHARED_PAGES PRIVATE_PAGES
 *
 * There are two. On SIGUSR2 each writes, in the shared object and in private
 * memory of its own, the pages that are its turn in this step: one in GROUPS. On
 * SIGUSR1 each checks every word of all pages, against the last step that wrote
 * it. A word that is wrong is reported, and the process ends with status 99.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE	  4096UL
#define WORDS	  (PAGE / sizeof(uint64_t))
#define PROCESSES 2
#define GROUPS	  8
#define WRONG	  99

struct memory {
	const char *name;
	uint64_t *words, seed;
	unsigned long pages;
};

static struct memory shared = { .name = "shared", .seed = 1 }, own = { .name = "private" };
static unsigned long who, step; /* step: in private memory as well, and restored */
static int report_fd = -1;

static void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void report(const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (write(report_fd, line, (size_t)n) != n)
		_exit(WRONG - 1);
}

static uint64_t word_of(const struct memory *m, unsigned long page, unsigned long word, unsigned long written)
{
	uint64_t x = (m->seed << 48) + (written << 40) + page * WORDS + word;

	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	return (x * 0x94d049bb133111ebULL) | 1; /* never zero */
}

static unsigned long group(unsigned long at_step, unsigned long process)
{
	return (at_step * PROCESSES + process) % GROUPS;
}

/* The step that wrote a page last; each page of the shared object is written by one process only */
static unsigned long last_written(const struct memory *m, unsigned long page)
{
	unsigned long s, p;

	for (s = step; s > 0; s--)
		for (p = 0; p < PROCESSES; p++)
			if ((m == &shared || p == who) && page % GROUPS == group(s, p))
				return s;

	return 0;
}

static void write_page(const struct memory *m, unsigned long page, unsigned long written)
{
	unsigned long i;

	for (i = 0; i < WORDS; i++)
		m->words[page * WORDS + i] = word_of(m, page, i, written);
}

static unsigned long write_turn(const struct memory *m)
{
	unsigned long page, nr = 0;

	for (page = group(step, who); page < m->pages; page += GROUPS, nr++)
		write_page(m, page, step);

	return nr;
}

static unsigned long check(const struct memory *m)
{
	unsigned long page, i, written;

	for (page = 0; page < m->pages; page++) {
		written = last_written(m, page);
		for (i = 0; i < WORDS; i++) {
			uint64_t got = ((volatile uint64_t *)m->words)[page * WORDS + i];
			uint64_t want = word_of(m, page, i, written);

			if (got == want)
				continue;
			report("wrong pid=%d %s page=%lu word=%lu step=%lu written=%lu got=%#llx want=%#llx\n", getpid(),
			       m->name, page, i, step, written, (unsigned long long)got, (unsigned long long)want);
			_exit(WRONG);
		}
	}

	return m->pages;
}

static void make(struct memory *m, int flags)
{
	unsigned long i;

	m->words = mmap(NULL, m->pages * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
	if (m->words == MAP_FAILED)
		_exit(WRONG - 1);
	for (i = 0; i < m->pages; i++)
		write_page(m, i, 0);
}

static void __attribute__((noreturn)) serve(const sigset_t *set)
{
	unsigned long nr;
	int sig;

	own.seed = 2 + who;
	make(&own, MAP_PRIVATE);
	report("ready pid=%d at=%#lx\n", getpid(), (unsigned long)own.words);

	while (1) {
		if (sigwait(set, &sig))
			continue;
		if (sig == SIGUSR1) {
			nr = check(&shared);
			report("walk pid=%d pages=%lu private=%lu step=%lu\n", getpid(), nr, check(&own), step);
		} else {
			step++;
			nr = write_turn(&shared);
			report("wrote pid=%d pages=%lu private=%lu step=%lu\n", getpid(), nr, write_turn(&own), step);
		}
	}
}

int main(int argc, char **argv)
{
	sigset_t set;

	if (argc != 4) {
		fprintf(stderr, "usage: writer REPORT SHARED_PAGES PRIVATE_PAGES\n");
		return 2;
	}
	report_fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0600);
	shared.pages = strtoul(argv[2], NULL, 10);
	own.pages = strtoul(argv[3], NULL, 10);
	if (report_fd < 0)
		return 1;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);

	make(&shared, MAP_SHARED);
	who = fork() ? 0 : 1;
	serve(&set);
}
