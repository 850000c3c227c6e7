// SPDX-License-Identifier: GPL-2.0-only
/* The ways to copy that bench/copy.c compares */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#include "copy.h"

#define AHEAD (8 * MiB)

int read_all(int fd, char *buf, size_t len, off_t off)
{
	while (len) {
		ssize_t n = pread(fd, buf, len, off);

		if (n <= 0)
			return -1;
		buf += n, off += n, len -= (size_t)n;
	}
	return 0;
}

static int write_all(int fd, const char *buf, size_t len, off_t off)
{
	while (len) {
		ssize_t n = pwrite(fd, buf, len, off);

		if (n <= 0)
			return -1;
		buf += n, off += n, len -= (size_t)n;
	}
	return 0;
}

static int copy_pwrite(struct lane *l, off_t off, size_t len)
{
	return read_all(l->in, l->buf, len, off) || write_all(l->out, l->buf, len, off);
}

/* The kernel is told what will be read next, AHEAD before it is */
static int copy_readahead(struct lane *l, off_t off, size_t len)
{
	if (off < (off_t)AHEAD)
		readahead(l->in, off, len);
	readahead(l->in, off + (off_t)AHEAD, len);
	return copy_pwrite(l, off, len);
}

static int copy_mapped_source(struct lane *l, off_t off, size_t len)
{
	char *map = mmap(NULL, len, PROT_READ, MAP_SHARED | MAP_POPULATE, l->in, off);
	int ret;

	if (map == MAP_FAILED)
		return -1;
	ret = write_all(l->out, map, len, off);
	munmap(map, len);
	return ret;
}

static char *map_out(const struct lane *l, off_t off, size_t len, bool populate)
{
	char *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, l->out, off);

	if (map == MAP_FAILED)
		return NULL;
	if (g.advise)
		madvise(map, len, MADV_HUGEPAGE); /* no such thing in this kernel: then large= says so */
	if (populate && madvise(map, len, MADV_POPULATE_WRITE)) {
		munmap(map, len);
		return NULL;
	}
	return map;
}

static int read_into(struct lane *l, off_t off, size_t len, bool populate)
{
	char *map = map_out(l, off, len, populate);
	int ret;

	if (!map)
		return -1;
	ret = read_all(l->in, map, len, off);
	munmap(map, len);
	return ret;
}

static int copy_into_mapping(struct lane *l, off_t off, size_t len)
{
	return read_into(l, off, len, false);
}

static int copy_into_populated(struct lane *l, off_t off, size_t len)
{
	return read_into(l, off, len, true);
}

/*
 * Writers of one file wait for each other (the inode's lock), who stores to a mapping does
 * not: so every other thread does that.
 */
static int copy_mixed(struct lane *l, off_t off, size_t len)
{
	return l->nr & 1 ? read_into(l, off, len, false) : copy_pwrite(l, off, len);
}

static int copy_mixed_populated(struct lane *l, off_t off, size_t len)
{
	return l->nr & 1 ? read_into(l, off, len, true) : copy_pwrite(l, off, len);
}

static int copy_memcpy(struct lane *l, off_t off, size_t len)
{
	char *from = mmap(NULL, len, PROT_READ, MAP_SHARED | MAP_POPULATE, l->in, off);
	char *to = map_out(l, off, len, true);

	if (from == MAP_FAILED || !to)
		return -1;
	memcpy(to, from, len);
	munmap(to, len);
	munmap(from, len);
	return 0;
}

static int copy_sendfile(struct lane *l, off_t off, size_t len)
{
	if (lseek(l->out, off, SEEK_SET) < 0)
		return -1;
	while (len) {
		ssize_t n = sendfile(l->out, l->in, &off, len);

		if (n <= 0)
			return -1;
		len -= (size_t)n;
	}
	return 0;
}

static int copy_splice(struct lane *l, off_t off, size_t len)
{
	loff_t from = off, to = off;

	while (len) {
		ssize_t n = splice(l->in, &from, l->pipe[1], NULL, len, 0);

		if (n <= 0)
			return -1;
		len -= (size_t)n;
		while (n) {
			ssize_t m = splice(l->pipe[0], NULL, l->out, &to, (size_t)n, 0);

			if (m <= 0)
				return -1;
			n -= m;
		}
	}
	return 0;
}

static int copy_range(struct lane *l, off_t off, size_t len)
{
	loff_t from = off, to = off;

	while (len) {
		ssize_t n = copy_file_range(l->in, &from, l->out, &to, len, 0);

		if (n <= 0)
			return -1;
		len -= (size_t)n;
	}
	return 0;
}

static int prepare_pipe(struct lane *l)
{
	if (pipe(l->pipe))
		return -1;
	fcntl(l->pipe[0], F_SETPIPE_SZ, l->chunk > MiB ? MiB : l->chunk); /* may be more than is allowed */
	return 0;
}

static void release_pipe(struct lane *l)
{
	close(l->pipe[0]);
	close(l->pipe[1]);
}

static int prepare_ring(struct lane *l)
{
	struct iovec iov = { l->buf, l->chunk * RING_DEPTH };
	int fds[2] = { l->in, l->out };

	errno = -io_uring_queue_init(RING_DEPTH * 2, &l->ring, 0);
	if (!errno)
		errno = -io_uring_register_buffers(&l->ring, &iov, 1);
	if (!errno)
		errno = -io_uring_register_files(&l->ring, fds, 2);
	return errno ? -1 : 0;
}

static void release_ring(struct lane *l)
{
	io_uring_queue_exit(&l->ring);
}

/* A read and a write that follows it, in buffer slot; how many are under way more */
static unsigned int submit_pair(struct lane *l, unsigned int slot)
{
	char *buf = l->buf + slot * l->chunk;
	struct io_uring_sqe *sqe;
	off_t off;
	size_t len = take(l, &off);
	int i;

	for (i = 0; len && i < 2; i++) {
		sqe = io_uring_get_sqe(&l->ring);
		if (i)
			io_uring_prep_write_fixed(sqe, 1, buf, (unsigned int)len, (uint64_t)off, 0);
		else
			io_uring_prep_read_fixed(sqe, 0, buf, (unsigned int)len, (uint64_t)off, 0);
		sqe->flags |= IOSQE_FIXED_FILE | (i ? 0U : IOSQE_IO_LINK);
		/* slot, and the length that both must have: a short one breaks the link */
		io_uring_sqe_set_data64(sqe, (uint64_t)len << 8 | (uint64_t)i << 7 | slot);
	}
	return len ? 2 : 0;
}

static int loop_ring(struct lane *l)
{
	unsigned int slot, under_way = 0;
	struct io_uring_cqe *cqe;
	uint64_t data;

	for (slot = 0; slot < RING_DEPTH; slot++)
		under_way += submit_pair(l, slot);
	while (under_way) {
		io_uring_submit(&l->ring);
		if (io_uring_wait_cqe(&l->ring, &cqe))
			return -1;
		data = cqe->user_data;
		if (cqe->res != (int)(data >> 8)) {
			errno = cqe->res < 0 ? -cqe->res : EIO;
			return -1;
		}
		io_uring_cqe_seen(&l->ring, cqe);
		under_way--;
		if (data & 0x80)
			under_way += submit_pair(l, data & 0x7f);
	}
	return 0;
}

const struct method methods[] = {
	{ .name = "pread+pwrite", .copy = copy_pwrite },
	{ .name = "mmap+pwrite", .copy = copy_mapped_source },
	{ .name = "splice", .copy = copy_splice, .prepare = prepare_pipe, .release = release_pipe },
	{ .name = "sendfile", .copy = copy_sendfile },
	{ .name = "copy_file_range", .copy = copy_range },
	{ .name = "io_uring", .loop = loop_ring, .prepare = prepare_ring, .release = release_ring },
	{ .name = "pread-into-mapping", .copy = copy_into_mapping },
	{ .name = "populate+pread", .copy = copy_into_populated },
	{ .name = "populate+memcpy", .copy = copy_memcpy },
	{ .name = "mixed", .copy = copy_mixed },
	{ .name = "mixed-populate", .copy = copy_mixed_populated },
	{ .name = "readahead+pwrite", .copy = copy_readahead },
	{ .name = "direct+pwrite", .flags = O_DIRECT, .copy = copy_pwrite },
	{ .name = "direct-io_uring", .flags = O_DIRECT, .loop = loop_ring, .prepare = prepare_ring, .release = release_ring },
	{ .name = "populate+direct", .flags = O_DIRECT, .copy = copy_into_populated },
};

const unsigned int nr_methods = sizeof(methods) / sizeof(methods[0]);
