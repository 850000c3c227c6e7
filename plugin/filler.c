// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "criu_internals.h"
#include "fill.h"
#include "filler.h"
#include "lane.h"

/* Jobs, each with some descriptors; the others wait in the lane's socket */
#define MAX_JOBS 256

/* 1, or what lane_recv() says of the end. nr: of the jobs in the pool. */
static int take(struct fill_pool *pool, int sk, unsigned int *nr)
{
	struct fill_job *job;
	int promote, ret;

	ret = lane_recv(sk, &job, &promote);
	if (ret != 1)
		return ret;

	if (!promote && job->way != FILL_ALLOCATE) {
		fill_submit(pool, job, job->urgent);
		++*nr;
		return 1;
	}

	/* no disk to wait for, so it does not queue behind those that do */
	ret = 1;
	if (promote) {
		fill_promote(pool, job->owner, job->off);
	} else {
		fill_run(job, NULL);
		ret = lane_reply(sk, job) ?: 1;
	}
	lane_job_free(job);
	return ret;
}

static int give_back(struct fill_pool *pool, int sk, unsigned int *nr)
{
	struct fill_job *job, *next;
	uint64_t n;
	int ret = 0;

	if (read(fill_pool_eventfd(pool), &n, sizeof(n)) < 0 && errno != EAGAIN)
		return -errno;

	for (job = fill_reap(pool); job; job = next) {
		next = job->next;
		if (!ret)
			ret = lane_reply(sk, job);
		lane_job_free(job);
		--*nr;
	}
	return ret;
}

static int relay(struct fill_pool *pool, int sk)
{
	struct pollfd pfd[2] = {
		{ .fd = sk, .events = POLLIN },
		{ .fd = fill_pool_eventfd(pool), .events = POLLIN },
	};
	unsigned int nr = 0;
	int ret;

	while (1) {
		pfd[0].events = nr < MAX_JOBS ? POLLIN : 0;
		if (poll(pfd, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}

		ret = pfd[1].revents ? give_back(pool, sk, &nr) : 0;
		if (ret < 0)
			return ret;
		ret = pfd[0].revents ? take(pool, sk, &nr) : 1;
		if (ret <= 0)
			return ret;
	}
}

int filler_main(int sk, void *arg)
{
	const unsigned int *nr = arg;
	struct fill_pool *pool;
	int ret;

	ret = fill_pool_create(&pool, *nr, true);
	if (!ret)
		ret = relay(pool, sk);
	if (!ret || ret == -EPIPE || ret == -ECONNRESET)
		return 0; /* nobody wants anything any more, so the threads need not be waited for */

	pr_err("A process that fills shared memory can't go on: %s\n", strerror(-ret));
	return 1;
}
