// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "The last task ends long before its shared memory has been restored";
const char *test_author = "criu-lazy-shmem";

static struct lshm m;

int lshm_setup(void)
{
	return lshm_map_anon(&m, 256 * MiB);
}

/* The daemon has to notice, and to end without an error: zdtm.py looks */
int lshm_run(void)
{
	return lshm_check_some(&m, lshm_new_seed(), 100) ?: LSHM_LEAVE;
}
