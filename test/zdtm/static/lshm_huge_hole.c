// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_huge.h"

const char *test_doc = "Holes of objects of huge pages, read and written before the data has come";
const char *test_author = "criu-lazy-shmem";

/* Every other huge page is a hole */
#define NR 10

static struct lshm m;

static int is_hole(unsigned long i)
{
	return i % 2;
}

static int check_data(void)
{
	unsigned long i;

	for (i = NR; i--;)
		if (!is_hole(i) && lshm_check_huge(&m, i))
			return 1;
	return 0;
}

int lshm_setup(void)
{
	unsigned long i;

	if (lshm_huge_missing(2 * NR)) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	if (lshm_map_huge_anon(&m, NR))
		return 1;
	for (i = 0; i < NR; i++)
		if (!is_hole(i))
			lshm_fill_huge(&m, i);
	return 0;
}

int lshm_run(void)
{
	/* One hole is read, one written to in its middle */
	if (lshm_check_huge_zero(&m, NR - 1))
		return 1;
	lshm_rewrite_page(&m, 1 * HUGE_PAGES + 7, m.seed);
	if (lshm_check_huge(&m, NR - 2) || lshm_check_huge(&m, 0) || lshm_check_zero(m.map + HUGE, 7) ||
	    lshm_check_page(&m, HUGE_PAGES + 7) || lshm_check_zero(m.map + HUGE + 8 * PAGE_SIZE, HUGE_PAGES - 8))
		return 1;
	if (check_data() || lshm_wait_retired())
		return 1;
	return lshm_check_huge_zero(&m, 3) || lshm_check_page(&m, HUGE_PAGES + 7) || check_data();
}
