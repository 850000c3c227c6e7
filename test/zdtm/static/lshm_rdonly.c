// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "A memfd mapped shared through a read-only descriptor cannot be registered: not lazy";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (32 * MiB / PAGE_SIZE)

static struct lshm m;

static int reopen_rdonly(int fd)
{
	char path[64];
	int ret;

	ssprintf(path, "/proc/self/fd/%d", fd);
	ret = open(path, O_RDONLY);
	if (ret < 0)
		pr_perror("Can't open %s", path);
	return ret;
}

static int fill_and_map(int fd)
{
	struct lshm all = { .seed = m.seed };
	int ret, ro;

	if (lshm_map_fd(&all, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES))
		return 1;
	lshm_fill(&all);
	munmap(all.map, all.nr * PAGE_SIZE);

	ro = reopen_rdonly(fd);
	if (ro < 0)
		return 1;
	ret = lshm_map_fd(&m, ro, PROT_READ, MAP_SHARED, 0, NR_PAGES);
	close(ro);
	return ret;
}

int lshm_setup(void)
{
	int fd, ret;

	m.seed = lshm_new_seed();
	fd = lshm_memfd("lshm_rdonly", 0, NR_PAGES * PAGE_SIZE);
	if (fd < 0)
		return 1;
	ret = fill_and_map(fd);
	close(fd);
	return ret;
}

int lshm_run(void)
{
	if (lshm_check_shuffled(&m, m.seed))
		return 1;
	if (!mprotect(m.map, PAGE_SIZE, PROT_READ | PROT_WRITE)) {
		fail("the mapping has become writable");
		return 1;
	}
	return 0;
}
