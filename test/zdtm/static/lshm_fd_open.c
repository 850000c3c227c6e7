// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "A memfd with a descriptor left open can be read without a fault: not lazy";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (32 * MiB / PAGE_SIZE)

static struct lshm m;
static int fd;

/* The object that only a child has a descriptor of */
static struct lshm other;
static int other_fd;
static pid_t child;

static int check_through_fd(int from, const struct lshm *obj)
{
	uint64_t buf[PAGE_SIZE / sizeof(uint64_t)];
	unsigned long i;

	for (i = 0; i < obj->nr; i++) {
		if (pread(from, buf, sizeof(buf), i * PAGE_SIZE) != sizeof(buf)) {
			pr_perror("Can't read page %lu", i);
			return 1;
		}
		if (lshm_check_bytes(buf, obj->seed, i, 0, sizeof(buf)))
			return 1;
	}
	return 0;
}

static int map_object(struct lshm *obj, int *pfd)
{
	*pfd = lshm_memfd("lshm_fd_open", 0, NR_PAGES * PAGE_SIZE);
	if (*pfd < 0)
		return 1;
	obj->seed = lshm_new_seed();
	if (lshm_map_fd(obj, *pfd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES))
		return 1;
	lshm_fill(obj);
	return 0;
}

static int child_prepare(void *arg)
{
	munmap(other.map, other.nr * PAGE_SIZE);
	return 0;
}

static int child_main(void *arg)
{
	return check_through_fd(other_fd, &other);
}

int lshm_setup(void)
{
	if (map_object(&m, &fd) || map_object(&other, &other_fd))
		return 1;
	child = lshm_fork_task(child_prepare, child_main, NULL);
	close(other_fd);
	return child < 0;
}

int lshm_run(void)
{
	return check_through_fd(fd, &m) || lshm_check(&other) || lshm_check(&m) || lshm_reap(child);
}
