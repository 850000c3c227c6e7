// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "A hole at the end of a lazily restored memfd that must not grow";
const char *test_author = "criu-lazy-shmem";

#define SIZE (16 * MiB + 904) /* the last page is a hole, and not whole */

static struct lshm m, filled;

int lshm_setup(void)
{
	int fd;

	fd = lshm_memfd("lshm_seal_tail", MFD_ALLOW_SEALING, SIZE);
	if (fd < 0 || lshm_map_fd(&m, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, SIZE / PAGE_SIZE + 1))
		return 1;
	filled = lshm_sub(&m, 0, m.nr - 1);
	lshm_fill(&filled);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK)) {
		pr_perror("Can't seal");
		return 1;
	}
	close(fd);
	return 0;
}

int lshm_run(void)
{
	uint8_t *last = m.map + (m.nr - 1) * PAGE_SIZE;

	if (lshm_check_zero(last, 1))
		return 1;
	lshm_fill_page(last, m.seed, m.nr - 1);
	return lshm_check(&filled) || lshm_check_page(&m, m.nr - 1) || lshm_wait_retired() ||
	       lshm_check_page(&m, m.nr - 1);
}
