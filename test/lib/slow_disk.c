// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into the lazy-pages daemon, makes the images as slow as a disk of
 * so many MB/s for each thread that reads: in memory, a few dozen MiB are
 * there before a restored task has had its first fault.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000ULL

typedef ssize_t (*pread_fn)(int fd, void *buf, size_t len, off64_t off);

typedef ssize_t (*preadv2_fn)(int fd, const struct iovec *iov, int nr, off64_t off, int flags);

static pread_fn next_pread;
static preadv2_fn next_preadv2;
static uint64_t bytes_per_sec;

static void __attribute__((constructor)) init(void)
{
	const char *rate = getenv("LSHM_DISK_MBPS");

	next_pread = (pread_fn)dlsym(RTLD_NEXT, "pread64");
	next_preadv2 = (preadv2_fn)dlsym(RTLD_NEXT, "preadv64v2");
	if (rate)
		bytes_per_sec = strtoull(rate, NULL, 10) * 1000000;
}

/* What must not wait for a disk gets nothing */
ssize_t preadv64v2(int fd, const struct iovec *iov, int nr, off64_t off, int flags)
{
	if (bytes_per_sec) {
		errno = EAGAIN;
		return -1;
	}
	return next_preadv2(fd, iov, nr, off, flags);
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	uint64_t ns = bytes_per_sec ? len * NSEC_PER_SEC / bytes_per_sec : 0;
	struct timespec wait = { .tv_sec = ns / NSEC_PER_SEC, .tv_nsec = ns % NSEC_PER_SEC };

	if (ns)
		nanosleep(&wait, NULL);
	return next_pread(fd, buf, len, off);
}
