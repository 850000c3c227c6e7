// SPDX-License-Identifier: GPL-2.0-only
#define SIZE (64 * MiB)
#include "lshm_same_place.h"

const char *test_doc = "Two tasks move different parts of an object to the same address, and drop their pages there";
const char *test_author = "criu-lazy-shmem";

/* Only mappings are dropped; contents stay */
static int act(int task)
{
	struct lshm part;

	if (move(task, &part))
		return 1;
	if (madvise(part.map, PART, MADV_DONTNEED)) {
		pr_perror("Can't drop the pages");
		return 1;
	}
	return lshm_check(&part);
}
