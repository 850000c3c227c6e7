// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <string.h>
#include <linux/userfaultfd.h>

#include "eligible.h"
#include "unit.h"

static enum lshm_verdict verdict(uint32_t flags, uint64_t size)
{
	const struct cr_shmem_object obj = { .shmid = 7, .flags = flags, .size = size, .page_size = 4096 };

	return lshm_eligible(&obj, UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS);
}

/* One for each kind of object that can come before lshm_eligible() */

TEST(shared_anonymous)
{
	CHECK_EQ(verdict(0, 4096), LSHM_LAZY);
}

TEST(memfd_without_descriptor)
{
	/* the size is that of the file, not of its pages, and has no limit */
	CHECK_EQ(verdict(0, 1), LSHM_LAZY);
	CHECK_EQ(verdict(0, 4097), LSHM_LAZY);
	CHECK_EQ(verdict(0, 1ULL << 45), LSHM_LAZY);
}

TEST(descriptor_open)
{
	CHECK_EQ(verdict(CR_SHMEM_FD_OPEN, 4096), LSHM_FD_OPEN);
}

TEST(inherited)
{
	CHECK_EQ(verdict(CR_SHMEM_INHERITED, 4096), LSHM_INHERITED);
}

TEST(locked)
{
	CHECK_EQ(verdict(CR_SHMEM_LOCKED, 4096), LSHM_LOCKED);
}

TEST(read_only_descriptor)
{
	CHECK_EQ(verdict(CR_SHMEM_RDONLY, 4096), LSHM_RDONLY);
}

TEST(write_sealed)
{
	CHECK_EQ(verdict(CR_SHMEM_WRITE_SEALED, 4096), LSHM_WRITE_SEALED);
}

TEST(sysv)
{
	CHECK_EQ(verdict(CR_SHMEM_SYSV, 4096), LSHM_SYSV);
}

TEST(property_of_a_later_criu)
{
	CHECK_EQ(verdict(1U << 31, 4096), LSHM_UNKNOWN);
	CHECK_EQ(verdict(1U << 8, 4096), LSHM_UNKNOWN);
}

static enum lshm_verdict huge_verdict(uint64_t page_size, uint64_t uffd_features)
{
	const struct cr_shmem_object obj = {
		.shmid = 7, .flags = CR_SHMEM_HUGETLB, .size = 4 * page_size, .page_size = page_size
	};

	return lshm_eligible(&obj, uffd_features);
}

TEST(hugetlb)
{
	CHECK_EQ(huge_verdict(2 << 20, UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS), LSHM_LAZY);
	CHECK_EQ(huge_verdict(64 << 10, UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS), LSHM_LAZY);
}

TEST(hugetlb_without_minor_faults)
{
	CHECK_EQ(huge_verdict(2 << 20, UFFD_FEATURE_MINOR_SHMEM), LSHM_NO_MINOR_HUGETLB);
}

TEST(hugetlb_1g)
{
	CHECK_EQ(huge_verdict(1 << 30, UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS), LSHM_LARGE_PAGES);
}

/* Who brings the contents of what is not lazy */

TEST(delivery)
{
	static const struct {
		uint32_t flags;
		uint64_t size, page_size;
		int want;
	} t[] = {
		{ 0, 4096, 4096, CR_SHMEM_LAZY },
		{ 0, 0, 4096, -ENOTSUP },
		{ CR_SHMEM_FD_OPEN, 4096, 4096, CR_SHMEM_BEFORE_RESUME },
		{ CR_SHMEM_LOCKED, 4096, 4096, CR_SHMEM_BEFORE_RESUME },
		{ CR_SHMEM_RDONLY, 4096, 4096, CR_SHMEM_BEFORE_RESUME },
		{ CR_SHMEM_WRITE_SEALED, 4096, 4096, CR_SHMEM_BEFORE_RESUME },
		{ CR_SHMEM_SYSV, 4096, 4096, CR_SHMEM_BEFORE_RESUME },
		{ CR_SHMEM_HUGETLB | CR_SHMEM_FD_OPEN, 2 << 20, 2 << 20, CR_SHMEM_BEFORE_RESUME },
		{ CR_SHMEM_HUGETLB, 1 << 30, 1 << 30, CR_SHMEM_BEFORE_RESUME },
		{ CR_SHMEM_HUGETLB, 16ULL << 30, 16ULL << 30, -ENOTSUP },
		/* who gave it to us has filled it */
		{ CR_SHMEM_INHERITED, 4096, 4096, -ENOTSUP },
		{ CR_SHMEM_INHERITED | CR_SHMEM_FD_OPEN, 4096, 4096, -ENOTSUP },
		{ 1U << 31, 4096, 4096, -ENOTSUP },
	};
	unsigned int i;

	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		const struct cr_shmem_object obj = {
			.shmid = 7, .flags = t[i].flags, .size = t[i].size, .page_size = t[i].page_size
		};
		int got = lshm_delivery(&obj, lshm_eligible(&obj, ~0ULL));

		if (got != t[i].want)
			CHECK_EQ(i, -1);
	}
}

TEST(sysv_segment)
{
	CHECK_EQ(verdict(CR_SHMEM_SYSV, 4096), LSHM_SYSV);
}

TEST(empty)
{
	CHECK_EQ(verdict(0, 0), LSHM_EMPTY);
}

/* With more than one reason the operator is told the first in this list */
TEST(precedence)
{
	static const struct {
		uint32_t flag;
		enum lshm_verdict verdict;
	} order[] = {
		{ CR_SHMEM_SYSV, LSHM_SYSV },
		{ CR_SHMEM_SYSV, LSHM_SYSV },
		{ CR_SHMEM_INHERITED, LSHM_INHERITED },
		{ CR_SHMEM_FD_OPEN, LSHM_FD_OPEN },
		{ CR_SHMEM_LOCKED, LSHM_LOCKED },
		{ CR_SHMEM_RDONLY, LSHM_RDONLY },
		{ CR_SHMEM_WRITE_SEALED, LSHM_WRITE_SEALED },
	};
	uint32_t flags;
	size_t i;

	for (flags = 0; flags < 128; flags++) {
		enum lshm_verdict expect = LSHM_LAZY;

		for (i = 0; i < sizeof(order) / sizeof(order[0]) && expect == LSHM_LAZY; i++)
			if (flags & order[i].flag)
				expect = order[i].verdict;
		unit_note("flags %#x", flags);
		CHECK_EQ(verdict(flags, 4096), expect);
		CHECK_EQ(verdict(flags, 0), LSHM_EMPTY);
	}
}

TEST(each_verdict_has_a_text)
{
	int i, j;

	for (i = 0; i < LSHM_VERDICTS; i++) {
		const char *text = lshm_verdict_text((enum lshm_verdict)i);

		CHECK(text && *text);
		CHECK(strcmp(text, "unknown") != 0);
		for (j = 0; j < i; j++)
			CHECK(strcmp(text, lshm_verdict_text((enum lshm_verdict)j)) != 0);
	}
	CHECK(!strcmp(lshm_verdict_text(LSHM_VERDICTS), "unknown"));
	CHECK(!strcmp(lshm_verdict_text((enum lshm_verdict) - 1), "unknown"));
}
