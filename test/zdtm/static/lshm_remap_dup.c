// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "mremap makes a second mapping of shared memory that is being restored";
const char *test_author = "criu-lazy-shmem";

static struct lshm m;
static uint64_t new_seed;

/* An old size of zero: the old mapping stays, the new one is of the same pages */
static int duplicate(struct lshm *dup)
{
	*dup = m;
	dup->map = mremap(m.map, 0, m.nr * PAGE_SIZE, MREMAP_MAYMOVE);
	if (dup->map == MAP_FAILED) {
		pr_perror("Can't duplicate the mapping");
		return 1;
	}
	return 0;
}

static int rewrite_and_look(const struct lshm *dup)
{
	unsigned long i;

	for (i = 0; i < m.nr; i += 9) {
		lshm_rewrite_page(dup, i, new_seed);
		if (lshm_check_rewritten(&m, i, new_seed))
			return 1;
	}
	return 0;
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	return lshm_map_anon(&m, 64 * MiB);
}

int lshm_run(void)
{
	struct lshm dup;

	if (lshm_check_some(&m, m.seed, 100) || duplicate(&dup))
		return 1;
	return lshm_check_shuffled(&dup, m.seed) || lshm_check(&m) || rewrite_and_look(&dup);
}
