// SPDX-License-Identifier: GPL-2.0-only
#include "eligible.h"

#define KNOWN_FLAGS                                                                                          \
	(CR_SHMEM_FD_OPEN | CR_SHMEM_INHERITED | CR_SHMEM_LOCKED | CR_SHMEM_RDONLY | CR_SHMEM_WRITE_SEALED | \
	 CR_SHMEM_HUGETLB | CR_SHMEM_SYSV)

enum lshm_verdict lshm_eligible(const struct cr_shmem_object *obj)
{
	if (!obj->size)
		return LSHM_EMPTY;
	/* An attach has shm_vm_ops, which userfaultfd does not know as shmem: EINVAL */
	if (obj->flags & CR_SHMEM_SYSV)
		return LSHM_SYSV;
	/* pwrite(2) does not work on hugetlbfs: EINVAL */
	if (obj->flags & CR_SHMEM_HUGETLB)
		return LSHM_HUGETLB;
	/* Whoever gave us the descriptor has one too */
	if (obj->flags & CR_SHMEM_INHERITED)
		return LSHM_INHERITED;
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
	/* a later CRIU knows something of it that we do not understand */
	if (obj->flags & ~(uint32_t)KNOWN_FLAGS)
		return LSHM_UNKNOWN;

	return LSHM_LAZY;
}

const char *lshm_verdict_text(enum lshm_verdict verdict)
{
	static const char *const text[LSHM_VERDICTS] = {
		[LSHM_LAZY] = "lazy",
		[LSHM_EMPTY] = "it has no contents",
		[LSHM_SYSV] = "it is a SysV segment",
		[LSHM_HUGETLB] = "it has huge pages",
		[LSHM_INHERITED] = "it is inherited from outside (--inherit-fd)",
		[LSHM_FD_OPEN] = "a descriptor of it is open",
		[LSHM_LOCKED] = "a mapping of it is locked",
		[LSHM_RDONLY] = "it is mapped shared through a read-only descriptor",
		[LSHM_WRITE_SEALED] = "it is sealed against writing",
		[LSHM_UNKNOWN] = "it has a property that this plugin does not know",
	};

	return verdict < LSHM_VERDICTS ? text[verdict] : "unknown";
}
