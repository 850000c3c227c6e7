// SPDX-License-Identifier: GPL-2.0-only
/*
 * What runs in a container of the tests: two processes that share memory. It is
 * linked statically, so that nothing else need be in the container's root.
 *
 *   sharer SHARED_MIB PRIVATE_MIB
 *
 * The first page of what they share holds a counter; each writes half of the other
 * pages, and private memory of its own. On SIGUSR1 a process checks every word of
 * both, on SIGUSR2 it adds one to the counter. Both append a line to /report; the file
 * is opened each time, because a container that moves gets another one. A word that is
 * wrong ends the process with status 99.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>

#define PAGE	  4096UL
#define WORDS	  (PAGE / sizeof(uint64_t))
#define PROCESSES 2UL
#define FAILED	  98
#define WRONG	  99

struct memory {
	const char *name;
	uint64_t *words, seed;
	unsigned long pages;
};

static struct memory shared = { .name = "shared", .seed = 1 }, own = { .name = "private" };
static unsigned long who;

static void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void report(const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int fd, n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fd = open("/report", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		_exit(FAILED);
	close(fd);
}

static uint64_t word_of(const struct memory *m, unsigned long page, unsigned long word)
{
	uint64_t x = (m->seed << 48) + page * WORDS + word;

	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	return (x * 0x94d049bb133111ebULL) | 1; /* never zero */
}

static void map(struct memory *m, unsigned long mib, int how)
{
	m->pages = mib * (1UL << 20) / PAGE;
	m->words = mmap(NULL, m->pages * PAGE, PROT_READ | PROT_WRITE, how | MAP_ANONYMOUS, -1, 0);
	if (m->words == MAP_FAILED)
		_exit(FAILED);
}

static void fill(const struct memory *m, unsigned long first, unsigned long step)
{
	unsigned long page, word;

	for (page = first; page < m->pages; page += step)
		for (word = 0; word < WORDS; word++)
			m->words[page * WORDS + word] = word_of(m, page, word);
}

static void verify(const struct memory *m, unsigned long first)
{
	unsigned long page, word;

	for (page = first; page < m->pages; page++)
		for (word = 0; word < WORDS; word++) {
			uint64_t is = m->words[page * WORDS + word], expected = word_of(m, page, word);

			if (is == expected)
				continue;
			report("wrong who=%lu memory=%s page=%lu word=%lu is=%#llx expected=%#llx\n", who, m->name,
			       page, word, (unsigned long long)is, (unsigned long long)expected);
			_exit(WRONG);
		}
}

static void serve(int sig)
{
	if (sig == SIGUSR2) {
		uint64_t count = __atomic_add_fetch(shared.words, 1, __ATOMIC_SEQ_CST);

		report("count who=%lu value=%llu\n", who, (unsigned long long)count);
		return;
	}

	verify(&shared, 1);
	verify(&own, 0);
	report("walk who=%lu pages=%lu\n", who, shared.pages - 1 + own.pages);
}

int main(int argc, char **argv)
{
	sigset_t set;
	int sig;

	if (argc != 3)
		return FAILED;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGTERM); /* the first process of a PID namespace does not die of it by itself */
	sigprocmask(SIG_BLOCK, &set, NULL);

	map(&shared, strtoul(argv[1], NULL, 10), MAP_SHARED);
	map(&own, strtoul(argv[2], NULL, 10), MAP_PRIVATE);
	who = fork() ? 0 : 1;
	own.seed = 2 + who;
	fill(&own, 0, 1);
	fill(&shared, 1 + who, PROCESSES);
	report("ready who=%lu\n", who);

	while (!sigwait(&set, &sig) && sig != SIGTERM)
		serve(sig);
	return 0;
}
