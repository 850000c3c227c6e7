// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Fork twenty children at once while shared memory is being restored";
const char *test_author = "criu-lazy-shmem";

#define NR_CHILDREN 20
#define NR_PAGES    512

static struct lshm m;

int lshm_setup(void)
{
	return lshm_map_anon(&m, 64 * MiB);
}

int lshm_run(void)
{
	pid_t pid[NR_CHILDREN];
	int i, ret = 0;

	for (i = 0; i < NR_CHILDREN; i++) {
		pid[i] = test_fork();
		if (pid[i] < 0) {
			pr_perror("Can't fork child %d", i);
			return 1;
		}
		if (!pid[i])
			_exit(lshm_check_some(&m, m.seed + i, NR_PAGES));
	}
	for (i = 0; i < NR_CHILDREN; i++)
		ret |= lshm_reap(pid[i]);

	return ret || lshm_check(&m);
}
