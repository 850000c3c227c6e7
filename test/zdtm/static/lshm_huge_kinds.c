// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_huge.h"

const char *test_doc = "Shared memory of huge pages: with holes, private, by part, sealed, with a descriptor";
const char *test_author = "criu-lazy-shmem";

#define NR 4

static struct lshm anon;   /* MAP_ANONYMOUS; the last huge page is never touched */
static struct lshm memfd;  /* a memfd; its first and third page are never touched */
static struct lshm partly; /* the middle of a memfd */
static struct lshm kept;   /* a memfd with a descriptor, which is a door */
static int kept_fd;

static int map_part(void)
{
	struct lshm all;
	int fd, ret;

	fd = lshm_huge_memfd(3);
	if (fd < 0)
		return 1;
	all.seed = partly.seed = lshm_new_seed();
	ret = lshm_map_fd(&all, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 3 * HUGE_PAGES) ||
	      lshm_map_fd(&partly, fd, PROT_READ | PROT_WRITE, MAP_SHARED, HUGE_PAGES, HUGE_PAGES);
	close(fd);
	if (ret)
		return 1;
	lshm_fill(&all);
	munmap(all.map, 3 * HUGE);
	return 0;
}

static int map_kept(void)
{
	kept_fd = lshm_huge_memfd(2);
	kept.seed = lshm_new_seed();
	if (kept_fd < 0 || lshm_map_fd(&kept, kept_fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 2 * HUGE_PAGES))
		return 1;
	lshm_fill(&kept);
	return 0;
}

static int check_data(void)
{
	return lshm_check_huge(&memfd, 3) || lshm_check_huge(&memfd, 1) || lshm_touch_huge(&anon, NR - 1) ||
	       lshm_check_huge(&anon, 2) || lshm_check_huge(&anon, 1) || lshm_check_huge(&anon, 0) ||
	       lshm_check_shuffled(&partly, partly.seed);
}

int lshm_setup(void)
{
	if (lshm_huge_missing(NR + NR + 3 + 2 + NR)) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	if (lshm_map_huge_anon(&anon, NR) || lshm_map_huge_memfd(&memfd, NR) || map_part() || map_kept())
		return 1;
	lshm_fill_huge(&anon, 0);
	lshm_fill_huge(&anon, 1);
	lshm_fill_huge(&anon, 2);
	lshm_fill_huge(&memfd, 1);
	lshm_fill_huge(&memfd, 3);
	return 0;
}

int lshm_run(void)
{
	if (lshm_check_pread_shuffled(kept_fd, &kept) || lshm_check_fstat(kept_fd, 2 * HUGE, 2 * HUGE) ||
	    lshm_check_new_map(kept_fd, &kept, MAP_SHARED) || lshm_check_shuffled(&kept, kept.seed))
		return 1;
	if (check_data())
		return 1;
	if (lshm_check_huge_zero(&anon, 3) || lshm_check_huge_zero(&memfd, 0))
		return 1;
	lshm_fill_huge(&memfd, 2);
	return lshm_check_huge(&memfd, 2) || lshm_wait_retired() || check_data() || lshm_check_huge(&memfd, 2) ||
	       lshm_check_huge_zero(&memfd, 0) || lshm_check_huge_zero(&anon, 3);
}
