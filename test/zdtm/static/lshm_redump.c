// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Shared memory is dumped again after it has been restored lazily";
const char *test_author = "criu-lazy-shmem";

#define STEP 7

static struct lshm m;
static uint64_t new_seed;

static int check_all(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++)
		if (lshm_check_rewritten(&m, i, i % STEP ? m.seed : new_seed))
			return 1;
	return 0;
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	return lshm_map_anon(&m, 64 * MiB);
}

/*
 * Most pages are left alone: nothing but the background has put them into the
 * page cache when they are dumped for the second time.
 */
int lshm_run(void)
{
	unsigned long i;

	if (lshm_check_some(&m, new_seed, 50))
		return 1;
	for (i = 0; i < m.nr; i += STEP)
		lshm_rewrite_page(&m, i, new_seed);

	lshm_wait_restored();
	return check_all();
}
