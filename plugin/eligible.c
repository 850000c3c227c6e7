// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <linux/userfaultfd.h>

#include "eligible.h"

#define KNOWN_FLAGS                                                                                          \
	(CR_SHMEM_FD_OPEN | CR_SHMEM_INHERITED | CR_SHMEM_LOCKED | CR_SHMEM_RDONLY | CR_SHMEM_WRITE_SEALED | \
	 CR_SHMEM_HUGETLB | CR_SHMEM_SYSV | CR_SHMEM_FILL_FIRST)

/* A fault waits for all of a page: that should not take longer than a few units of fill */
#define MAX_LAZY_PAGE (2UL << 20)

/* What our numbers are good for */
#define MAX_PAGE (1UL << 30)

enum lshm_verdict lshm_eligible(const struct cr_shmem_object *obj, uint64_t uffd_features)
{
	if (!obj->size)
		return LSHM_EMPTY;
	/* An attach has shm_vm_ops, which userfaultfd does not know as shmem: EINVAL */
	if (obj->flags & CR_SHMEM_SYSV)
		return LSHM_SYSV;
	/* Whoever gave us the descriptor has one too */
	if (obj->flags & CR_SHMEM_INHERITED)
		return LSHM_INHERITED;
	/* a later CRIU knows something of it that we do not understand */
	if (obj->flags & ~(uint32_t)KNOWN_FLAGS)
		return LSHM_UNKNOWN;
	/* read(2), write(2) and new mappings raise no event and show zeroes */
	if (obj->flags & CR_SHMEM_FD_OPEN)
		return LSHM_FD_OPEN;
	/* mmap(MAP_LOCKED) allocates the pages, zeroed, before we could register */
	if (obj->flags & CR_SHMEM_LOCKED)
		return LSHM_LOCKED;
	/* UFFDIO_REGISTER wants VM_MAYWRITE of a shared mapping: EPERM */
	if (obj->flags & CR_SHMEM_RDONLY)
		return LSHM_RDONLY;
	/* Neither can such a mapping be registered, nor the page cache be written */
	if (obj->flags & CR_SHMEM_WRITE_SEALED)
		return LSHM_WRITE_SEALED;
	if ((obj->flags & CR_SHMEM_HUGETLB) && !(uffd_features & UFFD_FEATURE_MINOR_HUGETLBFS))
		return LSHM_NO_MINOR_HUGETLB;
	if (obj->page_size > MAX_LAZY_PAGE)
		return LSHM_LARGE_PAGES;
	return LSHM_LAZY;
}

const char *lshm_verdict_text(enum lshm_verdict verdict)
{
	static const char *const text[LSHM_VERDICTS] = {
		[LSHM_LAZY] = "lazy",
		[LSHM_EMPTY] = "it has no contents",
		[LSHM_SYSV] = "it is a SysV segment",
		[LSHM_INHERITED] = "it is inherited from outside (--inherit-fd)",
		[LSHM_FD_OPEN] = "a descriptor of it is open",
		[LSHM_LOCKED] = "a mapping of it is locked",
		[LSHM_RDONLY] = "it is mapped shared through a read-only descriptor",
		[LSHM_WRITE_SEALED] = "it is sealed against writing",
		[LSHM_NO_MINOR_HUGETLB] = "this kernel has no minor faults for huge pages",
		[LSHM_LARGE_PAGES] = "its huge pages are so large that a fault would wait too long",
		[LSHM_UNKNOWN] = "it has a property that this plugin does not know",
	};

	return verdict < LSHM_VERDICTS ? text[verdict] : "unknown";
}

int lshm_delivery(const struct cr_shmem_object *obj, enum lshm_verdict verdict)
{
	switch (verdict) {
	case LSHM_LAZY:
		return CR_SHMEM_LAZY;
	case LSHM_SYSV:
	case LSHM_FD_OPEN:
	case LSHM_LOCKED:
	case LSHM_RDONLY:
	case LSHM_WRITE_SEALED:
	case LSHM_NO_MINOR_HUGETLB:
	case LSHM_LARGE_PAGES:
		return obj->page_size <= MAX_PAGE ? CR_SHMEM_BEFORE_RESUME : -ENOTSUP;
	default:
		/* nothing to bring, or none of our business */
		return -ENOTSUP;
	}
}
