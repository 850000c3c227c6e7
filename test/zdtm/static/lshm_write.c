// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Write to pages of lazily restored shared memory before anything reads them";
const char *test_author = "criu-lazy-shmem";

static struct lshm m;
static uint64_t new_seed;

enum { UNTOUCHED,
       ONE_WORD,
       WHOLE_PAGE };

static int kind(unsigned long i)
{
	uint64_t rnd = new_seed + i, r = lshm_rand(&rnd) % 8;

	return r < 3 ? r : UNTOUCHED;
}

static unsigned int written_word(unsigned long i)
{
	uint64_t rnd = new_seed ^ i;

	return lshm_rand(&rnd) % (PAGE_SIZE / sizeof(uint64_t));
}

static volatile uint64_t *word_of(unsigned long i)
{
	return (uint64_t *)(m.map + i * PAGE_SIZE) + written_word(i);
}

static void write_page(unsigned long i)
{
	switch (kind(i)) {
	case ONE_WORD:
		*word_of(i) = new_seed + i;
		break;
	case WHOLE_PAGE:
		lshm_rewrite_page(&m, i, new_seed);
		break;
	}
}

static int check_one_word(unsigned long i)
{
	const void *addr = m.map + i * PAGE_SIZE;
	unsigned int at = written_word(i) * sizeof(uint64_t);

	if (*word_of(i) != new_seed + i) {
		fail("page %lu: the store is lost, %#lx", i, *word_of(i));
		return 1;
	}
	return lshm_check_bytes(addr, m.seed, i, 0, at) ||
	       lshm_check_bytes(addr, m.seed, i, at + sizeof(uint64_t), PAGE_SIZE);
}

static int check_page(unsigned long i)
{
	switch (kind(i)) {
	case ONE_WORD:
		return check_one_word(i);
	case WHOLE_PAGE:
		return lshm_check_rewritten(&m, i, new_seed);
	default:
		return lshm_check_page(&m, i);
	}
}

static int check_all(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++)
		if (check_page(i))
			return 1;
	return 0;
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	return lshm_map_anon(&m, 64 * MiB);
}

int lshm_run(void)
{
	uint64_t a = new_seed | 1;
	unsigned long n, i;

	for (n = 0; n < m.nr; n++) {
		i = (a * n) & (m.nr - 1);
		write_page(i);
		/* What was written is there at once, and so is what was not */
		if (n % 64 == 0 && check_page(i))
			return 1;
	}
	return check_all() || lshm_wait_retired() || check_all();
}
