// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"
#include "vma_table.h"

#define PG 4096ULL

/* The table only compares the pointers */
#define OBJ(n) ((struct object *)(uintptr_t)(0x1000 + 16 * (n)))

/* Everything in pages */
static int insert(struct vma_table *t, uint64_t start, uint64_t end, uint64_t pgoff, int obj)
{
	const struct vma v = { .start = start * PG, .end = end * PG, .pgoff = pgoff * PG, .obj = OBJ(obj) };

	return vma_table_insert(t, &v);
}

static int cut(struct vma_table *t, uint64_t start, uint64_t end)
{
	return vma_table_cut(t, start * PG, end * PG);
}

static void check_sane(const struct vma_table *t)
{
	size_t i;

	CHECK(t->n <= t->cap);
	for (i = 0; i < t->n; i++) {
		CHECK(t->v[i].start < t->v[i].end);
		CHECK(!i || t->v[i - 1].end <= t->v[i].start);
	}
}

#define CHECK_VMA(t, i, s, e, p, o)                \
	do {                                       \
		CHECK((size_t)(i) < (t)->n);       \
		CHECK_EQ((t)->v[i].start, (s)*PG); \
		CHECK_EQ((t)->v[i].end, (e)*PG);   \
		CHECK_EQ((t)->v[i].pgoff, (p)*PG); \
		CHECK((t)->v[i].obj == OBJ(o));    \
	} while (0)

/* 10-20 of object 1 from page 100 on, 20-25 of object 2, 30-40 of object 3 */
static struct vma_table three(void)
{
	struct vma_table t = { 0 };

	CHECK_EQ(insert(&t, 10, 20, 100, 1), 0);
	CHECK_EQ(insert(&t, 30, 40, 0, 3), 0);
	CHECK_EQ(insert(&t, 20, 25, 5, 2), 0);
	check_sane(&t);
	return t;
}

TEST(find)
{
	struct vma_table t = { 0 };

	CHECK(!vma_table_find(&t, 0));
	vma_table_free(&t);

	t = three();
	CHECK(!vma_table_find(&t, 0));
	CHECK(!vma_table_find(&t, 10 * PG - 1));
	CHECK(vma_table_find(&t, 10 * PG) == &t.v[0]);
	CHECK(vma_table_find(&t, 20 * PG - 1) == &t.v[0]);
	CHECK(vma_table_find(&t, 20 * PG) == &t.v[1]);
	CHECK(vma_table_find(&t, 25 * PG - 1) == &t.v[1]);
	CHECK(!vma_table_find(&t, 25 * PG));
	CHECK(!vma_table_find(&t, 30 * PG - 1));
	CHECK(vma_table_find(&t, 30 * PG) == &t.v[2]);
	CHECK(!vma_table_find(&t, 40 * PG));
	CHECK(!vma_table_find(&t, UINT64_MAX));
	vma_table_free(&t);
}

TEST(insert_sorts)
{
	struct vma_table t = three();

	CHECK_EQ(t.n, 3);
	CHECK_VMA(&t, 0, 10, 20, 100, 1);
	CHECK_VMA(&t, 1, 20, 25, 5, 2);
	CHECK_VMA(&t, 2, 30, 40, 0, 3);
	vma_table_free(&t);
}

TEST(insert_replaces)
{
	struct vma_table t = three();

	/* over the end of one, all of another, the beginning of the third */
	CHECK_EQ(insert(&t, 15, 35, 7, 4), 0);
	CHECK_EQ(t.n, 3);
	CHECK_VMA(&t, 0, 10, 15, 100, 1);
	CHECK_VMA(&t, 1, 15, 35, 7, 4);
	CHECK_VMA(&t, 2, 35, 40, 5, 3);

	/* the same place */
	CHECK_EQ(insert(&t, 15, 35, 9, 5), 0);
	CHECK_EQ(t.n, 3);
	CHECK_VMA(&t, 1, 15, 35, 9, 5);

	/* around everything */
	CHECK_EQ(insert(&t, 1, 100, 0, 6), 0);
	CHECK_EQ(t.n, 1);
	CHECK_VMA(&t, 0, 1, 100, 0, 6);
	vma_table_free(&t);
}

TEST(insert_into_the_middle)
{
	struct vma_table t = three();

	CHECK_EQ(insert(&t, 12, 13, 0, 9), 0);
	CHECK_EQ(t.n, 5);
	CHECK_VMA(&t, 0, 10, 12, 100, 1);
	CHECK_VMA(&t, 1, 12, 13, 0, 9);
	CHECK_VMA(&t, 2, 13, 20, 103, 1);
	CHECK_VMA(&t, 3, 20, 25, 5, 2);
	vma_table_free(&t);
}

TEST(cut_nothing)
{
	struct vma_table t = three();

	CHECK_EQ(cut(&t, 0, 10), 0);
	CHECK_EQ(cut(&t, 25, 30), 0);
	CHECK_EQ(cut(&t, 40, 1000), 0);
	CHECK_EQ(cut(&t, 15, 15), 0);
	CHECK_EQ(cut(&t, 18, 12), 0);
	CHECK_EQ(t.n, 3);
	CHECK_VMA(&t, 0, 10, 20, 100, 1);
	CHECK_VMA(&t, 1, 20, 25, 5, 2);
	CHECK_VMA(&t, 2, 30, 40, 0, 3);
	vma_table_free(&t);
}

TEST(cut_head)
{
	struct vma_table t = three();

	CHECK_EQ(cut(&t, 5, 11), 0);
	CHECK_EQ(t.n, 3);
	CHECK_VMA(&t, 0, 11, 20, 101, 1);
	CHECK_EQ(cut(&t, 11, 19), 0);
	CHECK_VMA(&t, 0, 19, 20, 109, 1);
	CHECK_VMA(&t, 1, 20, 25, 5, 2);
	vma_table_free(&t);
}

TEST(cut_tail)
{
	struct vma_table t = three();

	CHECK_EQ(cut(&t, 39, 50), 0);
	CHECK_VMA(&t, 2, 30, 39, 0, 3);
	CHECK_EQ(cut(&t, 31, 39), 0);
	CHECK_VMA(&t, 2, 30, 31, 0, 3);
	CHECK_EQ(t.n, 3);
	vma_table_free(&t);
}

TEST(cut_whole)
{
	struct vma_table t = three();

	CHECK_EQ(cut(&t, 20, 25), 0);
	CHECK_EQ(t.n, 2);
	CHECK_VMA(&t, 0, 10, 20, 100, 1);
	CHECK_VMA(&t, 1, 30, 40, 0, 3);
	CHECK_EQ(cut(&t, 0, 100), 0);
	CHECK_EQ(t.n, 0);
	CHECK(!vma_table_find(&t, 15 * PG));
	vma_table_free(&t);
}

TEST(cut_hole_in_the_middle)
{
	struct vma_table t = three();

	CHECK_EQ(cut(&t, 13, 15), 0);
	CHECK_EQ(t.n, 4);
	CHECK_VMA(&t, 0, 10, 13, 100, 1);
	CHECK_VMA(&t, 1, 15, 20, 105, 1);
	CHECK_VMA(&t, 2, 20, 25, 5, 2);
	CHECK_VMA(&t, 3, 30, 40, 0, 3);
	CHECK(!vma_table_find(&t, 13 * PG));
	CHECK(!vma_table_find(&t, 15 * PG - 1));
	vma_table_free(&t);
}

TEST(cut_across)
{
	struct vma_table t = three();

	CHECK_EQ(cut(&t, 19, 31), 0);
	CHECK_EQ(t.n, 2);
	CHECK_VMA(&t, 0, 10, 19, 100, 1);
	CHECK_VMA(&t, 1, 31, 40, 1, 3);
	vma_table_free(&t);
}

TEST(private_is_inherited)
{
	const struct vma v = { .start = 0, .end = 10 * PG, .obj = OBJ(1), .is_private = true };
	struct vma_table t = { 0 };
	size_t i;

	CHECK_EQ(vma_table_insert(&t, &v), 0);
	CHECK_EQ(cut(&t, 4, 5), 0);
	CHECK_EQ(t.n, 2);
	for (i = 0; i < t.n; i++)
		CHECK(t.v[i].is_private);
	vma_table_free(&t);
}

/* The top of the address space: nothing may wrap */
TEST(high_addresses)
{
	const struct vma v = { .start = ~0ULL - 8 * PG + 1, .end = ~0ULL - PG + 1, .obj = OBJ(1) };
	struct vma_table t = { 0 };

	CHECK_EQ(vma_table_insert(&t, &v), 0);
	CHECK_EQ(vma_table_cut(&t, v.start + PG, v.start + 2 * PG), 0);
	CHECK_EQ(t.n, 2);
	CHECK(vma_table_find(&t, v.end - 1) == &t.v[1]);
	CHECK_EQ(t.v[1].pgoff, 2 * PG);
	vma_table_free(&t);
}

/*
 * Every allocation of each operation fails once: -ENOMEM and the table as it
 * was. The table is full before, so that it has to grow.
 */
enum op { OP_INSERT,
	  OP_CUT };

static int operate(struct vma_table *t, enum op op)
{
	switch (op) {
	case OP_INSERT:
		return insert(t, 5, 6, 0, 9);
	case OP_CUT:
		return cut(t, 5, 6);
	}
	return 1;
}

static void fail_each_allocation(enum op op)
{
	unsigned int nth;
	int ret = -ENOMEM;

	for (nth = 1; ret; nth++) {
		struct vma_table t = { 0 };
		struct vma was[8];
		uint64_t i;

		for (i = 0; i < 8; i++)
			CHECK_EQ(insert(&t, i * 10, i * 10 + 9, 0, 1), 0);
		t.v = realloc(t.v, 8 * sizeof(*t.v)); /* it has grown in advance */
		CHECK(t.v);
		t.cap = 8;
		memcpy(was, t.v, sizeof(was));

		unit_note("operation %d, allocation %u fails", (int)op, nth);
		unit_fail_realloc(nth);
		ret = operate(&t, op);
		unit_fail_realloc(0);
		if (ret) {
			CHECK_EQ(ret, -ENOMEM);
			CHECK_EQ(t.n, 8);
			CHECK(!memcmp(was, t.v, sizeof(was)));
		}
		check_sane(&t);
		vma_table_free(&t);
	}
	CHECK(nth > 2); /* at least one did fail */
}

TEST(no_memory)
{
	fail_each_allocation(OP_INSERT);
	fail_each_allocation(OP_CUT);
}

/*
 * Against a model that knows each page by itself
 */
#define PAGES 192

struct model {
	struct {
		int obj; /* 0: nothing is mapped */
		uint64_t off;
		bool is_private;
	} page[PAGES];
};

static void compare(const struct vma_table *t, const struct model *m)
{
	uint64_t i;

	check_sane(t);
	for (i = 0; i < PAGES; i++) {
		uint64_t addr = i * PG + (i % 2 ? PG - 1 : 0);
		const struct vma *v = vma_table_find(t, addr);

		CHECK_EQ(!!v, !!m->page[i].obj);
		if (v) {
			CHECK(v->start <= addr && addr < v->end);
			CHECK(v->obj == OBJ(m->page[i].obj));
			CHECK_EQ(v->pgoff + (i * PG - v->start), m->page[i].off * PG);
			CHECK_EQ(v->is_private, m->page[i].is_private);
		}
	}
}

TEST(random_against_model)
{
	unsigned int seed = unit_seed();
	struct vma_table t = { 0 };
	struct model m = { 0 };
	int round;

	for (round = 0; round < 20000; round++) {
		uint64_t start = (uint64_t)rand_r(&seed) % PAGES;
		uint64_t len = (uint64_t)rand_r(&seed) % (PAGES - start), i;
		struct vma v;

		/* long ones would leave nothing to look at */
		if (rand_r(&seed) % 8)
			len %= 16;

		if (rand_r(&seed) % 3) {
			len += !len;
			v = (struct vma){
				.start = start * PG,
				.end = (start + len) * PG,
				.pgoff = (uint64_t)(rand_r(&seed) % 1000) * PG,
				.obj = OBJ(1 + round % 7),
				.is_private = rand_r(&seed) % 2,
			};
			CHECK_EQ(vma_table_insert(&t, &v), 0);
			for (i = 0; i < len; i++) {
				m.page[start + i].obj = 1 + round % 7;
				m.page[start + i].off = v.pgoff / PG + i;
				m.page[start + i].is_private = v.is_private;
			}
		} else {
			CHECK_EQ(cut(&t, start, start + len), 0);
			for (i = 0; i < len; i++)
				m.page[start + i].obj = 0;
		}
		compare(&t, &m);
	}
	vma_table_free(&t);
}
