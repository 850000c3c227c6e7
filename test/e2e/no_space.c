// SPDX-License-Identifier: GPL-2.0-only
/*
 * A page cache that runs full, for LD_PRELOAD: writes to memory files fail with
 * the errno NO_SPACE_ERRNO (a number) after NO_SPACE_AFTER bytes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <linux/magic.h>

static ssize_t (*next)(int fd, const void *buf, size_t n, off_t off);
static unsigned long limit, error;
static unsigned long written;

static void __attribute__((constructor)) setup(void)
{
	const char *after = getenv("NO_SPACE_AFTER"), *num = getenv("NO_SPACE_ERRNO");

	next = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
	limit = after ? strtoul(after, NULL, 10) : 0;
	error = num ? strtoul(num, NULL, 10) : ENOSPC;
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off_t off)
{
	struct statfs sfs;

	if (!fstatfs(fd, &sfs) && sfs.f_type == TMPFS_MAGIC && __atomic_add_fetch(&written, n, __ATOMIC_RELAXED) > limit) {
		errno = (int)error;
		return -1;
	}
	return next(fd, buf, n, off);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t off)
{
	return pwrite64(fd, buf, n, off);
}
