// SPDX-License-Identifier: GPL-2.0-only
#include <sys/ipc.h>
#include <sys/shm.h>

#include "lshm_huge.h"

const char *test_doc = "A SysV segment of huge pages is complete at once, like others";
const char *test_author = "criu-lazy-shmem";

#define NR 9

#ifndef SHM_HUGE_2MB
#define SHM_HUGE_2MB (21 << 26)
#endif

static struct lshm m;
static int id;
static pid_t child;

static int attach(struct lshm *view, int flags)
{
	*view = m;
	view->nr = NR * HUGE_PAGES;
	view->map = shmat(id, NULL, flags);
	if (view->map == (void *)-1) {
		pr_perror("Can't attach the segment");
		return 1;
	}
	return 0;
}

static int child_main(void *arg)
{
	return lshm_check_huge(&m, NR - 2) || lshm_check(&m);
}

int lshm_setup(void)
{
	if (lshm_huge_missing(2 * NR)) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	m.seed = lshm_new_seed();
	id = shmget(IPC_PRIVATE, NR * HUGE, IPC_CREAT | SHM_HUGETLB | SHM_HUGE_2MB | 0600);
	if (id < 0) {
		pr_perror("Can't create a segment");
		return 1;
	}
	if (attach(&m, 0))
		return 1;
	lshm_fill(&m);
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	struct lshm again;

	if (attach(&again, SHM_RDONLY) || lshm_check_huge(&again, NR - 1) || lshm_check_huge(&again, 0) ||
	    lshm_check_huge(&again, 1) || lshm_check(&m) || lshm_reap(child))
		return 1;
	lshm_rewrite_page(&m, 1, m.seed + 1);
	if (lshm_check_rewritten(&again, 1, m.seed + 1))
		return 1;
	shmctl(id, IPC_RMID, NULL);
	return 0;
}
