// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_huge.h"

const char *test_doc = "A private mapping of a memfd of huge pages, beside a shared one and alone";
const char *test_author = "criu-lazy-shmem";

#define NR  4
#define OLD 5 /* a page of alone that was copied before the dump */

static struct lshm both, own, alone;
static uint64_t old_seed;

static int map_private(struct lshm *m, const struct lshm *shared)
{
	int fd, ret;

	*m = *shared;
	fd = lshm_open_mapped(shared->map, NR * HUGE, O_RDWR);
	if (fd < 0)
		return 1;
	ret = lshm_map_fd(m, fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, NR * HUGE_PAGES);
	close(fd);
	return ret;
}

int lshm_setup(void)
{
	struct lshm all;

	if (lshm_huge_missing(5 * NR)) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	if (lshm_map_huge_memfd(&both, NR) || map_private(&own, &both) || lshm_map_huge_memfd(&all, NR) ||
	    map_private(&alone, &all))
		return 1;
	lshm_fill(&both);
	lshm_fill(&all);
	munmap(all.map, NR * HUGE);
	old_seed = lshm_new_seed();
	lshm_rewrite_page(&alone, OLD, old_seed);
	return 0;
}

int lshm_run(void)
{
	uint64_t seed = lshm_new_seed();

	/* The first access is a store: the rest of the page is the object's */
	lshm_rewrite_page(&own, 3 * HUGE_PAGES + 9, seed);
	if (lshm_check_rewritten(&own, 3 * HUGE_PAGES + 9, seed) || lshm_check_range(&own, 3 * HUGE_PAGES, 9) ||
	    lshm_check_huge(&both, 3) || lshm_check_huge(&alone, 2))
		return 1;
	lshm_rewrite_page(&alone, 2 * HUGE_PAGES, seed);
	if (lshm_check_rewritten(&alone, OLD, old_seed) || lshm_check_page(&alone, OLD + 1))
		return 1;
	return lshm_check_huge(&own, 0) || lshm_check_shuffled(&both, both.seed) || lshm_check_huge(&alone, 3) ||
	       lshm_wait_retired() || lshm_check_rewritten(&own, 3 * HUGE_PAGES + 9, seed) ||
	       lshm_check_rewritten(&alone, 2 * HUGE_PAGES, seed) || lshm_check_huge(&own, 1) ||
	       lshm_check_shuffled(&both, both.seed);
}
