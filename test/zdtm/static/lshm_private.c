// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Private mappings of a lazily restored memfd, with pages copied before the dump and after";
const char *test_author = "criu-lazy-shmem";

#define SIZE (32 * MiB)

/* Who has a copy of its own of page i from before the dump */
#define OWN_PARENT 3
#define OWN_CHILD  5
#define OWN_LATER  7 /* copied after the restore, by both */

static struct lshm shared, priv;
static uint64_t parent_seed, child_seed, later_seed;
static pid_t child, sharer;

static uint64_t seed_of(int in_child, unsigned long i)
{
	if (in_child && i % OWN_CHILD == 0)
		return child_seed;
	if (i % OWN_PARENT == 0)
		return parent_seed;
	return priv.seed;
}

static void copy_pages(unsigned int step, uint64_t seed)
{
	unsigned long i;

	for (i = 0; i < priv.nr; i += step)
		lshm_rewrite_page(&priv, i, seed);
}

static int check_private(int in_child, int later)
{
	unsigned long i;

	for (i = 0; i < priv.nr; i++) {
		uint64_t seed = seed_of(in_child, i);

		if (later && i % OWN_LATER == 0)
			seed = later_seed;
		if (lshm_check_rewritten(&priv, i, seed))
			return 1;
	}
	return 0;
}

static int use_private(int in_child)
{
	if (check_private(in_child, 0))
		return 1;
	copy_pages(OWN_LATER, later_seed);
	return check_private(in_child, 1);
}

/* The child inherits the copies of its parent and makes its own on top */
static int child_prepare(void *arg)
{
	copy_pages(OWN_CHILD, child_seed);
	return 0;
}

static int child_main(void *arg)
{
	return use_private(1);
}

/* Nothing that was stored through a private mapping may show up in the file */
static int sharer_main(void *arg)
{
	return lshm_check_shuffled(&shared, shared.seed) || lshm_wait_retired() || lshm_check(&shared);
}

static int map_all(int fd)
{
	if (lshm_map_fd(&shared, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, SIZE / PAGE_SIZE))
		return 1;
	return lshm_map_fd(&priv, fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, SIZE / PAGE_SIZE);
}

int lshm_setup(void)
{
	int fd, ret;

	priv.seed = shared.seed = lshm_new_seed();
	parent_seed = lshm_new_seed();
	child_seed = lshm_new_seed();
	later_seed = lshm_new_seed();

	fd = lshm_memfd("lshm_private", 0, SIZE);
	if (fd < 0)
		return 1;
	ret = map_all(fd);
	close(fd);
	if (ret)
		return 1;

	lshm_fill(&shared);
	sharer = lshm_fork_task(NULL, sharer_main, NULL);
	if (sharer < 0)
		return 1;
	munmap(shared.map, SIZE);

	copy_pages(OWN_PARENT, parent_seed);
	child = lshm_fork_task(child_prepare, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	int ret;

	ret = use_private(0);
	ret |= lshm_reap(child);
	ret |= lshm_reap(sharer);
	return ret;
}
