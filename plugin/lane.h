/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_LANE_H
#define LSHM_LANE_H

#include <stdint.h>

struct fill_job;

/*
 * A lane is a process of its own that does fill jobs: in the memory cgroup that the
 * pages must be charged to, or with a connection to a page server. It is a fork of
 * the daemon which keeps no descriptor but the lane's socket and the log, and dies
 * with the daemon. Jobs go there, and come back, over a SOCK_SEQPACKET socketpair;
 * their descriptors go along.
 */

/* What goes to the lane: this, then nr_segs struct fill_seg whose src_fd is SEG_REMOTE or an index of a descriptor */
struct lane_job {
	uint64_t cookie;
	uint32_t kind; /* enum lane_kind */
	uint32_t urgent;
	uint32_t way; /* enum fill_way */
	uint32_t nr_segs;
	uint32_t shmid;
	uint32_t segs_in_file; /* too many for a message: they are in the last descriptor */
	uint64_t obj_size, off, len;
};

/*
 * A job has its object as descriptor 0, and then the images. LANE_PROMOTE: the job of
 * that cookie has become urgent; off is as it was, there are no descriptors.
 */
enum lane_kind {
	LANE_JOB,
	LANE_PROMOTE,
};

#define LANE_MAX_FDS	 253  /* the kernel's SCM_MAX_FD */
#define LANE_INLINE_SEGS 1024 /* in a message */

/* What comes back for each job. The first one, of cookie 0, says whether the lane could begin. */
struct lane_result {
	uint64_t cookie;
	int32_t result; /* enum fill_result */
	int32_t err;
	uint64_t err_off;
};

/*
 * In the lane
 */

/*
 * Waits for what comes next, unless sk is not blocking. 1: *job is a new job, with urgent
 * set or not; or, with *promote, only the owner and off of one that has
 * become urgent. 0: there will be no more; -errno, -EAGAIN among them. Never 1 with
 * a job that contradicts itself. owner is a cookie.
 */
int lane_recv(int sk, struct fill_job **job, int *promote);

/* Says what became of job. 0 or -errno; -EPIPE: nobody wants to know any more. */
int lane_reply(int sk, const struct fill_job *job);

/* A job of lane_recv() and its descriptors. */
void lane_job_free(struct fill_job *job);

/*
 * In the daemon, the event loop's alone
 */

struct lane;

struct lane_desc {
	const char *name;		/* of the process, 15 characters at most */
	int (*main)(int sk, void *arg); /* its value is the exit status; sk is blocking */
	void *arg;
	const char *cgroup_procs; /* the file that puts a process into its cgroup, or NULL */
};

/* 0, or -errno of whatever it could not do, entering the cgroup included. */
int lane_start(struct lane **lane, const struct lane_desc *desc);

/* Readable when lane_reap() has something to return. */
int lane_fd(const struct lane *lane);
pid_t lane_pid(const struct lane *lane);

/*
 * The job is the lane's until lane_reap(). Urgent jobs go before all others that are
 * still here; the lane should do the same.
 */
void lane_submit(struct lane *lane, struct fill_job *job, int urgent);

/* Makes the job of owner that writes offset off of the object urgent. */
void lane_promote(struct lane *lane, const void *owner, uint64_t off);

/*
 * Finished jobs, linked by next, oldest first; NULL if there are none. When the lane
 * has died: all that it had, and those that were submitted since, with FILL_LANE_DIED.
 */
struct fill_job *lane_reap(struct lane *lane);

/* Noticed by lane_reap(); lane_fd() need not be waited for any more. */
int lane_is_dead(const struct lane *lane);

/* Ends the process, and frees everything, jobs that were not reaped included. */
void lane_stop(struct lane *lane);

#endif
