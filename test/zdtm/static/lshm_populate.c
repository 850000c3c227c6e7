// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Two tasks want shared memory that is being restored to be populated, locked, collapsed, paged out";
const char *test_author = "criu-lazy-shmem";

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

static struct lshm m;
static pid_t child;
static int pagemap;

static int advise(const struct lshm *part, int advice)
{
	if (!madvise(part->map, part->nr * PAGE_SIZE, advice))
		return 0;
	pr_perror("Advice %d failed", advice);
	return 1;
}

/* Every page is mapped: to have it so is what some of the calls are for */
static int check_mapped(const struct lshm *part)
{
	unsigned long i;
	uint64_t entry;

	for (i = 0; i < part->nr; i++) {
		off_t at = ((unsigned long)part->map / PAGE_SIZE + i) * sizeof(entry);

		if (pread(pagemap, &entry, sizeof(entry), at) != sizeof(entry)) {
			pr_perror("Can't read the pagemap");
			return 1;
		}
		if (!(entry >> 63)) {
			fail("page %lu is not mapped", part->page + i);
			return 1;
		}
	}
	return 0;
}

static int populate(const struct lshm *part, int advice)
{
	if (!madvise(part->map, part->nr * PAGE_SIZE, advice))
		return check_mapped(part);
	if (errno == EINVAL) {
		test_msg("This kernel has no advice %d\n", advice);
		return 0;
	}
	pr_perror("Advice %d failed", advice);
	return 1;
}

/* It needs memory that is in one piece, and pages that nobody uses meanwhile: it may fail */
static int collapse(const struct lshm *part)
{
	if (lshm_check_some(part, part->seed, 50))
		return 1;
	if (madvise(part->map, part->nr * PAGE_SIZE, MADV_COLLAPSE))
		test_msg("Not collapsed: %d\n", errno);
	return 0;
}

static int lock(const struct lshm *part)
{
	if (mlock(part->map, part->nr * PAGE_SIZE)) {
		pr_perror("Can't lock");
		return 1;
	}
	if (check_mapped(part) || lshm_check(part))
		return 1;
	if (munlock(part->map, part->nr * PAGE_SIZE)) {
		pr_perror("Can't unlock");
		return 1;
	}
	return 0;
}

static int lock_on_fault(const struct lshm *part)
{
	if (syscall(SYS_mlock2, part->map, part->nr * PAGE_SIZE, MLOCK_ONFAULT)) {
		pr_perror("Can't lock on fault");
		return 1;
	}
	return 0;
}

static int lock_all(void)
{
	if (mlockall(MCL_CURRENT)) {
		pr_perror("Can't lock all");
		return 1;
	}
	if (check_mapped(&m) || munlockall()) {
		pr_perror("Can't unlock all");
		return 1;
	}
	return 0;
}

static int use_part(int p, const struct lshm *part)
{
	switch (p) {
	case 0:
		return advise(part, MADV_WILLNEED);
	case 1:
		return populate(part, MADV_POPULATE_READ);
	case 2:
		return populate(part, MADV_POPULATE_WRITE);
	case 3:
		return lshm_check_some(part, part->seed, 50) || advise(part, MADV_COLD);
	case 4:
		return lshm_check_some(part, part->seed, 50) || advise(part, MADV_PAGEOUT);
	case 5:
		return lock(part);
	case 6:
		return lock_on_fault(part);
	default:
		return collapse(part) || collapse(part);
	}
}

#define NR_PARTS 8

/* Two tasks begin at either end, and meet */
static int use_all(int backward)
{
	unsigned long nr = m.nr / NR_PARTS;
	struct lshm part;
	int i, p;

	pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (pagemap < 0) {
		pr_perror("Can't open the pagemap");
		return 1;
	}
	for (i = 0; i < NR_PARTS; i++) {
		p = backward ? NR_PARTS - 1 - i : i;
		part = lshm_sub(&m, p * nr, nr);
		if (use_part(p, &part) || lshm_check(&part))
			return 1;
	}
	close(pagemap);
	return 0;
}

static int child_main(void *arg)
{
	return use_all(1);
}

static pid_t locker;

static int locker_main(void *arg)
{
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (pagemap < 0) {
		pr_perror("Can't open the pagemap");
		return 1;
	}
	return lock_all() || lshm_check(&m);
}

int lshm_setup(void)
{
	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	locker = lshm_fork_task(NULL, locker_main, NULL);
	return child < 0 || locker < 0;
}

int lshm_run(void)
{
	int ret;

	ret = use_all(0);
	ret |= lshm_reap(child);
	ret |= lshm_reap(locker);
	return ret || lshm_check(&m) || lshm_wait_retired() || lshm_check(&m);
}
