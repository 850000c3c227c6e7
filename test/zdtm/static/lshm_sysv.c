// SPDX-License-Identifier: GPL-2.0-only
#include <sys/ipc.h>
#include <sys/shm.h>

#include "lshm_common.h"

const char *test_doc = "A SysV segment cannot be registered, and a new shmat reads it: not lazy";
const char *test_author = "criu-lazy-shmem";

#define SIZE (32 * MiB)

static struct lshm m;
static int id;

static int attach(struct lshm *view, int flags)
{
	*view = m;
	view->nr = SIZE / PAGE_SIZE;
	view->map = shmat(id, NULL, flags);
	if (view->map == (void *)-1) {
		pr_perror("Can't attach the segment");
		return 1;
	}
	return 0;
}

int lshm_setup(void)
{
	m.seed = lshm_new_seed();
	id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
	if (id < 0) {
		pr_perror("Can't create a segment");
		return 1;
	}
	if (attach(&m, 0))
		return 1;
	lshm_fill(&m);
	return 0;
}

int lshm_run(void)
{
	struct lshm again;

	if (attach(&again, SHM_RDONLY) || lshm_check_shuffled(&again, m.seed) || lshm_check(&m))
		return 1;
	if (shmctl(id, IPC_RMID, NULL)) {
		pr_perror("Can't remove the segment");
		return 1;
	}
	return 0;
}
