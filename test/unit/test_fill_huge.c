// SPDX-License-Identifier: GPL-2.0-only
/* Jobs for huge pages, which are filled through a mapping. ./run sees to free ones. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fill.h"
#include "unit.h"

#define PG  4096UL
#define HPG (2UL << 20)

/* Byte off of an image */
static unsigned char expected(uint64_t off)
{
	return (unsigned char)(1 + (off * 2654435761UL >> 16) % 251);
}

static int new_image(uint64_t size)
{
	int fd = (int)CHECK_SYS(memfd_create("unit", MFD_CLOEXEC));
	unsigned char *mem;
	uint64_t i;

	CHECK_SYS(ftruncate(fd, (off_t)size));
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(mem != MAP_FAILED);
	for (i = 0; i < size; i++)
		mem[i] = expected(i);
	munmap(mem, size);
	return fd;
}

/* For the huge page at off */
static struct fill_job *new_job(int obj_fd, uint64_t off, unsigned int nr_segs)
{
	struct fill_job *job = calloc(1, sizeof(*job) + nr_segs * sizeof(job->segs[0]));

	CHECK(job);
	*job = (struct fill_job){
		.way = FILL_MAPPED,
		.obj_fd = obj_fd,
		.obj_size = UINT64_MAX,
		.off = off,
		.len = HPG,
	};
	return job;
}

static void add_seg(struct fill_job *job, uint64_t off, int src_fd, uint64_t src_off, uint32_t len)
{
	job->segs[job->nr_segs++] =
		(struct fill_seg){ .off = off, .src_off = src_off, .len = len, .src_fd = src_fd };
}

static unsigned char *map_huge(int obj, unsigned long nr)
{
	unsigned char *mem = mmap(NULL, nr * HPG, PROT_READ, MAP_SHARED, obj, 0);

	CHECK(mem != MAP_FAILED);
	return mem;
}

/* All of one huge page, though most of it is a hole; its neighbours stay absent */
TEST(one_page)
{
	int img = new_image(16 * PG), obj = unit_huge_memfd(3);
	struct fill_job *job = new_job(obj, HPG, 2);
	const unsigned char *mem = map_huge(obj, 3);
	struct stat st;
	uint64_t i;

	add_seg(job, HPG + 2 * PG, img, 8 * PG, 3 * PG);
	add_seg(job, HPG + 300 * PG, img, 0, PG);
	fill_run(job, NULL);

	CHECK_EQ(job->result, FILL_OK);
	CHECK_SYS(fstat(obj, &st));
	CHECK_EQ(st.st_blocks * 512, HPG);
	for (i = 0; i < HPG; i++) {
		unsigned char want = 0;

		if (i >= 2 * PG && i < 5 * PG)
			want = expected(8 * PG + i - 2 * PG);
		else if (i >= 300 * PG && i < 301 * PG)
			want = expected(i - 300 * PG);
		if (mem[HPG + i] != want)
			CHECK_EQ(i, -1);
	}
	free(job);
}

/* A parent image may give each small page a place of its own */
TEST(as_many_segments_as_small_pages)
{
	int img = new_image(HPG), obj = unit_huge_memfd(1);
	struct fill_job *job = new_job(obj, 0, HPG / PG);
	const unsigned char *mem = map_huge(obj, 1);
	uint64_t i;

	for (i = 0; i < HPG / PG; i++)
		add_seg(job, i * PG, img, HPG - (i + 1) * PG, PG);
	fill_run(job, NULL);

	CHECK_EQ(job->result, FILL_OK);
	for (i = 0; i < HPG; i++)
		if (mem[i] != expected(HPG - (i / PG + 1) * PG + i % PG))
			CHECK_EQ(i, -1);
	free(job);
}

TEST(short_image)
{
	int img = new_image(4 * PG), obj = unit_huge_memfd(1);
	struct fill_job *job = new_job(obj, 0, 2);

	add_seg(job, 0, img, 0, 2 * PG);
	add_seg(job, 4 * PG, img, 2 * PG, 2 * PG + 1);
	fill_run(job, NULL);
	CHECK_EQ(job->result, FILL_SHORT);
	CHECK_EQ(job->err_off, 4 * PG);
	free(job);
}

/* An error, and no SIGBUS */
TEST(no_page_left)
{
	int img = new_image(PG), obj = unit_huge_memfd(1), hog = unit_huge_memfd(1);
	struct fill_job *job = new_job(obj, 0, 1);
	off_t n = 0;

	do {
		n++;
		CHECK_SYS(ftruncate(hog, n * (off_t)HPG));
	} while (!fallocate(hog, FALLOC_FL_KEEP_SIZE, (n - 1) * (off_t)HPG, (off_t)HPG));

	add_seg(job, 0, img, 0, PG);
	fill_run(job, NULL);
	CHECK_EQ(job->result, FILL_WRITE_ERROR);
	CHECK(job->err == ENOSPC || job->err == ENOMEM);
	free(job);
}
