// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is offered, what may be registered, and what arguments are refused.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "minor.h"

#define BIT(n) ((uint64_t)1 << (n))

TEST(api_features, 0)
{
	uint64_t offered = features_offered();
	int fd;

	check(offered & UFFD_FEATURE_MINOR_SHMEM, "MINOR_SHMEM is not offered");
	fd = uffd_bare();
	eq(uffd_api(fd, UFFD_FEATURE_MINOR_SHMEM, &offered), 0);
	check(offered & UFFD_FEATURE_MINOR_SHMEM, "MINOR_SHMEM was asked for and is not in the answer");
	fd = uffd_bare();
	eq(uffd_api(fd, BIT(62), NULL), -EINVAL);
}

/* CONTINUE is declared for a range in minor mode, and only then. */
static void check_ioctls(struct area *a, uint64_t mode)
{
	uint64_t ioctls = 0;

	eq(uffd_register(a->uffd, a->mem, a->len, mode, &ioctls), 0);
	check(ioctls & BIT(_UFFDIO_WAKE), "%s: WAKE is not declared for mode %d", kind_name[a->kind], (int)mode);
	check(ioctls & BIT(_UFFDIO_COPY), "%s: COPY is not declared for mode %d", kind_name[a->kind], (int)mode);
	check(!!(ioctls & BIT(_UFFDIO_CONTINUE)) == !!(mode & MINOR), "%s: CONTINUE's bit is wrong for mode %d",
	      kind_name[a->kind], (int)mode);
	eq(uffd_unregister(a->uffd, a->mem, a->len), 0);
}

TEST(api_register_ioctls, 0)
{
	static const int prots[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		for (size_t p = 0; p < 3; p++) {
			area_make(&a, kind, 4, prots[p]);
			a.uffd = uffd_open(0);
			check_ioctls(&a, MINOR);
			check_ioctls(&a, BOTH);
			check_ioctls(&a, MISSING);
			close(a.uffd);
		}
	}
}

TEST(api_register_modes_refused, 0)
{
	struct area a;

	area_make(&a, MEMFD_SHARED, 4, PROT_READ | PROT_WRITE);
	a.uffd = uffd_open(0);
	eq(uffd_register(a.uffd, a.mem, a.len, 0, NULL), -EINVAL);
	for (int bit = 3; bit < 64; bit++) {
		eq(uffd_register(a.uffd, a.mem, a.len, BIT(bit), NULL), -EINVAL);
		eq(uffd_register(a.uffd, a.mem, a.len, MINOR | BIT(bit), NULL), -EINVAL);
	}
	eq(uffd_register(a.uffd, a.mem + 1, a.len, MINOR, NULL), -EINVAL);
	eq(uffd_register(a.uffd, a.mem, a.len - 1, MINOR, NULL), -EINVAL);
	eq(uffd_register(a.uffd, a.mem, 0, MINOR, NULL), -EINVAL);
	check(!has_flag(a.mem, "ui"), "a refused registration left its flag");
	eq(uffd_register(a.uffd, a.mem, a.len, MINOR, NULL), 0);
}

TEST(api_register_anon_private, 0)
{
	char *mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int uffd = uffd_open(0);
	struct area a;

	must(mem != MAP_FAILED);
	eq(uffd_register(uffd, mem, 4 * PAGE, MINOR, NULL), -EINVAL);
	eq(uffd_register(uffd, mem, 4 * PAGE, BOTH, NULL), -EINVAL);
	eq(uffd_register(uffd, mem, 4 * PAGE, MISSING, NULL), 0);
	/* And it is the mapping's fault, not the mode's. */
	area_ready(&a, ANON_SHARED, 4, BOTH);
}

/* Half of the range cannot be registered: then none of it is. */
TEST(api_register_mixed, 0)
{
	struct area a;
	char *mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(mem != MAP_FAILED);
	area_make(&a, MEMFD_SHARED, 2, PROT_READ | PROT_WRITE);
	must(mmap(mem, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a.fd, 0) == mem);
	a.uffd = uffd_open(0);
	eq(uffd_register(a.uffd, mem, 4 * PAGE, MINOR, NULL), -EINVAL);
	check(!has_flag(mem, "ui"), "half of a refused registration was done");
	eq(uffd_register(a.uffd, mem, 2 * PAGE, MINOR, NULL), 0);
}

TEST(api_register_file, 0)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), uffd = uffd_open(0);
	char *mem;

	must(fd >= 0);
	mem = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	must(mem != MAP_FAILED);
	eq(uffd_register(uffd, mem, PAGE, MINOR, NULL), -EINVAL);
	eq(uffd_register(uffd, mem, PAGE, BOTH, NULL), -EINVAL);
}

TEST(api_register_read_only_file, 0)
{
	struct area a;
	char path[64], *mem;
	int fd;

	area_make(&a, MEMFD_SHARED, 2, PROT_READ | PROT_WRITE);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", a.fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	a.uffd = uffd_open(0);
	mem = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	must(mem != MAP_FAILED);
	eq(uffd_register(a.uffd, mem, 2 * PAGE, MINOR, NULL), -EPERM);
	eq(uffd_register(a.uffd, mem, 2 * PAGE, BOTH, NULL), -EPERM);
	/* What is private is never written, and may be. */
	mem = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	must(mem != MAP_FAILED);
	eq(uffd_register(a.uffd, mem, 2 * PAGE, MINOR, NULL), 0);
}

TEST(api_register_twice, 0)
{
	struct area a;

	area_ready(&a, MEMFD_SHARED, 2, MINOR);
	eq(uffd_register(uffd_open(0), a.mem, a.len, MINOR, NULL), -EBUSY);
	/* By its own it may be, and in another mode. */
	eq(uffd_register(a.uffd, a.mem, a.len, BOTH, NULL), 0);
	check(has_flag(a.mem, "um") && has_flag(a.mem, "ui"), "the second mode is not there");
	/* One of two modes that are there already changes nothing; another is instead. */
	eq(uffd_register(a.uffd, a.mem, a.len, MINOR, NULL), 0);
	check(has_flag(a.mem, "um") && has_flag(a.mem, "ui"), "a mode is gone");
	eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	eq(uffd_register(a.uffd, a.mem, a.len, MINOR, NULL), 0);
	eq(uffd_register(a.uffd, a.mem, a.len, MISSING, NULL), 0);
	check(has_flag(a.mem, "um") && !has_flag(a.mem, "ui"), "the mode that was left is still there");
}

/* CRIU refuses to dump a task by these flags. */
TEST(api_smaps_flags, 0)
{
	struct area a;

	for (int kind = 0; kind < KINDS; kind++) {
		area_make(&a, kind, 2, PROT_READ | PROT_WRITE);
		check(!has_flag(a.mem, "um") && !has_flag(a.mem, "ui"), "flags before registration");
		area_register(&a, 0, MINOR);
		check(has_flag(a.mem, "ui"), "%s: minor mode does not show as ui", kind_name[kind]);
		check(!has_flag(a.mem, "um"), "%s: minor mode shows as um", kind_name[kind]);
		check(!has_flag(a.door, "ui"), "%s: the other mapping shows ui", kind_name[kind]);
		area_register(&a, 0, BOTH);
		check(has_flag(a.mem, "ui") && has_flag(a.mem, "um"), "%s: not both of ui and um", kind_name[kind]);
		eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
		check(!has_flag(a.mem, "um") && !has_flag(a.mem, "ui"), "%s: flags after unregister", kind_name[kind]);
		area_register(&a, 0, MISSING);
		check(has_flag(a.mem, "um") && !has_flag(a.mem, "ui"), "%s: missing mode shows ui", kind_name[kind]);
		area_register(&a, 0, BOTH);
		close(a.uffd);
		check(!has_flag(a.mem, "um") && !has_flag(a.mem, "ui"), "%s: flags after close", kind_name[kind]);
	}
}

/* Two modes are two mappings: neighbours are not merged into one. */
TEST(api_split_and_merge, 0)
{
	struct area a;

	area_make(&a, MEMFD_SHARED, 6, PROT_READ | PROT_WRITE);
	a.uffd = uffd_open(0);
	eq(uffd_register(a.uffd, at(&a, 2), 2 * PAGE, MINOR, NULL), 0);
	check(!has_flag(at(&a, 0), "ui") && has_flag(at(&a, 2), "ui") && !has_flag(at(&a, 4), "ui"), "wrong ends");
	eq(uffd_register(a.uffd, at(&a, 0), 2 * PAGE, MISSING, NULL), 0);
	check(has_flag(at(&a, 0), "um") && !has_flag(at(&a, 0), "ui"), "the neighbour's mode came over");
	check(!has_flag(at(&a, 2), "um"), "the mode went over to the neighbour");
	/* Now all are alike, and one mapping again: a range may cross. */
	eq(uffd_register(a.uffd, a.mem, a.len, MINOR, NULL), 0);
	fill(&a, 0, 6, 1);
	must_continue(a.uffd, a.mem, a.len);
}

TEST(api_continue_unregistered, 0)
{
	struct area a;

	area_ready(&a, MEMFD_SHARED, 4, MINOR);
	fill(&a, 0, 4, 1);
	must_continue(a.uffd, at(&a, 3), PAGE);
	eq(uffd_unregister(a.uffd, a.mem, a.len), 0);
	continue_fails(a.uffd, a.mem, PAGE, ENOENT);
	continue_fails(a.uffd, a.door, PAGE, ENOENT);
	area_register(&a, 0, MINOR);
	must(!munmap(a.mem, PAGE));
	continue_fails(a.uffd, a.mem, PAGE, ENOENT);
	continue_fails(a.uffd, a.mem, 2 * PAGE, ENOENT);
	must_continue(a.uffd, at(&a, 1), PAGE);
}

/* Refused before anything is looked at: nothing is written to 'mapped'. */
static void refused(struct area *a, uintptr_t start, size_t len, uint64_t mode)
{
	int64_t mapped;

	eq(uffd_continue(a->uffd, (void *)start, len, mode, &mapped), -EINVAL);
	eq(mapped, UNTOUCHED);
}

TEST(api_continue_arguments, 0)
{
	struct area a;
	uintptr_t mem;

	area_ready(&a, MEMFD_SHARED, 4, MINOR);
	fill(&a, 0, 4, 1);
	mem = (uintptr_t)a.mem;
	refused(&a, mem + 1, PAGE, 0);
	refused(&a, mem + PAGE / 2, PAGE, 0);
	refused(&a, mem, PAGE + 1, 0);
	refused(&a, mem, PAGE - 1, 0);
	refused(&a, mem, 0, 0);
	refused(&a, mem, -PAGE, 0);
	refused(&a, mem, -mem, 0);
	refused(&a, -PAGE, PAGE, 0);
	refused(&a, -PAGE, 2 * PAGE, 0);
	/* Bit 1 is MODE_WP since 6.4, and refused where the range is not in that mode. */
	for (int bit = 1; bit < 64; bit++) {
		int64_t mapped;

		eq(uffd_continue(a.uffd, a.mem, PAGE, BIT(bit), &mapped), -EINVAL);
		check(mapped == UNTOUCHED || (bit == 1 && mapped == -EINVAL), "bit %d: mapped is %ld", bit, (long)mapped);
	}
	for (int i = 0; i < 4; i++)
		check(!is_mapped(at(&a, i)), "a refused call mapped page %d", i);
	must_continue(a.uffd, a.mem, a.len);
}

TEST(api_continue_pointers, 0)
{
	struct area a;
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_continue *arg = (void *)page;

	must(page != MAP_FAILED);
	area_ready(&a, MEMFD_SHARED, 4, MINOR);
	fill(&a, 0, 4, 1);
	*arg = (struct uffdio_continue){ .range = { (uintptr_t)a.mem, PAGE } };
	/* 'mapped' cannot be written: the pages may be mapped, but it is not a success. */
	must(!mprotect(page, PAGE, PROT_READ));
	eq(ioctl(a.uffd, UFFDIO_CONTINUE, arg) ? -errno : 0, -EFAULT);
	must(!mprotect(page, PAGE, PROT_NONE));
	eq(ioctl(a.uffd, UFFDIO_CONTINUE, arg) ? -errno : 0, -EFAULT);
	eq(ioctl(a.uffd, UFFDIO_CONTINUE, NULL) ? -errno : 0, -EFAULT);
}

TEST(api_continue_before_api, 0)
{
	struct area a;

	area_make(&a, MEMFD_SHARED, 4, PROT_READ | PROT_WRITE);
	a.uffd = uffd_bare();
	eq(uffd_continue(a.uffd, a.mem, PAGE, 0, NULL), -EINVAL);
	eq(uffd_api(a.uffd, 0, NULL), 0);
	continue_fails(a.uffd, a.mem, PAGE, ENOENT);
}

/* A range lies in one mapping, or nothing of it is done. */
TEST(api_continue_crosses_end, 0)
{
	struct area a;
	char *mem = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(mem != MAP_FAILED);
	area_make(&a, MEMFD_SHARED, 4, PROT_READ | PROT_WRITE);
	must(mremap(a.mem, a.len, a.len, MREMAP_MAYMOVE | MREMAP_FIXED, mem) == mem);
	a.mem = mem;
	area_register(&a, 0, MINOR);
	fill(&a, 0, 4, 1);
	continue_fails(a.uffd, a.mem, 5 * PAGE, ENOENT);
	continue_fails(a.uffd, at(&a, 3), 2 * PAGE, ENOENT);
	check(!is_mapped(a.mem) && !is_mapped(at(&a, 3)), "a refused range was begun");

	/* The neighbour is registered too, but it is another. */
	must(mmap(at(&a, 4), 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a.fd, 0) == at(&a, 4));
	eq(uffd_register(a.uffd, at(&a, 4), 4 * PAGE, MINOR, NULL), 0);
	continue_fails(a.uffd, at(&a, 3), 2 * PAGE, ENOENT);
	must_continue(a.uffd, at(&a, 3), PAGE);
	must_continue(a.uffd, at(&a, 4), PAGE);
}

TEST(api_continue_anon_private, 0)
{
	char *mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int uffd = uffd_open(0);

	must(mem != MAP_FAILED);
	eq(uffd_register(uffd, mem, 4 * PAGE, MISSING, NULL), 0);
	continue_fails(uffd, mem, PAGE, EINVAL);
}

/* The ioctl looks at who is registered, not in which mode. */
TEST(api_continue_missing_mode, 0)
{
	struct area a;

	area_ready(&a, MEMFD_SHARED, 4, MISSING);
	fill(&a, 0, 1, 1);
	must_continue(a.uffd, a.mem, PAGE);
	page_has(a.mem, 0, 1);
	continue_fails(a.uffd, at(&a, 1), PAGE, EFAULT);
}

/* To take back what KSM was told takes nothing else back. */
TEST(api_unmergeable, 0)
{
	struct area a;

	area_make(&a, MEMFD_PRIVATE, 4, PROT_READ | PROT_WRITE);
	if (madvise(a.mem, a.len, MADV_MERGEABLE)) {
		eq(errno, EINVAL);
		skip("a kernel without KSM");
	}
	area_register(&a, 0, MINOR);
	fill(&a, 0, 4, 1);
	must(!madvise(a.mem, a.len, MADV_UNMERGEABLE));
	check(has_flag(a.mem, "ui"), "not registered for minor faults any more");
	touch_continue(a.uffd, a.mem, READ);
	/* Here the kernel would find a userfaultfd that is registered for nothing. */
	close(a.uffd);
	page_has(at(&a, 1), 1, 1);
}
