// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>

#include "lshm_huge.h"

const char *test_doc = "Mappings of huge pages that change before these have come: munmap, mremap, mprotect, madvise";
const char *test_author = "criu-lazy-shmem";

#define NR 9

/* What becomes of which huge page */
enum { UNMAPPED = 1,
       PROTECTED = 2,
       DROPPED = 4,
       MOVED = 6 /* to 8 */ };

static struct lshm m, moved;

static int unmap_one(void)
{
	if (munmap(m.map + UNMAPPED * HUGE, HUGE)) {
		pr_perror("Can't unmap a huge page");
		return 1;
	}
	return 0;
}

static int protect_one(void)
{
	if (mprotect(m.map + PROTECTED * HUGE, HUGE, PROT_READ)) {
		pr_perror("Can't protect a huge page");
		return 1;
	}
	return 0;
}

/* Room for so much, where a huge page can begin */
static uint8_t *room(unsigned long len)
{
	uint8_t *to = mmap(NULL, len + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return to == MAP_FAILED ? NULL : to + (-(unsigned long)to & (HUGE - 1));
}

/* Old kernels have neither for huge pages: then it is no failure in the window */
static bool pages_move, pages_drop;

static int ask_kernel(void)
{
	uint8_t *to = room(HUGE);
	struct lshm probe;

	if (!to || lshm_map_huge_anon(&probe, 1))
		return 1;
	pages_drop = !madvise(probe.map, HUGE, MADV_DONTNEED);
	pages_move = mremap(probe.map, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
	if (!pages_drop || !pages_move)
		test_msg("This kernel can not do all of it with huge pages\n");
	return munmap(pages_move ? to : probe.map, HUGE);
}

/* To where nothing is mapped, as the next one to be read */
static int move_some(void)
{
	unsigned long len = (NR - MOVED) * HUGE;
	uint8_t *to = room(len);

	if (!to)
		return 1;
	moved = lshm_sub(&m, MOVED * HUGE_PAGES, (NR - MOVED) * HUGE_PAGES);
	if (mremap(moved.map, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to) {
		moved.map = to;
		return 0;
	}
	if (errno == EINVAL && !pages_move)
		return 0;
	fail("can't move huge pages");
	return 1;
}

/* Drops the mapping, not the contents: those are shared */
static int drop_mapping(void)
{
	if (!madvise(m.map + DROPPED * HUGE, HUGE, MADV_DONTNEED))
		return 0;
	if (errno == EINVAL && !pages_drop)
		return 0;
	fail("MADV_DONTNEED of a huge page is refused");
	return 1;
}

static int check_rest(void)
{
	return lshm_check_huge(&moved, 1) || lshm_check_huge(&m, 5) || lshm_check_huge(&m, DROPPED) ||
	       lshm_check_huge(&m, PROTECTED) || lshm_check_huge(&moved, 2) || lshm_check_huge(&m, 0) ||
	       lshm_check_huge(&m, 3) || lshm_check_huge(&moved, 0);
}

int lshm_setup(void)
{
	if (lshm_huge_missing(2 * NR)) {
		skip("no huge pages to be had");
		return LSHM_SKIP;
	}
	if (ask_kernel() || lshm_map_huge_memfd(&m, NR))
		return 1;
	lshm_fill(&m);
	return 0;
}

int lshm_run(void)
{
	return unmap_one() || move_some() || drop_mapping() || protect_one() || check_rest() || drop_mapping() ||
	       lshm_check_huge(&m, DROPPED) || lshm_wait_retired() || check_rest();
}
