// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <sys/stat.h>

#include "page_map.h"
#include "unit.h"

#define NR_STATES 5

static bool is_left(enum page_state state)
{
	return state == PAGE_EMPTY || state == PAGE_FILLING || state == PAGE_DOOMED;
}

static struct page_map new_map(unsigned long pages)
{
	struct page_map pm;

	CHECK_EQ(page_map_init(&pm, "unit", pages), 0);
	return pm;
}

static unsigned long count_left(const struct page_map *pm)
{
	unsigned long i, nr = 0;

	for (i = 0; i < pm->pages; i++)
		nr += is_left(page_map_get(pm, i));
	return nr;
}

static unsigned long count_empty(const struct page_map *pm)
{
	unsigned long i, nr = 0;

	for (i = 0; i < pm->pages; i++)
		nr += page_map_get(pm, i) == PAGE_EMPTY;
	return nr;
}

TEST(init_and_fini)
{
	int fds = unit_count_fds();
	struct page_map pm = new_map(10000);
	struct stat st;
	unsigned long i;

	CHECK_EQ(pm.pages, 10000);
	CHECK_EQ(pm.left, 0);
	for (i = 0; i < pm.pages; i++)
		CHECK_EQ(page_map_get(&pm, i), PAGE_HOLE);

	/* a byte a page, where a successor can find it */
	CHECK_SYS(fstat(pm.fd, &st));
	CHECK_EQ(st.st_size, 10000);

	page_map_fini(&pm);
	CHECK(!pm.state);
	CHECK_EQ(pm.fd, -1);
	CHECK_EQ(unit_count_fds(), fds);
	page_map_fini(&pm); /* harmless */
}

TEST(init_fails)
{
	int fds = unit_count_fds();
	struct page_map pm;

	CHECK(page_map_init(&pm, "unit", 1UL << 63) < 0);
	CHECK_EQ(pm.fd, -1);
	CHECK(!pm.state);
	CHECK_EQ(unit_count_fds(), fds);
	page_map_fini(&pm);
	CHECK_EQ(unit_count_fds(), fds);
}

TEST(all_transitions)
{
	struct page_map pm = new_map(8);
	int from, to;

	/* between neighbours that must stay as they are */
	page_map_set(&pm, 2, 1, PAGE_EMPTY);
	page_map_set(&pm, 5, 1, PAGE_FILLED);
	for (from = 0; from < NR_STATES; from++) {
		for (to = 0; to < NR_STATES; to++) {
			unit_note("%d -> %d", from, to);
			page_map_set(&pm, 3, 2, (enum page_state)from);
			CHECK_EQ(pm.left, 1 + 2 * is_left((enum page_state)from));
			page_map_set(&pm, 3, 2, (enum page_state)to);
			CHECK_EQ(page_map_get(&pm, 3), to);
			CHECK_EQ(page_map_get(&pm, 4), to);
			CHECK_EQ(pm.left, 1 + 2 * is_left((enum page_state)to));
			CHECK_EQ(page_map_get(&pm, 2), PAGE_EMPTY);
			CHECK_EQ(page_map_get(&pm, 5), PAGE_FILLED);
		}
	}
	page_map_fini(&pm);
}

/* As the event loop does it: submitted, done, punched before, meanwhile, after */
TEST(left_over_a_life)
{
	struct page_map pm = new_map(100);

	page_map_set(&pm, 0, 100, PAGE_EMPTY);
	CHECK_EQ(pm.left, 100);
	page_map_set(&pm, 0, 64, PAGE_FILLING);
	CHECK_EQ(pm.left, 100);
	CHECK_EQ(pm.empty, 36);
	page_map_punched(&pm, 60, 10); /* 4 in the job, 6 waiting */
	CHECK_EQ(pm.left, 94);
	CHECK_EQ(pm.empty, 30);
	page_map_set(&pm, 0, 60, PAGE_FILLED);
	CHECK_EQ(pm.left, 34);
	page_map_set(&pm, 60, 4, PAGE_HOLE);
	CHECK_EQ(pm.left, 30);
	page_map_set(&pm, 70, 30, PAGE_FILLING);
	page_map_set(&pm, 70, 30, PAGE_FILLED);
	CHECK_EQ(pm.left, 0);
	page_map_punched(&pm, 0, 100);
	CHECK_EQ(pm.left, 0);
	page_map_fini(&pm);
}

TEST(set_nothing)
{
	struct page_map pm = new_map(4);

	page_map_set(&pm, 2, 0, PAGE_EMPTY);
	page_map_set(&pm, 4, 0, PAGE_EMPTY);
	page_map_punched(&pm, 4, 0);
	CHECK_EQ(pm.left, 0);
	CHECK_EQ(page_map_get(&pm, 2), PAGE_HOLE);
	page_map_fini(&pm);
}

TEST(left_is_a_count)
{
	unsigned int seed = unit_seed();
	struct page_map pm = new_map(257);
	int i;

	for (i = 0; i < 5000; i++) {
		unsigned long page = (unsigned long)rand_r(&seed) % 257;
		unsigned long nr = (unsigned long)rand_r(&seed) % (257 - page + 1);

		if (rand_r(&seed) % 4)
			page_map_set(&pm, page, nr, (enum page_state)(rand_r(&seed) % NR_STATES));
		else
			page_map_punched(&pm, page, nr);
		CHECK_EQ(pm.left, count_left(&pm));
		CHECK_EQ(pm.empty, count_empty(&pm));
	}
	page_map_fini(&pm);
}

TEST(next_empty)
{
	struct page_map pm = new_map(5000);
	int state;

	CHECK_EQ(page_map_next_empty(&pm, 0), 5000);
	CHECK_EQ(page_map_next_empty(&pm, 5000), 5000);
	CHECK_EQ(page_map_next_empty(&pm, 5001), 5000);
	CHECK_EQ(page_map_next_empty(&pm, ~0UL), 5000);

	page_map_set(&pm, 0, 1, PAGE_EMPTY);
	page_map_set(&pm, 4999, 1, PAGE_EMPTY);
	CHECK_EQ(page_map_next_empty(&pm, 0), 0);
	CHECK_EQ(page_map_next_empty(&pm, 1), 4999);
	CHECK_EQ(page_map_next_empty(&pm, 4999), 4999);
	CHECK_EQ(page_map_next_empty(&pm, 5000), 5000);

	for (state = 0; state < NR_STATES; state++) {
		page_map_set(&pm, 4999, 1, (enum page_state)state);
		CHECK_EQ(page_map_next_empty(&pm, 1), state == PAGE_EMPTY ? 4999 : 5000);
	}
	page_map_fini(&pm);
}

TEST(run)
{
	struct page_map pm = new_map(100);

	/* HOLE 0-9, EMPTY 10-19, FILLING 20, EMPTY 21-99 */
	page_map_set(&pm, 10, 90, PAGE_EMPTY);
	page_map_set(&pm, 20, 1, PAGE_FILLING);

	CHECK_EQ(page_map_run(&pm, 0, 1000), 10);
	CHECK_EQ(page_map_run(&pm, 10, 1000), 10);
	CHECK_EQ(page_map_run(&pm, 10, 10), 10);
	CHECK_EQ(page_map_run(&pm, 10, 9), 9);
	CHECK_EQ(page_map_run(&pm, 19, 1000), 1);
	CHECK_EQ(page_map_run(&pm, 20, 1000), 1);
	CHECK_EQ(page_map_run(&pm, 21, 1000), 79); /* up to the end */
	CHECK_EQ(page_map_run(&pm, 21, ~0UL), 79);
	CHECK_EQ(page_map_run(&pm, 99, 1000), 1);
	CHECK_EQ(page_map_run(&pm, 10, 0), 0);
	page_map_fini(&pm);
}

TEST(punched_in_each_state)
{
	static const enum page_state expect[NR_STATES] = {
		[PAGE_HOLE] = PAGE_HOLE,
		[PAGE_EMPTY] = PAGE_HOLE,     /* what the images have does not come back */
		[PAGE_FILLING] = PAGE_DOOMED, /* the job is on its way: punched again when done */
		[PAGE_DOOMED] = PAGE_DOOMED,
		[PAGE_FILLED] = PAGE_HOLE,
	};
	struct page_map pm = new_map(3 * NR_STATES);
	unsigned long i;

	/* twice each, with one of each left alone at both ends */
	for (i = 0; i < pm.pages; i++)
		page_map_set(&pm, i, 1, (enum page_state)(i % NR_STATES));
	page_map_punched(&pm, NR_STATES - 1, NR_STATES + 2);

	for (i = 0; i < pm.pages; i++) {
		enum page_state was = (enum page_state)(i % NR_STATES);
		bool in = i >= NR_STATES - 1 && i < 2 * NR_STATES + 1;

		unit_note("page %lu", i);
		CHECK_EQ(page_map_get(&pm, i), in ? expect[was] : was);
	}
	CHECK_EQ(pm.left, count_left(&pm));
	CHECK_EQ(pm.empty, count_empty(&pm));
	page_map_fini(&pm);
}

TEST(unfilled)
{
	struct page_map pm = new_map(10);
	int state;

	CHECK(!page_map_unfilled(&pm, 0, 10));
	for (state = 0; state < NR_STATES; state++) {
		page_map_set(&pm, 5, 1, (enum page_state)state);
		unit_note("state %d", state);
		CHECK_EQ(page_map_unfilled(&pm, 0, 10), is_left((enum page_state)state));
		CHECK_EQ(page_map_unfilled(&pm, 5, 1), is_left((enum page_state)state));
		CHECK(!page_map_unfilled(&pm, 0, 5));
		CHECK(!page_map_unfilled(&pm, 6, 4));
		CHECK(!page_map_unfilled(&pm, 5, 0));
	}
	page_map_fini(&pm);
}
