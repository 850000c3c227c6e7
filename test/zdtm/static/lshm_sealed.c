// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <sys/mman.h>

#include "lshm_common.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

const char *test_doc = "Write-sealed memfds: nothing could fill them once they are sealed, so not lazy";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (32 * MiB / PAGE_SIZE)

/* F_SEAL_WRITE leaves private mappings, F_SEAL_FUTURE_WRITE those that exist */
static struct lshm sealed, future;

static int fill_and_seal(struct lshm *m, int fd, int seal)
{
	if (lshm_map_fd(m, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES))
		return 1;
	lshm_fill(m);
	if (seal == F_SEAL_WRITE)
		munmap(m->map, m->nr * PAGE_SIZE);
	if (fcntl(fd, F_ADD_SEALS, seal)) {
		pr_perror("Can't add seal %#x", seal);
		return 1;
	}
	if (seal == F_SEAL_WRITE)
		return lshm_map_fd(m, fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, NR_PAGES);
	return 0;
}

static int make_sealed(struct lshm *m, int seal)
{
	int fd, ret;

	m->seed = lshm_new_seed();
	fd = lshm_memfd("lshm_sealed", MFD_ALLOW_SEALING, NR_PAGES * PAGE_SIZE);
	if (fd < 0)
		return 1;
	ret = fill_and_seal(m, fd, seal);
	close(fd);
	return ret;
}

static int check_seals(const struct lshm *m, int seals)
{
	unsigned long start = (unsigned long)m->map;
	char path[64];
	int fd, got;

	ssprintf(path, "/proc/self/map_files/%lx-%lx", start, start + m->nr * PAGE_SIZE);
	fd = open(path, O_RDONLY);
	if (fd < 0) {
		pr_perror("Can't open %s", path);
		return 1;
	}
	got = fcntl(fd, F_GET_SEALS);
	close(fd);
	if (got != seals) {
		fail("the seals are %#x, not %#x", got, seals);
		return 1;
	}
	return 0;
}

int lshm_setup(void)
{
	return make_sealed(&sealed, F_SEAL_WRITE) || make_sealed(&future, F_SEAL_FUTURE_WRITE);
}

int lshm_run(void)
{
	if (lshm_check_shuffled(&sealed, sealed.seed) || lshm_check_shuffled(&future, future.seed))
		return 1;
	/* The mapping that was writable still is */
	lshm_rewrite_page(&future, 1, sealed.seed);
	return lshm_check_rewritten(&future, 1, sealed.seed) || check_seals(&sealed, F_SEAL_WRITE) ||
	       check_seals(&future, F_SEAL_FUTURE_WRITE);
}
