// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "munmap, MADV_DONTNEED and mremap on shared memory that is being restored";
const char *test_author = "criu-lazy-shmem";

static struct lshm all;
/* Parts of it, in this order */
static struct lshm keep, gone, dropped, moved;

static int drop(const struct lshm *m)
{
	if (madvise(m->map, m->nr * PAGE_SIZE, MADV_DONTNEED)) {
		pr_perror("Can't drop the pages");
		return 1;
	}
	return 0;
}

/* Only mappings are dropped, of touched pages and of others; contents stay */
static int check_dontneed(void)
{
	return lshm_check_range(&dropped, 0, dropped.nr / 4) || drop(&dropped) ||
	       lshm_check_some(&dropped, dropped.seed, 100) || drop(&dropped) || lshm_check(&dropped);
}

static int check_move(void)
{
	size_t len = moved.nr * PAGE_SIZE;
	void *to;

	if (lshm_check_range(&moved, 0, moved.nr / 4))
		return 1;
	to = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (to == MAP_FAILED || mremap(moved.map, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to) {
		pr_perror("Can't move the mapping");
		return 1;
	}
	moved.map = to;
	return lshm_check(&moved);
}

static int check_unmap(void)
{
	if (lshm_check_range(&gone, 0, gone.nr / 4))
		return 1;
	if (munmap(gone.map, gone.nr * PAGE_SIZE)) {
		pr_perror("Can't unmap");
		return 1;
	}
	return lshm_check(&keep);
}

int lshm_setup(void)
{
	unsigned long quarter;

	if (lshm_map_anon(&all, 64 * MiB))
		return 1;
	quarter = all.nr / 4;
	keep = lshm_sub(&all, 0, quarter);
	gone = lshm_sub(&all, quarter, quarter);
	dropped = lshm_sub(&all, 2 * quarter, quarter);
	moved = lshm_sub(&all, 3 * quarter, quarter);
	return 0;
}

int lshm_run(void)
{
	if (check_move() || check_dontneed() || check_unmap())
		return 1;
	return lshm_wait_retired() || drop(&keep) || lshm_check(&keep) || lshm_check(&dropped) || lshm_check(&moved);
}
