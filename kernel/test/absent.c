// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a kernel without minor faults says to who asks for them: no, in the way
 * that tells that it does not know the word. --expect-absent.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

TEST(absent_features, WHERE_ABSENT)
{
	uint64_t offered = features_offered();
	int fd;

	check(!(offered & UFFD_FEATURE_MINOR_SHMEM), "MINOR_SHMEM is offered");
	check(!(offered & UFFD_FEATURE_MINOR_HUGETLBFS), "MINOR_HUGETLBFS is offered");
	fd = uffd_bare();
	eq(uffd_api(fd, UFFD_FEATURE_MINOR_SHMEM, NULL), -EINVAL);
	fd = uffd_bare();
	eq(uffd_api(fd, UFFD_FEATURE_MINOR_HUGETLBFS, NULL), -EINVAL);
	eq(uffd_api(uffd_bare(), UFFD_FEATURE_MISSING_SHMEM, NULL), 0);
}

TEST(absent_register, WHERE_ABSENT)
{
	struct area a;
	uint64_t ioctls;

	for (int kind = 0; kind < KINDS; kind++) {
		area_make(&a, kind, 4, PROT_READ | PROT_WRITE);
		a.uffd = uffd_open(0);
		eq(uffd_register(a.uffd, a.mem, a.len, MINOR, NULL), -EINVAL);
		eq(uffd_register(a.uffd, a.mem, a.len, BOTH, NULL), -EINVAL);
		check(!has_flag(a.mem, "um"), "a refused registration left its flag");
		eq(uffd_register(a.uffd, a.mem, a.len, MISSING, &ioctls), 0);
		check(!(ioctls & (uint64_t)1 << _UFFDIO_CONTINUE), "CONTINUE is declared");
		close(a.uffd);
	}
}

TEST(absent_continue, WHERE_ABSENT)
{
	struct area a;
	int64_t mapped;

	for (int kind = 0; kind < KINDS; kind++) {
		area_ready(&a, kind, 4, MISSING);
		fill(&a, 0, 1, 1);
		for (int i = 0; i < 2; i++) {
			eq(uffd_continue(a.uffd, at(&a, i), PAGE, 0, &mapped), -EINVAL);
			eq(mapped, UNTOUCHED);
			check(!is_mapped(at(&a, i)), "a refused call mapped a page");
		}
		close(a.uffd);
	}
}
