// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two processes that share memory of one kind or the other, for test/e2e/migrate.py.
 *
 *   migrant KIND REPORT MIB
 *
 * KIND is anon, memfd, open (a memfd whose descriptor stays open), sysv, huge, holes (every
 * other 64 KiB), or two (two objects). On SIGUSR1 each looks at all of it and reports
 * "checked pid= wrong=".
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/shm.h>

#define WORD  sizeof(uint64_t)
#define CHUNK (64UL << 10)

static uint64_t *memory[2];
static unsigned long words;
static bool holes;
static int report_fd, objects = 1;

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static uint64_t word_of(int object, unsigned long i)
{
	uint64_t x = ((uint64_t)object + 1) * 0x9e3779b97f4a7c15ULL + i;

	if (holes && i * WORD / CHUNK % 2)
		return 0;
	x ^= x >> 29;
	return (x * 0xbf58476d1ce4e5b9ULL) | 1; /* never zero */
}

static uint64_t *make(const char *kind, size_t size)
{
	bool huge = !strcmp(kind, "huge"), is_memfd = huge || !strcmp(kind, "memfd") || !strcmp(kind, "open");
	void *p;
	int fd = -1;

	if (!strcmp(kind, "sysv")) {
		int id = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);

		need(id >= 0, "shmget");
		p = shmat(id, NULL, 0);
		need(p != (void *)-1, "shmat");
		return p;
	}
	if (is_memfd) {
		fd = memfd_create("migrant", huge ? MFD_HUGETLB : 0);
		need(fd >= 0 && !ftruncate(fd, (off_t)size), "memfd_create");
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	need(p != MAP_FAILED, "mmap");
	if (fd >= 0 && strcmp(kind, "open"))
		close(fd);
	return p;
}

static void fill(int object)
{
	unsigned long i;

	for (i = 0; i < words; i++)
		if (word_of(object, i))
			memory[object][i] = word_of(object, i);
}

static unsigned long look(int object)
{
	const volatile uint64_t *p = memory[object];
	unsigned long i, wrong = 0;

	for (i = 0; i < words; i++)
		wrong += p[i] != word_of(object, i);
	return wrong;
}

static void __attribute__((noreturn)) serve(void)
{
	sigset_t set;
	int sig, i;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	dprintf(report_fd, "ready pid=%d\n", getpid());
	for (;;) {
		unsigned long wrong = 0;

		if (sigwait(&set, &sig))
			continue;
		for (i = 0; i < objects; i++)
			wrong += look(i);
		dprintf(report_fd, "checked pid=%d wrong=%lu\n", getpid(), wrong);
	}
}

int main(int argc, char **argv)
{
	sigset_t set;
	int i;

	if (argc != 4) {
		fprintf(stderr, "usage: migrant KIND REPORT MIB\n");
		return 2;
	}
	report_fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0600);
	need(report_fd >= 0, argv[2]);
	words = strtoul(argv[3], NULL, 10) * (1048576 / WORD);
	holes = !strcmp(argv[1], "holes");
	objects = strcmp(argv[1], "two") ? 1 : 2;
	for (i = 0; i < objects; i++) {
		memory[i] = make(argv[1], words * WORD);
		fill(i);
	}

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	need(fork() >= 0, "fork");
	serve();
}
