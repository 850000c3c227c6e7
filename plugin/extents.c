// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>

#include "extents.h"

static int grow(struct extents *ex)
{
	size_t cap = ex->cap ? ex->cap * 2 : 64;
	struct extent *v;

	v = reallocarray(ex->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;

	ex->v = v;
	ex->cap = cap;
	return 0;
}

int extents_add(struct extents *ex, const struct extent *e, uint64_t limit, uint64_t page_size)
{
	struct extent *last = ex->n ? &ex->v[ex->n - 1] : NULL;

	if (!e->len || ((e->off | e->len | e->src_off) & (page_size - 1)))
		return -EINVAL;
	if (e->off > limit || e->len > limit - e->off || e->src_off > (uint64_t)INT64_MAX - e->len)
		return -EINVAL;
	if (last && e->off < last->off + last->len)
		return -EINVAL;

	if (last && e->off == last->off + last->len && e->src_fd == last->src_fd &&
	    e->src_off == last->src_off + last->len) {
		last->len += e->len;
		return 0;
	}

	if ((!ex->v || ex->n == ex->cap) && grow(ex))
		return -ENOMEM;

	ex->v[ex->n++] = *e;
	return 0;
}

const struct extent *extents_from(const struct extents *ex, uint64_t off)
{
	size_t lo = 0, hi = ex->n;

	/* all before lo end at or before off, all from hi on end behind it */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (ex->v[mid].off + ex->v[mid].len > off)
			hi = mid;
		else
			lo = mid + 1;
	}

	return lo < ex->n ? &ex->v[lo] : NULL;
}

const struct extent *extents_next(const struct extents *ex, const struct extent *e)
{
	return e + 1 < ex->v + ex->n ? e + 1 : NULL;
}

unsigned int extents_count(const struct extents *ex, uint64_t off, uint64_t end)
{
	const struct extent *e;
	unsigned int nr = 0;

	for (e = extents_from(ex, off); e && e->off < end; e = extents_next(ex, e))
		nr++;

	return nr;
}

void extents_free(struct extents *ex)
{
	free(ex->v);
	*ex = (struct extents){ 0 };
}
