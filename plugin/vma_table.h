/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_VMA_TABLE_H
#define LSHM_VMA_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct object;

/* A registered mapping of an object. Addresses and offsets in bytes, page aligned. */
struct vma {
	uint64_t start, end;
	uint64_t pgoff; /* of start, from the beginning of the object */
	struct object *obj;
	bool is_private; /* MAP_PRIVATE */
};

/* The registered mappings of one task, sorted, not overlapping. Zeroed is empty. */
struct vma_table {
	struct vma *v;
	size_t n, cap;
};

/* The mapping that contains addr, or NULL. Valid until the table changes. */
struct vma *vma_table_find(const struct vma_table *t, uint64_t addr);

/* The last mapping that begins at or below addr, or NULL. */
struct vma *vma_table_before(const struct vma_table *t, uint64_t addr);

/* All return 0 or -ENOMEM, with the table unchanged. */

/* Whatever was at its place is dropped first, as the kernel does. */
int vma_table_insert(struct vma_table *t, const struct vma *vma);

/* munmap() */
int vma_table_cut(struct vma_table *t, uint64_t start, uint64_t end);

/*
 * mremap(): what is at [from, from + len) is at to as well. The kernel tells of
 * the old place by an unmap event of its own, except for MREMAP_DONTUNMAP,
 * which keeps it. len 0 (old_size 0) adds a second mapping of a length that the
 * event does not tell; it is entered with one page (page_size bytes).
 */
int vma_table_remap(struct vma_table *t, uint64_t from, uint64_t to, uint64_t len, uint64_t page_size);

/* fork(); dst is empty */
int vma_table_copy(struct vma_table *dst, const struct vma_table *src);

void vma_table_free(struct vma_table *t);

#endif
