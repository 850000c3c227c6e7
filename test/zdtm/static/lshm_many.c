// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Many lazily restored objects in one task";
const char *test_author = "criu-lazy-shmem";

#define NR_OBJECTS 64

static struct lshm m[NR_OBJECTS];

int lshm_setup(void)
{
	unsigned int o;

	for (o = 0; o < NR_OBJECTS; o++)
		if (o % 2 ? lshm_map_anon(&m[o], MiB) : lshm_map_memfd(&m[o], "lshm_many", MiB))
			return 1;
	return 0;
}

/* Page by page through all of them */
int lshm_run(void)
{
	unsigned long i;
	unsigned int o;

	for (i = 0; i < m[0].nr; i++)
		for (o = NR_OBJECTS; o-- > 0;)
			if (lshm_check_page(&m[o], i))
				return 1;
	return 0;
}
