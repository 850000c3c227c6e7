// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>

#include "extents.h"
#include "unit.h"

#define PG    4096ULL
#define LIMIT (1000 * PG)

/* Everything in pages */
static int add(struct extents *ex, uint64_t off, uint64_t len, uint64_t src_off, int fd)
{
	const struct extent e = { .off = off * PG, .len = len * PG, .src_off = src_off * PG, .src_fd = fd };

	return extents_add(ex, &e, LIMIT, PG);
}

/* In bytes, to an empty table */
static int add_raw(uint64_t off, uint64_t len, uint64_t src_off, uint64_t limit)
{
	const struct extent e = { .off = off, .len = len, .src_off = src_off, .src_fd = 3 };
	struct extents ex = { 0 };
	int ret = extents_add(&ex, &e, limit, PG);

	CHECK_EQ(ex.n, !ret);
	extents_free(&ex);
	return ret;
}

TEST(append)
{
	struct extents ex = { 0 };

	CHECK_EQ(add(&ex, 0, 2, 10, 3), 0);
	CHECK_EQ(add(&ex, 5, 1, 0, 4), 0);
	CHECK_EQ(ex.n, 2);
	CHECK_EQ(ex.v[0].off, 0);
	CHECK_EQ(ex.v[0].len, 2 * PG);
	CHECK_EQ(ex.v[0].src_off, 10 * PG);
	CHECK_EQ(ex.v[0].src_fd, 3);
	CHECK_EQ(ex.v[1].off, 5 * PG);
	CHECK_EQ(ex.v[1].src_fd, 4);
	extents_free(&ex);
	CHECK_EQ(ex.n, 0);
	CHECK(!ex.v);
}

TEST(merge_where_both_continue)
{
	struct extents ex = { 0 };

	CHECK_EQ(add(&ex, 1, 2, 10, 3), 0);
	CHECK_EQ(add(&ex, 3, 4, 12, 3), 0);
	CHECK_EQ(ex.n, 1);
	CHECK_EQ(ex.v[0].off, 1 * PG);
	CHECK_EQ(ex.v[0].len, 6 * PG);
	CHECK_EQ(ex.v[0].src_off, 10 * PG);
	extents_free(&ex);
}

TEST(no_merge_of_other_source)
{
	struct extents ex = { 0 };

	CHECK_EQ(add(&ex, 0, 2, 10, 3), 0);
	CHECK_EQ(add(&ex, 2, 2, 12, 4), 0); /* other image */
	CHECK_EQ(add(&ex, 4, 2, 15, 4), 0); /* a gap in the image */
	CHECK_EQ(add(&ex, 7, 2, 17, 4), 0); /* a gap in the object */
	CHECK_EQ(add(&ex, 9, 2, 18, 4), 0); /* backwards in the image */
	CHECK_EQ(ex.n, 5);
	extents_free(&ex);
}

TEST(order_and_overlap)
{
	struct extents ex = { 0 };

	CHECK_EQ(add(&ex, 10, 4, 0, 3), 0);
	CHECK_EQ(add(&ex, 0, 1, 8, 3), -EINVAL);   /* before */
	CHECK_EQ(add(&ex, 10, 4, 0, 3), -EINVAL);  /* again */
	CHECK_EQ(add(&ex, 13, 1, 20, 3), -EINVAL); /* the last page */
	CHECK_EQ(add(&ex, 9, 2, 20, 3), -EINVAL);  /* the first page */
	CHECK_EQ(add(&ex, 9, 20, 20, 3), -EINVAL); /* around it */
	CHECK_EQ(add(&ex, 13, 2, 3, 3), -EINVAL);  /* would be continued */
	CHECK_EQ(ex.n, 1);
	CHECK_EQ(ex.v[0].len, 4 * PG);
	CHECK_EQ(add(&ex, 14, 1, 20, 3), 0);
	CHECK_EQ(ex.n, 2);
	extents_free(&ex);
}

TEST(limit)
{
	CHECK_EQ(add_raw(0, LIMIT, 0, LIMIT), 0);
	CHECK_EQ(add_raw(LIMIT - PG, PG, 0, LIMIT), 0);
	CHECK_EQ(add_raw(LIMIT - PG, 2 * PG, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(LIMIT, PG, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(LIMIT + PG, PG, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, LIMIT + PG, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, PG, 0, 0), -EINVAL);
}

TEST(limit_also_when_merging)
{
	struct extents ex = { 0 };

	CHECK_EQ(add(&ex, 990, 5, 0, 3), 0);
	CHECK_EQ(add(&ex, 995, 6, 5, 3), -EINVAL);
	CHECK_EQ(ex.v[0].len, 5 * PG);
	CHECK_EQ(add(&ex, 995, 5, 5, 3), 0);
	CHECK_EQ(ex.v[0].len, 10 * PG);
	extents_free(&ex);
}

TEST(unaligned)
{
	CHECK_EQ(add_raw(1, PG, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(PG / 2, PG, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, PG - 1, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, PG + 1, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, PG, 512, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, 0, 0, LIMIT), -EINVAL); /* empty */
}

TEST(overflow)
{
	const uint64_t top = ~(PG - 1); /* the last page of 64 bits */

	CHECK_EQ(add_raw(PG, top, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(top, PG, 0, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(top, top, top, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(PG, top, 0, UINT64_MAX), -EINVAL);
	CHECK_EQ(add_raw(top, PG, 0, UINT64_MAX), -EINVAL); /* its end is 0 */
	/* an offset for pread() is signed */
	CHECK_EQ(add_raw(0, PG, top, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, PG, 1ULL << 63, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, PG, (1ULL << 63) - PG, LIMIT), -EINVAL);
	CHECK_EQ(add_raw(0, PG, (1ULL << 63) - 2 * PG, LIMIT), 0);
}

TEST(from_at_the_edges)
{
	struct extents ex = { 0 };

	CHECK(!extents_from(&ex, 0));
	CHECK(!extents_from(&ex, UINT64_MAX));

	CHECK_EQ(add(&ex, 2, 2, 0, 3), 0);
	CHECK_EQ(add(&ex, 4, 1, 9, 3), 0);
	CHECK_EQ(add(&ex, 8, 1, 20, 3), 0);

	CHECK(extents_from(&ex, 0) == &ex.v[0]);
	CHECK(extents_from(&ex, 2 * PG) == &ex.v[0]);
	CHECK(extents_from(&ex, 4 * PG - 1) == &ex.v[0]);
	CHECK(extents_from(&ex, 4 * PG) == &ex.v[1]);
	CHECK(extents_from(&ex, 5 * PG - 1) == &ex.v[1]);
	CHECK(extents_from(&ex, 5 * PG) == &ex.v[2]);
	CHECK(extents_from(&ex, 8 * PG - 1) == &ex.v[2]);
	CHECK(extents_from(&ex, 9 * PG - 1) == &ex.v[2]);
	CHECK(!extents_from(&ex, 9 * PG));
	CHECK(!extents_from(&ex, UINT64_MAX));

	CHECK(extents_next(&ex, &ex.v[0]) == &ex.v[1]);
	CHECK(extents_next(&ex, &ex.v[1]) == &ex.v[2]);
	CHECK(!extents_next(&ex, &ex.v[2]));
	extents_free(&ex);
}

TEST(count)
{
	struct extents ex = { 0 };

	CHECK_EQ(extents_count(&ex, 0, UINT64_MAX), 0);
	CHECK_EQ(add(&ex, 2, 2, 0, 3), 0);
	CHECK_EQ(add(&ex, 4, 1, 9, 3), 0);
	CHECK_EQ(add(&ex, 8, 1, 20, 3), 0);

	CHECK_EQ(extents_count(&ex, 0, UINT64_MAX), 3);
	CHECK_EQ(extents_count(&ex, 0, 2 * PG), 0);
	CHECK_EQ(extents_count(&ex, 0, 2 * PG + 1), 1);
	CHECK_EQ(extents_count(&ex, 3 * PG, 5 * PG), 2);
	CHECK_EQ(extents_count(&ex, 4 * PG, 8 * PG), 1);
	CHECK_EQ(extents_count(&ex, 5 * PG, 8 * PG), 0);
	CHECK_EQ(extents_count(&ex, 5 * PG, 9 * PG), 1);
	extents_free(&ex);
}

TEST(many)
{
	const uint64_t nr = 200000;
	struct extents ex = { 0 };
	uint64_t i;

	/* every other page, from alternating images so that nothing merges */
	for (i = 0; i < nr; i++) {
		const struct extent e = { .off = 2 * i * PG, .len = PG, .src_off = i * PG, .src_fd = (int)(i % 5) };

		CHECK_EQ(extents_add(&ex, &e, 2 * nr * PG, PG), 0);
	}
	CHECK_EQ(ex.n, nr);

	for (i = 0; i < nr; i++) {
		const struct extent *e = extents_from(&ex, 2 * i * PG + i % PG);

		CHECK(e == &ex.v[i]);
		CHECK_EQ(e->src_off, i * PG);
		CHECK_EQ(e->src_fd, i % 5);
		CHECK(extents_from(&ex, (2 * i + 1) * PG) == extents_next(&ex, e));
	}
	extents_free(&ex);
}

TEST(no_memory)
{
	struct extents ex = { 0 };
	uint64_t i;

	unit_fail_realloc(1);
	CHECK_EQ(add(&ex, 0, 1, 0, 3), -ENOMEM);
	CHECK_EQ(ex.n, 0);

	/* until it has to grow */
	for (i = 0; i < 200; i++) {
		unit_fail_realloc(1);
		if (add(&ex, 2 * i, 1, 0, 3) == -ENOMEM) {
			CHECK_EQ(ex.n, i);
			unit_fail_realloc(0);
			CHECK_EQ(add(&ex, 2 * i, 1, 0, 3), 0);
		}
		CHECK_EQ(ex.n, i + 1);
		CHECK(extents_from(&ex, 2 * i * PG) == &ex.v[i]);
	}
	unit_fail_realloc(0);
	extents_free(&ex);
}
