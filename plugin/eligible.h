/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_ELIGIBLE_H
#define LSHM_ELIGIBLE_H

#include <stdint.h>

#include "criu.h"

/*
 * Why an object is restored before resume; LSHM_LAZY if it need not be.
 * docs/semantics.md has a row for each.
 */
enum lshm_verdict {
	LSHM_LAZY,
	LSHM_EMPTY,
	LSHM_SYSV,
	LSHM_INHERITED,
	LSHM_FD_OPEN,
	LSHM_LOCKED,
	LSHM_RDONLY,
	LSHM_WRITE_SEALED,
	LSHM_NO_MINOR_HUGETLB,
	LSHM_LARGE_PAGES,
	LSHM_UNKNOWN,
	LSHM_VERDICTS
};

/*
 * The one place where it is decided whether an object is restored lazily. An
 * object must not be lazy if its contents can be reached without a fault on a
 * registered mapping, or if one of its mappings can not be registered, or if it
 * could not be filled later. uffd_features are the kernel's.
 *
 * Pure. Any thread.
 */
enum lshm_verdict lshm_eligible(const struct cr_shmem_object *obj, uint64_t uffd_features);

/*
 * Who brings the contents of an object with that verdict, and when: what the hook
 * SHMEM_LAZY answers. Pure. Any thread.
 */
int lshm_delivery(const struct cr_shmem_object *obj, enum lshm_verdict verdict);

/* One line for the operator, static storage. Any thread. */
const char *lshm_verdict_text(enum lshm_verdict verdict);

#endif
