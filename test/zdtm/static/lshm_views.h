/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_VIEWS_H__
#define LSHM_VIEWS_H__

/*
 * The ways to look at an object other than through a mapping that was restored.
 * All checks return 0, or 1 with the difference reported.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lshm_common.h"

#define LSHM_SECTOR 512

/* A page through pread(2) */
static inline int lshm_check_pread(int fd, const struct lshm *m, unsigned long i)
{
	uint64_t buf[PAGE_SIZE / sizeof(uint64_t)];
	ssize_t len;

	len = pread(fd, buf, sizeof(buf), (off_t)(m->page + i) * PAGE_SIZE);
	if (len != sizeof(buf)) {
		fail("pread of page %lu returned %zd", m->page + i, len);
		return 1;
	}
	return lshm_check_bytes(buf, m->seed, m->page + i, 0, sizeof(buf));
}

/* All pages in random order; nr is a power of two */
static inline int lshm_check_pread_shuffled(int fd, const struct lshm *m)
{
	uint64_t rnd = m->seed, a = lshm_rand(&rnd) | 1, b = lshm_rand(&rnd);
	unsigned long i;

	for (i = 0; i < m->nr; i++)
		if (lshm_check_pread(fd, m, (a * i + b) & (m->nr - 1)))
			return 1;
	return 0;
}

/* Pages [from, nr) through read(2), which begins where the descriptor stands */
static inline int lshm_check_read(int fd, const struct lshm *m, unsigned long from)
{
	uint64_t buf[PAGE_SIZE / sizeof(uint64_t)];
	unsigned long i;

	for (i = from; i < m->nr; i++) {
		ssize_t len = read(fd, buf, sizeof(buf));

		if (len != sizeof(buf)) {
			fail("read of page %lu returned %zd", i, len);
			return 1;
		}
		if (lshm_check_bytes(buf, m->seed, i, 0, sizeof(buf)))
			return 1;
	}
	return 0;
}

/* All of the object through a mapping that is made now */
static inline int lshm_check_new_map(int fd, const struct lshm *m, int flags)
{
	struct lshm view = *m;
	int ret;

	if (lshm_map_fd(&view, fd, PROT_READ, flags, m->page, m->nr))
		return 1;
	ret = lshm_check_shuffled(&view, m->seed ^ 1);
	munmap(view.map, view.nr * PAGE_SIZE);
	return ret;
}

static inline int lshm_check_long(const char *what, long got, long want)
{
	if (got == want)
		return 0;
	fail("%s is %#lx, not %#lx", what, got, want);
	return 1;
}

/* Size and allocated memory of the object behind a descriptor */
static inline int lshm_check_fstat(int fd, off_t size, size_t allocated)
{
	struct stat st;

	if (fstat(fd, &st)) {
		pr_perror("Can't stat %d", fd);
		return 1;
	}
	return lshm_check_long("the size", st.st_size, size) ||
	       lshm_check_long("the allocated memory", st.st_blocks * LSHM_SECTOR, allocated);
}

/*
 * A descriptor of the object behind a mapping. While that is lazy, only for
 * calls which do not look at the contents.
 */
static inline int lshm_open_mapped(const void *addr, size_t len, int flags)
{
	unsigned long start = (unsigned long)addr;
	char path[64];
	int fd;

	ssprintf(path, "/proc/self/map_files/%lx-%lx", start, start + len);
	fd = open(path, flags);
	if (fd < 0)
		pr_perror("Can't open %s", path);
	return fd;
}

static inline int lshm_seals(const struct lshm *m)
{
	int fd, seals;

	fd = lshm_open_mapped(m->map, m->nr * PAGE_SIZE, O_RDONLY);
	if (fd < 0)
		return -1;
	seals = fcntl(fd, F_GET_SEALS);
	close(fd);
	return seals;
}

#endif /* LSHM_VIEWS_H__ */
