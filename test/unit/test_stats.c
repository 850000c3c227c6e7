// SPDX-License-Identifier: GPL-2.0-only
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>

#include "fill.h"
#include "json.h"
#include "progress_text.h"
#include "stats.h"
#include "unit.h"

#define US  1000ULL
#define MS  1000000ULL
#define SEC 1000000000ULL
#define MIB (1ULL << 20)

/*
 * Stalls
 */

static int only_bucket(uint64_t ns)
{
	struct stalls s = { 0 };
	int i, found = -1;

	stalls_add(&s, ns);
	for (i = 0; i < STALL_BUCKETS; i++) {
		if (s.bucket[i]) {
			CHECK_EQ(s.bucket[i], 1);
			CHECK_EQ(found, -1);
			found = i;
		}
	}
	return found;
}

TEST(buckets)
{
	int i;

	CHECK_EQ(only_bucket(0), 0);
	CHECK_EQ(only_bucket(1), 0);
	CHECK_EQ(only_bucket(1999), 0);
	CHECK_EQ(only_bucket(2000), 1);
	for (i = 1; i < STALL_BUCKETS - 1; i++) {
		CHECK_EQ(only_bucket((1ULL << i) * US), i);
		CHECK_EQ(only_bucket((2ULL << i) * US - 1), i);
	}
	CHECK_EQ(only_bucket(4 * SEC), 21);
	CHECK_EQ(only_bucket(9 * SEC), 23);
	CHECK_EQ(only_bucket(1000 * SEC), 23);
	CHECK_EQ(only_bucket(UINT64_MAX), 23);
}

TEST(quantiles_of_none_and_one)
{
	struct stalls s = { 0 };

	CHECK_EQ(stalls_quantile(&s, 500), 0);
	CHECK_EQ(stalls_quantile(&s, 1000), 0);
	stalls_add(&s, 700 * US);
	CHECK_EQ(s.nr, 1);
	CHECK_EQ(s.total, 700 * US);
	CHECK_EQ(s.max, 700 * US);
	/* somewhere in its bucket, and never longer than it was */
	CHECK(stalls_quantile(&s, 500) >= 512 * US && stalls_quantile(&s, 500) <= 700 * US);
	CHECK_EQ(stalls_quantile(&s, 1000), 700 * US);
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Each estimate is in the bucket of the one that sorting finds */
TEST(quantiles_of_many)
{
	static const unsigned int wanted[] = { 10, 250, 500, 900, 990, 999, 1000 };
	static uint64_t all[5000];
	struct stalls s = { 0 };
	unsigned int i, seed = unit_seed();

	for (i = 0; i < 5000; i++) {
		all[i] = 1000 + (uint64_t)rand_r(&seed) % (1000ULL << (rand_r(&seed) % 20));
		stalls_add(&s, all[i]);
	}
	qsort(all, 5000, sizeof(all[0]), ascending);

	for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		uint64_t right = all[5000 * wanted[i] / 1000 - 1], got = stalls_quantile(&s, wanted[i]);

		unit_note("%u: %llu, estimated %llu", wanted[i], (unsigned long long)right, (unsigned long long)got);
		CHECK(got <= 2 * right + 2000 && got + 2000 >= right / 2);
		CHECK(!i || got >= stalls_quantile(&s, wanted[i - 1]));
	}
	CHECK_EQ(stalls_quantile(&s, 1000), all[4999]);
}

/* The last bucket has no end */
TEST(quantile_of_very_long_ones)
{
	struct stalls s = { 0 };

	stalls_add(&s, 100 * SEC);
	stalls_add(&s, 100 * SEC);
	CHECK(stalls_quantile(&s, 990) > 90 * SEC && stalls_quantile(&s, 990) <= 100 * SEC);
}

TEST(answered_once)
{
	uint64_t since = stats_now() - 5 * MS;
	struct object_stats obj = { 0 };
	struct task_stats task = { 0 };

	stats_answered(&obj, &task, &since);
	CHECK_EQ(since, 0);
	stats_answered(&obj, &task, &since);
	CHECK_EQ(obj.faults.stalls.nr, 1);
	CHECK_EQ(task.faults.stalls.nr, 1);
	CHECK(obj.faults.stalls.total >= 5 * MS && obj.faults.stalls.total < 5 * SEC);
	CHECK_EQ(task.faults.stalls.total, obj.faults.stalls.total);
}

/*
 * What is counted
 */

TEST(faults_and_windows)
{
	struct object_stats a = { 0 }, b = { 0 }, sum = { 0 };
	struct task_stats task = { 0 };

	stats_fault(&a, &task, 0);
	stats_fault(&a, &task, UFFD_PAGEFAULT_FLAG_WRITE);
	stats_fault(&b, &task, UFFD_PAGEFAULT_FLAG_MINOR);
	stats_mapped(&a, &task, 1, 64, true);
	stats_mapped(&a, &task, 2, 0, true);
	stats_mapped(&b, &task, 3, 1, true);
	CHECK_EQ(a.faults.missing, 2);
	CHECK_EQ(a.faults.minor, 0);
	CHECK_EQ(a.faults.windows, 3);
	CHECK_EQ(a.faults.mapped, 64);
	CHECK_EQ(a.faults.ahead, 63);
	CHECK_EQ(b.faults.minor, 1);
	CHECK_EQ(b.faults.ahead, 0);
	CHECK_EQ(stats_faults(&task.faults), 3);

	object_stats_add(&sum, &a);
	object_stats_add(&sum, &b);
	CHECK_EQ(sum.faults.missing, task.faults.missing);
	CHECK_EQ(sum.faults.minor, task.faults.minor);
	CHECK_EQ(sum.faults.windows, 6);
	CHECK_EQ(sum.faults.mapped, 65);
}

TEST(bytes_by_source)
{
	struct object_stats s = { .image_fd = 7 };
	struct fill_job *job = calloc(1, sizeof(*job) + 4 * sizeof(job->segs[0]));

	CHECK(job);
	job->nr_segs = 4;
	job->segs[0] = (struct fill_seg){ .len = 1, .src_fd = 7 };
	job->segs[1] = (struct fill_seg){ .len = 10, .src_fd = 8 };
	job->segs[2] = (struct fill_seg){ .len = 100, .src_fd = SEG_REMOTE };
	job->segs[3] = (struct fill_seg){ .len = 1000, .src_fd = 9 };
	stats_job(&s, job);
	CHECK_EQ(s.bytes[SOURCE_IMAGE], 1);
	CHECK_EQ(s.bytes[SOURCE_PARENT], 1010);
	CHECK_EQ(s.bytes[SOURCE_SERVER], 100);

	/* no image of its own: then SEG_REMOTE, which is -1 too, is still the page server */
	s = (struct object_stats){ .image_fd = -1 };
	stats_job(&s, job);
	CHECK_EQ(s.bytes[SOURCE_IMAGE], 0);
	CHECK_EQ(s.bytes[SOURCE_SERVER], 100);
	free(job);
}

TEST(tasks_without_end)
{
	struct task_stats *first = stats_task_new(1), *last = NULL;
	const struct task_stats *t;
	unsigned int i, nr = 0, entries = 0;

	for (i = 1; i < MAX_TASK_STATS + 10; i++)
		last = stats_task_new((int)i + 1);
	CHECK_EQ(first->pid, 1);
	CHECK_EQ(last->pid, 0);
	for (t = stats_tasks(); t; t = t->next, entries++)
		nr += t->nr_tasks;
	CHECK_EQ(nr, MAX_TASK_STATS + 10);
	CHECK_EQ(entries, MAX_TASK_STATS + 1);
	stats_fini();
	CHECK(!stats_tasks());
}

TEST(first_end_counts)
{
	struct task_stats *t = stats_task_new(5);
	uint64_t when;

	stats_task_end(t, TASK_RETIRED);
	when = t->ended;
	CHECK(when);
	stats_task_end(t, TASK_ENDED);
	CHECK_EQ(t->end, TASK_RETIRED);
	CHECK_EQ(t->ended, when);
	stats_fini();
}

TEST(name_of_a_file)
{
	struct object_stats s = { 0 };
	int fd = (int)CHECK_SYS(memfd_create("a \"name\"", MFD_CLOEXEC));

	stats_object_init(&s, fd, 3, 4);
	CHECK(!strcmp(s.name, "/memfd:a \"name\""));
	CHECK_EQ(s.to_fill, 3);
	stats_object_fini(&s);
	stats_object_init(&s, -1, 3, 4);
	CHECK(!s.name);
	close(fd);
}

/*
 * JSON
 */

static char text[4096];

static void check_string(const char *value, const char *want)
{
	struct json j = { .out = fmemopen(text, sizeof(text), "w") };

	CHECK(j.out);
	json_put_string(&j, NULL, value);
	CHECK_EQ(fclose(j.out), 0);
	unit_note("%s", text);
	CHECK(!strcmp(text, want));
}

TEST(json_strings)
{
	check_string("", "\"\"");
	check_string(NULL, "null");
	check_string("a/b", "\"a/b\"");
	check_string("a\"b\\c", "\"a\\\"b\\\\c\"");
	check_string("\n\t\x01\x1f\x7f", "\"\\u000a\\u0009\\u0001\\u001f\\u007f\"");
	check_string("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\"");
}

TEST(json_strings_that_are_no_text)
{
	check_string("\xff", "\"\\ufffd\"");
	check_string("a\x80z", "\"a\\ufffdz\"");
	check_string("\xc3", "\"\\ufffd\""); /* cut short */
	check_string("\xe2\x82", "\"\\ufffd\\ufffd\"");
	check_string("\xc0\xaf", "\"\\ufffd\\ufffd\"");			      /* '/' in two bytes */
	check_string("\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"");	      /* half of a pair */
	check_string("\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""); /* beyond U+10FFFF */
	check_string("\xc3\"", "\"\\ufffd\\\"\"");
}

TEST(json_structure)
{
	struct json j = { .out = fmemopen(text, sizeof(text), "w") };

	CHECK(j.out);
	json_put_open(&j, NULL, '{');
	json_put_number(&j, "a", UINT64_MAX);
	json_put_open(&j, "none", '[');
	json_put_close(&j, ']');
	json_put_open_line(&j, "b", '{');
	json_put_open(&j, "c", '[');
	json_put_number(&j, NULL, 1);
	json_put_number(&j, NULL, 2);
	json_put_close(&j, ']');
	json_put_null(&j, "d");
	json_put_close(&j, '}');
	json_put_fixed(&j, "e", 1005, 3);
	json_put_close(&j, '}');
	CHECK_EQ(fclose(j.out), 0);
	unit_note("%s", text);
	CHECK(!strcmp(text, "{\n \"a\": 18446744073709551615,\n \"none\": [],\n"
			    " \"b\": {\"c\": [1, 2], \"d\": null},\n \"e\": 1.005\n}\n"));
}

/*
 * Progress
 */

static void check_text(struct progress_sample now, double bytes, double faults, const char *want)
{
	const struct progress_rate rate = { .bytes = bytes, .faults = faults };

	progress_text(text, sizeof(text), &now, &rate);
	unit_note("%s", text);
	CHECK(!strcmp(text, want));
}

#define LEFT(of, nr) ((struct progress_sample){ .total = of, .left = nr })

TEST(progress_line)
{
	check_text(LEFT(2048 * MIB, 1024 * MIB), 512.0 * MIB, 350, "50% of 2.0 GiB, 512 MiB/s, 2 s left, 350 faults/s");
	check_text(LEFT(100 * MIB, 100 * MIB), 0, 0, "0% of 100 MiB, 0 KiB/s, nothing comes, 0 faults/s");
	check_text(LEFT(100 * MIB, 1), 1e9, 0, "99% of 100 MiB, 954 MiB/s, < 1 s left, 0 faults/s");
	check_text(LEFT(100 * MIB, 0), 0, 0, "100% of 100 MiB, 0 KiB/s, complete, 0 faults/s");
	check_text(LEFT(0, 0), 0, 0, "100% of 0 KiB, 0 KiB/s, complete, 0 faults/s");
}

TEST(progress_line_on_demand)
{
	struct progress_sample now = LEFT(100 * MIB, 50 * MIB);

	now.on_demand = true;
	check_text(now, 1.0 * MIB, 7, "50% of 100 MiB, 1.0 MiB/s, the rest on demand only, 7 faults/s");
}

TEST(progress_time_left)
{
	check_text(LEFT(119 * MIB, 119 * MIB), 1.0 * MIB, 0, "0% of 119 MiB, 1.0 MiB/s, 119 s left, 0 faults/s");
	check_text(LEFT(120 * MIB, 120 * MIB), 1.0 * MIB, 0, "0% of 120 MiB, 1.0 MiB/s, 2 min left, 0 faults/s");
	check_text(LEFT(10800 * MIB, 10800 * MIB), 1.0 * MIB, 0, "0% of 11 GiB, 1.0 MiB/s, 3 h left, 0 faults/s");
	check_text(LEFT(UINT64_MAX, UINT64_MAX), 1e-9, 0, "0% of 16 EiB, 0.0 KiB/s, > 999 h left, 0 faults/s");
	check_text(LEFT(UINT64_MAX, 1), 1.8e19, 1.8e19, "99% of 16 EiB, 16 EiB/s, < 1 s left, 18000000000000000000 faults/s");
}

TEST(progress_rate)
{
	struct progress_sample a = { .when = SEC, .left = 100 * MIB, .faults = 10 };
	struct progress_sample b = { .when = 3 * SEC, .left = 60 * MIB, .faults = 30 };
	struct progress_rate rate = progress_rate_of(&a, &b);

	CHECK_EQ(rate.bytes, 20 * MIB);
	CHECK_EQ(rate.faults, 10);
	/* no time, time that went backwards, more to do than before */
	rate = progress_rate_of(&a, &a);
	CHECK_EQ(rate.bytes, 0);
	rate = progress_rate_of(&b, &a);
	CHECK_EQ(rate.bytes, 0);
	CHECK_EQ(rate.faults, 0);
	b.left = 200 * MIB;
	b.faults = 0;
	rate = progress_rate_of(&a, &b);
	CHECK_EQ(rate.bytes, 0);
	CHECK_EQ(rate.faults, 0);
}
