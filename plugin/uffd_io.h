/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_UFFD_IO_H
#define LSHM_UFFD_IO_H

#include <stdint.h>

/*
 * The userfaultfd operations, see mm/userfaultfd.c and fs/userfaultfd.c of the
 * kernel. Only the event loop uses them. Addresses and lengths in bytes, page
 * aligned. All return 0 or -errno, of which everywhere
 *   -EAGAIN  the mappings are changing: read the event, then try again
 *   -ESRCH   the memory of the task is gone
 *   -ENOENT  no single registered mapping covers the range
 */

/*
 * Maps the pages [addr, addr + len) that are in the page cache and wakes who
 * waits for them. Pages that are mapped already are stepped over. *mapped (may
 * be NULL) gets the bytes newly mapped, on error as well.
 *   -EFAULT  a page is not in the page cache
 *   -EINVAL  the mapping is not of shmem
 */
int uffd_continue(int uffd, uint64_t addr, uint64_t len, uint64_t *mapped, uint64_t page_size);

/* Does nothing, but to fail with -ESRCH when that is due. */
int uffd_probe(int uffd);

/* How many ioctls uffd_continue() has made. */
extern uint64_t uffd_nr_continue;

/* Wakes who waits in the range, to fault again. */
int uffd_wake(int uffd, uint64_t addr, uint64_t len);

#endif
