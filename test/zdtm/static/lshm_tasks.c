// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Four tasks use one lazily restored object at the same time";
const char *test_author = "criu-lazy-shmem";

#define NR_TASKS 4

static struct lshm m;
static pid_t pid[NR_TASKS];

static uint64_t *word_of(unsigned long i, unsigned int word)
{
	return (uint64_t *)(m.map + i * PAGE_SIZE) + word;
}

/* Every task has a word of its own in each page, and increments it once */
static int check_and_increment(unsigned int task)
{
	uint64_t rnd = m.seed + task, a = lshm_rand(&rnd) | 1;
	unsigned long i, n;

	for (n = 0; n < m.nr; n++) {
		volatile uint64_t *p;
		uint64_t want;

		i = (a * n + task) & (m.nr - 1);
		p = word_of(i, task);
		want = lshm_word(m.seed, i, task);
		if (*p != want) {
			fail("task %u: page %lu is %#lx, not %#lx", task, i, *p, want);
			return 1;
		}
		*p = want + 1;
		if (lshm_check_bytes(m.map + i * PAGE_SIZE, m.seed, i, NR_TASKS * sizeof(*p), PAGE_SIZE))
			return 1;
	}
	return 0;
}

static int task_main(void *arg)
{
	return check_and_increment((unsigned long)arg);
}

static int check_sums(void)
{
	unsigned long i;
	unsigned int t;

	for (i = 0; i < m.nr; i++) {
		for (t = 0; t < NR_TASKS; t++) {
			if (*word_of(i, t) == lshm_word(m.seed, i, t) + 1)
				continue;
			fail("page %lu: the increment of task %u is lost: %#lx", i, t, *word_of(i, t));
			return 1;
		}
		if (lshm_check_bytes(m.map + i * PAGE_SIZE, m.seed, i, NR_TASKS * sizeof(uint64_t), PAGE_SIZE))
			return 1;
	}
	return 0;
}

int lshm_setup(void)
{
	unsigned long t;

	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	for (t = 1; t < NR_TASKS; t++) {
		pid[t] = lshm_fork_task(NULL, task_main, (void *)t);
		if (pid[t] < 0)
			return 1;
	}
	return 0;
}

int lshm_run(void)
{
	unsigned int t;
	int ret;

	ret = check_and_increment(0);
	for (t = 1; t < NR_TASKS; t++)
		ret |= lshm_reap(pid[t]);
	if (ret || check_sums())
		return 1;

	return lshm_wait_retired() || check_sums();
}
