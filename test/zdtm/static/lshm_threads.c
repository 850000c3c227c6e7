// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Eight threads read lazily restored shared memory, each in an order of its own";
const char *test_author = "criu-lazy-shmem";

#define NR_THREADS 8

static struct lshm m;

static int thread_fn(unsigned int idx)
{
	return lshm_check_shuffled(&m, m.seed + idx);
}

int lshm_setup(void)
{
	return lshm_map_anon(&m, 64 * MiB) || lshm_threads(NR_THREADS, thread_fn);
}

int lshm_run(void)
{
	return lshm_join() || lshm_check(&m);
}
