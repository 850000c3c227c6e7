// SPDX-License-Identifier: GPL-2.0-only
/* The daemon's end of lanes; the other one is in lane_child.c */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fill.h"
#include "lane.h"
#include "lane_child.h"

/* So long may a lane take to end by itself, and to begin: it may enter a cgroup that is frozen. In ms */
#define STOP_MS	 1000
#define START_MS 10000

struct jobs {
	struct fill_job *head, **end;
};

struct lane {
	int sk;
	pid_t pid;
	bool dead;
	int status; /* of waitpid() */
	uint64_t last_cookie;
	struct jobs unsent; /* the socket is full */
	struct jobs sent, done;
};

static void jobs_init(struct jobs *jobs)
{
	jobs->head = NULL;
	jobs->end = &jobs->head;
}

static void jobs_push(struct jobs *jobs, struct fill_job *job)
{
	job->next = NULL;
	*jobs->end = job;
	jobs->end = &job->next;
}

/* Behind the other urgent ones */
static void jobs_push_urgent(struct jobs *jobs, struct fill_job *job)
{
	struct fill_job **p = &jobs->head;

	while (*p && (*p)->urgent)
		p = &(*p)->next;
	job->urgent = 1;
	job->next = *p;
	*p = job;
	if (!job->next)
		jobs->end = &job->next;
}

static struct fill_job *jobs_take(struct jobs *jobs, struct fill_job *job)
{
	struct fill_job **p = &jobs->head;

	while (*p != job)
		p = &(*p)->next;
	*p = job->next;
	if (!*p)
		jobs->end = p;
	return job;
}

static struct fill_job *jobs_pop(struct jobs *jobs)
{
	return jobs->head ? jobs_take(jobs, jobs->head) : NULL;
}

static struct fill_job *jobs_find(const struct jobs *jobs, const void *owner, uint64_t off)
{
	struct fill_job *job;

	for (job = jobs->head; job; job = job->next)
		if (job->owner == owner && off >= job->off && off - job->off < job->len)
			return job;
	return NULL;
}

/*
 * Sending
 */

/* What goes along with a job */
struct luggage {
	int fds[LANE_MAX_FDS];
	unsigned int nr_fds;
	int segs_fd; /* or -1 */
	struct fill_seg *segs;
};

static int add_fd(struct luggage *lug, int fd)
{
	unsigned int i;

	/* the object is not an image, whatever its number; hardly ever more than two or three */
	for (i = 1; i < lug->nr_fds; i++)
		if (lug->fds[i] == fd)
			return (int)i;

	/* one is kept for segs_fd */
	if (lug->nr_fds == LANE_MAX_FDS - 1)
		return -EMFILE;
	lug->fds[lug->nr_fds] = fd;
	return (int)lug->nr_fds++;
}

static int segs_to_file(struct luggage *lug, size_t len)
{
	ssize_t ret;
	int fd;

	fd = memfd_create("lazy-shmem-segs", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;

	ret = pwrite(fd, lug->segs, len, 0);
	if (ret != (ssize_t)len) {
		close(fd);
		return ret < 0 ? -errno : -ENOSPC;
	}

	lug->segs_fd = fd;
	lug->fds[lug->nr_fds++] = fd;
	return 0;
}

static int pack(struct luggage *lug, const struct fill_job *job)
{
	size_t len = job->nr_segs * sizeof(job->segs[0]);
	unsigned int i;
	int ret = 0;

	*lug = (struct luggage){ .fds = { job->obj_fd }, .nr_fds = 1, .segs_fd = -1 };
	lug->segs = calloc(job->nr_segs + 1, sizeof(job->segs[0]));
	if (!lug->segs)
		return -ENOMEM;

	for (i = 0; i < job->nr_segs && ret >= 0; i++) {
		lug->segs[i] = job->segs[i];
		if (job->segs[i].src_fd == SEG_REMOTE)
			continue;
		ret = add_fd(lug, job->segs[i].src_fd);
		lug->segs[i].src_fd = ret;
	}
	if (ret < 0)
		return ret;

	return job->nr_segs > LANE_INLINE_SEGS ? segs_to_file(lug, len) : 0;
}

static void unpack(struct luggage *lug)
{
	if (lug->segs_fd >= 0)
		close(lug->segs_fd);
	free(lug->segs);
}

static int send_msg(const struct lane *lane, const struct lane_job *msg, const struct luggage *lug)
{
	char control[CMSG_SPACE(LANE_MAX_FDS * sizeof(int))] = {};
	struct iovec iov[2] = { { .iov_base = (void *)msg, .iov_len = sizeof(*msg) } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 1 };
	struct cmsghdr *cm;
	ssize_t ret;

	if (lug) {
		mh.msg_control = control;
		mh.msg_controllen = CMSG_SPACE(lug->nr_fds * sizeof(int));
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(lug->nr_fds * sizeof(int));
		memcpy(CMSG_DATA(cm), lug->fds, lug->nr_fds * sizeof(int));
		if (lug->segs_fd < 0) {
			iov[1].iov_base = lug->segs;
			iov[1].iov_len = msg->nr_segs * sizeof(*lug->segs);
			mh.msg_iovlen = 2;
		}
	}

	do {
		ret = sendmsg(lane->sk, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (ret < 0 && errno == EINTR);

	return ret < 0 ? -errno : 0;
}

static int send_job(const struct lane *lane, const struct fill_job *job)
{
	struct lane_job msg = {
		.cookie = job->cookie,
		.kind = LANE_JOB,
		.urgent = (uint32_t)job->urgent,
		.way = job->way,
		.nr_segs = job->nr_segs,
		.shmid = job->shmid,
		.segs_in_file = job->nr_segs > LANE_INLINE_SEGS,
		.obj_size = job->obj_size,
		.off = job->off,
		.len = job->len,
	};
	struct luggage lug;
	int ret;

	ret = pack(&lug, job);
	if (!ret)
		ret = send_msg(lane, &msg, &lug);
	unpack(&lug);
	return ret;
}

/* It can not be given away, which is not the lane's fault */
static void fail_job(struct lane *lane, struct fill_job *job, int err)
{
	job->result = FILL_WRITE_ERROR;
	job->err = err;
	job->err_off = job->off;
	jobs_push(&lane->done, job);
}

/*
 * As many as the socket takes. If it takes none, an answer will come to what it has,
 * and we come here again. Of a lane that is dead nothing is said here: lane_reap()
 * will find out.
 */
static void send_jobs(struct lane *lane)
{
	struct fill_job *job;

	while ((job = lane->unsent.head)) {
		int ret = send_job(lane, job);

		if (ret == -EPIPE || ret == -ECONNRESET)
			return;
		if (lane->sent.head && (ret == -EAGAIN || ret == -ENOBUFS || ret == -ENOMEM || ret == -ETOOMANYREFS))
			return;

		jobs_pop(&lane->unsent);
		if (ret)
			fail_job(lane, job, -ret);
		else
			jobs_push(&lane->sent, job);
	}
}

void lane_submit(struct lane *lane, struct fill_job *job, int urgent)
{
	job->cookie = ++lane->last_cookie;
	job->urgent = 0;
	if (urgent)
		jobs_push_urgent(&lane->unsent, job);
	else
		jobs_push(&lane->unsent, job);

	if (!lane->dead)
		send_jobs(lane);
}

void lane_promote(struct lane *lane, const void *owner, uint64_t off)
{
	struct lane_job msg = { .kind = LANE_PROMOTE };
	struct fill_job *job;

	job = jobs_find(&lane->unsent, owner, off);
	if (job) {
		jobs_push_urgent(&lane->unsent, jobs_take(&lane->unsent, job));
		return;
	}

	job = jobs_find(&lane->sent, owner, off);
	if (!job || job->urgent || lane->dead)
		return;

	/*
	 * The job comes in any case: if the socket is full, then not before others.
	 * Said once, however many wait: what nobody answers must not fill the socket.
	 */
	msg.cookie = job->cookie;
	msg.off = job->off;
	if (!send_msg(lane, &msg, NULL))
		job->urgent = 1;
}

/*
 * Receiving
 */

static void died(struct lane *lane)
{
	struct fill_job *job;

	if (!lane->dead) {
		/* its socket is closed, so it is dying, or has sent nonsense and must */
		kill(lane->pid, SIGKILL);
		while (waitpid(lane->pid, &lane->status, 0) < 0 && errno == EINTR)
			;
		lane->dead = true;
	}

	while ((job = jobs_pop(&lane->sent)) || (job = jobs_pop(&lane->unsent))) {
		job->result = FILL_LANE_DIED;
		job->err = lane->status;
		job->err_off = job->off;
		jobs_push(&lane->done, job);
	}
}

/* 1, 0 if there is nothing, -1 if there will be nothing any more */
static int recv_result(const struct lane *lane, struct lane_result *res)
{
	ssize_t ret;

	do {
		ret = recv(lane->sk, res, sizeof(*res), MSG_DONTWAIT);
	} while (ret < 0 && errno == EINTR);

	if (ret == sizeof(*res))
		return 1;
	return ret < 0 && errno == EAGAIN ? 0 : -1;
}

static struct fill_job *take_sent(struct lane *lane, const struct lane_result *res)
{
	struct fill_job *job;

	for (job = lane->sent.head; job; job = job->next)
		if (job->cookie == res->cookie)
			return jobs_take(&lane->sent, job);
	return NULL;
}

struct fill_job *lane_reap(struct lane *lane)
{
	struct fill_job *job, *jobs;
	struct lane_result res;
	int ret = 0;

	while (!lane->dead && (ret = recv_result(lane, &res)) > 0) {
		job = take_sent(lane, &res);
		if (!job) {
			ret = -1;
			break;
		}
		job->result = (enum fill_result)res.result;
		job->err = res.err;
		job->err_off = res.err_off;
		jobs_push(&lane->done, job);
	}

	if (lane->dead || ret < 0)
		died(lane);
	else
		send_jobs(lane);

	jobs = lane->done.head;
	jobs_init(&lane->done);
	return jobs;
}

/*
 * The process
 */

/* What it says of itself before all else, 0 or -errno */
static int wait_ready(struct lane *lane)
{
	struct pollfd pfd = { .fd = lane->sk, .events = POLLIN };
	struct lane_result res;
	int ret;

	do {
		ret = poll(&pfd, 1, START_MS);
	} while (ret < 0 && errno == EINTR);
	if (!ret)
		return -ETIMEDOUT;
	if (recv_result(lane, &res) != 1 || res.cookie)
		return -ECHILD;
	return -res.err;
}

int lane_start(struct lane **out, const struct lane_desc *desc)
{
	pid_t self = getpid();
	struct lane *lane;
	int sk[2], err;

	lane = calloc(1, sizeof(*lane));
	if (!lane)
		return -ENOMEM;
	jobs_init(&lane->unsent);
	jobs_init(&lane->sent);
	jobs_init(&lane->done);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk)) {
		err = -errno;
		free(lane);
		return err;
	}

	lane->sk = sk[0];
	lane->pid = fork();
	if (lane->pid == 0)
		lane_child(desc, sk[1], self);
	err = lane->pid < 0 ? -errno : 0;
	close(sk[1]);

	if (!err)
		err = wait_ready(lane);
	if (err) {
		lane_stop(lane);
		return err;
	}

	*out = lane;
	return 0;
}

int lane_fd(const struct lane *lane)
{
	return lane->sk;
}

pid_t lane_pid(const struct lane *lane)
{
	return lane->pid;
}

int lane_is_dead(const struct lane *lane)
{
	return lane->dead;
}

/* It sees that nobody is there any more. Only one that hangs must be killed. */
static void end_process(struct lane *lane)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	int i;

	shutdown(lane->sk, SHUT_RDWR);
	for (i = 0; i < STOP_MS; i++) {
		if (waitpid(lane->pid, &lane->status, WNOHANG))
			return;
		nanosleep(&pause, NULL);
	}
	died(lane);
}

void lane_stop(struct lane *lane)
{
	struct jobs *all[] = { &lane->unsent, &lane->sent, &lane->done };
	struct fill_job *job;
	unsigned int i;

	if (lane->pid > 0 && !lane->dead)
		end_process(lane);

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		while ((job = jobs_pop(all[i])))
			free(job);
	close(lane->sk);
	free(lane);
}
