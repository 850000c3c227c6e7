// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fill.h"
#include "filler.h"
#include "lane.h"
#include "unit.h"

#define PG 4096UL

static int new_memfd(uint64_t size)
{
	int fd = (int)CHECK_SYS(memfd_create("unit", MFD_CLOEXEC | MFD_ALLOW_SEALING));

	CHECK_SYS(ftruncate(fd, (off_t)size));
	return fd;
}

/* One segment of as many pages */
static struct fill_job *new_job(int obj_fd, int src_fd, uint64_t page, uint32_t nr)
{
	struct fill_job *job = calloc(1, sizeof(*job) + sizeof(job->segs[0]));

	CHECK(job);
	job->owner = (void *)(uintptr_t)(page + 1);
	job->obj_fd = obj_fd;
	job->off = page * PG;
	job->len = nr * PG;
	job->obj_size = UINT64_MAX >> 1;
	job->nr_segs = 1;
	job->segs[0] = (struct fill_seg){ .off = page * PG, .src_off = page * PG, .len = nr * (uint32_t)PG, .src_fd = src_fd };
	return job;
}

static struct lane *start(unsigned int threads)
{
	static unsigned int nr;
	struct lane_desc desc = { .name = "filler", .main = filler_main, .arg = &nr };
	struct lane *lane;

	nr = threads;
	CHECK_EQ(lane_start(&lane, &desc), 0);
	return lane;
}

static struct fill_job *reap_some(struct lane *lane)
{
	struct pollfd pfd = { .fd = lane_fd(lane), .events = POLLIN };
	struct fill_job *job;

	while (!(job = lane_reap(lane)))
		CHECK_SYS(poll(&pfd, 1, -1));
	return job;
}

static int few_descriptors(int sk, void *arg)
{
	struct rlimit lim = { .rlim_cur = 600, .rlim_max = 600 };

	CHECK_SYS(setrlimit(RLIMIT_NOFILE, &lim));
	return filler_main(sk, arg);
}

/* More than there can be descriptors for: they wait until it is their turn */
TEST(more_jobs_than_descriptors)
{
	enum { JOBS = 1000,
	       PAGES = FILL_UNIT / PG };
	int obj = new_memfd(FILL_UNIT), img = new_memfd(FILL_UNIT), done = 0, i;
	unsigned int threads = 1;
	struct lane_desc desc = { .name = "filler", .main = few_descriptors, .arg = &threads };
	struct lane *lane;

	CHECK_EQ(lane_start(&lane, &desc), 0);
	for (i = 0; i < JOBS; i++)
		lane_submit(lane, new_job(obj, img, 0, PAGES), 0);
	while (done < JOBS) {
		struct fill_job *job = reap_some(lane), *next;

		for (; job; job = next, done++) {
			next = job->next;
			CHECK_EQ(job->result, FILL_OK);
			free(job);
		}
	}
	lane_stop(lane);
}

/* How many descriptors a process has */
static int fds_of(pid_t pid)
{
	char cmd[64];
	int nr = 0;
	FILE *p;

	snprintf(cmd, sizeof(cmd), "ls /proc/%d/fd | wc -l", pid);
	p = popen(cmd, "r");
	CHECK(p);
	CHECK_EQ(fscanf(p, "%d", &nr), 1);
	pclose(p);
	return nr;
}

TEST(fills_all)
{
	enum { JOBS = 600,
	       PAGES = 8 };
	size_t size = JOBS * PAGES * PG;
	int obj = new_memfd(size), img = new_memfd(size), done = 0, i;
	struct lane *lane = start(4);
	uint32_t *a, *b;
	size_t w;

	a = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, img, 0);
	b = mmap(NULL, size, PROT_READ, MAP_SHARED, obj, 0);
	CHECK(a != MAP_FAILED && b != MAP_FAILED);
	for (w = 0; w < size / sizeof(*a); w++)
		a[w] = (uint32_t)w * 2654435761U + 1;

	for (i = 0; i < JOBS; i++)
		lane_submit(lane, new_job(obj, img, (uint64_t)i * PAGES, PAGES), i % 3 == 0);
	while (done < JOBS) {
		struct fill_job *job = reap_some(lane), *next;

		for (; job; job = next, done++) {
			next = job->next;
			CHECK_EQ(job->result, FILL_OK);
			free(job);
		}
	}
	CHECK(!memcmp(a, b, size));

	/* all that came with jobs is closed: socket, log, two more standard ones, the eventfd */
	CHECK_EQ(fds_of(lane_pid(lane)), 5);
	lane_stop(lane);
}

TEST(tells_of_errors)
{
	int obj = new_memfd(4 * PG), img = new_memfd(2 * PG), sealed = new_memfd(4 * PG);
	struct lane *lane = start(1);
	struct fill_job *job;

	lane_submit(lane, new_job(obj, img, 1, 2), 0);
	job = reap_some(lane);
	CHECK_EQ(job->result, FILL_SHORT);
	CHECK_EQ(job->err_off, PG);
	CHECK_EQ(job->err, 0);

	CHECK_SYS(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE));
	lane_submit(lane, new_job(sealed, img, 0, 1), 0);
	job = reap_some(lane);
	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	CHECK_EQ(job->err, EPERM);

	lane_submit(lane, new_job(obj, (int)CHECK_SYS(open("/dev/null", O_WRONLY)), 3, 1), 0);
	job = reap_some(lane);
	CHECK_EQ(job->result, FILL_READ_ERROR);
	CHECK_EQ(job->err, EBADF);
	CHECK_EQ(job->err_off, 3 * PG);
	lane_stop(lane);
}

/* Keeps a thread busy for longer than it takes to receive all other jobs */
static struct fill_job *new_long_job(int obj_fd, int src_fd)
{
	enum { SEGS = 1000 };
	struct fill_job *job = calloc(1, sizeof(*job) + SEGS * sizeof(job->segs[0]));

	CHECK(job);
	job->obj_fd = obj_fd;
	job->len = FILL_UNIT;
	job->obj_size = FILL_UNIT;
	for (; job->nr_segs < SEGS; job->nr_segs++)
		job->segs[job->nr_segs] = (struct fill_seg){ .len = FILL_UNIT, .src_fd = src_fd };
	return job;
}

TEST(urgent_and_promoted_first)
{
	enum { NR = 32 };
	int obj = new_memfd(NR * PG), img = new_memfd(FILL_UNIT), order[NR], done = 0, i;
	struct lane *lane = start(1);
	struct fill_job *job;

	lane_submit(lane, new_long_job(obj, img), 0);
	for (i = 0; i < NR; i++)
		lane_submit(lane, new_job(obj, img, (uint64_t)i, 1), i == NR - 2);
	lane_promote(lane, (void *)(uintptr_t)NR, (NR - 1) * PG);

	while (done < NR)
		for (job = reap_some(lane); job; job = job->next)
			if (job->nr_segs == 1)
				order[job->off / PG] = done++;
	CHECK_EQ(order[NR - 2], 0);
	CHECK_EQ(order[NR - 1], 1);
	for (i = 0; i < NR - 2; i++)
		CHECK_EQ(order[i], i + 2);
	lane_stop(lane);
}

/* Holes are not kept waiting by what reads; what is there stays, and the end where it was */
TEST(allocates_at_once)
{
	int obj = new_memfd(4 * PG + 100), img = new_memfd(FILL_UNIT);
	struct lane *lane = start(1);
	struct fill_job *job;
	struct stat st;
	char c = 'x';
	int i;

	CHECK_EQ(pwrite(obj, &c, 1, PG), 1);
	lane_submit(lane, new_long_job(new_memfd(FILL_UNIT), img), 0);
	for (i = 1; i < 5; i += 3) {
		job = new_job(obj, -1, (uint64_t)i, 1);
		job->nr_segs = 0;
		job->way = FILL_ALLOCATE;
		job->len = i == 4 ? 100 : PG;
		lane_submit(lane, job, 1);
		job = reap_some(lane);
		CHECK_EQ(job->way, FILL_ALLOCATE);
		CHECK_EQ(job->result, FILL_OK);
	}
	CHECK_EQ(reap_some(lane)->nr_segs, 1000);

	CHECK_EQ(pread(obj, &c, 1, PG), 1);
	CHECK_EQ(c, 'x');
	CHECK_SYS(fstat(obj, &st));
	CHECK_EQ(st.st_size, 4 * PG + 100);
	CHECK_EQ(st.st_blocks, 2 * 8);
	lane_stop(lane);
}

TEST(ends_with_the_socket)
{
	struct lane *lane = start(3);
	pid_t pid = lane_pid(lane);
	int status;

	CHECK_SYS(shutdown(lane_fd(lane), SHUT_RDWR));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	lane_stop(lane);
}
