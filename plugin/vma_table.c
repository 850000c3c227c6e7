// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vma_table.h"

/* Index of the first mapping that ends above addr */
static size_t first_above(const struct vma_table *t, uint64_t addr)
{
	size_t lo = 0, hi = t->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (t->v[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}

	return lo;
}

static int reserve(struct vma_table *t, size_t n)
{
	size_t cap = t->cap ? t->cap : 8;
	struct vma *v;

	while (cap < n)
		cap *= 2;
	if (cap == t->cap)
		return 0;

	v = reallocarray(t->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;

	t->v = v;
	t->cap = cap;
	return 0;
}

struct vma *vma_table_find(const struct vma_table *t, uint64_t addr)
{
	size_t i = first_above(t, addr);

	return i < t->n && t->v[i].start <= addr ? &t->v[i] : NULL;
}

int vma_table_cut(struct vma_table *t, uint64_t start, uint64_t end)
{
	size_t i, from, to;

	if (start >= end)
		return 0;
	if (reserve(t, t->n + 1))
		return -ENOMEM;

	from = first_above(t, start);
	if (from < t->n && t->v[from].start < start) {
		struct vma *head = &t->v[from];

		if (head->end > end) { /* a hole in the middle */
			memmove(head + 1, head, (t->n - from) * sizeof(*head));
			t->n++;
			head[1].pgoff += end - head->start;
			head[1].start = end;
			head->end = start;
			return 0;
		}
		head->end = start;
		from++;
	}

	for (to = from; to < t->n && t->v[to].end <= end; to++)
		;
	if (to < t->n && t->v[to].start < end) {
		t->v[to].pgoff += end - t->v[to].start;
		t->v[to].start = end;
	}

	for (i = to; i < t->n; i++)
		t->v[from + i - to] = t->v[i];
	t->n -= to - from;
	return 0;
}

int vma_table_insert(struct vma_table *t, const struct vma *vma)
{
	size_t i;

	/* two more: the cut may split one */
	if (reserve(t, t->n + 2))
		return -ENOMEM;

	vma_table_cut(t, vma->start, vma->end);

	i = first_above(t, vma->start);
	memmove(t->v + i + 1, t->v + i, (t->n - i) * sizeof(*t->v));
	t->v[i] = *vma;
	t->n++;
	return 0;
}

void vma_table_free(struct vma_table *t)
{
	free(t->v);
	*t = (struct vma_table){ 0 };
}
