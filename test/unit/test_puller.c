// SPDX-License-Identifier: GPL-2.0-only
/* puller_main() in a lane of its own, against the server in fake_peer.c. ./run sees to free huge pages. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "page_server.h"

#include "fake_peer.h"
#include "fill.h"
#include "lane.h"
#include "puller.h"
#include "unit.h"

#define PG   4096UL
#define HPG  (2UL << 20)
#define HEAD sizeof(struct page_server_iov)

/*
 * What jobs fill
 */

static int new_memfd(uint64_t size)
{
	int fd = (int)CHECK_SYS(memfd_create("unit", MFD_CLOEXEC | MFD_ALLOW_SEALING));

	CHECK_SYS(ftruncate(fd, (off_t)size));
	return fd;
}

/* A local image; not what the server has */
static unsigned char image_byte(uint64_t off)
{
	return (unsigned char)(1 + off / 3 % 254);
}

static int new_image(uint64_t size)
{
	int fd = new_memfd(size);
	unsigned char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint64_t i;

	CHECK(mem != MAP_FAILED);
	for (i = 0; i < size; i++)
		mem[i] = image_byte(i);
	munmap(mem, size);
	return fd;
}

static uint64_t size_of(int fd)
{
	struct stat st;

	CHECK_SYS(fstat(fd, &st));
	return (uint64_t)st.st_size;
}

/* Through a mapping, which shows what is behind the end in the last page as well */
static void check_remote(int fd, uint32_t shmid, uint64_t off, uint64_t len)
{
	uint64_t base = off & ~(HPG - 1), i;
	unsigned char *mem = mmap(NULL, off + len - base, PROT_READ, MAP_SHARED, fd, (off_t)base);

	CHECK(mem != MAP_FAILED);
	for (i = off; i < off + len; i++)
		if (mem[i - base] != peer_byte(shmid, i))
			CHECK_EQ(i, -1);
	munmap(mem, off + len - base);
}

static void check_hole(int fd, uint64_t off, uint64_t len)
{
	off_t data = lseek(fd, (off_t)off, SEEK_DATA);

	if (data >= 0)
		CHECK(data >= (off_t)(off + len));
	else
		CHECK_EQ(errno, ENXIO);
}

/*
 * Jobs
 */

static struct fill_job *new_job(uint32_t shmid, int fd, uint64_t off)
{
	struct fill_job *job = calloc(1, sizeof(*job) + 1024 * sizeof(job->segs[0]));

	CHECK(job);
	*job = (struct fill_job){
		.owner = (void *)(uintptr_t)(shmid * 1000UL + off / PG + 1),
		.shmid = shmid,
		.obj_fd = fd,
		.off = off,
		.obj_size = size_of(fd),
		.way = FILL_PWRITE,
	};
	return job;
}

static struct fill_job *add_seg(struct fill_job *job, uint64_t off, uint64_t len, int src_fd, uint64_t src_off)
{
	job->segs[job->nr_segs++] =
		(struct fill_seg){ .off = off, .len = (uint32_t)len, .src_fd = src_fd, .src_off = src_off };
	job->len = off + len - job->off;
	return job;
}

static struct fill_job *remote_job(uint32_t shmid, int fd, uint64_t off, uint64_t len)
{
	return add_seg(new_job(shmid, fd, off), off, len, SEG_REMOTE, off);
}

/*
 * The puller
 */

static struct lane *lane;
static unsigned int *ended;

static int puller(int sk, void *arg)
{
	int nr = unit_count_fds(), ret;

	ret = puller_main(sk, arg);
	CHECK_EQ(unit_count_fds(), nr);
	*ended = 1;
	return ret;
}

static void start(void)
{
	struct lane_desc desc = { .name = "puller", .main = puller };

	ended = unit_shared_alloc(sizeof(*ended));
	CHECK_EQ(lane_start(&lane, &desc), 0);
}

static void start_both(void)
{
	peer_start();
	start();
}

/* It ends by itself, and leaves nothing open */
static void stop(void)
{
	lane_stop(lane);
	CHECK_EQ(*ended, 1);
}

/* Waits for nr jobs, frees those that are as they should be; the first one that is not, or NULL */
static struct fill_job *wait_jobs(unsigned int nr)
{
	struct fill_job *bad = NULL, *job, *next;

	while (nr) {
		struct pollfd pfd = { .fd = lane_fd(lane), .events = POLLIN };

		for (job = lane_reap(lane); job; job = next) {
			next = job->next;
			CHECK(nr--);
			if (job->result != FILL_OK && !bad)
				bad = job;
			else
				free(job);
		}
		if (nr)
			CHECK_SYS(poll(&pfd, 1, -1));
	}
	return bad;
}

static void all_good(unsigned int nr)
{
	struct fill_job *bad = wait_jobs(nr);

	if (bad)
		unit_failed(__FILE__, __LINE__, "result %d, errno %d at %#llx", bad->result, bad->err,
			    (unsigned long long)bad->err_off);
}

/* At least one of nr jobs fails like that */
static void one_bad(unsigned int nr, enum fill_result result, int err, uint64_t err_off)
{
	struct fill_job *bad = wait_jobs(nr);

	CHECK(bad);
	CHECK_EQ(bad->result, result);
	CHECK_EQ(bad->err, err);
	CHECK_EQ(bad->err_off, err_off);
	free(bad);
}

static void logged(const char *text)
{
	if (!strstr(unit_log(), text))
		unit_failed(__FILE__, __LINE__, "the log does not have: %s", text);
}

static void not_logged(const char *text)
{
	if (strstr(unit_log(), text))
		unit_failed(__FILE__, __LINE__, "the log has: %s", text);
}

/*
 * Contents
 */

static void contents(void)
{
	int a = new_memfd(100 * PG), b = new_memfd(20 * PG);
	struct fill_job *job = new_job(7, a, 10 * PG);

	peer_prepare();
	start_both();
	add_seg(job, 10 * PG, 3 * PG, SEG_REMOTE, 0);
	add_seg(job, 20 * PG, PG, SEG_REMOTE, 0);
	add_seg(job, 21 * PG, 9 * PG, SEG_REMOTE, 0);
	lane_submit(lane, job, 0);
	lane_submit(lane, remote_job(8, b, 2 * PG, 5 * PG), 1);
	all_good(2);

	check_hole(a, 0, 10 * PG);
	check_remote(a, 7, 10 * PG, 3 * PG);
	check_hole(a, 13 * PG, 7 * PG);
	check_remote(a, 7, 20 * PG, 10 * PG);
	check_hole(a, 30 * PG, 70 * PG);
	check_hole(b, 0, 2 * PG);
	check_remote(b, 8, 2 * PG, 5 * PG);
	check_hole(b, 7 * PG, 13 * PG);
	stop();
	/* what is adjacent was asked for together */
	CHECK_EQ(peer->nr_questions, 3);
	CHECK_EQ(peer->nr_conns, 1);
	CHECK_EQ(peer->nr_farewells, 1);
	CHECK_EQ(strlen(unit_log()), 0);
}

TEST(contents)
{
	contents();
}

TEST(contents_tls)
{
	opts.tls = true;
	contents();
}

/* The object does not grow, but those who map it see what is behind its end in the last page */
static void odd_end(void)
{
	static const uint64_t ends[] = { 1, 100, PG - 1, PG, PG + 1, 3 * PG + 1234 };
	unsigned int i;

	peer_prepare();
	start_both();
	for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		uint64_t size = 5 * PG + ends[i], up = (size + PG - 1) & ~(PG - 1);
		int fd = new_memfd(size);

		lane_submit(lane, remote_job(i + 1, fd, 4 * PG, up - 4 * PG), 0);
		all_good(1);
		CHECK_EQ(size_of(fd), size);
		check_remote(fd, i + 1, 4 * PG, up - 4 * PG);
		check_hole(fd, 0, 4 * PG);
		close(fd);
	}
	stop();
}

TEST(odd_end)
{
	odd_end();
}

TEST(odd_end_tls)
{
	opts.tls = true;
	odd_end();
}

TEST(local_and_remote)
{
	int fd = new_memfd(16 * PG), img = new_image(8 * PG);
	struct fill_job *job = new_job(3, fd, 0);
	unsigned char buf[3 * PG];
	uint64_t i;

	peer_prepare();
	start_both();
	add_seg(job, 0, 2 * PG, SEG_REMOTE, 0);
	add_seg(job, 2 * PG, PG, img, 5 * PG);
	add_seg(job, 3 * PG, PG, SEG_REMOTE, 0);
	add_seg(job, 6 * PG, 2 * PG, img, 0);
	lane_submit(lane, job, 0);
	lane_submit(lane, add_seg(new_job(4, fd, 12 * PG), 12 * PG, PG, img, 0), 0);
	all_good(2);

	check_remote(fd, 3, 0, 2 * PG);
	check_remote(fd, 3, 3 * PG, PG);
	CHECK_EQ(pread(fd, buf, PG, 2 * PG), PG);
	CHECK_EQ(pread(fd, buf + PG, 2 * PG, 6 * PG), 2 * PG);
	for (i = 0; i < 3 * PG; i++)
		if (buf[i] != image_byte(i < PG ? 5 * PG + i : i - PG))
			CHECK_EQ(i, -1);
	check_hole(fd, 4 * PG, 2 * PG);
	check_hole(fd, 8 * PG, 4 * PG);
	CHECK_EQ(peer->nr_questions, 2);
	stop();
}

/* The local part is in a huge page as well, and what is in neither is zero */
static void huge(void)
{
	int img = new_image(PG), fd = unit_huge_memfd(3);
	struct fill_job *job = new_job(3, fd, HPG);
	const unsigned char *mem;
	struct stat st;
	uint64_t i;

	peer_prepare();
	start_both();
	job->way = FILL_MAPPED;
	add_seg(job, HPG + 8 * PG, 100 * PG, SEG_REMOTE, 0);
	add_seg(job, HPG + 200 * PG, PG, img, 0);
	add_seg(job, HPG + 201 * PG, 300 * PG, SEG_REMOTE, 0);
	job->len = HPG;
	lane_submit(lane, job, 0);
	all_good(1);

	CHECK_SYS(fstat(fd, &st));
	CHECK_EQ(st.st_blocks * 512, HPG);
	mem = mmap(NULL, 3 * HPG, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(mem != MAP_FAILED);
	for (i = 0; i < HPG; i++) {
		unsigned char want = peer_byte(3, HPG + i);

		if (i < 8 * PG || (i >= 108 * PG && i < 200 * PG) || i >= 501 * PG)
			want = 0;
		else if (i >= 200 * PG && i < 201 * PG)
			want = image_byte(i - 200 * PG);
		if (mem[HPG + i] != want)
			CHECK_EQ(i, -1);
	}
	stop();
}

TEST(huge)
{
	huge();
}

TEST(huge_tls)
{
	opts.tls = true;
	huge();
}

/* An error, and no signal */
TEST(no_huge_page_left)
{
	int fd = unit_huge_memfd(1), hog = unit_huge_memfd(1), other = new_memfd(PG);
	struct fill_job *job = remote_job(3, fd, 0, HPG);
	off_t n = 0;

	peer_prepare();
	start_both();
	do {
		n++;
		CHECK_SYS(ftruncate(hog, n * (off_t)HPG));
	} while (!fallocate(hog, FALLOC_FL_KEEP_SIZE, (n - 1) * (off_t)HPG, (off_t)HPG));
	job->way = FILL_MAPPED;
	lane_submit(lane, job, 0);
	one_bad(1, FILL_WRITE_ERROR, ENOSPC, 0);
	lane_submit(lane, remote_job(4, other, 0, PG), 0);
	all_good(1);
	stop();
}

/* More than a question may ask for, and more jobs than may be in flight or in the puller */
TEST(many)
{
	uint64_t big = (PS_SHMEM_MAX_PAGES + 10) * PG, i;
	int fd = new_memfd(big), small = new_memfd(600 * 2 * PG);

	peer_prepare();
	start_both();
	lane_submit(lane, remote_job(1, fd, 0, big), 0);
	for (i = 0; i < 600; i++)
		lane_submit(lane, remote_job(2, small, 2 * i * PG, PG), 0);
	all_good(601);

	check_remote(fd, 1, 0, big);
	for (i = 0; i < 600; i++) {
		check_remote(small, 2, 2 * i * PG, PG);
		check_hole(small, (2 * i + 1) * PG, PG);
	}
	CHECK_EQ(peer->nr_questions, 602);
	stop();
}

/*
 * Order
 */

/* Questions go out before there is an answer; urgent jobs are asked for before those that wait */
TEST(urgent_first)
{
	int fd = new_memfd(200 * PG), img = new_image(PG);
	uint64_t i;

	peer_prepare();
	peer->conns[0] = (struct peer_conn){ .gather = 64 };
	start_both();
	for (i = 0; i < 100; i++)
		lane_submit(lane, remote_job(1, fd, i * PG, PG), 0);
	WAIT_FOR(peer->nr_questions == 64);
	lane_submit(lane, remote_job(1, fd, 150 * PG, PG), 1);
	lane_promote(lane, (void *)(1000UL + 90 + 1), 90 * PG);

	/* when this one is back the puller has taken those before it */
	lane_submit(lane, add_seg(new_job(9, fd, 160 * PG), 160 * PG, PG, img, 0), 0);
	all_good(1);
	peer->open = 1;
	all_good(101);

	for (i = 0; i < 64; i++)
		CHECK_EQ(peer->questions[i].off, i * PG);
	CHECK_EQ(peer->questions[64].off, 150 * PG);
	CHECK_EQ(peer->questions[65].off, 90 * PG);
	CHECK_EQ(peer->questions[66].off, 64 * PG);
	check_remote(fd, 1, 0, 100 * PG);
	check_remote(fd, 1, 150 * PG, PG);
	stop();
}

/*
 * Lost connections
 */

/* Each kind of place in the answers to three questions, the second of which ends oddly */
static const uint64_t places[] = {
	0,
	1,
	HEAD - 1,
	HEAD,
	HEAD + 1,
	HEAD + 100,
	HEAD + PG,
	HEAD + PG + 1000,
	HEAD + 4 * PG - 1,
	HEAD + 4 * PG,
	2 * HEAD + 4 * PG - 1,
	2 * HEAD + 4 * PG,
	2 * HEAD + 7 * PG + 99,
	2 * HEAD + 7 * PG + 100,
	2 * HEAD + 7 * PG + 101,
	2 * HEAD + 8 * PG,
	3 * HEAD + 9 * PG - 1,
};

#define NR_PLACES (sizeof(places) / sizeof(places[0]))

static void closed(void)
{
	static const uint64_t end[] = { HEAD + 4 * PG, 2 * HEAD + 8 * PG };
	unsigned int i;

	peer_prepare();
	for (i = 0; i < NR_PLACES; i++)
		peer->conns[2 * i] = (struct peer_conn){ .does = PEER_CLOSE, .at = places[i], .gather = 3 };
	peer->open = 1;
	peer_start();
	for (i = 0; i < NR_PLACES; i++) {
		unsigned int before = peer->nr_questions;
		int a = new_memfd(6 * PG), b = new_memfd(3 * PG + 100);

		/* each its own puller: where it is cut counts from the connection's beginning */
		start();
		lane_submit(lane, remote_job(1, a, 0, 4 * PG), 0);
		lane_submit(lane, remote_job(2, b, 0, 4 * PG), 0);
		lane_submit(lane, remote_job(3, a, 5 * PG, PG), 0);
		all_good(3);
		check_remote(a, 1, 0, 4 * PG);
		check_hole(a, 4 * PG, PG);
		check_remote(a, 3, 5 * PG, PG);
		check_remote(b, 2, 0, 4 * PG);
		CHECK_EQ(size_of(b), 3 * PG + 100);
		CHECK_EQ(peer->nr_conns, 2 * i + 2);
		/* what was answered in full is not asked for again */
		CHECK_EQ(peer->questions[before + 3].conn, 2 * i + 1);
		CHECK_EQ(peer->questions[before + 3].shmid, places[i] < end[0] ? 1 : places[i] < end[1] ? 2 :
													  3);
		CHECK_EQ(peer->questions[peer->nr_questions - 1].shmid, 3);
		stop();
		close(a);
		close(b);
	}
	logged("Lost the page server, will connect again: ");
	logged("; object 0x1 waits for offset 0 to 0x4000, and 2 requests come after that");
	logged("; object 0x2 waits for offset 0x3063 to 0x4000, and 1 requests come after that");
	logged("The page server is back, 3 requests are sent again");
	peer_stop();
}

TEST(closed)
{
	closed();
}

TEST(closed_tls)
{
	opts.tls = true;
	closed();
}

/* Answers that have come are used, though no more can be asked on the connection */
TEST(closed_before_it_was_asked)
{
	int fd = new_memfd(20 * PG);
	uint64_t i;

	peer_prepare();
	peer->conns[0] = (struct peer_conn){ .does = PEER_CLOSE, .at = 4 * (HEAD + PG), .gather = 4 };
	start_both();
	for (i = 0; i < 4; i++)
		lane_submit(lane, remote_job(1, fd, 2 * i * PG, PG), 0);
	WAIT_FOR(peer->nr_questions == 4);
	CHECK_SYS(kill(lane_pid(lane), SIGSTOP));
	peer->open = 1;
	WAIT_FOR(peer->nr_ended == 1);
	for (; i < 8; i++)
		lane_submit(lane, remote_job(1, fd, 2 * i * PG, PG), 0);
	CHECK_SYS(kill(lane_pid(lane), SIGCONT));
	all_good(8);
	for (i = 0; i < 8; i++)
		check_remote(fd, 1, 2 * i * PG, PG);
	CHECK_EQ(peer->nr_conns, 2);
	CHECK_EQ(peer->nr_questions, 8);
	stop();
}

/* Not before a certain byte: a reset destroys what was sent and not read */
TEST(reset)
{
	int fd = new_memfd(600 * PG);
	uint64_t i;

	peer_prepare();
	for (i = 0; i < 10; i++)
		peer->conns[i] = (struct peer_conn){ .does = PEER_RESET, .at = 9 * PG * i + 5 };
	opts.lazy_retries = 10;
	start_both();
	for (i = 0; i < 300; i++)
		lane_submit(lane, remote_job(1, fd, 2 * i * PG, PG), 0);
	all_good(300);
	for (i = 0; i < 300; i++) {
		check_remote(fd, 1, 2 * i * PG, PG);
		check_hole(fd, (2 * i + 1) * PG, PG);
	}
	CHECK(peer->nr_conns > 5);
	stop();
}

static void stalled(uint64_t at)
{
	int fd = new_memfd(600 * PG);
	uint64_t begin;
	struct timespec t;

	peer_prepare();
	peer->conns[0] = (struct peer_conn){ .does = PEER_STALL, .at = at };
	opts.lazy_timeout = 1;
	start_both();
	clock_gettime(CLOCK_MONOTONIC, &t);
	begin = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	lane_submit(lane, remote_job(5, fd, 0, 512 * PG), 0);
	all_good(1);
	clock_gettime(CLOCK_MONOTONIC, &t);
	CHECK((uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 - begin >= 990);
	check_remote(fd, 5, 0, 512 * PG);
	CHECK_EQ(peer->nr_conns, 2);
	logged("Lost the page server, will connect again: an answer is overdue");
	stop();
}

TEST(stalled_before_the_answer)
{
	stalled(0);
}

TEST(stalled_in_a_page)
{
	stalled(HEAD + 17 * PG + 5);
}

TEST(stalled_in_a_page_tls)
{
	opts.tls = true;
	stalled(HEAD + 17 * PG + 5);
}

/* Losses count from the last answer on */
TEST(progress_counts)
{
	int fd = new_memfd(20 * PG);
	uint64_t i;

	peer_prepare();
	opts.lazy_retries = 1;
	for (i = 0; i < 10; i++)
		peer->conns[i] = (struct peer_conn){ .does = PEER_CLOSE, .at = HEAD + PG };
	start_both();
	for (i = 0; i < 10; i++)
		lane_submit(lane, remote_job(1, fd, 2 * i * PG, PG), 0);
	all_good(10);
	CHECK(peer->nr_conns >= 10);
	stop();
}

TEST(lost_too_often)
{
	int fd = new_memfd(20 * PG), img = new_image(PG);
	unsigned int i;

	peer_prepare();
	for (i = 0; i < 10; i++)
		peer->conns[i] = (struct peer_conn){ .does = PEER_CLOSE, .at = HEAD + 5 };
	start_both();
	lane_submit(lane, remote_job(0x11, fd, 3 * PG, PG), 0);
	lane_submit(lane, remote_job(0x11, fd, 5 * PG, PG), 0);
	one_bad(2, FILL_PEER_LOST, ECONNRESET, 3 * PG);
	CHECK_EQ(peer->nr_conns, 3);
	logged("Giving the page server up, lost 3 times without an answer (--lazy-retries): ");
	logged("; object 0x11 waits for offset 0x3005 to 0x4000, and 1 requests come after that");

	/* later ones fail at once, and others are none of its business */
	lane_submit(lane, remote_job(0x11, fd, 7 * PG, PG), 0);
	one_bad(1, FILL_PEER_LOST, ECONNRESET, 7 * PG);
	CHECK_EQ(peer->nr_conns, 3);
	lane_submit(lane, add_seg(new_job(9, fd, 8 * PG), 8 * PG, PG, img, 0), 0);
	all_good(1);
	stop();
}

TEST(not_there_any_more)
{
	int fd = new_memfd(20 * PG);

	peer_prepare();
	opts.lazy_timeout = 1;
	peer->conns[0] = (struct peer_conn){ .gather = 2 };
	start_both();
	lane_submit(lane, remote_job(0x11, fd, 3 * PG, PG), 0);
	WAIT_FOR(peer->nr_questions == 1);
	peer_stop();
	one_bad(1, FILL_PEER_LOST, EHOSTUNREACH, 3 * PG);
	logged("Giving the page server up, no connection in 1 seconds (--lazy-timeout); ");
	logged("; object 0x11 waits for offset 0x3000 to 0x4000, and 0 requests come after that");
	stop();
}

/* It may come later than the puller, if it comes */
TEST(not_there_yet)
{
	int fd = new_memfd(20 * PG);
	uint16_t port;

	peer_prepare();
	peer_start();
	port = peer->port;
	peer->port = 1; /* nobody listens there */
	start();
	lane_submit(lane, remote_job(1, fd, 3 * PG, PG), 0);
	unit_sleep_ms(150);
	peer->port = port;
	all_good(1);
	check_remote(fd, 1, 3 * PG, PG);
	CHECK_EQ(peer->nr_conns, 1);
	stop();
}

/* The daemon need not wait for one that waits for a server */
TEST(ends_while_waiting)
{
	int fd = new_memfd(20 * PG);

	peer_prepare();
	peer->conns[0] = (struct peer_conn){ .does = PEER_STALL, .at = HEAD + 5 };
	start_both();
	lane_submit(lane, remote_job(1, fd, 0, 8 * PG), 0);
	/* the first page is there, and the rest will never come */
	WAIT_FOR(lseek(fd, 0, SEEK_DATA) == 0);
	stop();
	CHECK_EQ(peer->nr_farewells, 0);
}

/*
 * Servers that refuse, or lie
 */

TEST(refuses_hello)
{
	int fd = new_memfd(20 * PG);

	peer_prepare();
	peer->conns[0].does = PEER_REFUSE_HELLO;
	start_both();
	lane_submit(lane, remote_job(1, fd, 3 * PG, PG), 0);
	one_bad(1, FILL_PEER_REFUSED, EACCES, 3 * PG);
	CHECK_EQ(peer->nr_conns, 1);
	stop();
}

TEST(refuses_to_take_us_back)
{
	int fd = new_memfd(20 * PG);

	peer_prepare();
	peer->conns[0] = (struct peer_conn){ .does = PEER_CLOSE, .at = HEAD + 5 };
	peer->conns[1].does = PEER_REFUSE_HELLO;
	start_both();
	lane_submit(lane, remote_job(1, fd, 3 * PG, PG), 0);
	one_bad(1, FILL_PEER_REFUSED, EACCES, 3 * PG);
	CHECK_EQ(peer->nr_conns, 2);
	logged("The page server is of no use, see above; object 0x1 waits for offset 0x3000 to 0x4000");
	stop();
}

TEST(refuses_a_request)
{
	int fd = new_memfd(20 * PG);

	peer_prepare();
	peer->conns[0] = (struct peer_conn){ .does = PEER_REFUSE, .at = 1 };
	start_both();
	lane_submit(lane, remote_job(1, fd, 3 * PG, PG), 0);
	lane_submit(lane, remote_job(2, fd, 5 * PG, PG), 0);
	one_bad(2, FILL_PEER_REFUSED, EACCES, 5 * PG);
	check_remote(fd, 1, 3 * PG, PG);
	check_hole(fd, 5 * PG, 15 * PG);
	CHECK_EQ(peer->nr_conns, 1);
	logged("; object 0x2 waits for offset 0x5000 to 0x6000");
	stop();
}

/* Nothing of the answer is stored, and it does not get another chance */
static void lies(enum peer_does how, enum fill_result result, int err, const char *text)
{
	int fd = new_memfd(20 * PG);

	peer_prepare();
	peer->conns[0] = (struct peer_conn){ .does = how, .at = 1 };
	start_both();
	lane_submit(lane, remote_job(1, fd, 0, PG), 0);
	lane_submit(lane, remote_job(2, fd, 4 * PG, 2 * PG), 0);
	one_bad(2, result, err, 4 * PG);
	check_remote(fd, 1, 0, PG);
	check_hole(fd, PG, 19 * PG);
	CHECK_EQ(peer->nr_conns, 1);
	logged(text);
	not_logged("will connect again");
	stop();
}

TEST(lies_about_cmd)
{
	lies(PEER_LIE_CMD, FILL_PEER_REFUSED, EACCES, "is of no use, see above; object 0x2 waits for offset 0x4000");
}

TEST(lies_about_object)
{
	lies(PEER_LIE_SHMID, FILL_PEER_LOST, EPROTO, "2 pages of object 0x3 at offset 0x4000 where 2 of object 0x2 at 0x4000 were asked for");
}

TEST(lies_about_offset)
{
	lies(PEER_LIE_OFF, FILL_PEER_LOST, EPROTO, "2 pages of object 0x2 at offset 0x5000 where 2 of object 0x2 at 0x4000 were asked for");
}

TEST(lies_about_more_pages)
{
	lies(PEER_LIE_MORE_PAGES, FILL_PEER_LOST, EPROTO, "3 pages of object 0x2 at offset 0x4000 where 2 of object 0x2 at 0x4000 were");
}

TEST(lies_about_fewer_pages)
{
	lies(PEER_LIE_FEWER_PAGES, FILL_PEER_LOST, EPROTO, "1 pages of object 0x2 at offset 0x4000 where 2 of object 0x2 at 0x4000 were");
}

TEST(lies_about_no_pages)
{
	lies(PEER_LIE_NO_PAGES, FILL_PEER_LOST, EPROTO, "0 pages of object 0x2 at offset 0x4000 where 2 of object 0x2 at 0x4000 were");
}

/*
 * Objects that can not be written: the answers of others behind it are found all the same
 */

static void write_error(uint64_t size)
{
	int bad = new_memfd(size), good = new_memfd(20 * PG);

	CHECK_SYS(fcntl(bad, F_ADD_SEALS, F_SEAL_WRITE));
	peer_prepare();
	start_both();
	lane_submit(lane, remote_job(1, good, 0, PG), 0);
	lane_submit(lane, add_seg(remote_job(2, bad, 2 * PG, 2 * PG), 6 * PG, 2 * PG, SEG_REMOTE, 0), 0);
	lane_submit(lane, remote_job(3, good, 4 * PG, 2 * PG), 0);
	one_bad(3, FILL_WRITE_ERROR, EPERM, 2 * PG);
	check_remote(good, 1, 0, PG);
	check_remote(good, 3, 4 * PG, 2 * PG);
	CHECK_EQ(peer->nr_conns, 1);
	stop();
}

TEST(write_error)
{
	write_error(20 * PG);
}

TEST(write_error_tls)
{
	opts.tls = true;
	write_error(20 * PG);
}

TEST(write_error_in_the_tail)
{
	write_error(7 * PG + 100);
}

/* An image that ends too early, in a job that has remote segments as well: those are not asked for */
TEST(short_image)
{
	int fd = new_memfd(20 * PG), img = new_image(PG);
	struct fill_job *job = new_job(3, fd, 0);

	peer_prepare();
	start_both();
	add_seg(job, 0, PG, SEG_REMOTE, 0);
	add_seg(job, PG, 2 * PG, img, 0);
	lane_submit(lane, job, 0);
	one_bad(1, FILL_SHORT, 0, PG);
	CHECK_EQ(peer->nr_questions, 0);
	stop();
}
