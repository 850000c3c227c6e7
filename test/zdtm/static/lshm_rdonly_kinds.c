// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_views.h"

const char *test_doc = "Memfds mapped through read-only descriptors: beside a writable mapping, private, in another task";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (16 * MiB / PAGE_SIZE)
#define SIZE	 (NR_PAGES * PAGE_SIZE)

static struct lshm both_rw, both_ro; /* one object with a mapping of either kind: not lazy */
static struct lshm distant;	     /* writable here, read-only in the child: not lazy */
static struct lshm own;		     /* a private mapping may be written to: lazy */
static pid_t child;

static int map_rdonly(struct lshm *m, const struct lshm *rw, int prot, int flags)
{
	int fd, ret;

	*m = *rw;
	fd = lshm_open_mapped(rw->map, SIZE, O_RDONLY);
	if (fd < 0)
		return 1;
	ret = lshm_map_fd(m, fd, prot, flags, 0, NR_PAGES);
	close(fd);
	return ret;
}

/* The mapping is read-only for good; what is stored to the object shows */
static int check_rdonly(const struct lshm *ro)
{
	if (lshm_check_shuffled(ro, ro->seed))
		return 1;
	if (mprotect(ro->map, SIZE, PROT_READ | PROT_WRITE) != -1 || errno != EACCES) {
		fail("the mapping has become writable");
		return 1;
	}
	return 0;
}

static int child_prepare(void *arg)
{
	struct lshm rw = distant;

	munmap(both_rw.map, SIZE);
	if (map_rdonly(&distant, &rw, PROT_READ, MAP_SHARED))
		return 1;
	munmap(rw.map, SIZE);
	return 0;
}

static int child_main(void *arg)
{
	return check_rdonly(&distant) || check_rdonly(&both_ro) || lshm_check_shuffled(&own, own.seed);
}

int lshm_setup(void)
{
	struct lshm all;

	if (lshm_map_memfd(&both_rw, "both", SIZE) || map_rdonly(&both_ro, &both_rw, PROT_READ, MAP_SHARED) ||
	    lshm_map_memfd(&distant, "distant", SIZE) || lshm_map_memfd(&all, "own", SIZE) ||
	    map_rdonly(&own, &all, PROT_READ | PROT_WRITE, MAP_PRIVATE))
		return 1;
	munmap(all.map, SIZE);
	child = lshm_fork_task(child_prepare, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	uint64_t seed = lshm_new_seed();

	if (lshm_check_shuffled(&own, own.seed) || check_rdonly(&both_ro) || lshm_check_shuffled(&both_rw, both_rw.seed) ||
	    lshm_check_shuffled(&distant, distant.seed) || lshm_reap(child))
		return 1;
	lshm_rewrite_page(&own, 1, seed);
	lshm_rewrite_page(&both_rw, 1, seed);
	return lshm_check_rewritten(&own, 1, seed) || lshm_check_rewritten(&both_ro, 1, seed) || lshm_wait_retired() ||
	       lshm_check_rewritten(&own, 1, seed);
}
