// SPDX-License-Identifier: GPL-2.0-only
/* Lanes as the process sees them; the daemon's end is in lane.c */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "criu_internals.h"
#include "fill.h"
#include "lane.h"
#include "lane_child.h"

/*
 * Before it works
 */

/* The kernel lets a task go on with zeroes only when nobody has its userfaultfd open */
static int close_all_but(int a, int b)
{
	unsigned int lo = (unsigned int)(a < b ? a : b), hi = (unsigned int)(a < b ? b : a);
	int fd;

	if ((lo && syscall(SYS_close_range, 0U, lo - 1, 0)) ||
	    (hi > lo + 1 && syscall(SYS_close_range, lo + 1, hi - 1, 0)) || syscall(SYS_close_range, hi + 1, ~0U, 0))
		return -errno;

	/* what prints, or opens something, must not find these free */
	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int write_file(const char *path, const char *text)
{
	int fd, err = 0;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/*
 * If there is not enough memory in the cgroup of the tasks, then this process is
 * what must end and not they: the daemon knows what to do then.
 */
static int enter_cgroup(const char *procs)
{
	int err = write_file("/proc/self/oom_score_adj", "1000");

	return err ? err : write_file(procs, "0");
}

static int send_result(int sk, const struct lane_result *res)
{
	ssize_t ret;

	do {
		ret = send(sk, res, sizeof(*res), MSG_NOSIGNAL);
	} while (ret < 0 && errno == EINTR);

	return ret < 0 ? -errno : 0;
}

void lane_child(const struct lane_desc *desc, int sk, pid_t parent)
{
	struct lane_result ready = {};
	int err;

	err = close_all_but(sk, log_get_fd());

	prctl(PR_SET_NAME, desc->name);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);

	if (!err && desc->cgroup_procs)
		err = enter_cgroup(desc->cgroup_procs);

	ready.err = -err;
	if (send_result(sk, &ready) || err)
		_exit(1);

	_exit(desc->main(sk, desc->arg));
}

/*
 * Jobs
 */

/* A job and the descriptors that came with it */
struct received {
	unsigned int nr_fds;
	int fds[LANE_MAX_FDS];
	struct fill_job job;
};

static struct received *received_of(struct fill_job *job)
{
	return (struct received *)(void *)((char *)job - offsetof(struct received, job));
}

void lane_job_free(struct fill_job *job)
{
	struct received *rec;
	unsigned int i;

	if (!job)
		return;

	rec = received_of(job);
	for (i = 0; i < rec->nr_fds; i++)
		close(rec->fds[i]);
	free(rec);
}

/* Pieces of a message; one is as long as it says, no other reads from the same socket */
static ssize_t recv_msg(int sk, void *buf, size_t len, int *fds, unsigned int *nr_fds)
{
	char control[CMSG_SPACE(LANE_MAX_FDS * sizeof(int))];
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cm;
	ssize_t ret;

	do {
		ret = recvmsg(sk, &mh, MSG_CMSG_CLOEXEC);
	} while (ret < 0 && errno == EINTR);
	if (ret < 0)
		return -errno;

	*nr_fds = 0;
	cm = CMSG_FIRSTHDR(&mh);
	if (cm && cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS) {
		*nr_fds = (unsigned int)((cm->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(cm), *nr_fds * sizeof(int));
	}
	/* no room in the table of descriptors */
	return mh.msg_flags & MSG_CTRUNC ? -EMFILE : ret;
}

static ssize_t peek_header(int sk, struct lane_job *msg)
{
	ssize_t ret;

	do {
		ret = recv(sk, msg, sizeof(*msg), MSG_PEEK);
	} while (ret < 0 && errno == EINTR);

	return ret < 0 ? -errno : ret;
}

static struct received *new_received(const struct lane_job *msg)
{
	struct received *rec;

	rec = calloc(1, sizeof(*rec) + (size_t)msg->nr_segs * sizeof(rec->job.segs[0]));
	if (!rec)
		return NULL;

	rec->job = (struct fill_job){
		.owner = (void *)(uintptr_t)msg->cookie,
		.urgent = (int)msg->urgent,
		.obj_fd = -1,
		.shmid = msg->shmid,
		.way = (enum fill_way)msg->way,
		.obj_size = msg->obj_size,
		.off = msg->off,
		.len = msg->len,
		.nr_segs = msg->nr_segs,
	};
	return rec;
}

/* Descriptors for their indices */
static int use_fds(struct received *rec)
{
	struct fill_job *job = &rec->job;
	unsigned int i;

	if (!rec->nr_fds)
		return -EBADF;

	job->obj_fd = rec->fds[0];
	for (i = 0; i < job->nr_segs; i++) {
		struct fill_seg *seg = &job->segs[i];

		if (seg->src_fd == SEG_REMOTE)
			continue;
		if (seg->src_fd < 1 || (unsigned int)seg->src_fd >= rec->nr_fds)
			return -EBADF;
		seg->src_fd = rec->fds[seg->src_fd];
	}
	return 0;
}

/* The segments, from the end of the message or from the last descriptor */
static int take_segs(struct received *rec, const struct lane_job *msg, const char *tail, size_t tail_len)
{
	size_t len = (size_t)msg->nr_segs * sizeof(rec->job.segs[0]);

	if (!msg->segs_in_file) {
		if (tail_len != len)
			return -EPROTO;
		memcpy(rec->job.segs, tail, len);
	} else if (!rec->nr_fds || pread(rec->fds[rec->nr_fds - 1], rec->job.segs, len, 0) != (ssize_t)len) {
		return -EPROTO;
	}
	return use_fds(rec);
}

int lane_recv(int sk, struct fill_job **job, int *promote)
{
	char buf[sizeof(struct lane_job) + LANE_INLINE_SEGS * sizeof(struct fill_seg)];
	struct lane_job msg;
	struct received *rec;
	ssize_t ret;

	/* the header first: what can't be taken now, for lack of memory, stays there */
	ret = peek_header(sk, &msg);
	if (ret <= 0)
		return (int)ret;
	if (ret != sizeof(msg))
		return -EPROTO;

	rec = new_received(&msg);
	if (!rec)
		return -ENOMEM;

	ret = recv_msg(sk, buf, sizeof(buf), rec->fds, &rec->nr_fds);
	if (ret >= 0 && ret < (ssize_t)sizeof(msg))
		ret = -EPROTO;
	if (ret >= 0 && msg.kind == LANE_JOB)
		ret = take_segs(rec, &msg, buf + sizeof(msg), (size_t)ret - sizeof(msg));
	if (ret < 0) {
		lane_job_free(&rec->job);
		return (int)ret;
	}

	*promote = msg.kind == LANE_PROMOTE;
	*job = &rec->job;
	return 1;
}

int lane_reply(int sk, const struct fill_job *job)
{
	struct lane_result res = {
		.cookie = (uint64_t)(uintptr_t)job->owner,
		.result = (int32_t)job->result,
		.err = job->err,
		.err_off = job->err_off,
	};

	return send_result(sk, &res);
}
