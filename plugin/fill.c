// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "fill.h"
#include "priority.h"

/* Bytes of a file to have on their way, from a segment of so many on */
#define AHEAD	   (8UL << 20)
#define AHEAD_FROM (128UL << 10)

/* This thread has only jobs that somebody waits for, who must not wait for what comes behind */
static __thread bool in_hurry;

struct job_queue {
	struct fill_job *head, **tail;
};

struct fill_pool {
	pthread_mutex_t lock;
	pthread_cond_t more;	    /* a job came, or stop was set */
	pthread_cond_t more_urgent; /* the same, for who takes no other jobs */
	struct job_queue urgent, background, done;
	bool urgent_idle; /* and that one waits for one */
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
	return job->owner == owner && off >= job->off && off - job->off < job->len;
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

/*
 * The kernel's own readahead sees several readers of one file, each of whom reads here and
 * there, and does not keep a disk busy. For what is cached already, asking costs more than reading.
 */
static uint32_t read_ahead(const struct fill_seg *seg, uint32_t skip, char *buf)
{
	struct iovec iov = { .iov_base = buf, .iov_len = seg->len - skip };
	ssize_t ret;

	if (seg->len < AHEAD_FROM || in_hurry)
		return 0;

	ret = preadv2(seg->src_fd, &iov, 1, (off_t)(seg->src_off + skip), RWF_NOWAIT);
	if (ret != (ssize_t)iov.iov_len && (ret >= 0 || errno == EAGAIN))
		readahead(seg->src_fd, (off64_t)seg->src_off, AHEAD);
	return ret > 0 ? (uint32_t)ret : 0;
}

/* Reads a segment from its byte skip on. EFAULT: buf is a mapping that can't be stored to. */
static enum fill_result read_seg(const struct fill_seg *seg, uint32_t skip, char *buf, int *err)
{
	uint32_t done = skip + read_ahead(seg, skip, buf);

	while (done < seg->len) {
		ssize_t ret = pread(seg->src_fd, buf + (done - skip), seg->len - done, (off_t)(seg->src_off + done));

		if (ret < 0 && errno == EINTR)
			continue;
		if (ret < 0) {
			*err = errno;
			return errno == EFAULT ? FILL_WRITE_ERROR : FILL_READ_ERROR;
		}
		if (ret == 0)
			return FILL_SHORT;
		done += (uint32_t)ret;
	}

	return FILL_OK;
}

static enum fill_result write_seg(int fd, const struct fill_seg *seg, uint32_t len, const char *buf, int *err,
				  uint32_t *done)
{
	*done = 0;

	while (*done < len) {
		ssize_t ret = pwrite(fd, buf + *done, len - *done, (off_t)(seg->off + *done));

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

static enum fill_result map_object(const struct fill_job *job, uint64_t off, uint64_t len, char **map, int *err)
{
	void *mem;

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, job->obj_fd, (off_t)off);
	if (mem == MAP_FAILED) {
		*err = errno;
		return FILL_WRITE_ERROR;
	}

	/* the guard, if it has to be made anew, must not be one of those who map the object */
	madvise(mem, len, MADV_DONTFORK);
	*map = mem;
	return FILL_OK;
}

/*
 * What a task stored behind the end of the object, in its last page, is there for
 * all who map it, but only a mapping can write it: pwrite() would move the end.
 */
static enum fill_result write_tail(const struct fill_job *job, const struct fill_seg *seg, uint32_t skip, int *err)
{
	uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t page = job->obj_size & ~(page_size - 1);
	enum fill_result result;
	char *map;

	result = map_object(job, page, page_size, &map, err);
	if (result != FILL_OK)
		return result;

	/* read(2) into the mapping: if that fails it is an error and no signal */
	result = read_seg(seg, skip, map + (job->obj_size - page), err);
	munmap(map, page_size);
	return result;
}

/* What was read of seg is in buf */
static void store_seg(struct fill_job *job, const struct fill_seg *seg, const char *buf)
{
	uint32_t len = seg->len, written = 0;

	if (len > job->obj_size - seg->off)
		len = (uint32_t)(job->obj_size - seg->off);

	/* a page is written by one copy under its folio lock, so nobody ever finds half of it in the page cache */
	job->result = write_seg(job->obj_fd, seg, len, buf, &job->err, &written);
	if (job->result == FILL_OK && len < seg->len)
		job->result = write_tail(job, seg, len, &job->err);
	if (job->result != FILL_OK)
		job->err_off = seg->off + written;
}

static void run_pwrite(struct fill_job *job, char *buf)
{
	unsigned int i;

	for (i = 0; i < job->nr_segs && job->result == FILL_OK; i++) {
		/*
		 * The segment is read as a whole before any of it is written:
		 * a short image leaves no half-filled page behind.
		 */
		job->err_off = job->segs[i].off;
		job->result = read_seg(&job->segs[i], 0, buf, &job->err);
		if (job->result == FILL_OK)
			store_seg(job, &job->segs[i], buf);
	}
}

/* Nobody has seen it yet, so it may go again */
static void take_back(struct fill_job *job)
{
	job->result = FILL_OK;
	if (!fallocate(job->obj_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)job->off, (off_t)job->len))
		return;

	job->result = FILL_WRITE_ERROR;
	job->err = errno;
	job->err_off = job->off;
}

bool fill_run_cached(struct fill_job *job, char *map)
{
	unsigned int i;

	job->result = FILL_OK;
	job->err = 0;
	/*
	 * Not pwrite(): that would wait for the inode's lock, which the others hold most of the
	 * time. read(2) into the mapping: if that fails it is an error and no signal.
	 */
	for (i = 0; i < job->nr_segs; i++) {
		const struct fill_seg *seg = &job->segs[i];
		struct iovec iov = { .iov_base = map + seg->off, .iov_len = seg->len };
		ssize_t ret = preadv2(seg->src_fd, &iov, 1, (off_t)seg->src_off, RWF_NOWAIT);

		if (ret == (ssize_t)seg->len)
			continue;

		/* pages that were brought in vain would be found by who looks whether they are there */
		if (i || ret >= 0 || errno == EFAULT)
			take_back(job);
		return job->result != FILL_OK;
	}
	return true;
}

/*
 * A fault of our own would find no huge page left by dying; fallocate() fails.
 * Others may find the page before it is filled: they must wait for the job.
 */
static void run_mapped(struct fill_job *job)
{
	unsigned int i;
	char *map;

	job->err_off = job->off;
	if (fallocate(job->obj_fd, FALLOC_FL_KEEP_SIZE, (off_t)job->off, (off_t)job->len)) {
		job->err = errno;
		job->result = FILL_WRITE_ERROR;
		return;
	}

	job->result = map_object(job, job->off, job->len, &map, &job->err);
	if (job->result != FILL_OK)
		return;

	for (i = 0; i < job->nr_segs && job->result == FILL_OK; i++) {
		job->err_off = job->segs[i].off;
		job->result = read_seg(&job->segs[i], 0, map + (job->segs[i].off - job->off), &job->err);
	}
	munmap(map, job->len);
}

/* Does not touch what is there, i_size included */
static void run_allocate(struct fill_job *job)
{
	job->err_off = job->off;
	if (fallocate(job->obj_fd, FALLOC_FL_KEEP_SIZE, (off_t)job->off, (off_t)job->len)) {
		job->err = errno;
		job->result = FILL_WRITE_ERROR;
	}
}

void fill_run(struct fill_job *job, void *buf)
{
	job->result = FILL_OK;
	job->err = 0;

	switch (job->way) {
	case FILL_PWRITE:
		run_pwrite(job, buf);
		break;
	case FILL_MAPPED:
		run_mapped(job);
		break;
	case FILL_ALLOCATE:
		run_allocate(job);
		break;
	}
}

static void complete(struct fill_pool *pool, struct fill_job *job)
{
	uint64_t one = 1;
	ssize_t ret;
	bool first;

	pthread_mutex_lock(&pool->lock);
	first = !pool->done.head;
	queue_push(&pool->done, job);
	pthread_mutex_unlock(&pool->lock);

	/* who reaps takes all: with the first it was told of the others */
	if (!first)
		return;
	do {
		ret = write(pool->efd, &one, sizeof(one));
	} while (ret < 0 && errno == EINTR);
}

static struct fill_job *next_job(struct fill_pool *pool, bool urgent_only)
{
	struct fill_job *job = NULL;

	pthread_mutex_lock(&pool->lock);
	while (!pool->stop) {
		job = queue_pop(&pool->urgent);
		if (!job && !urgent_only)
			job = queue_pop(&pool->background);
		if (job)
			break;
		if (urgent_only)
			pool->urgent_idle = true;
		pthread_cond_wait(urgent_only ? &pool->more_urgent : &pool->more, &pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);

	return job;
}

static void work(struct fill_pool *pool, bool urgent_only)
{
	struct fill_job *job;
	void *buf;

	/* a failure was warned of at the start, it takes nothing away */
	if (!urgent_only) {
		priority_lower();
		priority_yield_soon();
	}
	in_hurry = urgent_only;
	/* what is only for large folios costs nobody memory where there are none ... */
	buf = mmap(NULL, FILL_FOLIO_UNIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* ... and the rest is charged to the cgroup before anybody looks how much room it has */
	if (buf != MAP_FAILED)
		memset(buf, 0, FILL_UNIT);

	while ((job = next_job(pool, urgent_only))) {
		if (buf == MAP_FAILED) {
			job->result = FILL_WRITE_ERROR;
			job->err = ENOMEM;
			job->err_off = job->off;
		} else {
			fill_run(job, buf);
		}
		complete(pool, job);
	}

	if (buf != MAP_FAILED)
		munmap(buf, FILL_FOLIO_UNIT);
}

static void *worker(void *arg)
{
	work(arg, false);
	return NULL;
}

static void *urgent_worker(void *arg)
{
	work(arg, true);
	return NULL;
}

int fill_pool_create(struct fill_pool **out, unsigned int nr, bool hurry)
{
	struct fill_pool *pool;
	sigset_t all, old;
	int err = 0;

	pool = calloc(1, sizeof(*pool) + (nr + 1) * sizeof(pool->threads[0]));
	if (!pool)
		return -ENOMEM;

	queue_init(&pool->urgent);
	queue_init(&pool->background);
	queue_init(&pool->done);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	pthread_cond_init(&pool->more_urgent, NULL);
	pool->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pool->efd < 0)
		err = errno;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!err && pool->nr_threads < nr + hurry) {
		err = pthread_create(&pool->threads[pool->nr_threads], NULL, pool->nr_threads < nr ? worker : urgent_worker, pool);
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

/* Whoever is there first takes it */
static void wake_for_urgent(struct fill_pool *pool)
{
	pthread_cond_signal(pool->urgent_idle ? &pool->more_urgent : &pool->more);
	pool->urgent_idle = false;
}

void fill_submit(struct fill_pool *pool, struct fill_job *job, int urgent)
{
	pthread_mutex_lock(&pool->lock);
	queue_push(urgent ? &pool->urgent : &pool->background, job);
	if (urgent)
		wake_for_urgent(pool);
	else
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
	if (job)
		wake_for_urgent(pool);
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
	pthread_cond_broadcast(&pool->more_urgent);
	pthread_mutex_unlock(&pool->lock);

	for (i = 0; i < pool->nr_threads; i++)
		pthread_join(pool->threads[i], NULL);

	free_jobs(&pool->urgent);
	free_jobs(&pool->background);
	free_jobs(&pool->done);
	if (pool->efd >= 0)
		close(pool->efd);
	pthread_cond_destroy(&pool->more);
	pthread_cond_destroy(&pool->more_urgent);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
