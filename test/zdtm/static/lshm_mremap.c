// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lshm_segv.h"

const char *test_doc = "Two tasks mremap shared memory that their threads wait for";
const char *test_author = "criu-lazy-shmem";

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define PART	   (8 * MiB)
#define PART_PAGES (PART / PAGE_SIZE)
#define NR_THREADS 2
#define BOUNCES	   16

enum {
	MOVED,
	SHRUNK,
	GROWN,
	DOUBLED,
	LEFT,
	BOUNCED,
	KEPT,
	GROWN_IN_PLACE,
	NR_PARTS,
};

static struct lshm all;
/* Where the parts are, or have just been, for the threads */
static uint8_t *volatile at[NR_PARTS];
/* Addresses that nothing else gets, one place for each part, and some to spare */
static uint8_t *reserve;
static volatile int done;

static struct lshm part(int p)
{
	struct lshm m = lshm_sub(&all, p * PART_PAGES, PART_PAGES);

	m.map = at[p];
	return m;
}

/* The pages that are mapped first and last; it is theirs that threads look at */
static unsigned long sure_pages(int p)
{
	return p == GROWN || p == SHRUNK ? PART_PAGES / 2 : PART_PAGES;
}

/* Either there is nothing for the moment, or it is right */
static int racer(unsigned int idx)
{
	uint64_t rnd = all.seed + idx;

	while (!done) {
		int p = lshm_rand(&rnd) % GROWN_IN_PLACE;
		struct lshm m = part(p);

		if (lshm_try_page(&m, lshm_rand(&rnd) % sure_pages(p)) == 1)
			return 1;
	}
	return 0;
}

static int remap(int p, size_t from, size_t to, int flags)
{
	uint8_t *there = reserve + p * PART;
	void *got;

	got = mremap(at[p], from, to, MREMAP_MAYMOVE | MREMAP_FIXED | flags, there);
	if (got != there) {
		pr_perror("Can't remap part %d", p);
		return 1;
	}
	at[p] = there;
	return 0;
}

static int bounce(void)
{
	uint8_t *place[2] = { at[BOUNCED], reserve + BOUNCED * PART };
	struct lshm m = part(BOUNCED);
	int i;

	for (i = 0; i < BOUNCES; i++) {
		uint8_t *to = place[!(i % 2)];

		if (mremap(m.map, PART, PART, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to) {
			pr_perror("Can't move there and back");
			return 1;
		}
		m.map = to;
		at[BOUNCED] = to;
		if (lshm_check_some(&m, m.seed + i, 2))
			return 1;
	}
	return 0;
}

static int shrink(void)
{
	if (mremap(at[SHRUNK], PART, PART / 2, 0) != at[SHRUNK]) {
		pr_perror("Can't shrink");
		return 1;
	}
	return 0;
}

static int grow_in_place(void)
{
	void *got = mremap(at[GROWN_IN_PLACE], PART / 2, PART, MREMAP_MAYMOVE);

	if (got == MAP_FAILED) {
		pr_perror("Can't grow");
		return 1;
	}
	at[GROWN_IN_PLACE] = got;
	return 0;
}

/* The old mapping stays, and shows the same */
static int leave(void)
{
	struct lshm old = part(LEFT);

	if (remap(LEFT, PART, PART, MREMAP_DONTUNMAP)) {
		if (errno != EINVAL)
			return 1;
		test_msg("This kernel has no MREMAP_DONTUNMAP for shared memory\n");
		return 0;
	}
	return lshm_check_shuffled(&old, old.seed);
}

static int duplicate(void)
{
	struct lshm old = part(DOUBLED);

	return remap(DOUBLED, 0, PART, 0) || lshm_check_shuffled(&old, old.seed + 1);
}

static int check_parts(void)
{
	struct lshm m;
	int p;

	for (p = NR_PARTS - 1; p >= 0; p--) {
		m = part(p);
		if (lshm_check_range(&m, 0, p == SHRUNK ? PART_PAGES / 2 : PART_PAGES))
			return 1;
	}
	/* What was cut off is gone */
	m = part(SHRUNK);
	if (lshm_try_page(&m, PART_PAGES / 2) != NO_MEMORY) {
		fail("the part that was cut off is still there");
		return 1;
	}
	return 0;
}

static int remap_all(void)
{
	int ret;

	ret = remap(MOVED, PART, PART, 0) || remap(GROWN, PART / 2, PART, 0) || shrink() || leave() || duplicate() ||
	      grow_in_place() || bounce() || check_parts();
	done = 1;
	return lshm_join() || ret;
}

static int start_racers(void *arg)
{
	return lshm_threads(NR_THREADS, racer);
}

static pid_t child;

static int child_main(void *arg)
{
	return remap_all();
}

/* Half of the parts that grow is not mapped by anyone: the first to map it is the one that grows */
static int cut(int p)
{
	if (munmap(at[p] + PART / 2, PART / 2)) {
		pr_perror("Can't unmap");
		return 1;
	}
	return 0;
}

int lshm_setup(void)
{
	int p;

	if (lshm_map_anon(&all, NR_PARTS * PART) || lshm_catch(SIGSEGV))
		return 1;
	reserve = mmap(NULL, NR_PARTS * PART, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (reserve == MAP_FAILED) {
		pr_perror("Can't reserve addresses");
		return 1;
	}
	for (p = 0; p < NR_PARTS; p++)
		at[p] = all.map + p * PART;
	if (cut(GROWN) || cut(GROWN_IN_PLACE))
		return 1;
	child = lshm_fork_task(start_racers, child_main, NULL);
	return child < 0 || start_racers(NULL);
}

int lshm_run(void)
{
	return remap_all() || lshm_reap(child) || lshm_wait_retired() || check_parts();
}
