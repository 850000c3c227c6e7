// SPDX-License-Identifier: GPL-2.0-only
#include <linux/memfd.h>
#include <linux/mman.h>
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Shared memory of huge pages, a memfd and an anonymous mapping";
const char *test_author = "criu-lazy-shmem";

#define SIZE (4 * MiB)

static struct lshm anon, memfd;

/* CRIU has to have as many once more while the dumped task is still there */
static int huge_pages_missing(void)
{
	void *p;

	p = mmap(NULL, 4 * SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1,
		 0);
	if (p == MAP_FAILED)
		return 1;
	munmap(p, 4 * SIZE);
	return 0;
}

static int map_memfd(void)
{
	int fd, ret;

	fd = lshm_memfd("lshm_hugetlb", MFD_HUGETLB | MFD_HUGE_2MB, SIZE);
	if (fd < 0)
		return 1;
	ret = lshm_map_fd(&memfd, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, SIZE / PAGE_SIZE);
	close(fd);
	return ret;
}

int lshm_setup(void)
{
	if (huge_pages_missing()) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	anon.seed = lshm_new_seed();
	memfd.seed = lshm_new_seed();
	if (map_memfd() || lshm_map_fd(&anon, -1, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, 0, SIZE / PAGE_SIZE))
		return 1;
	lshm_fill(&anon);
	lshm_fill(&memfd);
	return 0;
}

int lshm_run(void)
{
	return lshm_check_shuffled(&memfd, memfd.seed) || lshm_check_shuffled(&anon, anon.seed);
}
