// SPDX-License-Identifier: GPL-2.0-only
#include <string.h>

#include "criu_internals.h"
#include "object.h"
#include "record.h"
#include "unit.h"
#include "window.h"

static struct object obj = { .page_size = 4096, .map = { .pages = 1 << 20 } };
static struct object other = { .page_size = 4096, .map = { .pages = 70 } };
static struct object huge = { .page_size = 2 << 20, .map = { .pages = 100 } };

static bool recording;

/* Stands in for record.c */
bool record_is_running(void)
{
	return recording;
}

static void check(struct window win, unsigned long first, unsigned long end, bool is_run)
{
	CHECK_EQ(win.first, first);
	CHECK_EQ(win.end, end);
	CHECK_EQ(win.is_run, is_run);
}

TEST(out_of_the_blue)
{
	struct windows w = { 0 };

	check(window_to_fill(&w, &obj, 1000), 992, 1008, false);
	check(window_to_map(&w, &obj, 1000), 960, 1024, false);
	check(window_to_map(&w, &other, 69), 64, 70, false);
	check(window_to_fill(&w, &other, 69), 64, 70, false);
	check(window_to_fill(&w, &huge, 7), 7, 8, false);
	check(window_to_map(&w, &huge, 7), 7, 8, false);
}

/* Each fault where the window before it ended: 64, 128, 256, 512, 512 pages */
TEST(run_grows)
{
	static const unsigned long sizes[] = { 128, 256, 512, 512, 512 };
	struct windows w = { 0 };
	unsigned long page = 1024;
	unsigned int i;

	window_mapped(&w, &obj, page, page + 64);
	page += 64;
	for (i = 0; i < 5; i++) {
		check(window_to_map(&w, &obj, page), page, page + sizes[i], true);
		check(window_to_fill(&w, &obj, page), page, page + 128, true);
		window_mapped(&w, &obj, page, page + sizes[i]);
		page += sizes[i];
	}
	/* as far as the object goes */
	window_mapped(&w, &obj, obj.map.pages - 600, obj.map.pages - 100);
	check(window_to_map(&w, &obj, obj.map.pages - 100), obj.map.pages - 100, obj.map.pages, true);
}

/* Little of it is filled yet: what is filled next grows even so */
TEST(run_on_what_is_not_filled)
{
	struct windows w = { 0 };

	window_mapped(&w, &obj, 1000, 1008);
	check(window_to_fill(&w, &obj, 1008), 1008, 1024, true);
	window_mapped(&w, &obj, 1008, 1024);
	check(window_to_fill(&w, &obj, 1024), 1024, 1056, true);
	check(window_to_map(&w, &obj, 1024), 1024, 1088, true);
}

TEST(not_a_run)
{
	struct windows w = { 0 };

	window_mapped(&w, &obj, 1024, 1088);
	check(window_to_map(&w, &other, 60), 0, 64, false);
	check(window_to_map(&w, &obj, 1087), 1024, 1088, false); /* behind its end */
	check(window_to_map(&w, &obj, 1088 + 15), 1103, 1103 + 128, true);
	check(window_to_map(&w, &obj, 1088 + 16), 1088, 1152, false); /* too far ahead */
}

TEST(recorded_one_by_one)
{
	struct windows w = { 0 };

	recording = true;
	check(window_to_map(&w, &obj, 1000), 1000, 1001, false);
	check(window_to_fill(&w, &obj, 1000), 1000, 1001, false);
	window_mapped(&w, &obj, 1000, 1001);
	check(window_to_map(&w, &obj, 1001), 1001, 1002, true);
}

/* As many threads as there are places keep their runs; with more the oldest is forgotten */
TEST(runs_at_a_time)
{
	struct windows w = { 0 };
	unsigned long i;

	for (i = 0; i < WINDOW_RUNS; i++)
		window_mapped(&w, &obj, i * 10000, i * 10000 + 64);
	for (i = 0; i < WINDOW_RUNS; i++)
		CHECK(window_to_map(&w, &obj, i * 10000 + 64).is_run);
	window_mapped(&w, &obj, 500000, 500064);
	CHECK(!window_to_map(&w, &obj, 64).is_run);
	CHECK(window_to_map(&w, &obj, 10064).is_run);
	CHECK(window_to_map(&w, &obj, 500064).is_run);
}

/* The first bytes of a new table are no run at page 0 */
TEST(nothing_is_known_at_first)
{
	struct windows w = { 0 };

	CHECK(!window_to_map(&w, &obj, 0).is_run);
	CHECK(!window_to_map(&w, &obj, 1).is_run);
}
