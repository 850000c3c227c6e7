// SPDX-License-Identifier: GPL-2.0-only
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Children that share the memory of their parent, and exec, while it is being restored";
const char *test_author = "criu-lazy-shmem";

#define STACK	    (256 * 1024UL)
#define STACK_PAGES (STACK / PAGE_SIZE)
#define ROUNDS	    6
#define NR_THREADS  3

static struct lshm m;
static pid_t child;

/* Children run on stacks that have not been restored: the last pages, some for each task and round */
static uint8_t *stack_top(int task, int round)
{
	return m.map + (m.nr - (task * ROUNDS + round) * STACK_PAGES) * PAGE_SIZE;
}

static unsigned long stacks_begin(void)
{
	return m.nr - 2 * ROUNDS * STACK_PAGES;
}

struct work {
	int task, round;
	volatile int ret;
};

static uint64_t work_seed(const struct work *w)
{
	return m.seed + w->task * ROUNDS + w->round;
}

/* Pages that only this child writes, and nobody reads before */
static unsigned long own_page(int task, int round)
{
	return 4096 + (task * ROUNDS + round) * 200;
}

static int is_own_page(unsigned long i)
{
	return i >= 4096 && i < 4096 + 2 * ROUNDS * 200 && (i - 4096) % 200 == 0;
}

static int check_some(uint64_t rnd, unsigned long nr)
{
	while (nr--) {
		unsigned long i = lshm_rand(&rnd) % stacks_begin();

		if (!is_own_page(i) && lshm_check_page(&m, i))
			return 1;
	}
	return 0;
}

static int look_and_write(void *arg)
{
	struct work *w = arg;

	w->ret = check_some(work_seed(w), 50);
	lshm_rewrite_page(&m, own_page(w->task, w->round), m.seed);
	*(uint64_t *)(m.map + own_page(w->task, w->round) * PAGE_SIZE) = w->round;
	syscall(SYS_exit_group, 0);
	return 0;
}

static int look_and_exec(void *arg)
{
	struct work *w = arg;

	w->ret = check_some(work_seed(w) + 1, 50);
	execl("/bin/true", "true", NULL);
	syscall(SYS_exit_group, 1);
	return 1;
}

/* Ends wherever it is killed */
static int look_forever(void *arg)
{
	struct work *w = arg;
	int i;

	for (i = 0; !w->ret; i++)
		w->ret = check_some(work_seed(w) + 2 + i, 50);
	syscall(SYS_exit_group, 1);
	return 1;
}

static pid_t start(int (*fn)(void *arg), int flags, struct work *w)
{
	pid_t pid = clone(fn, stack_top(w->task, w->round), CLONE_VM | SIGCHLD | flags, w);

	if (pid < 0)
		pr_perror("Can't clone");
	return pid;
}

/* While the parent is stopped, and while it is not */
static int share(int (*fn)(void *arg), int flags, struct work *w)
{
	pid_t pid = start(fn, flags, w);

	return pid < 0 || check_some(work_seed(w) + 3, 50) || lshm_reap(pid) || w->ret;
}

static int share_and_kill(struct work *w)
{
	pid_t pid = start(look_forever, 0, w);
	int status;

	if (pid < 0 || check_some(work_seed(w) + 4, 10))
		return 1;
	kill(pid, SIGKILL);
	if (TEMP_FAILURE_RETRY(waitpid(pid, &status, 0)) != pid || !WIFSIGNALED(status)) {
		fail("the child ended with %#x", status);
		return 1;
	}
	return w->ret;
}

static int vfork_and_exec(void)
{
	pid_t pid = vfork();

	if (!pid) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	if (pid < 0) {
		pr_perror("Can't vfork");
		return 1;
	}
	return lshm_reap(pid);
}

static int reader(unsigned int idx)
{
	return check_some(m.seed * idx, 10000);
}

/* A child with memory and threads of its own, which wait when it becomes another program */
static int exec_with_threads(struct work *w)
{
	pid_t pid = test_fork();

	if (pid < 0) {
		pr_perror("Can't fork");
		return 1;
	}
	if (!pid) {
		if (lshm_threads(NR_THREADS, reader))
			_exit(1);
		_exit(check_some(work_seed(w) + 5, 5) || look_and_exec(w));
	}
	return lshm_reap(pid);
}

static int run_rounds(int task)
{
	struct work w = { .task = task };

	for (w.round = 0; w.round < ROUNDS; w.round++) {
		if (share(look_and_write, w.round % 2 ? CLONE_VFORK : 0, &w) ||
		    share(look_and_exec, w.round % 2 ? 0 : CLONE_VFORK, &w) || share_and_kill(&w) || vfork_and_exec() ||
		    exec_with_threads(&w))
			return 1;
	}
	return 0;
}

static int check_own_page(int task, int round)
{
	unsigned long i = own_page(task, round);
	uint8_t *page = m.map + i * PAGE_SIZE;

	if (*(uint64_t *)page != (uint64_t)round) {
		fail("what the child wrote to page %lu is lost", i);
		return 1;
	}
	return lshm_check_bytes(page, m.seed, i, 8, PAGE_SIZE);
}

static int check_all(void)
{
	unsigned long i;

	for (i = 0; i < stacks_begin(); i++)
		if (!is_own_page(i) && lshm_check_page(&m, i))
			return 1;
	for (i = 0; i < 2 * ROUNDS; i++)
		if (check_own_page(i / ROUNDS, i % ROUNDS))
			return 1;
	return 0;
}

static int child_main(void *arg)
{
	return run_rounds(1);
}

int lshm_setup(void)
{
	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	return run_rounds(0) || lshm_reap(child) || check_all() || lshm_wait_retired() || check_all();
}
