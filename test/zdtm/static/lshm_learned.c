// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "A mapping of one task is not what another one has behind the address where they agree";
const char *test_author = "criu-lazy-shmem";

#define SIZE (32 * MiB)
#define HALF (SIZE / 2)

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

/*
 * Away and back, so that nothing is known of it any more; and another object
 * comes to where the second half was. The first half is where it is in the parent.
 */
static int child_main(void *arg)
{
	struct lshm first = lshm_sub(&m, 0, m.nr / 2), second = lshm_sub(&other, 0, other.nr);

	if (move(m.map, SIZE, away) || move(away, SIZE, m.map) || move(other.map, HALF, m.map + HALF))
		return 1;
	second.map = m.map + HALF;
	return lshm_check_page(&first, first.nr - 1) || lshm_check_page(&second, second.nr - 1) || lshm_check(&first) ||
	       lshm_check(&second);
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
	return lshm_reap(child) || lshm_check(&m) || lshm_check(&other);
}
