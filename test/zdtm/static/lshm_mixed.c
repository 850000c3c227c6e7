// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Private anonymous and shared memory are restored lazily together";
const char *test_author = "criu-lazy-shmem";

#define SIZE (32 * MiB)

static struct lshm shared, priv;

int lshm_setup(void)
{
	priv.seed = lshm_new_seed();
	if (lshm_map_anon(&shared, SIZE) ||
	    lshm_map_fd(&priv, -1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0, SIZE / PAGE_SIZE))
		return 1;
	lshm_fill(&priv);
	return 0;
}

int lshm_run(void)
{
	uint64_t a = shared.seed | 1;
	unsigned long n, i;

	for (n = 0; n < shared.nr; n++) {
		i = (a * n) & (shared.nr - 1);
		if (lshm_check_page(&shared, i) || lshm_check_page(&priv, i))
			return 1;
	}
	return 0;
}
