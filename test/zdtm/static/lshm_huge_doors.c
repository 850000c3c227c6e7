// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_huge.h"

const char *test_doc = "Objects of huge pages with descriptors, seals, read-only mappings, which can not be lazy";
const char *test_author = "criu-lazy-shmem";

#define NR   2
#define SIZE (NR * HUGE)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static struct lshm distant; /* the child has a descriptor */
static struct lshm rdonly, sealed, future;
static struct lshm sized;  /* sealed against another size only: lazy */
static struct lshm locked; /* lazy, too: the kernel takes no note of a lock on huge pages */
static int distant_fd;
static pid_t child;

static int make(struct lshm *m, int *fd)
{
	m->seed = lshm_new_seed();
	*fd = lshm_memfd("lshm_huge_doors", MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB, SIZE);
	if (*fd < 0 || lshm_map_fd(m, *fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR * HUGE_PAGES))
		return 1;
	lshm_fill(m);
	return 0;
}

static int map_again(struct lshm *m, int fd, int prot, int flags)
{
	munmap(m->map, SIZE);
	return lshm_map_fd(m, fd, prot, flags, 0, NR * HUGE_PAGES);
}

static int seal(int fd, int seals)
{
	int ret;

	ret = fcntl(fd, F_ADD_SEALS, seals);
	if (ret)
		pr_perror("Can't add seals %#x", seals);
	close(fd);
	return ret;
}

static int make_rdonly(void)
{
	int fd, ro, ret;

	if (make(&rdonly, &fd))
		return 1;
	ro = lshm_open_mapped(rdonly.map, SIZE, O_RDONLY);
	close(fd);
	if (ro < 0)
		return 1;
	ret = map_again(&rdonly, ro, PROT_READ, MAP_SHARED);
	close(ro);
	return ret;
}

static int make_sealed(void)
{
	int fd;

	if (make(&sealed, &fd))
		return 1;
	munmap(sealed.map, SIZE);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) ||
	    lshm_map_fd(&sealed, fd, PROT_READ, MAP_PRIVATE, 0, NR * HUGE_PAGES)) {
		pr_perror("Can't map what is sealed");
		return 1;
	}
	close(fd);
	return make(&future, &fd) || seal(fd, F_SEAL_FUTURE_WRITE) || make(&sized, &fd) ||
	       seal(fd, F_SEAL_SHRINK | F_SEAL_GROW);
}

static int make_locked(void)
{
	int fd;

	if (make(&locked, &fd))
		return 1;
	close(fd);
	if (mlock(locked.map, SIZE)) {
		pr_perror("Can't lock huge pages");
		return 1;
	}
	return 0;
}

static int check_seals(void)
{
	return lshm_check_long("the set of seals", lshm_seals(&sealed), F_SEAL_WRITE) ||
	       lshm_check_long("the set of seals", lshm_seals(&future), F_SEAL_FUTURE_WRITE) ||
	       lshm_check_long("the set of seals", lshm_seals(&sized), F_SEAL_SHRINK | F_SEAL_GROW);
}

static int child_main(void *arg)
{
	return lshm_check_pread_shuffled(distant_fd, &distant) || lshm_check_new_map(distant_fd, &distant, MAP_SHARED) ||
	       lshm_check_fstat(distant_fd, SIZE, SIZE);
}

int lshm_setup(void)
{
	if (lshm_huge_missing(6 * NR + NR)) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	if (make(&distant, &distant_fd) || make_rdonly() || make_sealed() || make_locked())
		return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	close(distant_fd);
	return child < 0;
}

int lshm_run(void)
{
	if (lshm_check_shuffled(&distant, 1) || lshm_check_shuffled(&rdonly, 2) || lshm_check_shuffled(&sealed, 3) ||
	    lshm_check_shuffled(&future, 4) || lshm_check_shuffled(&locked, 5) || lshm_check_shuffled(&sized, 6))
		return 1;
	lshm_rewrite_page(&future, 1, sized.seed);
	return lshm_check_rewritten(&future, 1, sized.seed) || check_seals() || lshm_reap(child) || lshm_wait_retired() ||
	       check_seals() || lshm_check_shuffled(&sized, 7);
}
