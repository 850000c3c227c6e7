// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Locked shared memory is populated before it could be registered: not lazy";
const char *test_author = "criu-lazy-shmem";

/* What an unprivileged task may lock by default */
#define SIZE (4 * MiB)

static struct lshm m;

int lshm_setup(void)
{
	if (lshm_map_anon(&m, SIZE))
		return 1;
	if (mlock(m.map, SIZE)) {
		skip("cannot lock memory: %s", strerror(errno));
		return LSHM_SKIP;
	}
	return 0;
}

int lshm_run(void)
{
	if (lshm_check_shuffled(&m, m.seed))
		return 1;
	if (lshm_vmflag(m.map, "lo") != 1) {
		fail("the mapping is not locked any more");
		return 1;
	}
	return 0;
}
