// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "page_server.h"

#include "fill.h"
#include "lane.h"
#include "puller.h"
#include "receive.h"

/*
 * Questions without an answer. All of them fit into the buffers of the sockets on
 * their way, so asking never waits for a server that waits for us to read.
 */
#define MAX_ASKED 64
/* Jobs, each with some descriptors; the others wait in the lane's socket */
#define MAX_PULLS 256

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000

/* A job. Its remote segments are the last ones, and the fill workers' code did the others. */
struct pull {
	struct pull *next;
	struct fill_job *job;
	unsigned int seg; /* what is to be asked for next */
	uint32_t seg_off;
	unsigned int owed; /* questions that wait for an answer */
};

struct question {
	struct pull *pull;
	uint64_t off;
	uint32_t nr_pages;
};

struct puller {
	int sk; /* the lane's */
	struct receiver rc;

	struct pull *head; /* not all of it asked for yet; urgent ones first */
	unsigned int nr_pulls;

	struct question asked[MAX_ASKED]; /* a ring: the oldest is the one that is answered next */
	unsigned int first, nr_asked;
	unsigned int nr_sent; /* of them on this connection */

	bool connected;
	int deaf;	      /* it takes no more questions, for that reason; but answers may be on their way */
	uint64_t heard_ms;    /* when something has come last */
	unsigned int losses;  /* since the last answer */
	unsigned int backoff; /* ms */

	int reply_err; /* the daemon can't be told what became of a job */

	enum fill_result gone; /* not FILL_OK: there is no page server any more */
	int gone_err;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t timeout_ms(void)
{
	return (uint64_t)opts.lazy_timeout * 1000;
}

/*
 * Jobs
 */

static bool all_asked(const struct pull *pull)
{
	return pull->seg == pull->job->nr_segs;
}

static void finish(struct puller *p, struct pull *pull)
{
	int ret = lane_reply(p->sk, pull->job);

	if (ret && !p->reply_err)
		p->reply_err = ret;
	lane_job_free(pull->job);
	free(pull);
	p->nr_pulls--;
}

static void enqueue(struct puller *p, struct pull *pull)
{
	struct pull **at = &p->head;

	while (*at && ((*at)->job->urgent || !pull->job->urgent))
		at = &(*at)->next;
	pull->next = *at;
	*at = pull;
}

static struct pull *dequeue(struct pull **at)
{
	struct pull *pull = *at;

	*at = pull->next;
	pull->next = NULL;
	return pull;
}

/* Without effect on what was asked for already */
static void promote(struct puller *p, const struct fill_job *which)
{
	struct pull **at;

	for (at = &p->head; *at; at = &(*at)->next) {
		struct pull *pull = *at;

		if (pull->job->owner != which->owner)
			continue;
		dequeue(at);
		pull->job->urgent = 1;
		enqueue(p, pull);
		return;
	}
}

/* Local segments first; the remote ones stay in order. Their number is the local ones'. */
static unsigned int sort_segs(struct fill_job *job)
{
	unsigned int i, nr_local = 0;

	for (i = 0; i < job->nr_segs; i++) {
		struct fill_seg seg = job->segs[i];

		if (seg.src_fd == SEG_REMOTE)
			continue;
		memmove(&job->segs[nr_local + 1], &job->segs[nr_local], (i - nr_local) * sizeof(seg));
		job->segs[nr_local++] = seg;
	}
	return nr_local;
}

/* This also allocates the huge page of a job that needs one */
static void fill_local(struct puller *p, struct fill_job *job, unsigned int nr_local)
{
	unsigned int nr_segs = job->nr_segs;

	job->nr_segs = nr_local;
	fill_run(job, p->rc.buf);
	job->nr_segs = nr_segs;
}

static int start_pull(struct puller *p, struct fill_job *job)
{
	struct pull *pull = calloc(1, sizeof(*pull));

	if (!pull) {
		lane_job_free(job);
		return -ENOMEM;
	}

	pull->job = job;
	pull->seg = sort_segs(job);
	p->nr_pulls++;
	fill_local(p, job, pull->seg);
	if (job->result == FILL_OK && !all_asked(pull) && p->gone) {
		job->result = p->gone;
		job->err = p->gone_err;
		job->err_off = job->segs[pull->seg].off;
	}

	if (job->result != FILL_OK || all_asked(pull))
		finish(p, pull);
	else
		enqueue(p, pull);
	return 0;
}

/* 1, or 0 if there will be no more, or -errno */
static int take_job(struct puller *p)
{
	struct fill_job *job;
	int ret, is_promotion;

	ret = lane_recv(p->sk, &job, &is_promotion);
	if (ret <= 0)
		return ret == -EAGAIN ? 1 : ret;

	if (is_promotion) {
		promote(p, job);
		lane_job_free(job);
		return 1;
	}

	ret = start_pull(p, job);
	return ret ? ret : 1;
}

/*
 * Questions
 */

static struct question *question_at(struct puller *p, unsigned int i)
{
	return &p->asked[(p->first + i) % MAX_ASKED];
}

static void pop_question(struct puller *p)
{
	p->first = (p->first + 1) % MAX_ASKED;
	p->nr_asked--;
	p->nr_sent--;
}

/* What is next to the last page is in the same question, as far as one may go */
static void next_question(struct pull *pull, struct question *q)
{
	const struct fill_job *job = pull->job;
	const struct fill_seg *seg = &job->segs[pull->seg];

	*q = (struct question){ .pull = pull, .off = seg->off + pull->seg_off };
	while (!all_asked(pull) && q->nr_pages < PS_SHMEM_MAX_PAGES) {
		uint32_t nr, room = PS_SHMEM_MAX_PAGES - q->nr_pages;

		seg = &job->segs[pull->seg];
		if (seg->off + pull->seg_off != q->off + (uint64_t)q->nr_pages * PAGE_SIZE)
			break;
		nr = (uint32_t)((seg->len - pull->seg_off) / PAGE_SIZE);
		if (nr > room)
			nr = room;
		q->nr_pages += nr;
		pull->seg_off += nr * (uint32_t)PAGE_SIZE;
		if (pull->seg_off == seg->len) {
			pull->seg++;
			pull->seg_off = 0;
		}
	}
	pull->owed++;
}

static void plan(struct puller *p)
{
	while (p->head && p->nr_asked < MAX_ASKED) {
		next_question(p->head, question_at(p, p->nr_asked++));
		if (all_asked(p->head))
			dequeue(&p->head);
	}
}

static void ask(struct puller *p)
{
	const struct question *q = question_at(p, p->nr_sent);

	if (!p->nr_sent)
		p->heard_ms = now_ms();
	p->deaf = page_server_shmem_ask(q->pull->job->shmid, q->off, q->nr_pages);
	if (!p->deaf)
		p->nr_sent++;
}

/*
 * Waiting
 */

/* When the daemon is done with us, or gone, there is nothing to wait for */
static bool daemon_left(struct puller *p, int ms)
{
	struct pollfd pfd = { .fd = p->sk };

	return poll(&pfd, 1, ms) > 0 && pfd.revents & (POLLHUP | POLLERR);
}

static int ms_left(const struct puller *p)
{
	uint64_t now = now_ms(), end = p->heard_ms + timeout_ms();

	return now < end ? (int)(end - now) : 0;
}

/* For the next bytes of an answer, as receiver.wait */
static int wait_bytes(void *arg)
{
	struct puller *p = arg;
	struct pollfd pfd[2] = {
		{ .fd = page_server_shmem_fd(), .events = POLLIN },
		{ .fd = p->sk },
	};
	int ret;

	do {
		ret = poll(pfd, 2, ms_left(p));
	} while (ret < 0 && errno == EINTR);

	if (ret < 0)
		return -errno;
	if (!ret)
		return -ETIMEDOUT;
	if (pfd[1].revents)
		return -ECANCELED;
	p->heard_ms = now_ms();
	return 0;
}

/*
 * Losses
 */

static void disconnect(struct puller *p)
{
	if (p->connected)
		page_server_shmem_disconnect();
	p->connected = false;
	p->deaf = 0;
	p->nr_sent = 0;
}

static void fail_pull(struct pull *pull, enum fill_result result, int err, uint64_t off)
{
	struct fill_job *job = pull->job;

	if (job->result != FILL_OK)
		return;
	job->result = result;
	job->err = err;
	job->err_off = off;
}

/* There is no page server any more: all that would have come from it fails */
static void give_up(struct puller *p, enum fill_result result, int err)
{
	unsigned int i;

	disconnect(p);
	p->gone = result;
	p->gone_err = err;

	/* one of which not all is asked for is in the queue as well */
	for (i = 0; i < p->nr_asked; i++) {
		const struct question *q = question_at(p, i);

		fail_pull(q->pull, result, err, q->off);
		if (!--q->pull->owed && all_asked(q->pull))
			finish(p, q->pull);
	}
	p->nr_asked = 0;

	while (p->head) {
		struct pull *pull = dequeue(&p->head);

		fail_pull(pull, result, err, pull->job->segs[pull->seg].off + pull->seg_off);
		finish(p, pull);
	}
}

/* For the log: who waits for what, of which done bytes have come */
static const char *who_waits(struct puller *p, uint64_t done)
{
	static char text[160];
	const struct question *q = question_at(p, 0);

	if (p->nr_asked)
		snprintf(text, sizeof(text),
			 "object %#x waits for offset %#" PRIx64 " to %#" PRIx64 ", and %u requests come after that",
			 q->pull->job->shmid, q->off + done, q->off + (uint64_t)q->nr_pages * PAGE_SIZE, p->nr_asked - 1);
	else
		snprintf(text, sizeof(text), "nothing waits for it at the moment");
	return text;
}

static void refused(struct puller *p)
{
	pr_err("The page server is of no use, see above; %s\n", who_waits(p, 0));
	give_up(p, FILL_PEER_REFUSED, EACCES);
}

static bool wait_backoff(struct puller *p)
{
	bool wanted = !daemon_left(p, (int)p->backoff);

	p->backoff = p->backoff < BACKOFF_MAX_MS / 2 ? p->backoff * 2 : BACKOFF_MAX_MS;
	return wanted;
}

/* Connects in the time there is; if it can't, the jobs fail. 0, or -ECANCELED: nobody wants it any more. */
static int connect_in_time(struct puller *p)
{
	uint64_t now, end = now_ms() + timeout_ms();
	int ret;

	while ((ret = page_server_shmem_connect())) {
		if (ret == -EACCES) {
			refused(p);
			return 0;
		}
		now = now_ms();
		if (now >= end) {
			pr_err("Giving the page server up, no connection in %u seconds (--lazy-timeout); %s\n",
			       opts.lazy_timeout, who_waits(p, 0));
			give_up(p, FILL_PEER_LOST, EHOSTUNREACH);
			return 0;
		}
		/* the last try is when time is up */
		if (p->backoff > end - now)
			p->backoff = (unsigned int)(end - now);
		if (!wait_backoff(p))
			return -ECANCELED;
	}

	p->connected = true;
	return 0;
}

/* The connection is no good any more, and done bytes of an answer have come. As connect_in_time(). */
static int lost(struct puller *p, int err, uint64_t done)
{
	const char *why = err == -ETIMEDOUT ? "an answer is overdue (--lazy-timeout)" : strerror(-err);
	int ret;

	disconnect(p);
	if (++p->losses > opts.lazy_retries) {
		pr_err("Giving the page server up, lost %u times without an answer (--lazy-retries): %s; %s\n", p->losses,
		       why, who_waits(p, done));
		give_up(p, FILL_PEER_LOST, -err);
		return 0;
	}

	pr_warn("Lost the page server, will connect again: %s; %s\n", why, who_waits(p, done));
	if (!wait_backoff(p))
		return -ECANCELED;

	ret = connect_in_time(p);
	if (!ret && p->connected)
		pr_note("The page server is back, %u requests are sent again\n", p->nr_asked);
	return ret;
}

/*
 * Answers
 */

/* All pages of the oldest question are here, or it does not matter any more */
static void answered(struct puller *p)
{
	struct pull *pull = question_at(p, 0)->pull;
	struct pull **at;

	pop_question(p);
	p->losses = 0;
	p->backoff = BACKOFF_MIN_MS;

	if (pull->job->result != FILL_OK && !all_asked(pull)) {
		/* no use in asking for the rest */
		for (at = &p->head; *at != pull; at = &(*at)->next)
			;
		dequeue(at);
		pull->seg = pull->job->nr_segs;
	}
	if (!--pull->owed && all_asked(pull))
		finish(p, pull);
}

/* 0, or -ECANCELED: nobody wants it any more */
static int take_answer(struct puller *p)
{
	struct question *q = question_at(p, 0);
	uint64_t off = 0, done = 0;
	uint32_t shmid = 0, nr = 0;
	int ret;

	ret = page_server_shmem_answer(&shmid, &off, &nr);
	if (ret == -EACCES) {
		refused(p);
		return 0;
	}
	if (ret)
		return lost(p, ret, 0);

	/* nothing that it says is used for anything but this */
	if (shmid != q->pull->job->shmid || off != q->off || nr != q->nr_pages) {
		pr_err("The page server answers with %u pages of object %#x at offset %#" PRIx64
		       " where %u of object %#x at %#" PRIx64 " were asked for: is it of the same version?\n",
		       nr, shmid, off, q->nr_pages, q->pull->job->shmid, q->off);
		give_up(p, FILL_PEER_LOST, EPROTO);
		return 0;
	}

	ret = receive_pages(&p->rc, q->pull->job, off, (uint64_t)nr * PAGE_SIZE, &done);
	if (ret == -ECANCELED)
		return ret;
	if (ret)
		return lost(p, ret, done);

	p->heard_ms = now_ms();
	answered(p);
	return 0;
}

/* Waits for a job or an answer. 1, or 0 if there is nothing more to do, or -errno. */
static int step(struct puller *p)
{
	struct pollfd pfd[2] = {
		{ .fd = p->sk, .events = p->nr_pulls < MAX_PULLS ? POLLIN : 0 },
		{ .fd = p->nr_sent ? page_server_shmem_fd() : -1, .events = POLLIN },
	};
	int ret;

	ret = poll(pfd, 2, p->nr_sent ? ms_left(p) : -1);
	if (ret < 0)
		return errno == EINTR ? 1 : -errno;
	if (!ret) {
		ret = lost(p, -ETIMEDOUT, 0);
		return ret ? ret : 1;
	}

	if (pfd[0].revents) {
		ret = take_job(p);
		if (ret <= 0)
			return ret;
	}
	ret = pfd[1].revents ? take_answer(p) : 0;
	return ret ? ret : 1;
}

/* Asks for all that it can. 0 or -errno. */
static int ask_all(struct puller *p)
{
	int ret = 0;

	plan(p);
	while (!ret && p->nr_sent < p->nr_asked) {
		if (!p->connected)
			ret = connect_in_time(p);
		else if (!p->deaf)
			ask(p);
		else if (p->nr_sent)
			break;
		else
			ret = lost(p, p->deaf, 0);
	}
	return ret;
}

int puller_main(int sk, void *arg)
{
	struct puller p = { .sk = sk, .backoff = BACKOFF_MIN_MS };
	int ret;

	(void)arg;
	signal(SIGPIPE, SIG_IGN);
	ret = receiver_init(&p.rc, wait_bytes, &p);
	if (ret) {
		pr_err("Can't make a pipe and a buffer for what the page server sends: %s\n", strerror(-ret));
		return 1;
	}

	/* so that the first fault need not wait for it; if it fails, there is time until then */
	ret = page_server_shmem_connect();
	if (ret == -EACCES)
		refused(&p);
	p.connected = !ret;

	do {
		ret = ask_all(&p);
		if (!ret)
			ret = step(&p);
		if (p.reply_err)
			ret = p.reply_err;
	} while (ret > 0);

	if (ret && ret != -ECANCELED && ret != -EPIPE)
		pr_err("Can't go on filling from the page server: %s\n", strerror(-ret));
	else
		ret = 0;
	/* so that the server does not take it for a loss */
	if (p.connected && !p.nr_sent) {
		page_server_shmem_close();
		p.connected = false;
	}
	give_up(&p, FILL_PEER_LOST, ECANCELED);
	receiver_fini(&p.rc);
	return ret ? 1 : 0;
}
