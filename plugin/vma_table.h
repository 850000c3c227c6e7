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

/*
 * What is known of the registered mappings of one task, sorted, not overlapping.
 * Not all there are: see task_learn_mapping(). Zeroed is empty.
 */
struct vma_table {
	struct vma *v;
	size_t n, cap;
};

/* The mapping that contains addr, or NULL. Valid until the table changes. */
struct vma *vma_table_find(const struct vma_table *t, uint64_t addr);

/* All return 0 or -ENOMEM, with the table unchanged. */

/* Whatever was at its place is dropped first, as the kernel does. */
int vma_table_insert(struct vma_table *t, const struct vma *vma);

/* munmap(), and whatever else makes it doubtful what is there */
int vma_table_cut(struct vma_table *t, uint64_t start, uint64_t end);

void vma_table_free(struct vma_table *t);

#endif
