// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_views.h"

const char *test_doc = "Shared memory locked in all sorts of ways, by one task, by some, in part; and one locked too late";
const char *test_author = "criu-lazy-shmem";

/* All of it together is within what an unprivileged task may lock by default */
#define SIZE	  MiB
#define NR_PAGES  (SIZE / PAGE_SIZE)
#define LATE_SIZE (16 * MiB)

static struct lshm flag;    /* MAP_LOCKED */
static struct lshm memfd;   /* a memfd, mlock() */
static struct lshm part;    /* its second half only */
static struct lshm parents; /* locked by the parent only: a fork does not inherit locks */
static struct lshm childs;  /* locked by the child only */
static struct lshm own;	    /* a private mapping of a memfd */
static struct lshm free_;   /* not locked any more: this one is lazy */
static struct lshm late;    /* lazy, too: locked when it is not complete yet */
static pid_t child;

static int map_locked(struct lshm *m)
{
	m->seed = lshm_new_seed();
	if (lshm_map_fd(m, -1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_LOCKED, 0, NR_PAGES))
		return 1;
	lshm_fill(m);
	return 0;
}

static int map_private(struct lshm *m)
{
	struct lshm all;
	int fd, ret;

	if (lshm_map_memfd(&all, "lshm_lock_kinds", SIZE))
		return 1;
	*m = all;
	fd = lshm_open_mapped(all.map, SIZE, O_RDWR);
	if (fd < 0)
		return 1;
	ret = lshm_map_fd(m, fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, NR_PAGES);
	close(fd);
	munmap(all.map, SIZE);
	return ret;
}

static int check_lock(const char *what, const void *addr, int locked)
{
	int got = lshm_vmflag(addr, "lo");

	if (got == locked)
		return 0;
	fail("%s: %d locked mappings instead of %d", what, got, locked);
	return 1;
}

static int check_contents(void)
{
	return lshm_check_shuffled(&part, part.seed) || lshm_check(&flag) || lshm_check(&memfd) ||
	       lshm_check_shuffled(&parents, parents.seed) || lshm_check_shuffled(&childs, childs.seed) ||
	       lshm_check(&own) || lshm_check_shuffled(&free_, free_.seed);
}

static int check_locks(int is_child)
{
	return check_lock("MAP_LOCKED", flag.map, !is_child) || check_lock("a memfd", memfd.map, !is_child) ||
	       check_lock("the first half", part.map, 0) || check_lock("the second half", part.map + SIZE / 2, !is_child) ||
	       check_lock("the parent's", parents.map, !is_child) || check_lock("the child's", childs.map, is_child) ||
	       check_lock("a private mapping", own.map, !is_child) || check_lock("an unlocked one", free_.map, 0);
}

static int child_prepare(void *arg)
{
	if (mlock(childs.map, SIZE)) {
		pr_perror("The child can't lock");
		return 1;
	}
	return check_locks(1);
}

static int child_main(void *arg)
{
	return check_contents() || check_locks(1);
}

/* All of it is there when mlock() returns, and it is what was dumped */
static int lock_late(void)
{
	unsigned char present[LATE_SIZE / PAGE_SIZE];
	unsigned long i;

	if (mlock(late.map, LATE_SIZE)) {
		fail("mlock of lazily restored memory is refused");
		return 1;
	}
	if (mincore(late.map, LATE_SIZE, present)) {
		pr_perror("Can't tell what is in memory");
		return 1;
	}
	for (i = 0; i < late.nr; i++)
		if (!(present[i] & 1)) {
			fail("page %lu is locked, and not in memory", i);
			return 1;
		}
	return lshm_check_shuffled(&late, late.seed) || check_lock("a late lock", late.map, 1);
}

int lshm_setup(void)
{
	if (lshm_map_memfd(&memfd, "lshm_lock_kinds", SIZE) || lshm_map_anon(&part, SIZE) ||
	    lshm_map_anon(&parents, SIZE) || lshm_map_anon(&childs, SIZE) || map_private(&own) ||
	    lshm_map_anon(&free_, SIZE) || lshm_map_anon(&late, LATE_SIZE))
		return 1;
	if (mlock(memfd.map, SIZE) || mlock(part.map + SIZE / 2, SIZE / 2) || mlock(parents.map, SIZE) ||
	    mlock(own.map, SIZE) || mlock(free_.map, SIZE) || munlock(free_.map, SIZE) ||
	    mlock(late.map, LATE_SIZE) || munlock(late.map, LATE_SIZE) || map_locked(&flag)) {
		skip("cannot lock memory: %s", strerror(errno));
		return LSHM_SKIP;
	}
	child = lshm_fork_task(child_prepare, child_main, NULL);
	return child < 0 || check_locks(0);
}

int lshm_run(void)
{
	/* First what nobody waits for: it has to be there by now */
	return check_contents() || check_locks(0) || lock_late() || lshm_reap(child) || lshm_wait_retired() ||
	       check_contents() || check_locks(0) || check_lock("a late lock", late.map, 1);
}
