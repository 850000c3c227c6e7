// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_views.h"

const char *test_doc = "Memfds with all sorts of descriptors show their contents at once, whatever one looks through";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (8 * MiB / PAGE_SIZE)
#define SIZE	 (NR_PAGES * PAGE_SIZE)
#define POS_PAGE 3   /* where a descriptor stands at the dump */
#define CHUNK	 16  /* pages of a run of data in the sparse object */
#define STEP	 64  /* such a run begins every so many pages */
#define NEW_PAGE 100 /* is written through a descriptor after the restore */

static struct lshm mapped;   /* a task has a mapping and a descriptor */
static struct lshm unmapped; /* only a descriptor, in one task */
static struct lshm distant;  /* one task has a mapping, another a read-only descriptor */
static struct lshm shared;   /* two tasks share a descriptor, each maps it */
static struct lshm sparse;   /* a descriptor that shows where data is */
static int mapped_fd, unmapped_fd, distant_fd, shared_fd, sparse_fd;
static uint64_t new_seed;
static pid_t child;

static int make(struct lshm *m, int *fd)
{
	m->seed = lshm_new_seed();
	*fd = lshm_memfd("lshm_fd_kinds", 0, SIZE);
	return *fd < 0 || lshm_map_fd(m, *fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES);
}

static int make_filled(struct lshm *m, int *fd)
{
	if (make(m, fd))
		return 1;
	lshm_fill(m);
	return 0;
}

static int make_sparse(void)
{
	unsigned long i;

	if (make(&sparse, &sparse_fd))
		return 1;
	for (i = 0; i < NR_PAGES; i += STEP) {
		struct lshm run = lshm_sub(&sparse, i, CHUNK);

		lshm_fill(&run);
	}
	return lshm_check_fstat(sparse_fd, SIZE, SIZE / STEP * CHUNK);
}

static int reopen(int fd, int flags)
{
	char path[64];
	int ret;

	ssprintf(path, "/proc/self/fd/%d", fd);
	ret = open(path, flags);
	if (ret < 0)
		pr_perror("Can't open %s", path);
	return ret;
}

static int child_prepare(void *arg)
{
	int ro = reopen(distant_fd, O_RDONLY);

	if (ro < 0)
		return 1;
	close(distant_fd);
	distant_fd = ro;
	munmap(distant.map, SIZE);
	munmap(mapped.map, SIZE);
	close(mapped_fd);
	close(unmapped_fd);
	return 0;
}

static int child_main(void *arg)
{
	if (lshm_check_fstat(distant_fd, SIZE, SIZE) || lshm_check_new_map(distant_fd, &distant, MAP_SHARED) ||
	    lshm_check_pread_shuffled(distant_fd, &distant) || lshm_check_read(distant_fd, &distant, 0) ||
	    lshm_check_long("the access mode", fcntl(distant_fd, F_GETFL) & O_ACCMODE, O_RDONLY))
		return 1;
	return lshm_check_pread_shuffled(shared_fd, &shared) || lshm_check_shuffled(&shared, shared.seed);
}

/* All data is where it was, and no more of it */
static int check_extents(void)
{
	unsigned long i;

	for (i = 0; i < NR_PAGES; i += STEP) {
		struct lshm run = lshm_sub(&sparse, i, CHUNK);
		off_t start = i * PAGE_SIZE, end = start + CHUNK * PAGE_SIZE;

		if (lshm_check_long("the data", lseek(sparse_fd, i ? start - PAGE_SIZE : 0, SEEK_DATA), start) ||
		    lshm_check_long("the hole", lseek(sparse_fd, start, SEEK_HOLE), end) ||
		    lshm_check_pread(sparse_fd, &run, 0) || lshm_check(&run))
			return 1;
	}
	return lshm_check_fstat(sparse_fd, SIZE, SIZE / STEP * CHUNK);
}

static int check_mapped(void)
{
	return lshm_check_fstat(mapped_fd, SIZE, SIZE) ||
	       lshm_check_long("the position", lseek(mapped_fd, 0, SEEK_CUR), POS_PAGE * PAGE_SIZE) ||
	       lshm_check_read(mapped_fd, &mapped, POS_PAGE) || lshm_check_pread_shuffled(mapped_fd, &mapped) ||
	       lshm_check(&mapped);
}

static int check_unmapped(void)
{
	return lshm_check_fstat(unmapped_fd, SIZE, SIZE) || lshm_check_new_map(unmapped_fd, &unmapped, MAP_PRIVATE) ||
	       lshm_check_pread_shuffled(unmapped_fd, &unmapped) || lshm_check_new_map(unmapped_fd, &unmapped, MAP_SHARED);
}

/* What is written through the descriptor stays, and is what the mapping shows */
static int write_through_fd(void)
{
	uint64_t page[PAGE_SIZE / sizeof(uint64_t)];

	lshm_fill_page(page, new_seed, NEW_PAGE);
	if (pwrite(shared_fd, page, PAGE_SIZE, NEW_PAGE * PAGE_SIZE) != PAGE_SIZE) {
		fail("can't write to the descriptor");
		return 1;
	}
	return lshm_check_rewritten(&shared, NEW_PAGE, new_seed);
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	if (make_filled(&mapped, &mapped_fd) || make_filled(&unmapped, &unmapped_fd) ||
	    make_filled(&distant, &distant_fd) || make_filled(&shared, &shared_fd) || make_sparse())
		return 1;
	if (lseek(mapped_fd, POS_PAGE * PAGE_SIZE, SEEK_SET) < 0)
		return 1;
	munmap(unmapped.map, SIZE);
	child = lshm_fork_task(child_prepare, child_main, NULL);
	close(distant_fd);
	return child < 0;
}

int lshm_run(void)
{
	if (check_extents() || check_unmapped() || check_mapped() || lshm_check_shuffled(&distant, distant.seed))
		return 1;
	if (lshm_check_pread_shuffled(shared_fd, &shared) || lshm_check(&shared) || lshm_reap(child))
		return 1;
	return write_through_fd() || lshm_wait_retired() || lshm_check_rewritten(&shared, NEW_PAGE, new_seed);
}
