// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_huge.h"

const char *test_doc = "MADV_REMOVE of huge pages, before and after these have come: their contents do not come back";
const char *test_author = "criu-lazy-shmem";

#define NR	  10
#define REMOVED	  (NR - 1) /* before anything is read */
#define REWRITTEN 6	   /* gets new contents afterwards */
#define PARTLY	  7	   /* its tail is removed, and the head of the next one */
#define TAIL	  40	   /* pages of it */
#define HEAD	  50	   /* and pages of the next one */
#define LATE	  3	   /* removed when it has been read */

static struct lshm m;
static uint64_t new_seed;
static int parts_are_zeroed;

static int remove_page(unsigned long i)
{
	if (madvise(m.map + i * HUGE, HUGE, MADV_REMOVE)) {
		fail("MADV_REMOVE of huge page %lu is refused", i);
		return 1;
	}
	return 0;
}

static int check_rewritten(void)
{
	unsigned long first = REWRITTEN * HUGE_PAGES;

	return lshm_check_zero(m.map + first * PAGE_SIZE, 5) || lshm_check_rewritten(&m, first + 5, new_seed) ||
	       lshm_check_zero(m.map + (first + 6) * PAGE_SIZE, HUGE_PAGES - 6);
}

/* Less than a huge page is not freed: it is zeroed, by kernels before Linux 5.18 left alone */
static int remove_parts(void)
{
	unsigned long first = (PARTLY + 1) * HUGE_PAGES - TAIL;

	if (madvise(m.map + first * PAGE_SIZE, (TAIL + HEAD) * PAGE_SIZE, MADV_REMOVE)) {
		fail("MADV_REMOVE of parts of huge pages is refused");
		return 1;
	}
	return 0;
}

static int check_parts(void)
{
	unsigned long next = (PARTLY + 1) * HUGE_PAGES;

	if (!parts_are_zeroed)
		return lshm_check_huge(&m, PARTLY) || lshm_check_huge(&m, PARTLY + 1);

	return lshm_check_zero(m.map + (next - TAIL) * PAGE_SIZE, TAIL + HEAD) ||
	       lshm_check_range(&m, next + HEAD, HUGE_PAGES - HEAD) ||
	       lshm_check_range(&m, next - HUGE_PAGES, HUGE_PAGES - TAIL);
}

static int is_changed(unsigned long i)
{
	return i == REMOVED || i == REWRITTEN || i == LATE || i == PARTLY || i == PARTLY + 1;
}

static int check_rest(void)
{
	unsigned long i;

	for (i = NR; i--;)
		if (!is_changed(i) && lshm_check_huge(&m, i))
			return 1;
	return check_parts();
}

/* What this kernel does is what a lazily restored task must see, too */
static int ask_kernel(void)
{
	struct lshm probe;

	if (lshm_map_huge_anon(&probe, 1))
		return 1;
	*probe.map = 1;
	if (madvise(probe.map, PAGE_SIZE, MADV_REMOVE)) {
		pr_perror("Can't remove a part of a huge page");
		return 1;
	}
	parts_are_zeroed = !*(volatile uint8_t *)probe.map;
	if (!parts_are_zeroed)
		test_msg("This kernel leaves parts of huge pages alone\n");
	return munmap(probe.map, HUGE);
}

int lshm_setup(void)
{
	if (lshm_huge_missing(2 * NR)) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	if (ask_kernel())
		return 1;
	new_seed = lshm_new_seed();
	if (lshm_map_huge_anon(&m, NR))
		return 1;
	lshm_fill(&m);
	return 0;
}

int lshm_run(void)
{
	if (remove_page(REMOVED) || remove_parts() || check_parts() || remove_page(REWRITTEN))
		return 1;
	lshm_rewrite_page(&m, REWRITTEN * HUGE_PAGES + 5, new_seed);
	if (check_rewritten() || lshm_check_huge(&m, LATE) || remove_page(LATE) || lshm_check_huge_zero(&m, LATE) ||
	    lshm_check_huge_zero(&m, REMOVED) || check_rest() || lshm_wait_retired())
		return 1;
	return check_rewritten() || lshm_check_huge_zero(&m, LATE) || lshm_check_huge_zero(&m, REMOVED) || check_rest();
}
