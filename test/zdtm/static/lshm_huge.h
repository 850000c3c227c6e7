/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_HUGE_H__
#define LSHM_HUGE_H__

/*
 * Shared memory of huge pages, of 2 MiB. zdtm.py has 20 of them for a test, and
 * a dump takes as many as the largest object has, besides those in use.
 *
 * Holes are not kept: hugetlbfs does not tell where data is, so CRIU dumps
 * zeroes, and each restore allocates all pages. But they read as zeroes.
 */

#include <linux/memfd.h>
#include <linux/mman.h>

#include "lshm_views.h"

#define HUGE	   (2 * MiB)
#define HUGE_PAGES (HUGE / PAGE_SIZE)

static inline int lshm_huge_missing(unsigned long nr)
{
	void *p;

	/* A shared mapping reserves its pages */
	p = mmap(NULL, nr * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1,
		 0);
	if (p == MAP_FAILED)
		return 1;
	munmap(p, nr * HUGE);
	return 0;
}

static inline int lshm_map_huge_anon(struct lshm *m, unsigned long nr)
{
	m->seed = lshm_new_seed();
	return lshm_map_fd(m, -1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, 0,
			   nr * HUGE_PAGES);
}

static inline int lshm_huge_memfd(unsigned long nr)
{
	return lshm_memfd("lshm_huge", MFD_HUGETLB | MFD_HUGE_2MB, nr * HUGE);
}

static inline int lshm_map_huge_memfd(struct lshm *m, unsigned long nr)
{
	int fd, ret;

	m->seed = lshm_new_seed();
	fd = lshm_huge_memfd(nr);
	if (fd < 0)
		return 1;
	ret = lshm_map_fd(m, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, nr * HUGE_PAGES);
	close(fd);
	return ret;
}

/* Huge page @i of @m */
static inline struct lshm lshm_huge(const struct lshm *m, unsigned long i)
{
	return lshm_sub(m, i * HUGE_PAGES, HUGE_PAGES);
}

static inline void lshm_fill_huge(const struct lshm *m, unsigned long i)
{
	struct lshm page = lshm_huge(m, i);

	lshm_fill(&page);
}

static inline int lshm_check_huge(const struct lshm *m, unsigned long i)
{
	struct lshm page = lshm_huge(m, i);

	return lshm_check_shuffled(&page, m->seed + i);
}

static inline int lshm_check_huge_zero(const struct lshm *m, unsigned long i)
{
	return lshm_check_zero(m->map + i * HUGE, HUGE_PAGES);
}

/* The first access to each huge page is somewhere else in it */
static inline int lshm_touch_huge(const struct lshm *m, unsigned long nr)
{
	uint64_t rnd = m->seed;
	unsigned long i;

	for (i = 0; i < nr; i++)
		if (lshm_check_page(m, i * HUGE_PAGES + lshm_rand(&rnd) % HUGE_PAGES))
			return 1;
	return 0;
}

#endif /* LSHM_HUGE_H__ */
