/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An object whose words are known from a seed, and the order in which threads touch
 * its pages. The order is made in advance, and each access is recorded beside it, in
 * a file that is shared with whoever reads the records. It should be on tmpfs: restore
 * maps it as it is, so to read the order and to write a record costs no lazy page.
 */
#ifndef BENCH_TOUCHING_H
#define BENCH_TOUCHING_H

#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>

#define TOUCH_PAGE  4096UL
#define TOUCH_LANES 64
#define TOUCH_MAGIC 0x31686375UL
#define TOUCH_ZIPF  0.99
#define TOUCH_SEED  0x9e3779b97f4a7c15UL

/* One access. Times are CLOCK_REALTIME in ns: restore gives tasks a monotonic clock of their own. */
struct access {
	uint64_t begin;
	uint32_t ns;
	uint32_t page;
};

/* One thread of one task */
struct lane {
	uint64_t resumed;    /* when it was let go */
	uint64_t done;	     /* after its last access */
	uint64_t wrong;	     /* words that were not what they must be */
	uint64_t first, end; /* its accesses in the plan */
};

struct plan {
	uint64_t magic;
	uint64_t accesses;
	uint64_t lanes;
	uint64_t clock_ns; /* what measuring alone takes; is in each access */
	struct lane lane[TOUCH_LANES];
	struct access access[];
};

static inline uint64_t touch_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static inline uint64_t touch_word(uint64_t i)
{
	uint64_t x = (i + 1) * TOUCH_SEED;

	return (x ^ (x >> 29)) | 1;
}

/* Which word of a page is read: not always the first, so that a torn page shows */
static inline uint64_t touch_index(uint64_t page)
{
	return page * (TOUCH_PAGE / 8) + (touch_word(page) >> 20) % (TOUCH_PAGE / 8);
}

static inline void touch_fill(uint64_t *mem, uint64_t size)
{
	uint64_t i;

	for (i = 0; i < size / 8; i++)
		mem[i] = touch_word(i);
}

static inline uint64_t touch_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void touch_shuffle(uint32_t *page, uint64_t n, uint64_t *state)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		page[i] = (uint32_t)i;
	for (i = n - 1; i; i--) {
		uint64_t j = touch_random(state) % (i + 1);
		uint32_t swapped = page[i];

		page[i] = page[j];
		page[j] = swapped;
	}
}

/* The rank of each access; rank r is as frequent as 1/r^s. */
static inline int touch_zipf(struct plan *plan, const uint32_t *page, uint64_t n, uint64_t *state)
{
	double *sum = calloc(n, sizeof(*sum)), total = 0;
	uint64_t i;

	if (!sum)
		return -1;
	for (i = 0; i < n; i++)
		sum[i] = total += pow((double)(i + 1), -TOUCH_ZIPF);
	for (i = 0; i < n; i++) {
		double at = total * ((double)(touch_random(state) >> 11) / (double)(1UL << 53));
		uint64_t low = 0, high = n - 1;

		while (low < high) {
			uint64_t mid = (low + high) / 2;

			if (sum[mid] <= at)
				low = mid + 1;
			else
				high = mid;
		}
		plan->access[i].page = page[low];
	}
	free(sum);
	return 0;
}

static inline int touch_order(struct plan *plan, const char *order)
{
	uint64_t n = plan->accesses, i, state = TOUCH_SEED;
	uint32_t *page = calloc(n, sizeof(*page));
	int ret = 0;

	if (!page)
		return -1;
	touch_shuffle(page, n, &state);
	for (i = 0; i < n; i++)
		plan->access[i].page = strcmp(order, "seq") ? page[i] : (uint32_t)i;
	if (!strcmp(order, "zipf"))
		ret = touch_zipf(plan, page, n, &state);
	free(page);
	return ret;
}

static inline uint64_t touch_clock_cost(void)
{
	uint64_t least = UINT64_MAX;
	int i;

	for (i = 0; i < 1000; i++) {
		uint64_t begin = touch_now(), ns = touch_now() - begin;

		least = ns < least ? ns : least;
	}
	return least;
}

/* As many accesses as the object has pages, a share of them for each lane */
static inline struct plan *touch_plan(const char *path, uint64_t pages, const char *order, unsigned int lanes)
{
	uint64_t size = sizeof(struct plan) + pages * sizeof(struct access);
	struct plan *plan = MAP_FAILED;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	unsigned int i;

	if (fd < 0)
		return NULL;
	if (!ftruncate(fd, (off_t)size))
		plan = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (plan == MAP_FAILED)
		return NULL;

	plan->magic = TOUCH_MAGIC;
	plan->accesses = pages;
	plan->lanes = lanes;
	plan->clock_ns = touch_clock_cost();
	for (i = 0; i < lanes; i++) {
		plan->lane[i].first = pages * i / lanes;
		plan->lane[i].end = pages * (i + 1) / lanes;
	}
	return touch_order(plan, order) ? NULL : plan;
}

/* Let go just now; pause: ns between accesses, without sleeping */
static inline void touch_all(struct plan *plan, unsigned int number, const uint64_t *mem, uint64_t pause)
{
	struct lane *lane = &plan->lane[number];
	struct access *a = &plan->access[lane->first], *end = &plan->access[lane->end];
	uint64_t resumed = touch_now(), wrong = 0;

	for (; a < end; a++) {
		uint64_t at = touch_index(a->page), word, took;

		a->begin = touch_now();
		word = *(volatile const uint64_t *)(mem + at);
		took = touch_now() - a->begin;
		a->ns = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
		wrong += word != touch_word(at);
		if (pause)
			while (touch_now() < a->begin + took + pause)
				;
	}
	lane->done = touch_now();
	lane->resumed = resumed;
	lane->wrong = wrong;
}

#endif
