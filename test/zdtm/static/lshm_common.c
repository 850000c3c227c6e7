// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lshm_common.h"

#define MAX_TASKS   16
#define MAX_THREADS 16

/*
 * A page of shared memory that nobody reads or writes: CRIU restores it as a
 * new inode, so its number tells a restored task from the dumped one. A task
 * has to find out by itself: by the time zdtm.py sends SIGTERM, the contents
 * may have arrived in the background, and no fault would be left to test.
 */
static void *beacon;
static ino_t beacon_ino;

static pid_t tasks[MAX_TASKS];
static unsigned int nr_tasks;

static struct {
	pthread_t id;
	int (*fn)(unsigned int idx);
} threads[MAX_THREADS];
static unsigned int nr_threads;

uint64_t lshm_rand(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

uint64_t lshm_new_seed(void)
{
	return ((uint64_t)lrand48() << 32) ^ lrand48();
}

static uint64_t page_base(uint64_t seed, unsigned long page)
{
	uint64_t state = seed ^ (page * 0xd6e8feb86659fd93);

	return lshm_rand(&state);
}

/* The step is odd: no two words of a page are equal */
static inline uint64_t base_word(uint64_t base, unsigned int word)
{
	return base + word * 0x9e3779b97f4a7c15;
}

uint64_t lshm_word(uint64_t seed, unsigned long page, unsigned int word)
{
	return base_word(page_base(seed, page), word);
}

void lshm_fill_page(void *addr, uint64_t seed, unsigned long page)
{
	uint64_t *p = addr, base = page_base(seed, page);
	unsigned int i, nr = PAGE_SIZE / sizeof(*p);

	for (i = 0; i < nr; i++)
		p[i] = base_word(base, i);
}

/* Bytes [from, to) of a page; both are multiples of 8, unless @to is a tail */
int lshm_check_bytes(const void *addr, uint64_t seed, unsigned long page, unsigned int from, unsigned int to)
{
	const volatile uint64_t *p = addr;
	uint64_t base = page_base(seed, page), want, got;
	unsigned int i;

	for (i = from / sizeof(want); i < to / sizeof(want); i++) {
		want = base_word(base, i);
		got = p[i];
		if (got != want) {
			fail("page %lu word %u is %#lx, not %#lx", page, i, got, want);
			return 1;
		}
	}

	want = base_word(base, i);
	if (memcmp((const uint8_t *)addr + i * sizeof(want), &want, to % sizeof(want))) {
		fail("page %lu: the tail after word %u differs", page, i);
		return 1;
	}
	return 0;
}

int lshm_check_zero(const void *addr, unsigned long nr)
{
	const volatile uint64_t *p = addr;
	unsigned long i, words = PAGE_SIZE / sizeof(*p);

	for (i = 0; i < nr * words; i++) {
		uint64_t got = p[i];

		if (got) {
			fail("page %lu word %lu at %p is %#lx, not zero", i / words, i % words, addr, got);
			return 1;
		}
	}
	return 0;
}

static void *page_addr(const struct lshm *m, unsigned long i)
{
	return m->map + i * PAGE_SIZE;
}

void lshm_fill(const struct lshm *m)
{
	unsigned long i;

	for (i = 0; i < m->nr; i++)
		lshm_fill_page(page_addr(m, i), m->seed, m->page + i);
}

int lshm_check_page(const struct lshm *m, unsigned long i)
{
	return lshm_check_bytes(page_addr(m, i), m->seed, m->page + i, 0, PAGE_SIZE);
}

int lshm_check_range(const struct lshm *m, unsigned long first, unsigned long nr)
{
	unsigned long i;

	for (i = first; i < first + nr; i++)
		if (lshm_check_page(m, i))
			return 1;
	return 0;
}

int lshm_check(const struct lshm *m)
{
	return lshm_check_range(m, 0, m->nr);
}

int lshm_check_shuffled(const struct lshm *m, uint64_t rnd)
{
	uint64_t a = lshm_rand(&rnd) | 1, b = lshm_rand(&rnd);
	unsigned long i;

	/* An odd multiplier permutes a power of two */
	for (i = 0; i < m->nr; i++)
		if (lshm_check_page(m, (a * i + b) & (m->nr - 1)))
			return 1;
	return 0;
}

int lshm_check_some(const struct lshm *m, uint64_t rnd, unsigned long count)
{
	while (count--)
		if (lshm_check_page(m, lshm_rand(&rnd) % m->nr))
			return 1;
	return 0;
}

void lshm_rewrite_page(const struct lshm *m, unsigned long i, uint64_t seed)
{
	lshm_fill_page(page_addr(m, i), seed, m->page + i);
}

int lshm_check_rewritten(const struct lshm *m, unsigned long i, uint64_t seed)
{
	return lshm_check_bytes(page_addr(m, i), seed, m->page + i, 0, PAGE_SIZE);
}

struct lshm lshm_sub(const struct lshm *m, unsigned long first, unsigned long nr)
{
	return (struct lshm){
		.map = page_addr(m, first),
		.nr = nr,
		.page = m->page + first,
		.seed = m->seed,
	};
}

static int map_run(struct lshm *m, size_t size, int prot, int flags, int fd, off_t off)
{
	m->map = mmap(NULL, size, prot, flags, fd, off);
	if (m->map == MAP_FAILED) {
		pr_perror("Can't map %zu bytes", size);
		return 1;
	}
	m->nr = (size + PAGE_SIZE - 1) / PAGE_SIZE;
	m->page = off / PAGE_SIZE;
	return 0;
}

int lshm_map_anon(struct lshm *m, size_t size)
{
	m->seed = lshm_new_seed();
	if (map_run(m, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
		return 1;
	lshm_fill(m);
	return 0;
}

/* Maps pages [page, page + nr) of an object; the seed stays as it is */
int lshm_map_fd(struct lshm *m, int fd, int prot, int flags, unsigned long page, unsigned long nr)
{
	return map_run(m, nr * PAGE_SIZE, prot, flags, fd, (off_t)page * PAGE_SIZE);
}

int lshm_memfd(const char *name, unsigned int flags, size_t size)
{
	int fd;

	fd = memfd_create(name, flags);
	if (fd < 0) {
		pr_perror("Can't create memfd %s", name);
		return -1;
	}
	if (ftruncate(fd, size)) {
		pr_perror("Can't resize memfd %s", name);
		close(fd);
		return -1;
	}
	return fd;
}

/* A memfd with contents, of which only a shared mapping is left */
int lshm_map_memfd(struct lshm *m, const char *name, size_t size)
{
	int fd, ret;

	fd = lshm_memfd(name, 0, size);
	if (fd < 0)
		return 1;
	m->seed = lshm_new_seed();
	ret = map_run(m, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (!ret)
		lshm_fill(m);
	return ret;
}

/*
 * No descriptor is opened on the way: the task can be dumped at any moment.
 * But it takes a capability which root in a user namespace does not have.
 */
int lshm_stat(const void *addr, size_t len, struct stat *st)
{
	unsigned long start = (unsigned long)addr;
	char path[64];

	len = (len + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
	ssprintf(path, "/proc/self/map_files/%lx-%lx", start, start + len);
	if (stat(path, st)) {
		pr_perror("Can't stat %s", path);
		return 1;
	}
	return 0;
}

/*
 * How many mappings carry @flag: the one at @addr, or all where @addr is NULL.
 * -1 when there is no telling.
 */
int lshm_vmflag(const void *addr, const char *flag)
{
	unsigned long start, end;
	char line[1024], want[8];
	int nr = 0, here = 0;
	FILE *f;

	f = fopen("/proc/self/smaps", "r");
	if (!f) {
		pr_perror("Can't open smaps");
		return -1;
	}

	ssprintf(want, " %s ", flag);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = !addr || (start <= (unsigned long)addr && (unsigned long)addr < end);
		else if (here && !strncmp(line, "VmFlags:", 8) && strstr(line, want))
			nr++;
	}
	fclose(f);
	return nr;
}

void lshm_wait_restored(void)
{
	static __thread ino_t last;
	struct timespec step = { .tv_nsec = 200 * 1000 };
	struct stat st;

	/* Each thread has to notice for itself */
	if (!last)
		last = beacon_ino;
	while (test_go() && !lshm_stat(beacon, PAGE_SIZE, &st)) {
		if (st.st_ino != last) {
			last = st.st_ino;
			break;
		}
		nanosleep(&step, NULL);
	}
}

int lshm_wait_retired(void)
{
	struct timespec step = { .tv_nsec = 20 * 1000 * 1000 };
	int i, minor, missing;

	for (i = 0; i < 1000; i++) {
		minor = lshm_vmflag(NULL, "ui");
		missing = lshm_vmflag(NULL, "um");
		if (minor < 0 || missing < 0)
			return 1;
		if (!minor && !missing)
			return 0;
		nanosleep(&step, NULL);
	}
	fail("%d + %d mappings are still registered", minor, missing);
	return 1;
}

static void task_main(int ready, int (*prepare)(void *arg), int (*fn)(void *arg), void *arg)
{
	nr_tasks = 0;
	nr_threads = 0;
	if (prepare && prepare(arg))
		_exit(1);
	if (write(ready, "", 1) != 1) {
		pr_perror("Can't report to the parent");
		_exit(1);
	}
	close(ready);

	lshm_wait_restored();
	_exit(fn(arg) ? 1 : 0);
}

pid_t lshm_fork_task(int (*prepare)(void *arg), int (*fn)(void *arg), void *arg)
{
	int ready[2];
	pid_t pid;
	char c;

	if (nr_tasks == MAX_TASKS || pipe(ready)) {
		pr_perror("Can't prepare a task");
		return -1;
	}
	pid = test_fork();
	if (pid < 0) {
		pr_perror("Can't fork");
		return -1;
	}
	if (!pid) {
		close(ready[0]);
		task_main(ready[1], prepare, fn, arg);
	}

	close(ready[1]);
	if (TEMP_FAILURE_RETRY(read(ready[0], &c, 1)) != 1) {
		pr_err("Task %d failed to prepare\n", pid);
		return -1;
	}
	close(ready[0]);
	tasks[nr_tasks++] = pid;
	return pid;
}

static int is_traced(pid_t pid, const char *tid)
{
	char path[300], line[128];
	int tracer = 0;
	FILE *f;

	ssprintf(path, "/proc/%d/task/%s/status", pid, tid);
	f = fopen(path, "r");
	if (!f)
		return 0; /* it is gone */
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "TracerPid: %d", &tracer) == 1)
			break;
	fclose(f);
	return tracer != 0;
}

static int any_thread_traced(pid_t pid)
{
	struct dirent *de;
	char path[64];
	int ret = 0;
	DIR *dir;

	ssprintf(path, "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return 0;
	while (!ret && (de = readdir(dir)))
		if (de->d_name[0] != '.')
			ret = is_traced(pid, de->d_name);
	closedir(dir);
	return ret;
}

void lshm_wait_detached(pid_t pid)
{
	struct timespec step = { .tv_nsec = 100 * 1000 };

	while (any_thread_traced(pid))
		nanosleep(&step, NULL);
}

int lshm_reap(pid_t pid)
{
	int status;

	if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) != pid) {
		pr_perror("Can't wait for %d", pid);
		return 1;
	}
	if (status) {
		fail("task %d ended with status %#x", pid, status);
		return 1;
	}
	return 0;
}

static void *thread_main(void *arg)
{
	unsigned long idx = (unsigned long)arg;

	lshm_wait_restored();
	return (void *)(long)threads[idx].fn(idx);
}

/* The same for threads */
int lshm_threads(int nr, int (*fn)(unsigned int idx))
{
	for (; nr-- && nr_threads < MAX_THREADS; nr_threads++) {
		threads[nr_threads].fn = fn;
		errno = pthread_create(&threads[nr_threads].id, NULL, thread_main, (void *)(unsigned long)nr_threads);
		if (errno) {
			pr_perror("Can't create a thread");
			return 1;
		}
	}
	return 0;
}

int lshm_join(void)
{
	int ret = 0;
	void *res;

	while (nr_threads) {
		errno = pthread_join(threads[--nr_threads].id, &res);
		if (errno) {
			pr_perror("Can't join a thread");
			return 1;
		}
		if (res)
			ret = 1;
	}
	return ret;
}

static int light_beacon(void)
{
	struct stat st;

	beacon = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (beacon == MAP_FAILED) {
		pr_perror("Can't map the beacon");
		return 1;
	}
	if (lshm_stat(beacon, PAGE_SIZE, &st))
		return 1;
	beacon_ino = st.st_ino;
	return 0;
}

int main(int argc, char **argv)
{
	int ret, failed = 0;
	unsigned int i;

	test_init(argc, argv);

	if (light_beacon())
		return 1;

	ret = lshm_setup();
	if (ret && ret != LSHM_SKIP)
		return 1;

	test_daemon();
	lshm_wait_restored();

	/* Not restored at all (zdtm.py --nocr): the children have to go on too */
	for (i = 0; i < nr_tasks && !test_go(); i++)
		kill(tasks[i], SIGTERM);

	if (ret != LSHM_SKIP)
		failed = lshm_run();
	if (!failed)
		failed = lshm_wait_retired();
	else if (failed == LSHM_LEAVE)
		failed = 0;

	test_waitsig();
	if (!failed)
		pass();
	return failed;
}
