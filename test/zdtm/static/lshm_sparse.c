// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Holes of lazily restored shared memory read as zeros, and stay holes until then";
const char *test_author = "criu-lazy-shmem";

#define CHUNK  (64UL * 1024)
#define STEP   7  /* every 7th chunk has data */
#define EARLY  10 /* every 10th hole is read before the data */
#define SECTOR 512

static struct lshm m;
static unsigned long chunk_pages, nr_chunks, nr_holes_read;

static int has_data(unsigned long c)
{
	return c % STEP == 0;
}

static struct lshm chunk(unsigned long c)
{
	return lshm_sub(&m, c * chunk_pages, chunk_pages);
}

static int check_data(void)
{
	unsigned long c;

	for (c = 0; c < nr_chunks; c += STEP) {
		struct lshm sub = chunk(c);

		if (lshm_check(&sub))
			return 1;
	}
	return 0;
}

static int check_hole(unsigned long c)
{
	struct lshm sub = chunk(c);

	nr_holes_read++;
	return lshm_check_zero(sub.map, sub.nr);
}

static int check_holes(unsigned long step)
{
	unsigned long c;

	for (c = 0; c < nr_chunks; c += step)
		if (!has_data(c) && check_hole(c))
			return 1;
	return 0;
}

/* Bytes that are allocated beyond the data and the holes that were read */
static long extra_bytes(void)
{
	unsigned long data = (nr_chunks + STEP - 1) / STEP;
	struct stat st;

	if (lshm_stat(m.map, m.nr * PAGE_SIZE, &st))
		return -1;
	return (long)st.st_blocks * SECTOR - (data + nr_holes_read) * CHUNK;
}

static int check_blocks(void)
{
	long extra = extra_bytes();

	if (extra)
		fail("%ld bytes too many are allocated", extra);
	return extra != 0;
}

int lshm_setup(void)
{
	unsigned long c;

	chunk_pages = CHUNK / PAGE_SIZE;
	m.seed = lshm_new_seed();
	m.nr = 112 * MiB / PAGE_SIZE;
	nr_chunks = m.nr / chunk_pages;
	m.map = mmap(NULL, m.nr * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m.map == MAP_FAILED) {
		pr_perror("Can't map the object");
		return 1;
	}
	for (c = 0; c < nr_chunks; c += STEP) {
		struct lshm sub = chunk(c);

		lshm_fill(&sub);
	}
	if (extra_bytes()) {
		skip("transparent huge pages leave no holes");
		return LSHM_SKIP;
	}
	return 0;
}

int lshm_run(void)
{
	if (check_holes(EARLY) || check_data() || lshm_wait_retired() || check_blocks())
		return 1;
	nr_holes_read = 0;
	return check_holes(1) || check_data() || check_blocks();
}
