// SPDX-License-Identifier: GPL-2.0-only
#include <signal.h>
#include <sys/wait.h>

#include "lshm_common.h"

const char *test_doc = "Tasks exit or are killed while their threads wait for shared memory";
const char *test_author = "criu-lazy-shmem";

#define NR_TASKS   6
#define NR_THREADS 4

static struct lshm m;
static pid_t pid[NR_TASKS];

static int reader(unsigned int idx)
{
	return lshm_check_shuffled(&m, m.seed + getpid() * NR_THREADS + idx);
}

static int start_readers(void *arg)
{
	return lshm_threads(NR_THREADS, reader);
}

/* Every other child leaves by itself, with its threads in the middle of it */
static int child_main(void *arg)
{
	long task = (long)arg;
	int ret;

	ret = lshm_check_some(&m, m.seed + task, 1 + task);
	if (task % 2 == 0) {
		lshm_wait_detached(getpid());
		return ret;
	}
	return ret || lshm_join();
}

/* A child may have finished before the signal, but never in failure */
static int kill_and_reap(pid_t child)
{
	int status;

	lshm_wait_detached(child);
	kill(child, SIGKILL);
	if (TEMP_FAILURE_RETRY(waitpid(child, &status, 0)) != child) {
		pr_perror("Can't wait for %d", child);
		return 1;
	}
	if (status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) {
		fail("task %d ended with status %#x", child, status);
		return 1;
	}
	return 0;
}

int lshm_setup(void)
{
	long t;

	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	for (t = 0; t < NR_TASKS; t++) {
		pid[t] = lshm_fork_task(start_readers, child_main, (void *)t);
		if (pid[t] < 0)
			return 1;
	}
	return 0;
}

int lshm_run(void)
{
	int t, ret = 0;

	for (t = 1; t < NR_TASKS; t += 2)
		ret |= kill_and_reap(pid[t]);
	for (t = 0; t < NR_TASKS; t += 2)
		ret |= lshm_reap(pid[t]);

	return ret || lshm_check(&m);
}
