// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Lazily restored shared memory that was mapped read-only or without any access";
const char *test_author = "criu-lazy-shmem";

#define RW (PROT_READ | PROT_WRITE)

static struct lshm m, ro, none, rw;
static uint64_t new_seed;

static int protect(const struct lshm *part, int prot)
{
	if (mprotect(part->map, part->nr * PAGE_SIZE, prot)) {
		pr_perror("Can't change protection to %d", prot);
		return 1;
	}
	return 0;
}

/* Half of the part is written before it is read */
static int write_half(const struct lshm *part)
{
	unsigned long i;

	for (i = 0; i < part->nr; i += 2)
		lshm_rewrite_page(part, i, new_seed);
	for (i = 0; i < part->nr; i++)
		if (lshm_check_rewritten(part, i, i % 2 ? part->seed : new_seed))
			return 1;
	return 0;
}

int lshm_setup(void)
{
	unsigned long quarter;

	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	new_seed = lshm_new_seed();
	quarter = m.nr / 4;
	ro = lshm_sub(&m, 0, quarter);
	none = lshm_sub(&m, quarter, quarter);
	rw = lshm_sub(&m, 2 * quarter, m.nr - 2 * quarter);

	return protect(&ro, PROT_READ) || protect(&none, PROT_NONE);
}

int lshm_run(void)
{
	if (lshm_check_some(&ro, new_seed, 200) || protect(&none, PROT_READ) ||
	    lshm_check_some(&none, new_seed, 200) || lshm_check_some(&rw, new_seed, 200))
		return 1;
	if (protect(&ro, RW) || protect(&none, RW) || protect(&rw, PROT_NONE))
		return 1;
	if (write_half(&none) || write_half(&ro))
		return 1;
	return protect(&rw, PROT_READ) || lshm_check(&rw);
}
