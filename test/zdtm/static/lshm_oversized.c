// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_views.h"

const char *test_doc = "Memfds that are much larger than the memory they use; mappings beyond their end";
const char *test_author = "criu-lazy-shmem";

/* Most of it is a hole; the data is far apart */
#define BIG_SIZE   (16UL << 30)
#define BIG_STEP   (512 * MiB)
#define BIG_DATA   MiB
#define SMALL_SIZE (8 * MiB)
#define SMALL_MAP  (2 * SMALL_SIZE)

static struct lshm big;	  /* its size is more than its memory */
static struct lshm small; /* its mapping is more than its size */

static struct lshm data_run(unsigned long off)
{
	return lshm_sub(&big, off / PAGE_SIZE, BIG_DATA / PAGE_SIZE);
}

static int make(struct lshm *m, size_t size, size_t map_size)
{
	int fd, ret;

	m->seed = lshm_new_seed();
	fd = lshm_memfd("lshm_oversized", 0, size);
	if (fd < 0)
		return 1;
	ret = lshm_map_fd(m, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, map_size / PAGE_SIZE);
	close(fd);
	return ret;
}

static int check_object(const struct lshm *m, long size, long allocated)
{
	struct stat st;

	return lshm_stat(m->map, m->nr * PAGE_SIZE, &st) || lshm_check_long("the size", st.st_size, size) ||
	       lshm_check_long("the allocated memory", st.st_blocks * LSHM_SECTOR, allocated);
}

/* From the end, so that most of it is not there yet */
static int check_big(void)
{
	unsigned long off;

	for (off = BIG_SIZE; off; off -= BIG_STEP) {
		struct lshm run = data_run(off - BIG_STEP);

		if (lshm_check_shuffled(&run, big.seed))
			return 1;
	}
	return 0;
}

static int check_big_memory(void)
{
	return check_object(&big, BIG_SIZE, BIG_SIZE / BIG_STEP * BIG_DATA);
}

int lshm_setup(void)
{
	struct lshm inside;
	unsigned long off;

	if (make(&big, BIG_SIZE, BIG_SIZE) || make(&small, SMALL_SIZE, SMALL_MAP))
		return 1;
	for (off = 0; off < BIG_SIZE; off += BIG_STEP) {
		struct lshm run = data_run(off);

		lshm_fill(&run);
	}
	if (check_big_memory()) {
		skip("transparent huge pages leave no holes");
		return LSHM_SKIP;
	}
	inside = lshm_sub(&small, 0, SMALL_SIZE / PAGE_SIZE);
	lshm_fill(&inside);
	return 0;
}

int lshm_run(void)
{
	struct lshm inside = lshm_sub(&small, 0, SMALL_SIZE / PAGE_SIZE);
	struct lshm beyond = lshm_sub(&small, inside.nr, inside.nr);
	int pipes[2];

	if (pipe(pipes) || check_big() || lshm_check_shuffled(&inside, small.seed))
		return 1;
	/* There is nothing behind the end, and the kernel can say so without SIGBUS */
	if (write(pipes[1], beyond.map, 1) != -1 || errno != EFAULT) {
		fail("there is memory behind the end");
		return 1;
	}
	return lshm_wait_retired() || check_big_memory() || check_object(&small, SMALL_SIZE, SMALL_SIZE) ||
	       check_big() || lshm_check(&inside) || check_big_memory();
}
