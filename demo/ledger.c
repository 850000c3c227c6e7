// SPDX-License-Identifier: GPL-2.0-only
/*
 * A ledger in shared memory: pages of entries that are known from a seed, each
 * page closed by a checksum, used by several processes which inherited it. It
 * is what the demo and the end-to-end tests checkpoint and restore.
 *
 * On SIGUSR1 every process walks the ledger in a random order of its own, checks
 * each word of each page, and reports how long the first access and the walk
 * took. With -c the processes never stop checking pages at random, and with -x
 * they also fork, drop their mappings' pages and change protections meanwhile.
 *
 * A word that is wrong is reported, and the process ends with status 99.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PAGE  4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define WRONG 99

static struct {
	unsigned long mib, processes, private_mib;
	bool memfd, separate, churn, extras;
	const char *report;
} opt = { .mib = 64, .processes = 2 };

static uint64_t *ledger, *own; /* shared, and private to each process */
static unsigned long pages, own_pages;
static int report_fd = -1;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static uint64_t entry(uint64_t seed, unsigned long page, unsigned long word)
{
	return mix(seed + page * WORDS + word) | 1; /* never zero */
}

static void write_page(uint64_t *p, uint64_t seed, unsigned long page)
{
	uint64_t sum = 0;
	unsigned long i;

	for (i = 0; i < WORDS - 1; i++) {
		p[i] = entry(seed, page, i);
		sum += p[i];
	}
	p[WORDS - 1] = sum;
}

static void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void report(const char *fmt, ...)
{
	va_list ap;
	char line[256];
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (write(report_fd, line, (size_t)n) != n)
		_exit(WRONG - 1);
}

static void check_page(const volatile uint64_t *p, uint64_t seed, unsigned long page, const char *what)
{
	uint64_t sum = 0;
	unsigned long i;

	for (i = 0; i < WORDS; i++) {
		uint64_t got = p[i], want = i < WORDS - 1 ? entry(seed, page, i) : sum;

		if (got != want) {
			report("wrong pid=%d %s page=%lu word=%lu got=%#llx want=%#llx\n", getpid(), what, page, i,
			       (unsigned long long)got, (unsigned long long)want);
			_exit(WRONG);
		}
		sum += got;
	}
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* A random number that differs in every process and after every restore */
static uint64_t dice(void)
{
	static uint64_t state;

	state = mix(state + now_ns() + ((uint64_t)getpid() << 32));
	return state;
}

static void check_shared(unsigned long page)
{
	check_page(ledger + page * WORDS, 1, page, "shared");
}

static void check_own(unsigned long page)
{
	check_page(own + page * WORDS, (uint64_t)getpid() << 40, page, "private");
}

/* Every page once, in an order nobody can guess: a full cycle of an LCG */
static void walk(void)
{
	unsigned long size = 1, i, at, step, checked = 0;
	uint64_t t0, first = 0;

	while (size < pages)
		size *= 2;
	at = dice() % size;
	step = (dice() % size) | 1;

	t0 = now_ns();
	for (i = 0; i < size; i++) {
		at = (at * 5 + step) & (size - 1);
		if (at >= pages)
			continue;
		check_shared(at);
		if (!checked++)
			first = now_ns() - t0;
		if (own_pages)
			check_own(dice() % own_pages);
	}
	report("walk pid=%d pages=%lu first_us=%llu walk_ms=%llu\n", getpid(), checked, (unsigned long long)first / 1000,
	       (unsigned long long)(now_ns() - t0) / 1000000);
}

static void fork_and_check(void)
{
	int status;
	pid_t pid = fork();
	int i;

	if (pid == 0) {
		for (i = 0; i < 50; i++)
			check_shared(dice() % pages);
		_exit(0);
	}
	if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == WRONG)
		_exit(WRONG);
}

static void extra(void)
{
	unsigned long page = dice() % pages, nr = dice() % 64 + 1;
	char *p = (char *)ledger + page * PAGE;

	if (page + nr > pages)
		nr = pages - page;

	switch (dice() % 4) {
	case 0:
		fork_and_check();
		break;
	case 1:
		madvise(p, nr * PAGE, MADV_DONTNEED); /* on shared memory that keeps the contents */
		check_shared(page);
		break;
	case 2:
		mprotect(p, nr * PAGE, PROT_NONE);
		mprotect(p, nr * PAGE, PROT_READ | PROT_WRITE);
		check_shared(page);
		break;
	default:
		check_shared(page);
		break;
	}
}

static void __attribute__((noreturn)) churn(void)
{
	unsigned long n;

	for (n = 0;; n++) {
		check_shared(dice() % pages);
		if (own_pages)
			check_own(dice() % own_pages);
		if (opt.extras && n % 64 == 0)
			extra();
	}
}

static int make_ledger(void)
{
	unsigned long i;
	int fd = -1;

	pages = opt.mib * 1048576 / PAGE;
	if (opt.memfd) {
		fd = memfd_create("ledger", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, (off_t)(pages * PAGE)))
			return -1;
	}

	ledger = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	if (ledger == MAP_FAILED)
		return -1;
	if (fd >= 0)
		close(fd);

	for (i = 0; i < pages; i++)
		write_page(ledger + i * WORDS, 1, i);
	return 0;
}

static void __attribute__((noreturn)) serve(void)
{
	sigset_t set;
	unsigned long i;
	int sig;

	own_pages = opt.private_mib * 1048576 / PAGE;
	if (own_pages) {
		own = mmap(NULL, own_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (own == MAP_FAILED)
			_exit(WRONG - 1);
		for (i = 0; i < own_pages; i++)
			write_page(own + i * WORDS, (uint64_t)getpid() << 40, i);
	}

	if (opt.separate && make_ledger())
		_exit(WRONG - 1);

	report("ready pid=%d\n", getpid());
	if (opt.churn)
		churn();

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	for (;;)
		if (!sigwait(&set, &sig))
			walk();
}

static int usage(void)
{
	fprintf(stderr, "usage: ledger -o REPORT [-m MIB] [-p PROCESSES] [-P PRIVATE_MIB] [-f] [-s] [-c] [-x]\n"
			"  -f  a memfd instead of anonymous memory\n"
			"  -s  a ledger for each process instead of a shared one\n"
			"  -c  check all the time\n"
			"  -x  with -c: fork, madvise, mprotect too\n");
	return 2;
}

int main(int argc, char **argv)
{
	unsigned long i;
	sigset_t set;
	int c;

	while ((c = getopt(argc, argv, "o:m:p:P:fscx")) != -1) {
		switch (c) {
		case 'o':
			opt.report = optarg;
			break;
		case 'm':
			opt.mib = strtoul(optarg, NULL, 10);
			break;
		case 'p':
			opt.processes = strtoul(optarg, NULL, 10);
			break;
		case 'P':
			opt.private_mib = strtoul(optarg, NULL, 10);
			break;
		case 'f':
			opt.memfd = true;
			break;
		case 's':
			opt.separate = true;
			break;
		case 'c':
			opt.churn = true;
			break;
		case 'x':
			opt.extras = true;
			break;
		default:
			return usage();
		}
	}
	if (!opt.report || !opt.mib || !opt.processes || optind != argc)
		return usage();

	report_fd = open(opt.report, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (report_fd < 0 || (!opt.separate && make_ledger())) {
		perror("ledger");
		return 1;
	}

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);

	for (i = 1; i < opt.processes; i++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("fork");
			return 1;
		}
		if (!pid)
			break;
	}
	serve();
}
