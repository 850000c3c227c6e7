// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_segv.h"

const char *test_doc = "Two tasks mprotect shared memory to none, and back, while their threads wait for it";
const char *test_author = "criu-lazy-shmem";

#define PIECES	   32
#define NR_THREADS 2

static struct lshm m;
static volatile int done;
static uint64_t new_seed;
static pid_t child;

/* Pieces begin and end anywhere, and with the space between cut the mapping up */
static struct lshm piece(unsigned int p)
{
	unsigned long nr = m.nr / PIECES;

	return lshm_sub(&m, p * nr + p % 7, nr - 2 * PIECES + p);
}

static int racer(unsigned int idx)
{
	uint64_t rnd = m.seed + idx;
	struct lshm some;

	while (!done) {
		/* Not what is written */
		some = piece(lshm_rand(&rnd) % PIECES);
		if (lshm_try_page(&some, 1 + lshm_rand(&rnd) % (some.nr - 1)) == 1)
			return 1;
	}
	return 0;
}

static int protect(const struct lshm *part, int prot)
{
	if (mprotect(part->map, part->nr * PAGE_SIZE, prot)) {
		pr_perror("Can't protect");
		return 1;
	}
	return 0;
}

static int check_none(const struct lshm *part)
{
	if (lshm_try_page(part, part->nr / 2) == NO_MEMORY && lshm_try_page(part, part->nr - 1) == NO_MEMORY)
		return 0;
	fail("there is access to what is protected");
	return 1;
}

/* Each task writes a page of its own, which has not been touched before: the first or the last */
static int check_piece(unsigned int p, unsigned long own)
{
	struct lshm part = piece(p);

	if (protect(&part, PROT_NONE) || check_none(&part) || protect(&part, PROT_READ) ||
	    lshm_check_page(&part, part.nr / 2) || protect(&part, PROT_NONE) || check_none(&part))
		return 1;
	if (protect(&part, PROT_READ | PROT_WRITE))
		return 1;
	if (p % 2)
		lshm_rewrite_page(&m, part.page + own, new_seed);
	return lshm_check_range(&part, 1, part.nr - 1);
}

static int check_pieces(unsigned long own)
{
	int p, ret = 0;

	for (p = PIECES - 1; p >= 0 && !ret; p--)
		ret = check_piece(p, own);
	done = 1;
	return lshm_join() || ret;
}

static int start_racers(void *arg)
{
	return lshm_threads(NR_THREADS, racer);
}

static int child_main(void *arg)
{
	/* Its pages are those in front of the pieces, so that the writes do not meet */
	return check_pieces(-1UL);
}

static int is_rewritten(unsigned long i)
{
	unsigned int p;

	for (p = 1; p < PIECES; p += 2) {
		struct lshm part = piece(p);

		if (i == part.page || i == part.page - 1)
			return 1;
	}
	return 0;
}

static int check_all(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++)
		if (is_rewritten(i) ? lshm_check_rewritten(&m, i, new_seed) : lshm_check_page(&m, i))
			return 1;
	return 0;
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	if (lshm_map_anon(&m, 64 * MiB) || lshm_catch(SIGSEGV))
		return 1;
	child = lshm_fork_task(start_racers, child_main, NULL);
	return child < 0 || start_racers(NULL);
}

int lshm_run(void)
{
	return check_pieces(0) || lshm_reap(child) || check_all() || lshm_wait_retired() || check_all();
}
