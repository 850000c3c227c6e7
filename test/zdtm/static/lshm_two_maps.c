// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Two mappings of one lazily restored object, at different offsets, in one task";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (64 * MiB / PAGE_SIZE)
#define SHIFT	 (NR_PAGES / 3)
#define STEP	 5

static struct lshm all, upper;
static uint64_t new_seed;

/* Rewrites pages through one mapping; each has to show in the other at once */
static int store_and_look(const struct lshm *to, unsigned long to_page, const struct lshm *from,
			  unsigned long from_page)
{
	lshm_rewrite_page(to, to_page, new_seed);
	return lshm_check_rewritten(from, from_page, new_seed);
}

static int cross_stores(void)
{
	unsigned long i;
	int ret = 0;

	for (i = 0; i < upper.nr && !ret; i += STEP) {
		if (i % 2)
			ret = store_and_look(&all, SHIFT + i, &upper, i);
		else
			ret = store_and_look(&upper, i, &all, SHIFT + i);
	}
	return ret;
}

static int check_upper(const struct lshm *m)
{
	unsigned long i;

	for (i = 0; i < m->nr; i++)
		if (lshm_check_rewritten(m, i, i % STEP ? m->seed : new_seed))
			return 1;
	return 0;
}

static int check_both(void)
{
	struct lshm view = lshm_sub(&all, SHIFT, upper.nr);

	return lshm_check_range(&all, 0, SHIFT) || check_upper(&view) || check_upper(&upper);
}

static int map_both(int fd)
{
	return lshm_map_fd(&all, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES) ||
	       lshm_map_fd(&upper, fd, PROT_READ | PROT_WRITE, MAP_SHARED, SHIFT, NR_PAGES - SHIFT);
}

int lshm_setup(void)
{
	int fd, ret;

	new_seed = lshm_new_seed();
	all.seed = upper.seed = lshm_new_seed();
	fd = lshm_memfd("lshm_two_maps", 0, NR_PAGES * PAGE_SIZE);
	if (fd < 0)
		return 1;
	ret = map_both(fd);
	close(fd);
	if (!ret)
		lshm_fill(&all);
	return ret;
}

int lshm_run(void)
{
	return cross_stores() || check_both() || lshm_wait_retired() || check_both();
}
