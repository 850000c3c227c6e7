/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_EXTENTS_H
#define LSHM_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Where the contents of an object are: runs of pages, each from one place. What
 * no extent covers is a hole. All offsets and lengths in bytes, page aligned.
 */
struct extent {
	uint64_t off; /* in the object */
	uint64_t len;
	uint64_t src_off; /* in src_fd; if that is SEG_REMOTE, then off */
	int src_fd;	  /* borrowed; or SEG_REMOTE, see fill.h */
};

/* Sorted by off, not overlapping. Zero-initialised is empty. */
struct extents {
	struct extent *v;
	size_t n, cap;
};

/*
 * Appends a run, merging it with the last one where both continue. Runs must
 * come in order. 0; -EINVAL: unaligned, empty, overlapping or out of order, or
 * past limit (bytes); -ENOMEM.
 */
int extents_add(struct extents *ex, const struct extent *e, uint64_t limit, uint64_t page_size);

/* The first extent that ends behind off, so the one that covers it if there is one; or NULL. */
const struct extent *extents_from(const struct extents *ex, uint64_t off);

/* The one after e, or NULL. */
const struct extent *extents_next(const struct extents *ex, const struct extent *e);

/* How many have a part in [off, end). */
unsigned int extents_count(const struct extents *ex, uint64_t off, uint64_t end);

void extents_free(struct extents *ex);

#endif
