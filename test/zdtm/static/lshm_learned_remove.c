// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "MADV_REMOVE behind the address where a task's mappings agree with another one's";
const char *test_author = "criu-lazy-shmem";

#define SIZE (128 * MiB)
#define HALF (SIZE / 2)

/* The second half of the first object's place is the other's in the child */
static struct lshm m, other;
static uint8_t *away;
static pid_t child;

static int move(uint8_t *from, size_t len, uint8_t *to)
{
	if (mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to)
		return 0;
	pr_perror("Can't move");
	return 1;
}

/* Removes the last quarter of the other object, which it has not looked at */
static int child_main(void *arg)
{
	struct lshm first = lshm_sub(&m, 0, m.nr / 2);

	if (move(m.map, SIZE, away) || move(away, SIZE, m.map) || move(other.map, HALF, m.map + HALF))
		return 1;
	if (lshm_check_page(&first, first.nr - 1))
		return 1;
	if (madvise(m.map + HALF + HALF / 4 * 3, HALF / 4, MADV_REMOVE)) {
		pr_perror("Can't remove");
		return 1;
	}
	return lshm_wait_retired() || lshm_check_zero(m.map + HALF + HALF / 4 * 3, HALF / 4 / PAGE_SIZE);
}

int lshm_setup(void)
{
	away = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (away == MAP_FAILED || lshm_map_anon(&m, SIZE) || lshm_map_anon(&other, HALF)) {
		pr_perror("Can't map");
		return 1;
	}
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	unsigned long quarter = other.nr / 4;
	int ret = lshm_check(&m);

	return lshm_reap(child) || ret || lshm_check(&m) || lshm_check_range(&other, 0, 3 * quarter) ||
	       lshm_check_zero(other.map + 3 * quarter * PAGE_SIZE, quarter);
}
