// SPDX-License-Identifier: GPL-2.0-only
#define SIZE (256 * MiB)
#include "lshm_same_place.h"

const char *test_doc = "Two tasks move different parts of an object to the same address, and touch them there";
const char *test_author = "criu-lazy-shmem";

/* It must not take until all has come: who waits goes first */
static int act(int task)
{
	int lazy = lshm_vmflag(NULL, "ui") > 0;
	struct lshm part;

	if (move(task, &part) || lshm_check_page(&part, part.nr / 2))
		return 1;
	if (lazy && !lshm_vmflag(NULL, "ui")) {
		fail("task %d had to wait until all was complete", task);
		return 1;
	}
	return lshm_check(&part);
}
