// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Tasks call exec while their shared memory is being restored";
const char *test_author = "criu-lazy-shmem";

#define NR_ROUNDS 8

static struct lshm m;
static pid_t restored;

static int exec_true(void)
{
	execl("/bin/true", "true", NULL);
	pr_perror("Can't exec");
	return 1;
}

/* A restored task gives up its memory for another program */
static int task_main(void *arg)
{
	return lshm_check_some(&m, m.seed, 10) || exec_true();
}

static int fork_and_exec(unsigned int round)
{
	pid_t pid;

	pid = test_fork();
	if (pid < 0) {
		pr_perror("Can't fork");
		return 1;
	}
	if (!pid)
		_exit(lshm_check_some(&m, m.seed + round, round) || exec_true());
	return lshm_check_some(&m, m.seed - round, 100) || lshm_reap(pid);
}

int lshm_setup(void)
{
	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	restored = lshm_fork_task(NULL, task_main, NULL);
	return restored < 0;
}

int lshm_run(void)
{
	unsigned int round;

	for (round = 0; round < NR_ROUNDS; round++)
		if (fork_and_exec(round))
			return 1;
	return lshm_reap(restored) || lshm_check(&m);
}
