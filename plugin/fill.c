// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "fill.h"

struct job_queue {
	struct fill_job *head, **tail;
};

struct fill_pool {
	pthread_mutex_t lock;
	pthread_cond_t more; /* a job came, or stop was set */
	struct job_queue urgent, background, done;
	bool stop;
	int efd;
	unsigned int nr_threads;
	pthread_t threads[];
};

static void queue_init(struct job_queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void queue_push(struct job_queue *q, struct fill_job *job)
{
	job->next = NULL;
	*q->tail = job;
	q->tail = &job->next;
}

static struct fill_job *queue_pop(struct job_queue *q)
{
	struct fill_job *job = q->head;

	if (job) {
		q->head = job->next;
		if (!q->head)
			q->tail = &q->head;
	}
	return job;
}

static bool job_covers(const struct fill_job *job, const void *owner, uint64_t off)
{
	const struct fill_seg *last = &job->segs[job->nr_segs - 1];

	return job->owner == owner && off >= job->segs[0].off && off < last->off + last->len;
}

static struct fill_job *queue_take(struct job_queue *q, const void *owner, uint64_t off)
{
	struct fill_job **p, *job;

	for (p = &q->head; (job = *p); p = &job->next) {
		if (!job_covers(job, owner, off))
			continue;
		*p = job->next;
		if (!*p)
			q->tail = p;
		return job;
	}
	return NULL;
}

static enum fill_result read_seg(const struct fill_seg *seg, char *buf, int *err)
{
	uint32_t done = 0;

	while (done < seg->len) {
		ssize_t ret = pread(seg->src_fd, buf + done, seg->len - done, (off_t)(seg->src_off + done));

		if (ret < 0 && errno == EINTR)
			continue;
		if (ret < 0) {
			*err = errno;
			return FILL_READ_ERROR;
		}
		if (ret == 0)
			return FILL_SHORT;
		done += (uint32_t)ret;
	}

	return FILL_OK;
}

static enum fill_result write_seg(int fd, const struct fill_seg *seg, const char *buf, int *err, uint32_t *done)
{
	*done = 0;

	while (*done < seg->len) {
		ssize_t ret = pwrite(fd, buf + *done, seg->len - *done, (off_t)(seg->off + *done));

		if (ret < 0 && errno == EINTR)
			continue;
		if (ret <= 0) {
			*err = ret ? errno : EIO;
			return FILL_WRITE_ERROR;
		}
		*done += (uint32_t)ret;
	}

	return FILL_OK;
}

void fill_run(struct fill_job *job, void *buf)
{
	unsigned int i;

	job->result = FILL_OK;
	job->err = 0;

	for (i = 0; i < job->nr_segs && job->result == FILL_OK; i++) {
		const struct fill_seg *seg = &job->segs[i];
		uint32_t written = 0;

		/*
		 * The segment is read as a whole before any of it is written:
		 * a short image leaves no half-filled page behind. And a page
		 * is written by one copy under its folio lock, so nobody ever
		 * finds half of it in the page cache.
		 */
		job->result = read_seg(seg, buf, &job->err);
		if (job->result == FILL_OK)
			job->result = write_seg(job->obj_fd, seg, buf, &job->err, &written);
		if (job->result != FILL_OK)
			job->err_off = seg->off + written;
	}
}

static void complete(struct fill_pool *pool, struct fill_job *job)
{
	uint64_t one = 1;
	ssize_t ret;

	pthread_mutex_lock(&pool->lock);
	queue_push(&pool->done, job);
	pthread_mutex_unlock(&pool->lock);

	do {
		ret = write(pool->efd, &one, sizeof(one));
	} while (ret < 0 && errno == EINTR);
}

static struct fill_job *next_job(struct fill_pool *pool)
{
	struct fill_job *job = NULL;

	pthread_mutex_lock(&pool->lock);
	while (!pool->stop) {
		job = queue_pop(&pool->urgent);
		if (!job)
			job = queue_pop(&pool->background);
		if (job)
			break;
		pthread_cond_wait(&pool->more, &pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);

	return job;
}

static void *worker(void *arg)
{
	struct fill_pool *pool = arg;
	struct fill_job *job;
	void *buf;

	/* populated: a copy from a page that must be faulted in could be cut short */
	buf = mmap(NULL, FILL_UNIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	while ((job = next_job(pool))) {
		if (buf == MAP_FAILED) {
			job->result = FILL_WRITE_ERROR;
			job->err = ENOMEM;
			job->err_off = job->segs[0].off;
		} else {
			fill_run(job, buf);
		}
		complete(pool, job);
	}

	if (buf != MAP_FAILED)
		munmap(buf, FILL_UNIT);
	return NULL;
}

int fill_pool_create(struct fill_pool **out, unsigned int nr)
{
	struct fill_pool *pool;
	sigset_t all, old;
	int err = 0;

	pool = calloc(1, sizeof(*pool) + nr * sizeof(pool->threads[0]));
	if (!pool)
		return -ENOMEM;

	queue_init(&pool->urgent);
	queue_init(&pool->background);
	queue_init(&pool->done);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	pool->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pool->efd < 0)
		err = errno;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!err && pool->nr_threads < nr) {
		err = pthread_create(&pool->threads[pool->nr_threads], NULL, worker, pool);
		if (!err)
			pool->nr_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);

	if (err) {
		fill_pool_destroy(pool);
		return -err;
	}

	*out = pool;
	return 0;
}

int fill_pool_eventfd(const struct fill_pool *pool)
{
	return pool->efd;
}

void fill_submit(struct fill_pool *pool, struct fill_job *job, int urgent)
{
	pthread_mutex_lock(&pool->lock);
	queue_push(urgent ? &pool->urgent : &pool->background, job);
	pthread_cond_signal(&pool->more);
	pthread_mutex_unlock(&pool->lock);
}

void fill_promote(struct fill_pool *pool, const void *owner, uint64_t off)
{
	struct fill_job *job;

	pthread_mutex_lock(&pool->lock);
	job = queue_take(&pool->background, owner, off);
	if (job)
		queue_push(&pool->urgent, job);
	pthread_mutex_unlock(&pool->lock);
}

struct fill_job *fill_reap(struct fill_pool *pool)
{
	struct fill_job *jobs;

	pthread_mutex_lock(&pool->lock);
	jobs = pool->done.head;
	queue_init(&pool->done);
	pthread_mutex_unlock(&pool->lock);

	return jobs;
}

static void free_jobs(struct job_queue *q)
{
	struct fill_job *job;

	while ((job = queue_pop(q)))
		free(job);
}

void fill_pool_destroy(struct fill_pool *pool)
{
	unsigned int i;

	if (!pool)
		return;

	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->more);
	pthread_mutex_unlock(&pool->lock);

	for (i = 0; i < pool->nr_threads; i++)
		pthread_join(pool->threads[i], NULL);

	free_jobs(&pool->urgent);
	free_jobs(&pool->background);
	free_jobs(&pool->done);
	if (pool->efd >= 0)
		close(pool->efd);
	pthread_cond_destroy(&pool->more);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
