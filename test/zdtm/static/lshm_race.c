// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>

#include "lshm_segv.h"

const char *test_doc = "Two tasks give up shared memory in all ways while threads of both wait for it";
const char *test_author = "criu-lazy-shmem";

#define NR_THREADS 2
#define STEP	   32 /* pages given up at once */

/* What becomes of the parts, piece by piece */
enum parts {
	UNMAPPED,
	REPLACED,
	MOVED_OVER,
	DROPPED,
	REMOVED,
	KEPT,
	NR_PARTS,
};

/* The pieces of another object come to where pieces of the first one are */
static struct lshm m, other;
static volatile int done;
static pid_t child;

static struct lshm part(int p)
{
	unsigned long nr = m.nr / NR_PARTS / STEP * STEP;

	return lshm_sub(&m, p * nr, nr);
}

static uint64_t word_over(int p, unsigned long i, unsigned int w)
{
	return p == MOVED_OVER ? lshm_word(other.seed, i, w) : 0;
}

/* The contents, or what there is instead: in some parts pages go while one looks at them */
static int check_either(int p, unsigned long i)
{
	struct lshm here = part(p);
	const volatile uint64_t *page = (uint64_t *)(here.map + i * PAGE_SIZE);
	unsigned int w;

	for (w = 0; w < PAGE_SIZE / sizeof(*page); w++) {
		uint64_t got = page[w];

		if (got != lshm_word(m.seed, here.page + i, w) && got != word_over(p, i, w)) {
			fail("page %lu word %u of part %d is %#lx", i, w, p, got);
			return 1;
		}
	}
	return 0;
}

static int check_racing(int p, unsigned long i)
{
	struct lshm here = part(p);

	if (p == REPLACED || p == MOVED_OVER || p == REMOVED)
		return check_either(p, i);

	return lshm_try_page(&here, i) == 1;
}

static int racer(unsigned int idx)
{
	uint64_t rnd = m.seed + idx;

	while (!done) {
		int p = lshm_rand(&rnd) % NR_PARTS;

		if (check_racing(p, lshm_rand(&rnd) % part(p).nr))
			return 1;
	}
	return 0;
}

static int replace(void *at, size_t len)
{
	return mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at;
}

static int move_over(void *at, size_t len, unsigned long i)
{
	return mremap(other.map + i * PAGE_SIZE, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at;
}

static int give_up(int p, unsigned long i)
{
	void *at = part(p).map + i * PAGE_SIZE;
	size_t len = STEP * PAGE_SIZE;

	switch (p) {
	case UNMAPPED:
		return munmap(at, len);
	case REPLACED:
		return replace(at, len);
	case MOVED_OVER:
		return move_over(at, len, i);
	case DROPPED:
		return madvise(at, len, MADV_DONTNEED);
	case REMOVED:
		return madvise(at, len, MADV_REMOVE);
	}
	return 0;
}

/* Every second piece. The tasks take turns with what is the object's */
static int is_given_up(unsigned long i)
{
	return i / STEP % 2;
}

static int is_ours(int p, unsigned long i, int task)
{
	return p != REMOVED || i / STEP / 2 % 2 == (unsigned long)task;
}

static int check_given_up(int p, unsigned long i)
{
	struct lshm here = part(p);

	switch (p) {
	case UNMAPPED:
		if (lshm_try_page(&here, i) == NO_MEMORY)
			return 0;
		fail("page %lu is still there", here.page + i);
		return 1;
	case DROPPED:
		return lshm_check_page(&here, i);
	case MOVED_OVER:
		return lshm_check_bytes(here.map + i * PAGE_SIZE, other.seed, i, 0, PAGE_SIZE);
	default:
		return lshm_check_zero(here.map + i * PAGE_SIZE, 1);
	}
}

/* At once it is as it has to be, and so that mappings are at rest for a moment */
static int give_up_piece(int p, unsigned long i)
{
	if (give_up(p, i)) {
		pr_perror("Can't give up page %lu of part %d", i, p);
		return 1;
	}
	return check_given_up(p, i + STEP / 2) || check_given_up(p, i + STEP - 1);
}

static int give_up_all(int task)
{
	unsigned long i = part(0).nr;
	int p;

	/* From the end, where the background arrives last */
	while (i) {
		i -= STEP;
		for (p = 0; p < KEPT; p++) {
			if (is_given_up(i) && is_ours(p, i, task) && give_up_piece(p, i))
				return 1;
		}
	}
	return 0;
}

static int check_part(int p)
{
	struct lshm here = part(p);
	unsigned long i;

	for (i = 0; i < here.nr; i++)
		if (p != KEPT && is_given_up(i) ? check_given_up(p, i) : lshm_check_page(&here, i))
			return 1;
	return 0;
}

static int check_all(void)
{
	int p;

	for (p = 0; p < NR_PARTS; p++)
		if (check_part(p))
			return 1;
	return 0;
}

static int start_racers(void *arg)
{
	return lshm_threads(NR_THREADS, racer);
}

static int race(int task)
{
	int ret = give_up_all(task);

	done = 1;
	return lshm_join() || ret;
}

static int child_main(void *arg)
{
	/* What the other one removes may still be there */
	return race(1) || check_part(UNMAPPED) || check_part(REPLACED) || check_part(MOVED_OVER) || check_part(DROPPED) || check_part(KEPT);
}

int lshm_setup(void)
{
	if (lshm_map_anon(&m, 64 * MiB) || lshm_map_anon(&other, 16 * MiB) || lshm_catch(SIGSEGV))
		return 1;
	child = lshm_fork_task(start_racers, child_main, NULL);
	return child < 0 || start_racers(NULL);
}

int lshm_run(void)
{
	return race(0) || lshm_reap(child) || check_all() || lshm_wait_retired() || check_all();
}
