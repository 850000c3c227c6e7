// SPDX-License-Identifier: GPL-2.0-only
/*
 * How fast can threads copy a file into a new memfd, as a fill does?
 *
 *   copy [-m METHOD,...] [-t THREADS,...] [-c CHUNK_KIB,...] [-r RUNS] [-d] [-b] [-H] FILE
 *
 * Threads take the next chunk each until there is none. For each combination one line:
 *   method=M chunk_kib=C threads=T mib_s=MEDIAN min=.. max=.. cpu_ms=.. huge_mib=.. large=..
 * -r 0: one turn, which counts.
 * cpu_ms is of all threads, user and system. huge_mib: of the memfd, in pages of 2 MiB; large: folios
 * that were allocated and are larger than a page. Combinations take turns, the first turn does not count.
 *
 *   -d  before each run the file is dropped from the page cache ("cold"); else it is read into it
 *   -b  memory is in blocks of which huge pages can be made
 *   -H  mappings of the memfd get MADV_HUGEPAGE
 *
 * After all runs each memfd is compared with the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "copy.h"

#define MAX_THREADS 64
#define MAX_LIST    16
#define MAX_RUNS    32

struct combination {
	const struct method *method;
	size_t chunk;
	unsigned int threads, runs;
	double mib_s[MAX_RUNS], cpu_ms[MAX_RUNS];
	long huge_kib, large;
};

struct copy g;

static struct {
	const struct combination *c;
	_Atomic off_t next;
	pthread_barrier_t start;
} job;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "copy: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1e3 +
	       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e3;
}

size_t take(const struct lane *l, off_t *off)
{
	*off = atomic_fetch_add(&job.next, (off_t)l->chunk);
	if (*off >= g.size)
		return 0;
	return *off + (off_t)l->chunk > g.size ? (size_t)(g.size - *off) : l->chunk;
}

static int copy_loop(struct lane *l)
{
	size_t len;
	off_t off;

	if (job.c->method->loop)
		return job.c->method->loop(l);
	while ((len = take(l, &off)))
		if (job.c->method->copy(l, off, len))
			return -1;
	return 0;
}

static void *thread(void *arg)
{
	const struct method *m = job.c->method;
	struct lane l = { .chunk = job.c->chunk };
	size_t len = l.chunk * RING_DEPTH;
	char path[32];

	l.nr = (unsigned int)(uintptr_t)arg;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", g.memfd);
	l.in = open(g.file, O_RDONLY | m->flags);
	l.out = open(path, O_RDWR);
	l.buf = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (l.in < 0 || l.out < 0 || l.buf == MAP_FAILED || (m->prepare && m->prepare(&l)))
		die(m->name);

	pthread_barrier_wait(&job.start);
	if (copy_loop(&l))
		die(m->name);
	pthread_barrier_wait(&job.start);

	if (m->release)
		m->release(&l);
	munmap(l.buf, len);
	close(l.in);
	close(l.out);
	return NULL;
}

/* The number in a file after a word, or the first */
static long number(const char *path, const char *word)
{
	char buf[8192], *p = buf;
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, sizeof(buf) - 1);

	close(fd);
	buf[n < 0 ? 0 : n] = '\0';
	if (word) {
		p = strstr(buf, word);
		p = p ? p + strlen(word) : buf + strlen(buf);
	}
	return strtol(p, NULL, 10);
}

/* Folios of more than a page that were ever allocated for shared memory */
static long large_folios(void)
{
	glob_t found = { 0 };
	long sum = 0;
	size_t i;

	if (!glob("/sys/kernel/mm/transparent_hugepage/hugepages-*/stats/shmem_alloc", 0, NULL, &found))
		for (i = 0; i < found.gl_pathc; i++)
			sum += number(found.gl_pathv[i], NULL);
	globfree(&found);
	return sum;
}

/*
 * A virtual machine gives memory back that is free for a moment: then the host would be
 * measured. It does so with free blocks of 2 MiB. So as much as the memfd needs is touched
 * and freed but for a page in each 512 KiB; with option -b, all of it, or no huge page could
 * be made of it.
 */
static char *have_memory(size_t len)
{
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t off;

	if (mem == MAP_FAILED)
		die("memory");
	madvise(mem, len, g.blocks ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (madvise(mem, len, MADV_POPULATE_WRITE))
		die("memory");
	if (g.blocks)
		madvise(mem, len, MADV_DONTNEED);
	for (off = 0; !g.blocks && off < len; off += 512UL << 10)
		madvise(mem + off, 508UL << 10, MADV_DONTNEED);
	return mem;
}

static size_t cached_pages(int fd)
{
	size_t i, n = 0, pages = ((size_t)g.size + 4095) / 4096;
	unsigned char *vec = malloc(pages);
	void *map = mmap(NULL, (size_t)g.size, PROT_READ, MAP_SHARED, fd, 0);

	if (!vec || map == MAP_FAILED || mincore(map, (size_t)g.size, vec))
		die("mincore");
	for (i = 0; i < pages; i++)
		n += vec[i] & 1;
	munmap(map, (size_t)g.size);
	free(vec);
	return n;
}

static void set_cache(void)
{
	static char buf[MiB];
	int fd = open(g.file, O_RDONLY), tries = 100;

	if (fd < 0)
		die(g.file);
	if (!g.cold) {
		while (read(fd, buf, sizeof(buf)) > 0)
			;
	} else {
		do {
			fsync(fd);
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		} while (cached_pages(fd) && --tries);
		if (!tries)
			die("the page cache keeps the file");
	}
	close(fd);
}

static void compare(void)
{
	static char a[MiB], b[MiB];
	int fd = open(g.file, O_RDONLY);
	off_t off;

	for (off = 0; off < g.size; off += (off_t)MiB) {
		size_t len = g.size - off < (off_t)MiB ? (size_t)(g.size - off) : MiB;

		if (read_all(fd, a, len, off) || read_all(g.memfd, b, len, off) || memcmp(a, b, len)) {
			fprintf(stderr, "copy: %s: contents are wrong at %ld\n", job.c->method->name, (long)off);
			exit(1);
		}
	}
	close(fd);
}

static void run(struct combination *c, bool counts, bool last)
{
	pthread_t tid[MAX_THREADS];
	double from, to, used;
	long huge, large;
	size_t len = (size_t)g.size + 64 * MiB;
	unsigned int i;
	char *mem;

	job.c = c;
	job.next = 0;
	pthread_barrier_init(&job.start, NULL, c->threads + 1);
	set_cache();
	mem = have_memory(len);
	g.memfd = memfd_create("copy", 0);
	if (g.memfd < 0 || ftruncate(g.memfd, g.size))
		die("memfd");
	huge = number("/proc/meminfo", "ShmemHugePages:");
	large = large_folios();
	for (i = 0; i < c->threads; i++)
		if (pthread_create(&tid[i], NULL, thread, (void *)(uintptr_t)i))
			die("thread");

	pthread_barrier_wait(&job.start);
	used = cpu();
	from = now();
	pthread_barrier_wait(&job.start);
	to = now();
	used = cpu() - used;
	for (i = 0; i < c->threads; i++)
		pthread_join(tid[i], NULL);
	pthread_barrier_destroy(&job.start);

	c->huge_kib = number("/proc/meminfo", "ShmemHugePages:") - huge;
	c->large = large_folios() - large;
	if (counts) {
		c->mib_s[c->runs] = (double)g.size / (double)MiB / (to - from);
		c->cpu_ms[c->runs++] = used;
	}
	if (last)
		compare();
	close(g.memfd);
	munmap(mem, len);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print(struct combination *c)
{
	qsort(c->mib_s, c->runs, sizeof(double), ascending);
	qsort(c->cpu_ms, c->runs, sizeof(double), ascending);
	printf("method=%s chunk_kib=%zu threads=%u mib_s=%.0f min=%.0f max=%.0f cpu_ms=%.0f huge_mib=%ld large=%ld\n",
	       c->method->name, c->chunk >> 10, c->threads, c->mib_s[c->runs / 2], c->mib_s[0], c->mib_s[c->runs - 1],
	       c->cpu_ms[c->runs / 2], c->huge_kib >> 10, c->large);
}

static unsigned int numbers(char *list, unsigned long *out)
{
	unsigned int n = 0;
	char *word;

	for (word = strtok(list, ","); word && n < MAX_LIST; word = strtok(NULL, ","))
		out[n++] = strtoul(word, NULL, 10);
	return n;
}

static bool wanted(const char *list, const char *name)
{
	const char *p = list;
	size_t len = strlen(name);

	while (p && strncmp(p, name, len)) {
		p = strchr(p, ',');
		p = p ? p + 1 : NULL;
	}
	/* nothing is said: all but those that are for cold files */
	return list ? p && (p[len] == '\0' || p[len] == ',') : !strstr(name, "direct") && !strstr(name, "ahead") && strcmp(name, "copy_file_range");
}

static struct combination all[512];

int main(int argc, char **argv)
{
	unsigned long chunks[MAX_LIST] = { 512 }, threads[MAX_LIST] = { 1, 2 };
	unsigned int nr_chunks = 1, nr_threads = 2, runs = 5, nr = 0, m, i, j;
	const char *list = NULL;
	struct stat st;
	int opt;

	while ((opt = getopt(argc, argv, "m:t:c:r:dHb")) != -1) {
		if (opt == 'm')
			list = optarg;
		else if (opt == 't')
			nr_threads = numbers(optarg, threads);
		else if (opt == 'c')
			nr_chunks = numbers(optarg, chunks);
		else if (opt == 'r')
			runs = (unsigned int)atoi(optarg);
		else if (opt == 'd')
			g.cold = true;
		else if (opt == 'b')
			g.blocks = true;
		else if (opt == 'H')
			g.advise = true;
		else
			return 2;
	}
	g.file = argv[optind];
	if (argc != optind + 1 || !nr_chunks || !nr_threads || runs >= MAX_RUNS || stat(g.file, &st) || !st.st_size)
		return 2;
	g.size = st.st_size;

	for (m = 0; m < nr_methods; m++)
		for (j = 0; wanted(list, methods[m].name) && j < nr_threads; j++)
			for (i = 0; i < nr_chunks && nr < 512 && threads[j] && threads[j] <= MAX_THREADS; i++)
				all[nr++] = (struct combination){ .method = &methods[m], .chunk = chunks[i] << 10, .threads = (unsigned int)threads[j] };
	if (!nr)
		return 2;
	for (i = 0; i <= runs; i++)
		for (j = 0; j < nr; j++)
			run(&all[j], i > 0 || !runs, i == runs);
	for (j = 0; j < nr; j++)
		print(&all[j]);
	return 0;
}
