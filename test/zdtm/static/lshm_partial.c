// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Only parts of a lazily restored memfd are mapped, in several mappings";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (64 * MiB / PAGE_SIZE)

/* A part in the middle, cut by mprotect(), and a part at the end */
static struct lshm middle, end;

static int fill_all(int fd)
{
	struct lshm all = { .seed = middle.seed };

	if (lshm_map_fd(&all, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES))
		return 1;
	lshm_fill(&all);
	munmap(all.map, all.nr * PAGE_SIZE);
	return 0;
}

static int split(const struct lshm *m)
{
	unsigned long third = m->nr / 3;

	if (mprotect(m->map + third * PAGE_SIZE, third * PAGE_SIZE, PROT_READ)) {
		pr_perror("Can't split the mapping");
		return 1;
	}
	return 0;
}

static int map_parts(int fd)
{
	return fill_all(fd) ||
	       lshm_map_fd(&middle, fd, PROT_READ | PROT_WRITE, MAP_SHARED, NR_PAGES / 4 + 1, NR_PAGES / 3) ||
	       lshm_map_fd(&end, fd, PROT_READ, MAP_PRIVATE, NR_PAGES - 100, 100) || split(&middle);
}

int lshm_setup(void)
{
	int fd, ret;

	fd = lshm_memfd("lshm_partial", 0, NR_PAGES * PAGE_SIZE);
	if (fd < 0)
		return 1;
	middle.seed = end.seed = lshm_new_seed();
	ret = map_parts(fd);
	close(fd);
	return ret;
}

int lshm_run(void)
{
	return lshm_check_some(&middle, lshm_new_seed(), 300) || lshm_check(&end) || lshm_check(&middle);
}
