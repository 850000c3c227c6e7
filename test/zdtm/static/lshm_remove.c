// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "MADV_REMOVE drops contents that have been restored, and contents that have not";
const char *test_author = "criu-lazy-shmem";

#define NR_HOLES 32
#define WRITTEN	 4 /* every 4th page of a hole is written afterwards */

static struct lshm m;
static uint64_t new_seed;

static unsigned long slot_pages(void)
{
	return m.nr / NR_HOLES;
}

/* The middle of each slot: a run that begins and ends at odd places */
static struct lshm hole(unsigned int h)
{
	unsigned long slot = slot_pages();

	return lshm_sub(&m, h * slot + slot / 4 + h, slot / 2);
}

/* Some are read before, some are written before, most are not touched */
static int touch(const struct lshm *part, unsigned int h)
{
	switch (h % 4) {
	case 0:
		return lshm_check(part);
	case 1:
		lshm_rewrite_page(part, h, new_seed);
	}
	return 0;
}

static int remove_one(unsigned int h)
{
	struct lshm part = hole(h);

	if (touch(&part, h))
		return 1;
	if (madvise(part.map, part.nr * PAGE_SIZE, MADV_REMOVE)) {
		pr_perror("Can't remove hole %u", h);
		return 1;
	}
	/* Later ones are left alone, for the background to bring them back */
	return h % 3 ? 0 : lshm_check_zero(part.map, part.nr);
}

/* From the end, where the background has not been yet */
static int remove_all(void)
{
	unsigned int h;

	for (h = NR_HOLES; h-- > 0;)
		if (remove_one(h))
			return 1;
	return 0;
}

static void write_holes(void)
{
	unsigned long i;
	unsigned int h;

	for (h = 0; h < NR_HOLES; h++) {
		struct lshm part = hole(h);

		for (i = 0; i < part.nr; i += WRITTEN)
			lshm_rewrite_page(&part, i, new_seed);
	}
}

static int check_hole(const struct lshm *part)
{
	unsigned long i;

	for (i = 0; i < part->nr; i++) {
		if (i % WRITTEN ? lshm_check_zero(part->map + i * PAGE_SIZE, 1) :
				  lshm_check_rewritten(part, i, new_seed))
			return 1;
	}
	return 0;
}

static int check_all(void)
{
	unsigned long next = 0;
	unsigned int h;

	for (h = 0; h < NR_HOLES; h++) {
		struct lshm part = hole(h);

		if (lshm_check_range(&m, next, part.page - next) || check_hole(&part))
			return 1;
		next = part.page + part.nr;
	}
	return lshm_check_range(&m, next, m.nr - next);
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	return lshm_map_anon(&m, 64 * MiB);
}

int lshm_run(void)
{
	if (remove_all())
		return 1;
	write_holes();
	return check_all() || lshm_wait_retired() || check_all();
}
