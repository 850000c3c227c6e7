// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "fill.h"
#include "unit.h"

#define PG 4096UL

/*
 * The plugin's pread() comes here, see ./run. A job that reads from the gate
 * has a worker in hand until the gate is opened; the others leave a trace.
 */
#define GATE_FD	 -1000
#define MAX_READ 64

static sem_t gate_reached, gate_open;
static int traced_fd = -1; /* reads of it are written down */
static uint64_t trace[MAX_READ];
static unsigned int nr_trace;
static bool choppy; /* reads are interrupted, and short */

ssize_t __real_pread64(int fd, void *buf, size_t len, off64_t off) __attribute__((weak));
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off64_t off);

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off64_t off)
{
	static unsigned int calls;

	if (fd == GATE_FD) {
		sem_post(&gate_reached);
		while (sem_wait(&gate_open))
			;
		memset(buf, 'g', len);
		return (ssize_t)len;
	}
	if (fd == traced_fd) {
		unsigned int at = __atomic_fetch_add(&nr_trace, 1, __ATOMIC_SEQ_CST);

		if (at < MAX_READ)
			trace[at] = (uint64_t)off;
	}
	if (choppy) {
		calls++;
		if (calls % 3 == 0) {
			errno = EINTR;
			return -1;
		}
		if (len > 1)
			len = len / 2 + calls % 2;
	}
	return __real_pread64(fd, buf, len, off);
}

static int new_memfd(uint64_t size)
{
	int fd = (int)CHECK_SYS(memfd_create("unit", MFD_CLOEXEC | MFD_ALLOW_SEALING));

	CHECK_SYS(ftruncate(fd, (off_t)size));
	return fd;
}

static unsigned char expected(uint64_t off)
{
	return (unsigned char)(1 + (off * 2654435761UL >> 16) % 251);
}

/* An image, no byte of which is 0 */
static int new_image(uint64_t size)
{
	int fd = new_memfd(size);
	unsigned char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint64_t i;

	CHECK(mem != MAP_FAILED);
	for (i = 0; i < size; i++)
		mem[i] = expected(i);
	munmap(mem, size);
	return fd;
}

/* The object has what the image has at src_off */
static void check_contents(int obj, uint64_t off, uint64_t src_off, uint64_t len)
{
	unsigned char buf[PG];
	uint64_t done, i, n;

	for (done = 0; done < len; done += n) {
		n = len - done < PG ? len - done : PG;
		CHECK_EQ(pread(obj, buf, n, (off_t)(off + done)), n);
		for (i = 0; i < n; i++)
			if (buf[i] != expected(src_off + done + i))
				CHECK_EQ(off + done + i, -1);
	}
}

static bool is_hole(int obj, uint64_t off)
{
	return lseek(obj, (off_t)off, SEEK_DATA) != (off_t)off;
}

static struct fill_job *new_job(int obj_fd)
{
	struct fill_job *job = calloc(1, sizeof(*job) + FILL_SEGS * sizeof(job->segs[0]));

	CHECK(job);
	job->obj_fd = obj_fd;
	job->obj_size = 1ULL << 40;
	job->result = (enum fill_result) - 1;
	return job;
}

static struct fill_job *add_seg(struct fill_job *job, uint64_t off, int src_fd, uint64_t src_off, uint32_t len)
{
	CHECK(job->nr_segs < FILL_SEGS);
	if (!job->nr_segs)
		job->off = off;
	job->len = off + len - job->off;
	job->segs[job->nr_segs++] =
		(struct fill_seg){ .off = off, .src_off = src_off, .len = len, .src_fd = src_fd };
	return job;
}

static void run(struct fill_job *job)
{
	void *buf = malloc(FILL_UNIT); /* no larger: the sanitizer watches its end */

	fill_run(job, buf);
	free(buf);
}

static struct fill_pool *new_pool(unsigned int nr)
{
	struct fill_pool *pool;

	sem_init(&gate_reached, 0, 0);
	sem_init(&gate_open, 0, 0);
	CHECK_EQ(fill_pool_create(&pool, nr, false), 0);
	return pool;
}

static bool readable(const struct fill_pool *pool, int ms)
{
	struct pollfd pfd = { .fd = fill_pool_eventfd(pool), .events = POLLIN };

	return poll(&pfd, 1, ms) == 1;
}

/* The next finished job; the pool may return several at once */
static struct fill_job *reap_one(struct fill_pool *pool, struct fill_job **rest)
{
	struct fill_job *job;
	uint64_t n;

	while (!*rest) {
		CHECK(readable(pool, 5000));
		CHECK_EQ(read(fill_pool_eventfd(pool), &n, sizeof(n)), sizeof(n));
		*rest = fill_reap(pool);
	}

	job = *rest;
	*rest = job->next;
	return job;
}

/* Puts a worker out of action until open_gate(). The job is reaped like others. */
static void close_gate(struct fill_pool *pool, int obj_fd)
{
	fill_submit(pool, add_seg(new_job(obj_fd), 0, GATE_FD, 0, PG), 0);
	while (sem_wait(&gate_reached))
		;
}

static void open_gate(void)
{
	sem_post(&gate_open);
}

/*
 * One job
 */

TEST(segments)
{
	int a = new_image(16 * PG), b = new_image(16 * PG), obj = new_memfd(32 * PG);
	struct fill_job *job = new_job(obj);

	/* from two images, backwards in one of them, with a hole between */
	add_seg(job, 2 * PG, a, 8 * PG, 3 * PG);
	add_seg(job, 5 * PG, b, 1 * PG, 2 * PG);
	add_seg(job, 8 * PG, a, 0, PG);
	run(job);

	CHECK_EQ(job->result, FILL_OK);
	check_contents(obj, 2 * PG, 8 * PG, 3 * PG);
	check_contents(obj, 5 * PG, 1 * PG, 2 * PG);
	check_contents(obj, 8 * PG, 0, PG);
	CHECK(is_hole(obj, PG));
	CHECK(is_hole(obj, 7 * PG));
	CHECK(is_hole(obj, 9 * PG));
	free(job);
}

TEST(whole_unit_and_all_segments)
{
	uint32_t len = FILL_UNIT / FILL_SEGS;
	int img = new_image(FILL_UNIT), obj = new_memfd(2 * FILL_UNIT);
	struct fill_job *job;
	uint64_t i;

	job = add_seg(new_job(obj), 0, img, 0, FILL_UNIT);
	run(job);
	CHECK_EQ(job->result, FILL_OK);
	check_contents(obj, 0, 0, FILL_UNIT);
	free(job);

	job = new_job(obj);
	for (i = 0; i < FILL_SEGS; i++)
		add_seg(job, FILL_UNIT + i * len, img, FILL_UNIT - (i + 1) * len, len);
	run(job);
	CHECK_EQ(job->result, FILL_OK);
	for (i = 0; i < FILL_SEGS; i++)
		check_contents(obj, FILL_UNIT + i * len, FILL_UNIT - (i + 1) * len, len);
	free(job);
}

/*
 * The object ends within its last page: it must not grow, and what was stored
 * behind its end, which only mappings show, is there as well.
 */
TEST(tail_not_page_sized)
{
	int img = new_image(4 * PG), obj = new_memfd(2 * PG + 100);
	struct fill_job *job = new_job(obj);
	unsigned char *mem;
	unsigned long i;

	job->obj_size = 2 * PG + 100;
	add_seg(job, 0, img, 0, PG);
	add_seg(job, PG, img, 2 * PG, 2 * PG);
	run(job);
	CHECK_EQ(job->result, FILL_OK);
	CHECK_EQ(lseek(obj, 0, SEEK_END), 2 * PG + 100);
	check_contents(obj, PG, 2 * PG, PG + 100);

	mem = mmap(NULL, 3 * PG, PROT_READ, MAP_SHARED, obj, 0);
	CHECK(mem != MAP_FAILED);
	for (i = 99; i < PG; i++)
		CHECK_EQ(mem[2 * PG + i], expected(3 * PG + i));
	munmap(mem, 3 * PG);
	free(job);
}

/* A task that shrinks the object while its tail is stored: an error, no signal */
TEST(tail_truncated_away)
{
	int img = new_image(PG), obj = new_memfd(0);
	struct fill_job *job = new_job(obj);

	CHECK_SYS(fcntl(obj, F_ADD_SEALS, F_SEAL_GROW)); /* or writing would bring it back */
	job->obj_size = 100;
	add_seg(job, 0, img, 0, PG);
	run(job);
	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	free(job);
}

TEST(short_and_interrupted_reads_go_on)
{
	int img = new_image(64 * PG), obj = new_memfd(64 * PG);
	struct fill_job *job = add_seg(new_job(obj), 0, img, 0, 64 * PG);

	choppy = true;
	run(job);
	choppy = false;
	CHECK_EQ(job->result, FILL_OK);
	check_contents(obj, 0, 0, 64 * PG);
	free(job);
}

/* Nothing of a segment is written if it can not be read as a whole */
TEST(image_too_short)
{
	int img = new_image(4 * PG), obj = new_memfd(16 * PG);
	struct fill_job *job = new_job(obj);

	add_seg(job, 0, img, 0, 2 * PG);
	add_seg(job, 4 * PG, img, 2 * PG, 2 * PG + 1);
	add_seg(job, 8 * PG, img, 0, PG);
	run(job);

	CHECK_EQ(job->result, FILL_SHORT);
	CHECK_EQ(job->err_off, 4 * PG);
	check_contents(obj, 0, 0, 2 * PG);
	CHECK(is_hole(obj, 4 * PG));
	CHECK_EQ(lseek(obj, 2 * PG, SEEK_DATA), -1);
	free(job);
}

TEST(image_empty)
{
	int img = new_memfd(0), obj = new_memfd(PG);
	struct fill_job *job = add_seg(new_job(obj), 0, img, 0, PG);

	run(job);
	CHECK_EQ(job->result, FILL_SHORT);
	CHECK_EQ(job->err_off, 0);
	CHECK(is_hole(obj, 0));
	free(job);
}

TEST(read_error)
{
	int img = new_image(4 * PG), obj = new_memfd(8 * PG), p[2];
	struct fill_job *job = new_job(obj);

	add_seg(job, 0, img, 0, PG);
	add_seg(job, 3 * PG, -1, 0, PG);
	run(job);
	CHECK_EQ(job->result, FILL_READ_ERROR);
	CHECK_EQ(job->err, EBADF);
	CHECK_EQ(job->err_off, 3 * PG);
	CHECK(is_hole(obj, 3 * PG));

	CHECK_SYS(pipe(p));
	job->segs[1].src_fd = p[0];
	run(job);
	CHECK_EQ(job->result, FILL_READ_ERROR);
	CHECK_EQ(job->err, ESPIPE);
	free(job);
}

TEST(write_error_no_space)
{
	int img = new_image(4 * PG);
	struct fill_job *job = new_job((int)CHECK_SYS(open("/dev/full", O_WRONLY)));

	add_seg(job, 2 * PG, img, 0, PG);
	run(job);
	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	CHECK_EQ(job->err, ENOSPC);
	CHECK_EQ(job->err_off, 2 * PG);
	free(job);
}

TEST(write_error_sealed)
{
	int img = new_image(4 * PG), obj = new_memfd(4 * PG);
	struct fill_job *job = add_seg(new_job(obj), PG, img, 0, PG);

	CHECK_SYS(fcntl(obj, F_ADD_SEALS, F_SEAL_WRITE));
	run(job);
	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	CHECK_EQ(job->err, EPERM);
	CHECK_EQ(job->err_off, PG);
	free(job);

	obj = new_memfd(4 * PG);
	CHECK_SYS(fcntl(obj, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	job = add_seg(new_job(obj), 2 * PG, img, 0, PG);
	run(job);
	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	CHECK_EQ(job->err, EPERM);
	CHECK_EQ(job->err_off, 2 * PG);
	free(job);
}

/* err_off tells how far it came */
TEST(write_error_in_the_middle)
{
	struct rlimit lim = { .rlim_cur = 5 * PG, .rlim_max = RLIM_INFINITY };
	int img = new_image(8 * PG), obj = new_memfd(16 * PG);
	struct fill_job *job = add_seg(new_job(obj), 2 * PG, img, 0, 8 * PG);

	signal(SIGXFSZ, SIG_IGN);
	CHECK_SYS(setrlimit(RLIMIT_FSIZE, &lim));
	run(job);
	lim.rlim_cur = RLIM_INFINITY;
	CHECK_SYS(setrlimit(RLIMIT_FSIZE, &lim));

	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	CHECK_EQ(job->err, EFBIG);
	CHECK_EQ(job->err_off, 5 * PG);
	check_contents(obj, 2 * PG, 0, 3 * PG);
	free(job);
}

TEST(results_are_overwritten)
{
	int img = new_image(PG), obj = new_memfd(PG);
	struct fill_job *job = add_seg(new_job(obj), 0, img, 0, PG);

	job->result = FILL_READ_ERROR;
	job->err = EIO;
	run(job);
	CHECK_EQ(job->result, FILL_OK);
	CHECK_EQ(job->err, 0);
	free(job);
}

/*
 * The pool
 */

TEST(pool_eventfd)
{
	int img = new_image(PG), obj = new_memfd(PG);
	struct fill_pool *pool = new_pool(1);
	struct fill_job *job;
	uint64_t n;

	CHECK(!readable(pool, 20));
	CHECK(!fill_reap(pool));
	close_gate(pool, obj);
	CHECK(!readable(pool, 20));
	CHECK(!fill_reap(pool));
	open_gate();
	CHECK(readable(pool, 5000));
	CHECK_EQ(read(fill_pool_eventfd(pool), &n, sizeof(n)), sizeof(n));
	job = fill_reap(pool);
	CHECK(job && !job->next);
	CHECK_EQ(job->result, FILL_OK);
	free(job);
	CHECK(!readable(pool, 20));
	CHECK(!fill_reap(pool));

	/* once more */
	fill_submit(pool, add_seg(new_job(obj), 0, img, 0, PG), 1);
	CHECK(readable(pool, 5000));
	free(fill_reap(pool));
	fill_pool_destroy(pool);
}

TEST(pool_hands_errors_back)
{
	int obj = new_memfd(PG), owner;
	struct fill_pool *pool = new_pool(2);
	struct fill_job *job = add_seg(new_job(obj), 0, -1, 0, PG), *rest = NULL;

	job->owner = &owner;
	job->cause = FILL_RECORD;
	fill_submit(pool, job, 0);
	CHECK(reap_one(pool, &rest) == job);
	CHECK_EQ(job->result, FILL_READ_ERROR);
	CHECK_EQ(job->err, EBADF);
	CHECK(job->owner == &owner);
	CHECK_EQ(job->cause, FILL_RECORD);
	free(job);
	fill_pool_destroy(pool);
}

/*
 * Without waiting for a disk
 */

static void drop_cache(int fd)
{
	CHECK(!fsync(fd));
	CHECK(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
}

/* How many pages of it are there */
static unsigned int pages_there(int obj)
{
	struct stat st;

	CHECK(!fstat(obj, &st));
	return (unsigned int)(st.st_blocks * 512 / PG);
}

TEST(cached_only)
{
	char name[] = "build/unit/cached-XXXXXX", buf[16 * PG], *map;
	int mem = new_image(16 * PG), img = mkstemp(name), obj = new_memfd(15 * PG + 100);
	struct fill_job *job = new_job(obj);

	map = mmap(NULL, 16 * PG, PROT_READ | PROT_WRITE, MAP_SHARED, obj, 0);
	CHECK(map != MAP_FAILED);
	CHECK(img >= 0 && !unlink(name));
	CHECK_EQ(pread(mem, buf, sizeof(buf), 0), (ssize_t)sizeof(buf));
	CHECK_EQ(pwrite(img, buf, sizeof(buf), 0), (ssize_t)sizeof(buf));

	job = add_seg(job, 2 * PG, img, 4 * PG, 3 * PG);
	job = add_seg(job, 15 * PG, img, 9 * PG, PG);
	if (!fill_run_cached(job, map))
		unit_skip("the filesystem of build/ can not say that it would have to wait");
	CHECK_EQ(job->result, FILL_OK);
	check_contents(obj, 2 * PG, 4 * PG, 3 * PG);
	check_contents(obj, 15 * PG, 9 * PG, 100);
	/* what is behind the end as well, and the end where it was */
	CHECK(!memcmp(map + 15 * PG, buf + 9 * PG, PG));
	CHECK_EQ(lseek(obj, 0, SEEK_END), 15 * PG + 100);
	CHECK_EQ(pages_there(obj), 4);
	free(job);

	/* of a job that is not all cached nothing stays, or a task could be shown what is not there */
	drop_cache(img);
	CHECK_EQ(ftruncate(obj, 0), 0);
	CHECK_EQ(ftruncate(obj, 16 * PG), 0);
	job = add_seg(add_seg(new_job(obj), 0, mem, 0, PG), PG, img, 4 * PG, PG);
	job->off = 0;
	job->len = 2 * PG;
	CHECK(!fill_run_cached(job, map));
	CHECK_EQ(pages_there(obj), 0);
	free(job);
	munmap(map, 16 * PG);
}

/* Pages [page, page + nr) of owner's object, from the same place in the image */
static void submit(struct fill_pool *pool, int obj, int img, void *owner, unsigned long page, unsigned long nr,
		   int urgent)
{
	struct fill_job *job = add_seg(new_job(obj), page * PG, img, page * PG, (uint32_t)(nr * PG));

	job->owner = owner;
	fill_submit(pool, job, urgent);
}

/* Opens the gate and lets the only worker run dry. The order of its reads, in pages. */
static void check_order(struct fill_pool *pool, unsigned int nr, const uint64_t *pages)
{
	struct fill_job *job, *rest = NULL;
	unsigned int i;

	open_gate();
	for (i = 0; i <= nr; i++) {
		job = reap_one(pool, &rest);
		CHECK_EQ(job->result, FILL_OK);
		/* finished in the same order; the first was the gate's */
		if (i)
			CHECK_EQ(job->segs[0].off, pages[i - 1] * PG);
		free(job);
	}
	CHECK(!rest);
	CHECK(!fill_reap(pool));

	CHECK_EQ(nr_trace, nr);
	for (i = 0; i < nr; i++)
		CHECK_EQ(trace[i], pages[i] * PG);
	nr_trace = 0;
}

TEST(pool_urgent_before_background)
{
	static const uint64_t order[] = { 20, 21, 22, 10, 11, 12 };
	int img = new_image(64 * PG), obj = new_memfd(64 * PG);
	struct fill_pool *pool = new_pool(1);

	traced_fd = img;
	close_gate(pool, obj);
	submit(pool, obj, img, NULL, 10, 1, 0);
	submit(pool, obj, img, NULL, 20, 1, 1);
	submit(pool, obj, img, NULL, 11, 1, 0);
	submit(pool, obj, img, NULL, 21, 1, 1);
	submit(pool, obj, img, NULL, 12, 1, 0);
	submit(pool, obj, img, NULL, 22, 1, 1);
	check_order(pool, 6, order);
	fill_pool_destroy(pool);
}

TEST(pool_urgent_waits_for_one_job_at_most)
{
	static const uint64_t order[] = { 3, 0, 1 };
	int img = new_image(64 * PG), obj = new_memfd(64 * PG);
	struct fill_pool *pool = new_pool(1);

	traced_fd = img;
	submit(pool, obj, img, NULL, 8, 1, 0);
	close_gate(pool, obj); /* page 8 is done, the worker is busy */
	nr_trace = 0;
	free(fill_reap(pool));
	submit(pool, obj, img, NULL, 0, 1, 0);
	submit(pool, obj, img, NULL, 1, 1, 0);
	submit(pool, obj, img, NULL, 3, 1, 1);
	check_order(pool, 3, order);
	fill_pool_destroy(pool);
}

/* All others are busy: what is urgent is done all the same, what is not waits; what is made urgent as well */
TEST(pool_thread_for_urgent_jobs)
{
	int img = new_image(64 * PG), obj = new_memfd(64 * PG), me;
	struct fill_job *job, *rest = NULL;
	struct fill_pool *pool;

	CHECK_EQ(fill_pool_create(&pool, 1, true), 0);
	close_gate(pool, obj);
	submit(pool, obj, img, &me, 1, 1, 0);
	submit(pool, obj, img, &me, 2, 1, 0);
	submit(pool, obj, img, &me, 3, 1, 1);
	job = reap_one(pool, &rest);
	CHECK_EQ(job->segs[0].off, 3 * PG);
	free(job);
	fill_promote(pool, &me, 2 * PG);
	job = reap_one(pool, &rest);
	CHECK_EQ(job->segs[0].off, 2 * PG);
	free(job);
	CHECK(!rest && !fill_reap(pool));
	check_contents(obj, 2 * PG, 2 * PG, 2 * PG);

	open_gate();
	free(reap_one(pool, &rest));
	job = reap_one(pool, &rest);
	CHECK_EQ(job->segs[0].off, PG);
	free(job);
	CHECK(!rest);
	fill_pool_destroy(pool);
}

/* From each place in the queue, with its neighbours left in order */
TEST(pool_promote)
{
	static const uint64_t order[4][5] = {
		{ 10, 20, 30, 40, 50 },
		{ 20, 10, 30, 40, 50 },
		{ 30, 10, 20, 40, 50 },
		{ 40, 10, 20, 30, 50 },
	};
	int img = new_image(64 * PG), obj = new_memfd(64 * PG), me, i;

	traced_fd = img;
	for (i = 0; i < 4; i++) {
		struct fill_pool *pool = new_pool(1);
		unsigned long page;

		close_gate(pool, obj);
		for (page = 10; page <= 40; page += 10)
			submit(pool, obj, img, &me, page, 4, 0);
		/* any offset that the job covers */
		fill_promote(pool, &me, (order[i][0] + (unsigned long)i) * PG + 5);
		submit(pool, obj, img, &me, 50, 1, 0);
		check_order(pool, 5, order[i]);
		fill_pool_destroy(pool);
	}
}

TEST(pool_promote_twice)
{
	static const uint64_t order[] = { 60, 30, 20, 10, 50 };
	int img = new_image(64 * PG), obj = new_memfd(64 * PG), me;
	struct fill_pool *pool = new_pool(1);

	traced_fd = img;
	close_gate(pool, obj);
	submit(pool, obj, img, &me, 10, 1, 0);
	submit(pool, obj, img, &me, 20, 1, 0);
	submit(pool, obj, img, &me, 30, 1, 0);
	submit(pool, obj, img, &me, 60, 1, 1);
	fill_promote(pool, &me, 30 * PG); /* behind the urgent ones that are there */
	fill_promote(pool, &me, 20 * PG);
	fill_promote(pool, &me, 30 * PG);
	fill_promote(pool, &me, 60 * PG);
	submit(pool, obj, img, &me, 50, 1, 0);
	check_order(pool, 5, order);
	fill_pool_destroy(pool);
}

TEST(pool_promote_what_is_not_queued)
{
	static const uint64_t order[] = { 10, 20 };
	int img = new_image(64 * PG), obj = new_memfd(64 * PG), me, other;
	struct fill_pool *pool = new_pool(1);

	traced_fd = img;
	fill_promote(pool, &me, 0); /* empty queue */
	close_gate(pool, obj);
	fill_promote(pool, NULL, 0); /* in the worker's hands */
	submit(pool, obj, img, &me, 10, 2, 0);
	submit(pool, obj, img, &me, 20, 2, 0);
	fill_promote(pool, &other, 20 * PG);
	fill_promote(pool, NULL, 20 * PG);
	fill_promote(pool, &me, 22 * PG);     /* right behind */
	fill_promote(pool, &me, 20 * PG - 1); /* right before */
	check_order(pool, 2, order);
	fill_promote(pool, &me, 10 * PG); /* done */
	fill_pool_destroy(pool);
}

TEST(pool_promote_job_of_several_segments)
{
	static const uint64_t order[] = { 20, 21, 10 };
	int img = new_image(64 * PG), obj = new_memfd(64 * PG), me;
	struct fill_pool *pool = new_pool(1);
	struct fill_job *job, *rest = NULL;
	unsigned int i;

	traced_fd = img;
	close_gate(pool, obj);
	submit(pool, obj, img, &me, 10, 1, 0);
	job = new_job(obj);
	job->owner = &me;
	add_seg(job, 20 * PG, img, 20 * PG, PG);
	add_seg(job, 21 * PG, img, 21 * PG, 100); /* the end of the object */
	fill_submit(pool, job, 0);
	fill_promote(pool, &me, 21 * PG);

	open_gate();
	for (i = 0; i < 3; i++)
		free(reap_one(pool, &rest));
	CHECK_EQ(nr_trace, 3);
	for (i = 0; i < 3; i++)
		CHECK_EQ(trace[i], order[i] * PG);
	fill_pool_destroy(pool);
}

/* A few pages each, in no order, urgent and not, promoted at random: each done once */
TEST(pool_10000_jobs)
{
	const unsigned int nr = 10000;
	unsigned int seed = unit_seed(), i, reaped = 0;
	int img = new_image(nr * PG), obj = new_memfd(nr * PG);
	struct fill_pool *pool = new_pool(4);
	unsigned char *seen = calloc(nr, 1);
	unsigned int *perm = calloc(nr, sizeof(*perm));
	struct fill_job *job, *rest = NULL;

	CHECK(seen && perm);
	for (i = 0; i < nr; i++) {
		unsigned int j = (unsigned int)rand_r(&seed) % (i + 1);

		perm[i] = perm[j];
		perm[j] = i;
	}

	for (i = 0; i < nr; i++) {
		submit(pool, obj, img, pool, perm[i], 1, rand_r(&seed) % 16 == 0);
		if (rand_r(&seed) % 8 == 0)
			fill_promote(pool, pool, ((unsigned long)rand_r(&seed) % nr) * PG);
	}
	while (reaped < nr) {
		job = reap_one(pool, &rest);
		CHECK_EQ(job->result, FILL_OK);
		CHECK_EQ(seen[job->segs[0].off / PG]++, 0);
		free(job);
		reaped++;
	}
	CHECK(!rest);
	unit_sleep_ms(5);
	CHECK(!fill_reap(pool));
	fill_pool_destroy(pool);
	check_contents(obj, 0, 0, nr * PG);
	free(seen);
	free(perm);
}

static int count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *de;
	int nr = 0;

	CHECK(dir);
	while ((de = readdir(dir)))
		nr += de->d_name[0] != '.';
	closedir(dir);
	return nr;
}

TEST(pool_create_and_destroy)
{
	int fds = unit_count_fds(), threads = count_threads();
	struct fill_pool *pool;
	unsigned int i;

	for (i = 1; i <= 16; i++) {
		pool = new_pool(i);
		CHECK_EQ(count_threads(), threads + (int)i);
		CHECK_EQ(unit_count_fds(), fds + 1);
		fill_pool_destroy(pool);
		WAIT_FOR(count_threads() == threads);
		CHECK_EQ(unit_count_fds(), fds);
	}
	fill_pool_destroy(NULL);
}

TEST(pool_create_fails)
{
	struct rlimit lim, none;
	struct fill_pool *pool = NULL;

	CHECK_SYS(getrlimit(RLIMIT_NOFILE, &lim));
	none = lim;
	none.rlim_cur = 3;
	CHECK_SYS(setrlimit(RLIMIT_NOFILE, &none));
	CHECK_EQ(fill_pool_create(&pool, 2, true), -EMFILE);
	CHECK_SYS(setrlimit(RLIMIT_NOFILE, &lim));
	CHECK(!pool);
	CHECK_EQ(count_threads(), 1);
}

static bool main_thread_sleeps(void)
{
	char path[64], buf[512], *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	f = fopen(path, "r");
	CHECK(f);
	CHECK(fgets(buf, sizeof(buf), f));
	fclose(f);
	p = strrchr(buf, ')');
	CHECK(p);
	return p[2] == 'S';
}

static void *open_gate_when_main_sleeps(void *arg)
{
	(void)arg;
	WAIT_FOR(main_thread_sleeps());
	open_gate();
	return NULL;
}

/* What is in hand is finished, what is queued is not begun; nothing leaks */
TEST(pool_destroy_with_jobs_queued)
{
	int img = new_image(128 * PG), obj = new_memfd(128 * PG);
	struct fill_pool *pool = new_pool(1);
	pthread_t opener;
	unsigned long i;

	submit(pool, obj, img, NULL, 100, 1, 0); /* done, but not reaped */
	close_gate(pool, obj);
	for (i = 1; i < 50; i++)
		submit(pool, obj, img, NULL, i, 1, 0);
	for (; i < 90; i++)
		submit(pool, obj, img, NULL, i, 1, 1);
	CHECK_EQ(pthread_create(&opener, NULL, open_gate_when_main_sleeps, NULL), 0);
	fill_pool_destroy(pool);
	pthread_join(opener, NULL);

	CHECK(!is_hole(obj, 0));
	CHECK(!is_hole(obj, 100 * PG));
	for (i = 1; i < 90; i++)
		CHECK(is_hole(obj, i * PG));
}

TEST(pool_destroy_under_load)
{
	int img = new_image(512 * PG), obj = new_memfd(512 * PG), round;

	for (round = 0; round < 20; round++) {
		struct fill_pool *pool = new_pool(4);
		unsigned long i;

		for (i = 0; i < 512; i++)
			submit(pool, obj, img, NULL, i, 1, (int)(i % 3 == 0));
		fill_pool_destroy(pool);
	}
}

/* The SigBlk line of each thread but the main one */
static int count_blocked(uint64_t want)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *de;
	int nr = 0;

	CHECK(dir);
	while ((de = readdir(dir))) {
		char path[320], line[256];
		uint64_t mask = 0;
		FILE *f;

		if (de->d_name[0] == '.' || atoi(de->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", de->d_name);
		f = fopen(path, "r");
		CHECK(f);
		while (fgets(line, sizeof(line), f))
			if (sscanf(line, "SigBlk: %lx", &mask) == 1)
				break;
		fclose(f);
		nr += (mask & want) == want;
	}
	closedir(dir);
	return nr;
}

TEST(pool_blocks_signals)
{
	const uint64_t not_ours = 1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1) | 1ULL << 31 | 1ULL << 32; /* the C library's */
	struct fill_pool *pool;
	sigset_t before, after;

	sigemptyset(&before);
	sigaddset(&before, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &before, NULL);

	pool = new_pool(3);
	WAIT_FOR(count_blocked(~not_ours) == 3);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	CHECK(sigismember(&after, SIGUSR1));
	CHECK(!sigismember(&after, SIGTERM));
	CHECK(!sigismember(&after, SIGCHLD));
	fill_pool_destroy(pool);
}

/* A signal that writing raises in a worker is an error of that job and nothing else */
TEST(pool_survives_sigxfsz)
{
	struct rlimit lim = { .rlim_cur = PG, .rlim_max = RLIM_INFINITY };
	int img = new_image(8 * PG), obj = new_memfd(16 * PG);
	struct fill_pool *pool = new_pool(1);
	struct fill_job *job, *rest = NULL;

	CHECK_SYS(setrlimit(RLIMIT_FSIZE, &lim));
	submit(pool, obj, img, NULL, 2, 1, 0);
	job = reap_one(pool, &rest);
	lim.rlim_cur = RLIM_INFINITY;
	CHECK_SYS(setrlimit(RLIMIT_FSIZE, &lim));
	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	CHECK_EQ(job->err, EFBIG);
	CHECK_EQ(job->err_off, 2 * PG);
	free(job);
	fill_pool_destroy(pool);
}
