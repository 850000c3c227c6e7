/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PAGE_MAP_H
#define LSHM_PAGE_MAP_H

#include <stdint.h>

/*
 * What is known of each page of an object. Only the event loop changes it:
 *
 *   HOLE ◀── punched ── EMPTY ── job submitted ──▶ FILLING ── job done ──▶ FILLED
 *    ▲ ▲                                             │                      │
 *    │ └── job done, then punched by us ── DOOMED ◀──┘ punched              │
 *    └───────────────────────────── punched ────────────────────────────────┘
 *
 * A task can reach a page only once it is FILLED, or as a HOLE; filling writes
 * only pages that are EMPTY at submission. So filling never overwrites what a
 * task stored, and never brings back what was punched (invariant 3).
 */
enum page_state {
	PAGE_HOLE = 0, /* reads as zeroes unless a task stored something; never filled */
	PAGE_EMPTY,    /* its contents are still in the images */
	PAGE_FILLING,  /* a job that writes it is submitted */
	PAGE_DOOMED,   /* as before, but it was punched meanwhile */
	PAGE_FILLED,   /* its contents are in the page cache */
};

/*
 * One byte a page, in a memfd: the descriptor outlives the daemon with its
 * guard, so a successor can see what must not be filled again.
 */
struct page_map {
	uint8_t *state; /* enum page_state */
	unsigned long pages;
	unsigned long left;  /* pages EMPTY, FILLING or DOOMED */
	unsigned long empty; /* pages EMPTY */
	int fd;
};

/* All pages HOLE. 0 or -errno. */
int page_map_init(struct page_map *pm, const char *name, unsigned long pages);
void page_map_fini(struct page_map *pm);

/* All indices and counts below are in pages, and inside of the map. */

void page_map_set(struct page_map *pm, unsigned long page, unsigned long nr, enum page_state state);

static inline enum page_state page_map_get(const struct page_map *pm, unsigned long page)
{
	return (enum page_state)pm->state[page];
}

/* The first EMPTY page at or after from, or pm->pages. */
unsigned long page_map_next_empty(const struct page_map *pm, unsigned long from);

/* How many pages from page on, at most max, are in the same state as page. */
unsigned long page_map_run(const struct page_map *pm, unsigned long page, unsigned long max);

/* A range was punched by a task: whatever is there now must stay as it is. */
void page_map_punched(struct page_map *pm, unsigned long page, unsigned long nr);

/* Whether a page in the range is still to be filled. */
int page_map_unfilled(const struct page_map *pm, unsigned long page, unsigned long nr);

#endif
