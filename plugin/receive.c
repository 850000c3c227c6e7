// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "page_server.h"
#include "receive.h"

/* As much as fits in there is moved by two system calls; more than the kernel's default is an offer */
#define PIPE_SIZE (1 << 20)

/* Where the bytes of one answer go */
struct sink {
	struct fill_job *job;
	uint64_t off; /* of the next byte in the object */
	char *map;    /* of the object, or NULL: they are written to its descriptor */
	uint64_t map_off, map_len;
};

int receiver_init(struct receiver *rc, int (*wait)(void *arg), void *arg)
{
	int size, err;

	*rc = (struct receiver){ .pipe = { -1, -1 }, .wait = wait, .arg = arg };
	if (pipe2(rc->pipe, O_CLOEXEC))
		return -errno;

	size = fcntl(rc->pipe[0], F_SETPIPE_SZ, PIPE_SIZE);
	if (size < 0)
		size = fcntl(rc->pipe[0], F_GETPIPE_SZ);
	err = errno;
	if (size >= (int)PAGE_SIZE) {
		rc->pipe_size = (size_t)size;
		rc->buf = malloc(rc->pipe_size > FILL_UNIT ? rc->pipe_size : FILL_UNIT);
		err = ENOMEM;
	}
	if (rc->buf)
		return 0;

	receiver_fini(rc);
	return -err;
}

void receiver_fini(struct receiver *rc)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (rc->pipe[i] >= 0)
			close(rc->pipe[i]);
		rc->pipe[i] = -1;
	}
	free(rc->buf);
	rc->buf = NULL;
}

static void sink_failed(struct sink *sink, int err)
{
	sink->job->result = FILL_WRITE_ERROR;
	sink->job->err = err;
	sink->job->err_off = sink->off;
}

/*
 * From the connection to the pipe
 */

static ssize_t fetch_plain(struct receiver *rc, size_t want)
{
	ssize_t ret;

	do {
		ret = rc->wait(rc->arg);
		if (ret)
			return ret;
		ret = splice(page_server_shmem_fd(), NULL, rc->pipe[1], NULL, want, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	} while (ret < 0 && (errno == EINTR || errno == EAGAIN));

	return ret < 0 ? -errno : ret;
}

/* What TLS has decrypted already can't be waited for, so it is asked at once */
static ssize_t fetch_tls(struct receiver *rc, size_t want)
{
	ssize_t ret, done;

	ret = page_server_shmem_recv(rc->buf, want);
	for (done = 0; done < ret;) {
		/* never waits: it is empty, and large enough */
		ssize_t n = write(rc->pipe[1], rc->buf + done, (size_t)(ret - done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += n;
	}
	return ret;
}

/* At most want bytes, at most what the pipe holds; -ECONNRESET at the end of the connection */
static ssize_t fetch(struct receiver *rc, size_t want)
{
	ssize_t ret;

	if (want > rc->pipe_size)
		want = rc->pipe_size;
	ret = opts.tls ? fetch_tls(rc, want) : fetch_plain(rc, want);
	return ret ? ret : -ECONNRESET;
}

/*
 * From the pipe to the object
 */

/* Reads from the pipe into memory of ours, or of the object: if that fails, it is an error and no signal */
static size_t drain_to(struct receiver *rc, char *to, size_t len, int *err)
{
	size_t done = 0;

	*err = 0;
	while (done < len) {
		ssize_t ret = read(rc->pipe[0], to + done, len - done);

		if (ret < 0 && errno == EINTR)
			continue;
		if (ret <= 0) {
			*err = ret ? errno : EIO;
			break;
		}
		done += (size_t)ret;
	}
	return done;
}

static size_t drain_to_file(struct receiver *rc, struct sink *sink, size_t len, int *err)
{
	off_t off = (off_t)sink->off;
	size_t done = 0;

	*err = 0;
	while (done < len) {
		/* it moves off on; what fails is the object, there is nothing to wait for in the pipe */
		ssize_t ret = splice(rc->pipe[0], NULL, sink->job->obj_fd, &off, len - done, SPLICE_F_MOVE);

		if (ret < 0 && errno == EINTR)
			continue;
		if (ret <= 0) {
			*err = ret ? errno : EIO;
			break;
		}
		done += (size_t)ret;
	}
	return done;
}

/* Stores len bytes that are in the pipe, or drops them. The pipe is empty then. */
static int store(struct receiver *rc, struct sink *sink, size_t len)
{
	size_t done = 0;
	int err = 0;

	if (sink->job->result == FILL_OK) {
		if (sink->map)
			done = drain_to(rc, sink->map + (sink->off - sink->map_off), len, &err);
		else
			done = drain_to_file(rc, sink, len, &err);
		sink->off += done;
		if (err)
			sink_failed(sink, err);
	}

	/* the buffer has room for all that the pipe holds */
	drain_to(rc, rc->buf, len - done, &err);
	return -err;
}

static int move_bytes(struct receiver *rc, struct sink *sink, uint64_t len, uint64_t *done)
{
	uint64_t end = *done + len;

	while (*done < end) {
		ssize_t n = fetch(rc, end - *done);
		int err;

		if (n < 0)
			return (int)n;
		*done += (uint64_t)n;
		err = store(rc, sink, (size_t)n);
		if (err)
			return err;
	}
	return 0;
}

static void map_object(struct sink *sink, uint64_t off, uint64_t len)
{
	void *mem;

	if (sink->job->result != FILL_OK)
		return;

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, sink->job->obj_fd, (off_t)off);
	if (mem == MAP_FAILED) {
		sink_failed(sink, errno);
		return;
	}

	sink->map = mem;
	sink->map_off = off;
	sink->map_len = len;
}

static void unmap_object(struct sink *sink)
{
	if (sink->map)
		munmap(sink->map, sink->map_len);
}

/* What is behind the end of the object in its last page: see write_tail() in fill.c */
static int receive_tail(struct receiver *rc, struct fill_job *job, uint64_t *done)
{
	uint64_t page = job->obj_size & ~(uint64_t)(PAGE_SIZE - 1);
	struct sink sink = { .job = job, .off = job->obj_size };
	int ret;

	map_object(&sink, page, PAGE_SIZE);
	ret = move_bytes(rc, &sink, page + PAGE_SIZE - job->obj_size, done);
	unmap_object(&sink);
	return ret;
}

int receive_pages(struct receiver *rc, struct fill_job *job, uint64_t off, uint64_t len, uint64_t *done)
{
	struct sink sink = { .job = job, .off = off };
	uint64_t inside = len;
	int ret;

	*done = 0;
	if (job->way == FILL_MAPPED)
		map_object(&sink, job->off, job->len);
	else if (inside > job->obj_size - off)
		inside = job->obj_size - off;

	ret = move_bytes(rc, &sink, inside, done);
	if (!ret && inside < len)
		ret = receive_tail(rc, job, done);

	unmap_object(&sink);
	return ret;
}
