// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "page_map.h"

static int is_left(uint8_t state)
{
	return state == PAGE_EMPTY || state == PAGE_FILLING || state == PAGE_DOOMED;
}

int page_map_init(struct page_map *pm, const char *name, unsigned long pages)
{
	void *mem;
	int err;

	*pm = (struct page_map){ .pages = pages, .fd = -1 };

	pm->fd = memfd_create(name, MFD_CLOEXEC);
	if (pm->fd < 0)
		return -errno;

	if (ftruncate(pm->fd, (off_t)pages))
		goto err;

	mem = mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_SHARED, pm->fd, 0);
	if (mem == MAP_FAILED)
		goto err;

	pm->state = mem;
	return 0;
err:
	err = -errno;
	close(pm->fd);
	pm->fd = -1;
	return err;
}

void page_map_fini(struct page_map *pm)
{
	if (pm->state)
		munmap(pm->state, pm->pages);
	if (pm->fd >= 0)
		close(pm->fd);
	*pm = (struct page_map){ .fd = -1 };
}

void page_map_set(struct page_map *pm, unsigned long page, unsigned long nr, enum page_state state)
{
	/* counted apart from pm, which a store of a byte could change for all the compiler knows */
	unsigned long i, left = 0, empty = 0;

	for (i = page; i < page + nr; i++) {
		left += (unsigned long)is_left(pm->state[i]);
		empty += pm->state[i] == PAGE_EMPTY;
	}

	memset(pm->state + page, state, nr);
	pm->left += (is_left(state) ? nr : 0) - left;
	pm->empty += (state == PAGE_EMPTY ? nr : 0) - empty;
}

unsigned long page_map_next_empty(const struct page_map *pm, unsigned long from)
{
	const uint8_t *p;

	if (from >= pm->pages)
		return pm->pages;

	p = memchr(pm->state + from, PAGE_EMPTY, pm->pages - from);
	return p ? (unsigned long)(p - pm->state) : pm->pages;
}

unsigned long page_map_run(const struct page_map *pm, unsigned long page, unsigned long max)
{
	unsigned long nr = 0;

	while (nr < max && page + nr < pm->pages && pm->state[page + nr] == pm->state[page])
		nr++;

	return nr;
}

void page_map_punched(struct page_map *pm, unsigned long page, unsigned long nr)
{
	unsigned long i;

	for (i = page; i < page + nr; i++) {
		enum page_state state = page_map_get(pm, i);

		if (state == PAGE_FILLING)
			page_map_set(pm, i, 1, PAGE_DOOMED);
		else if (state != PAGE_DOOMED)
			page_map_set(pm, i, 1, PAGE_HOLE);
	}
}

int page_map_unfilled(const struct page_map *pm, unsigned long page, unsigned long nr)
{
	unsigned long i;

	for (i = page; i < page + nr; i++)
		if (is_left(pm->state[i]))
			return 1;

	return 0;
}
