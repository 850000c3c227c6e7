// SPDX-License-Identifier: GPL-2.0-only
#include <sys/wait.h>

#include "lshm_huge.h"

const char *test_doc = "Several tasks share objects of huge pages, and fork before these are complete";
const char *test_author = "criu-lazy-shmem";

#define NR	 6
#define NR_TASKS 3

static struct lshm anon, memfd;
static pid_t tasks[NR_TASKS];
static uint64_t new_seed;

static int grandchild(void)
{
	return lshm_touch_huge(&memfd, NR) || lshm_check_huge(&memfd, NR - 1) || lshm_check_huge(&anon, NR - 1) ||
	       lshm_check_huge(&anon, 0);
}

static int check_in_new_child(void)
{
	int status;
	pid_t pid;

	pid = fork();
	if (pid < 0) {
		pr_perror("Can't fork");
		return 1;
	}
	if (!pid)
		_exit(grandchild());
	if (waitpid(pid, &status, 0) != pid || status) {
		fail("the child made in the window ended with %#x", status);
		return 1;
	}
	return 0;
}

/* Each begins at another huge page; the index is in the argument */
static int task_main(void *arg)
{
	unsigned long i, first = (unsigned long)arg;

	if (lshm_check_huge(&anon, first) || check_in_new_child())
		return 1;
	for (i = 0; i < NR; i++)
		if (lshm_check_huge(&memfd, (first + i) % NR) || lshm_check_huge(&anon, (first + i) % NR))
			return 1;
	return 0;
}

int lshm_setup(void)
{
	unsigned long i;

	if (lshm_huge_missing(3 * NR)) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	if (lshm_map_huge_anon(&anon, NR) || lshm_map_huge_memfd(&memfd, NR))
		return 1;
	lshm_fill(&anon);
	lshm_fill(&memfd);
	new_seed = lshm_new_seed();
	for (i = 0; i < NR_TASKS; i++) {
		tasks[i] = lshm_fork_task(NULL, task_main, (void *)(i + 1));
		if (tasks[i] < 0)
			return 1;
	}
	return 0;
}

int lshm_run(void)
{
	unsigned long i;

	if (check_in_new_child() || task_main((void *)(NR - 1UL)))
		return 1;
	for (i = 0; i < NR_TASKS; i++)
		if (lshm_reap(tasks[i]))
			return 1;
	lshm_rewrite_page(&anon, 5, new_seed);
	return lshm_check_rewritten(&anon, 5, new_seed);
}
