/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_FOLIOS_H
#define LSHM_FOLIOS_H

#include <stdbool.h>

/*
 * Whether the page cache of an object may have large folios: pwrite() of a page then
 * allocates its neighbours as well, full of zeroes. That is up to the operator, by
 * /sys/kernel/mm/transparent_hugepage/shmem_enabled and hugepages-<size>kB/shmem_enabled
 * (Documentation/admin-guide/mm/transhuge.rst). "advise" is about mappings, not about
 * pwrite() (mm/shmem.c, shmem_allowable_huge_orders() without a vma).
 */

/* dir: FOLIOS_DIR, but for tests. */
#define FOLIOS_DIR "/sys/kernel/mm/transparent_hugepage"
bool folios_allowed(const char *dir);

/* Looks how it is now. Once yes, it is yes for good. The event loop's alone, as is the answer. */
void folios_look(void);
bool folios_may_be_large(void);

#endif
