/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef BENCH_COPY_H
#define BENCH_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <liburing.h>

#define RING_DEPTH 4
#define MiB	   (1UL << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* What a thread has: descriptors of its own, because of their positions and flags */
struct lane {
	unsigned int nr;
	int in, out;
	size_t chunk;
	char *buf; /* of a chunk; RING_DEPTH chunks for io_uring */
	int pipe[2];
	struct io_uring ring;
};

/* copy: of one chunk; or loop, which takes its chunks itself. They return -1 with errno. */
struct method {
	const char *name;
	int flags; /* to open the file with */
	int (*copy)(struct lane *l, off_t off, size_t len);
	int (*loop)(struct lane *l);
	int (*prepare)(struct lane *l);
	void (*release)(struct lane *l);
};

/* What all threads copy */
extern struct copy {
	const char *file;
	off_t size;
	int memfd;
	bool cold, advise, blocks;
} g;

extern const struct method methods[];
extern const unsigned int nr_methods;

/* The next chunk; its length, 0 at the end */
size_t take(const struct lane *l, off_t *off);
int read_all(int fd, char *buf, size_t len, off_t off);

#endif
