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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fill.h"
#include "lane.h"
#include "unit.h"

#define PG 4096UL

static int new_memfd(uint64_t size)
{
	int fd = (int)CHECK_SYS(memfd_create("unit", MFD_CLOEXEC));

	CHECK_SYS(ftruncate(fd, (off_t)size));
	return fd;
}

static struct fill_job *new_job(void *owner, int obj_fd, int src_fd, uint64_t page, unsigned int nr_segs)
{
	struct fill_job *job = calloc(1, sizeof(*job) + nr_segs * sizeof(job->segs[0]));
	unsigned int i;

	CHECK(job);
	job->owner = owner;
	job->obj_fd = obj_fd;
	job->shmid = 0x17;
	job->off = page * PG;
	job->len = nr_segs * PG;
	job->obj_size = (page + nr_segs) * PG;
	job->nr_segs = nr_segs;
	for (i = 0; i < nr_segs; i++)
		job->segs[i] = (struct fill_seg){ .off = (page + i) * PG, .src_off = i * PG, .len = PG, .src_fd = src_fd };
	return job;
}

static struct lane *start(int (*fn)(int, void *), void *arg)
{
	struct lane_desc desc = { .name = "lane-under-test", .main = fn, .arg = arg };
	struct lane *lane;

	CHECK_EQ(lane_start(&lane, &desc), 0);
	return lane;
}

/* The next one that is done; the rest of those that came with it is lost if there is any */
static struct fill_job *wait_job(struct lane *lane)
{
	struct pollfd pfd = { .fd = lane_fd(lane), .events = POLLIN };
	struct fill_job *job;

	while (!(job = lane_reap(lane)))
		CHECK_SYS(poll(&pfd, 1, -1));
	CHECK(!job->next);
	return job;
}

/* Does what jobs say, and gives the number of its descriptors as err_off, the urgency as err */
static int obedient(int sk, void *arg)
{
	char *buf = malloc(FILL_UNIT);
	struct fill_job *job;
	int promote;

	(void)arg;
	while (lane_recv(sk, &job, &promote) == 1) {
		CHECK(!promote);
		CHECK_EQ(job->shmid, 0x17);
		fill_run(job, buf);
		job->err = job->urgent;
		job->err_off = (uint64_t)unit_count_fds();
		CHECK_EQ(lane_reply(sk, job), 0);
		lane_job_free(job);
	}
	return 0;
}

/* Takes jobs and answers none */
static int silent(int sk, void *arg)
{
	struct fill_job *job;
	int promote;

	(void)arg;
	while (lane_recv(sk, &job, &promote) == 1)
		lane_job_free(job);
	return 3;
}

static int deaf(int sk, void *arg)
{
	(void)sk;
	(void)arg;
	while (pause())
		;
	return 0;
}

TEST(fills)
{
	int obj = new_memfd(3 * PG), img = new_memfd(2 * PG), before = unit_count_fds();
	struct lane *lane = start(obedient, NULL);
	char buf[3 * PG], want[3 * PG] = {};
	struct fill_job *job;

	memset(want + PG, 'a', PG);
	memset(want + 2 * PG, 'b', PG);
	CHECK_EQ(pwrite(img, want + PG, 2 * PG, 0), 2 * PG);

	lane_submit(lane, new_job(buf, obj, img, 1, 2), 1);
	job = wait_job(lane);
	CHECK_EQ(job->result, FILL_OK);
	CHECK(job->owner == buf);
	CHECK_EQ(job->err, 1);
	free(job);

	CHECK_EQ(pread(obj, buf, sizeof(buf), 0), sizeof(buf));
	CHECK(!memcmp(buf, want, sizeof(buf)));
	CHECK(!lane_is_dead(lane));
	lane_stop(lane);
	CHECK_EQ(unit_count_fds(), before);
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
}

TEST(segments_from_several_images)
{
	enum { NR = 200 };
	int obj = new_memfd(NR * PG), i;
	struct lane *lane = start(obedient, NULL);
	struct fill_job *job = new_job(&obj, obj, -1, 0, NR);
	char page[PG];

	for (i = 0; i < NR; i++) {
		job->segs[i].src_fd = new_memfd(PG);
		job->segs[i].src_off = 0;
		memset(page, i + 1, PG);
		CHECK_EQ(pwrite(job->segs[i].src_fd, page, PG, 0), PG);
	}
	lane_submit(lane, job, 0);
	CHECK_EQ(wait_job(lane)->result, FILL_OK);
	for (i = 0; i < NR; i++) {
		CHECK_EQ(pread(obj, page, PG, i * (off_t)PG), PG);
		CHECK_EQ((unsigned char)page[0], i + 1);
		CHECK_EQ((unsigned char)page[PG - 1], i + 1);
	}
	lane_stop(lane);
}

/* A huge page of 1 GiB may have as many */
TEST(too_many_segments_for_a_message)
{
	enum { NR = 20000 };
	int obj = new_memfd(NR * PG), img = new_memfd(NR * PG), before = unit_count_fds(), i;
	struct lane *lane = start(obedient, NULL);
	uint64_t word;

	for (i = 0; i < NR; i++) {
		word = (uint64_t)i + 1;
		CHECK_EQ(pwrite(img, &word, sizeof(word), i * (off_t)PG), sizeof(word));
	}
	lane_submit(lane, new_job(&obj, obj, img, 0, NR), 0);
	CHECK_EQ(wait_job(lane)->result, FILL_OK);
	for (i = 0; i < NR; i++) {
		CHECK_EQ(pread(obj, &word, sizeof(word), i * (off_t)PG), sizeof(word));
		CHECK_EQ(word, i + 1);
	}
	lane_stop(lane);
	CHECK_EQ(unit_count_fds(), before);
}

TEST(more_images_than_a_message_can_have)
{
	enum { NR = 260 };
	int obj = new_memfd(NR * PG), i;
	struct lane *lane = start(obedient, NULL);
	struct fill_job *job = new_job(&obj, obj, -1, 0, NR);

	for (i = 0; i < NR; i++)
		job->segs[i].src_fd = new_memfd(PG);
	lane_submit(lane, job, 0);
	job = wait_job(lane);
	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	CHECK_EQ(job->err, EMFILE);

	lane_submit(lane, new_job(&obj, obj, new_memfd(PG), 0, 1), 0);
	CHECK_EQ(wait_job(lane)->result, FILL_OK);
	lane_stop(lane);
}

static int remote_only(int sk, void *arg)
{
	struct fill_job *job;
	int promote;

	(void)arg;
	CHECK_EQ(lane_recv(sk, &job, &promote), 1);
	CHECK_EQ(job->nr_segs, 2);
	CHECK_EQ(job->segs[0].src_fd, SEG_REMOTE);
	CHECK(job->segs[1].src_fd >= 0);
	CHECK_EQ(job->shmid, 0x17);
	CHECK_EQ(lane_reply(sk, job), 0);
	return 0;
}

TEST(remote_segments)
{
	int obj = new_memfd(2 * PG), img = new_memfd(2 * PG);
	struct lane *lane = start(remote_only, NULL);
	struct fill_job *job = new_job(&obj, obj, img, 0, 2);

	job->segs[0].src_fd = SEG_REMOTE;
	lane_submit(lane, job, 0);
	CHECK_EQ(wait_job(lane)->result, FILL_OK);
	lane_stop(lane);
}

/* More than a socket holds: none is lost, all come in order, and no descriptor stays anywhere */
TEST(many_jobs)
{
	enum { NR = 5000 };
	int obj = new_memfd(PG), img = new_memfd(PG), before, done = 0, i;
	struct lane *lane = start(obedient, NULL);
	struct pollfd pfd = { .fd = lane_fd(lane), .events = POLLIN };
	uint64_t fds = 0;

	before = unit_count_fds();
	for (i = 0; i < NR; i++)
		lane_submit(lane, new_job((void *)(uintptr_t)i, obj, img, 0, 1), 0);

	while (done < NR) {
		struct fill_job *job, *next;

		CHECK_SYS(poll(&pfd, 1, -1));
		for (job = lane_reap(lane); job; job = next) {
			next = job->next;
			CHECK_EQ(job->result, FILL_OK);
			CHECK_EQ((uintptr_t)job->owner, done);
			if (!fds)
				fds = job->err_off;
			CHECK_EQ(job->err_off, fds);
			done++;
			free(job);
		}
	}
	CHECK_EQ(unit_count_fds(), before);
	lane_stop(lane);
	CHECK_EQ(unit_count_fds(), before - 1);
}

/* A userfaultfd that stays open in a lane would have tasks wait for ever */
TEST(keeps_no_descriptors)
{
	int obj = new_memfd(PG), img = new_memfd(PG), high = (int)CHECK_SYS(fcntl(obj, F_DUPFD, 900)), p[2];
	struct fill_job *job;
	struct lane *lane;
	char c;

	CHECK_SYS(pipe2(p, O_CLOEXEC));
	lane = start(obedient, NULL);
	CHECK_SYS(close(p[1]));
	CHECK_EQ(read(p[0], &c, 1), 0);

	lane_submit(lane, new_job(&obj, obj, img, 0, 1), 0);
	job = wait_job(lane);
	/* three standard ones with the log, the socket, what belongs to the job, and what counting takes */
	CHECK_EQ(job->err_off, 6);
	CHECK_SYS(close(high));
	lane_stop(lane);
}

TEST(killed)
{
	enum { NR = 3000 };
	int obj = new_memfd(PG), img = new_memfd(PG), nr = 0, i;
	struct lane *lane = start(deaf, NULL);
	struct pollfd pfd = { .fd = lane_fd(lane), .events = POLLIN };
	struct fill_job *job;

	for (i = 0; i < NR; i++)
		lane_submit(lane, new_job((void *)(uintptr_t)i, obj, img, 0, 1), 0);
	CHECK(!lane_reap(lane));
	CHECK(!lane_is_dead(lane));

	CHECK_SYS(kill(lane_pid(lane), SIGKILL));
	CHECK_SYS(poll(&pfd, 1, -1));
	for (job = lane_reap(lane); job; job = job->next) {
		CHECK_EQ((uintptr_t)job->owner, nr++);
		CHECK_EQ(job->result, FILL_LANE_DIED);
		CHECK(WIFSIGNALED(job->err));
		CHECK_EQ(WTERMSIG(job->err), SIGKILL);
	}
	CHECK_EQ(nr, NR);
	CHECK(lane_is_dead(lane));
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);

	lane_submit(lane, new_job(&obj, obj, img, 0, 1), 1);
	lane_promote(lane, &obj, 0);
	CHECK_EQ(lane_reap(lane)->result, FILL_LANE_DIED);
	CHECK(!lane_reap(lane));
	lane_stop(lane);
}

static int leaves(int sk, void *arg)
{
	struct fill_job *job;
	int promote;

	(void)arg;
	CHECK_EQ(lane_recv(sk, &job, &promote), 1);
	return 7;
}

TEST(exits)
{
	int obj = new_memfd(PG), img = new_memfd(PG);
	struct lane *lane = start(leaves, NULL);
	struct fill_job *job;

	lane_submit(lane, new_job(&obj, obj, img, 0, 1), 0);
	job = wait_job(lane);
	CHECK_EQ(job->result, FILL_LANE_DIED);
	CHECK(WIFEXITED(job->err));
	CHECK_EQ(WEXITSTATUS(job->err), 7);
	lane_stop(lane);
}

static int babbles(int sk, void *arg)
{
	struct fill_job *job;
	int promote;

	CHECK_EQ(lane_recv(sk, &job, &promote), 1);
	job->owner = (void *)((uintptr_t)job->owner + 1);
	if (arg)
		CHECK_EQ(send(sk, "nonsense", 8, 0), 8);
	else
		CHECK_EQ(lane_reply(sk, job), 0);
	return deaf(sk, NULL);
}

static void check_babbling(void *arg)
{
	int obj = new_memfd(PG), img = new_memfd(PG);
	struct lane *lane = start(babbles, arg);

	lane_submit(lane, new_job(&obj, obj, img, 0, 1), 0);
	CHECK_EQ(wait_job(lane)->result, FILL_LANE_DIED);
	CHECK(lane_is_dead(lane));
	lane_stop(lane);
}

TEST(answers_what_was_not_asked)
{
	check_babbling(NULL);
}

TEST(answers_nonsense)
{
	check_babbling("nonsense");
}

/* Answers two jobs when it has been told of a promotion: with what that said */
static int tells_promotion(int sk, void *arg)
{
	struct fill_job *first, *second, *job;
	int promote;

	(void)arg;
	CHECK_EQ(lane_recv(sk, &first, &promote), 1);
	CHECK_EQ(lane_recv(sk, &second, &promote), 1);
	CHECK(!promote);
	CHECK_EQ(lane_recv(sk, &job, &promote), 1);
	CHECK(promote);
	CHECK(job->owner == second->owner);
	CHECK_EQ(job->off, second->off);
	lane_job_free(job);
	CHECK_EQ(lane_reply(sk, second), 0);
	CHECK_EQ(lane_reply(sk, first), 0);
	return 0;
}

TEST(promotes)
{
	int obj = new_memfd(9 * PG), img = new_memfd(PG), other;
	struct lane *lane = start(tells_promotion, NULL);
	struct fill_job *job;

	lane_submit(lane, new_job(&obj, obj, img, 0, 4), 0);
	lane_submit(lane, new_job(&obj, obj, img, 4, 4), 0);
	lane_promote(lane, &other, 5 * PG);
	lane_promote(lane, &obj, 8 * PG);
	lane_promote(lane, &obj, 7 * PG);
	job = lane_reap(lane);
	while (!job)
		job = lane_reap(lane);
	CHECK_EQ(job->off, 4 * PG);
	lane_stop(lane);
}

/* Has the first job and stops, answers it and stops, and looks at what else there is only then */
static int slow_to_look(int sk, void *arg)
{
	struct fill_job *job;
	int promote;

	(void)arg;
	CHECK_EQ(lane_recv(sk, &job, &promote), 1);
	CHECK_SYS(raise(SIGSTOP));
	CHECK_EQ(lane_reply(sk, job), 0);
	CHECK_SYS(raise(SIGSTOP));
	while (lane_recv(sk, &job, &promote) == 1)
		if (!promote)
			CHECK_EQ(lane_reply(sk, job), 0);
	return 0;
}

static void wait_stopped(const struct lane *lane)
{
	int status;

	CHECK_EQ(waitpid(lane_pid(lane), &status, WUNTRACED), lane_pid(lane));
	CHECK(WIFSTOPPED(status));
}

/* Many wait for a job that takes long: that is not in the way of the next one when it is done */
TEST(promoted_by_many)
{
	int obj = new_memfd(8 * PG), img = new_memfd(PG), i;
	struct lane *lane = start(slow_to_look, NULL);
	struct fill_job *job;

	lane_submit(lane, new_job(&obj, obj, img, 0, 4), 0);
	wait_stopped(lane);
	for (i = 0; i < 5000; i++)
		lane_promote(lane, &obj, 0);
	CHECK_SYS(kill(lane_pid(lane), SIGCONT));
	free(wait_job(lane));

	wait_stopped(lane);
	lane_submit(lane, new_job(&obj, obj, img, 4, 4), 0);
	CHECK(!lane_reap(lane));
	CHECK_SYS(kill(lane_pid(lane), SIGCONT));
	job = wait_job(lane);
	CHECK_EQ(job->result, FILL_OK);
	CHECK_EQ(job->off, 4 * PG);
	free(job);
	lane_stop(lane);
}

/* Urgent ones go before those that are still here, in the order they came */
TEST(urgent_first)
{
	enum { NR = 2000,
	       URGENT = 3 };
	int obj = new_memfd(PG), img = new_memfd(PG), done = 0, seen = 0, i;
	struct lane *lane = start(obedient, NULL);
	struct pollfd pfd = { .fd = lane_fd(lane), .events = POLLIN };

	/* it is not asked to go on while the socket fills, so that some must wait here */
	CHECK_SYS(kill(lane_pid(lane), SIGSTOP));
	for (i = 0; i < NR; i++)
		lane_submit(lane, new_job((void *)(uintptr_t)i, obj, img, 0, 1), 0);
	for (i = 0; i < URGENT; i++)
		lane_submit(lane, new_job((void *)(uintptr_t)(NR + i), obj, img, 0, 1), 1);
	lane_promote(lane, (void *)(uintptr_t)(NR - 1), 0);
	CHECK_SYS(kill(lane_pid(lane), SIGCONT));

	while (done < NR + URGENT) {
		struct fill_job *job;

		CHECK_SYS(poll(&pfd, 1, -1));
		for (job = lane_reap(lane); job; job = job->next, done++) {
			if ((uintptr_t)job->owner < NR - 1)
				continue;
			/* 2000, 2001, 2002, then the one that was promoted */
			CHECK_EQ((uintptr_t)job->owner, seen < URGENT ? NR + seen : NR - 1);
			CHECK_EQ(job->err, 1);
			CHECK(done < NR - 1);
			seen++;
		}
	}
	CHECK_EQ(seen, URGENT + 1);
	lane_stop(lane);
}

TEST(stops_one_that_hangs)
{
	int before = unit_count_fds(), obj = new_memfd(PG), img = new_memfd(PG);
	struct lane *lane = start(deaf, NULL);

	lane_submit(lane, new_job(&obj, obj, img, 0, 1), 0);
	lane_stop(lane);
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
	CHECK_EQ(unit_count_fds(), before + 2);
}

TEST(sees_the_end)
{
	int status, pid;
	struct lane *lane;

	/* stopped by hand, to get its status */
	lane = start(silent, NULL);
	pid = lane_pid(lane);
	CHECK_SYS(shutdown(lane_fd(lane), SHUT_RDWR));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 3);
	lane_stop(lane);
}

TEST_NS(dies_with_the_daemon)
{
	int status, *pid = unit_shared_alloc(sizeof(*pid));
	pid_t daemon = (pid_t)CHECK_SYS(fork());

	if (daemon == 0) {
		*pid = lane_pid(start(deaf, NULL));
		_exit(0);
	}
	CHECK_EQ(waitpid(daemon, &status, 0), daemon);
	CHECK_EQ(status, 0);
	/* an orphan of ours */
	CHECK_EQ(waitpid(*pid, &status, 0), *pid);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGKILL);
}

static void check_refused(const char *procs, int err)
{
	struct lane_desc desc = { .name = "unit", .main = deaf, .cgroup_procs = procs };
	int before = unit_count_fds();
	struct lane *lane;

	CHECK_EQ(lane_start(&lane, &desc), -err);
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
	CHECK_EQ(unit_count_fds(), before);
}

TEST(no_such_cgroup)
{
	check_refused("/proc/self/there/is/none", ENOENT);
}

TEST(can_not_enter_cgroup)
{
	check_refused("/proc/self/status", EINVAL);
}

static int tell_adj(int sk, void *arg)
{
	int fd = open("/proc/self/oom_score_adj", O_RDONLY);
	char name[16] = "";

	(void)sk;
	CHECK(read(fd, arg, 15) > 0);
	CHECK_SYS(prctl(PR_GET_NAME, name));
	CHECK(!strcmp(name, "unit"));
	return 0;
}

TEST(enters_cgroup)
{
	char *adj = unit_shared_alloc(16), path[] = "/tmp/unit-lane-XXXXXX", text[16] = "";
	int fd = (int)CHECK_SYS(mkstemp(path));
	struct lane_desc desc = { .name = "unit", .main = tell_adj, .arg = adj, .cgroup_procs = path };
	struct lane *lane;

	CHECK_EQ(lane_start(&lane, &desc), 0);
	lane_stop(lane);
	CHECK_EQ(read(fd, text, sizeof(text) - 1), 1);
	CHECK(!strcmp(text, "0"));
	CHECK(!strcmp(adj, "1000\n"));
	unlink(path);
}
