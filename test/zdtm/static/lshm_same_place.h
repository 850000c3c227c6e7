/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_SAME_PLACE_H
#define LSHM_SAME_PLACE_H

/*
 * Two tasks move different parts of an object of SIZE bytes to the same address: a
 * test says, with act(), what each of them (0, 1) does then.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "lshm_common.h"

static int act(int task);

#define PART (8 * MiB)

static struct lshm m;
static uint8_t *place; /* the same for both */
static int moved[2][2];
static pid_t child;

/* Task 0 moves the last part, task 1 the one before. Each tells the other, and waits for it */
static int move(int task, struct lshm *part)
{
	unsigned long nr = PART / PAGE_SIZE;
	char c;

	*part = lshm_sub(&m, m.nr - (task + 1) * nr, nr);
	if (mremap(part->map, PART, PART, MREMAP_MAYMOVE | MREMAP_FIXED, place) != place) {
		pr_perror("Can't move");
		return 1;
	}
	part->map = place;
	if (write(moved[task][1], "", 1) != 1 || TEMP_FAILURE_RETRY(read(moved[!task][0], &c, 1)) != 1) {
		pr_perror("Can't meet");
		return 1;
	}
	return 0;
}

static int child_main(void *arg)
{
	return act(1);
}

int lshm_setup(void)
{
	place = mmap(NULL, PART, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (place == MAP_FAILED || pipe(moved[0]) || pipe(moved[1])) {
		pr_perror("Can't prepare");
		return 1;
	}
	if (lshm_map_anon(&m, SIZE))
		return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	int ret = act(0);

	ret |= lshm_reap(child);
	return ret || lshm_check_range(&m, 0, m.nr - PART / PAGE_SIZE);
}

#endif
