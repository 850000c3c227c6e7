// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Shared memory is restored lazily from images with parents (made by the hook)";
const char *test_author = "criu-lazy-shmem";

static struct lshm m;

int lshm_setup(void)
{
	return lshm_map_anon(&m, 64 * MiB);
}

int lshm_run(void)
{
	return lshm_check_shuffled(&m, lshm_new_seed()) || lshm_wait_retired() || lshm_check(&m);
}
