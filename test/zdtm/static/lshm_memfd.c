// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "A lazily restored memfd, mapped, with no descriptor left";
const char *test_author = "criu-lazy-shmem";

static struct lshm m;

int lshm_setup(void)
{
	return lshm_map_memfd(&m, "lshm_memfd", 64 * MiB);
}

int lshm_run(void)
{
	return lshm_check_some(&m, lshm_new_seed(), 1000) || lshm_check(&m);
}
