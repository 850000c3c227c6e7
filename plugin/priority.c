// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "priority.h"

/* linux/ioprio.h, which libc has no wrapper for */
#define IO_WHO_PROCESS	     1
#define IO_CLASS_SHIFT	     13
#define IO_CLASS_BEST_EFFORT 2
#define IO_CLASS_IDLE	     3

/* Several times the default */
#define SLICE_NS 20000000

static int wanted_nice;
static int wanted_ioprio = PRIORITY_AS_IS;

void priority_choose(int nice, int ioprio)
{
	wanted_nice = nice;
	wanted_ioprio = ioprio;
}

/* Both calls mean the thread when they are given 0 */
int priority_lower(void)
{
	int io = wanted_ioprio == PRIORITY_IDLE ? IO_CLASS_IDLE << IO_CLASS_SHIFT :
						  IO_CLASS_BEST_EFFORT << IO_CLASS_SHIFT | wanted_ioprio;
	int err = 0;

	/* the daemon may have been started with less already */
	if (wanted_nice > getpriority(PRIO_PROCESS, 0) && setpriority(PRIO_PROCESS, 0, wanted_nice))
		err = -errno;
	if (wanted_ioprio != PRIORITY_AS_IS && syscall(SYS_ioprio_set, IO_WHO_PROCESS, 0, io) && !err)
		err = -errno;
	return err;
}

static void *try_it(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)priority_lower();
}

int priority_check(void)
{
	pthread_t thread;
	void *ret;
	int err;

	err = pthread_create(&thread, NULL, try_it, NULL);
	if (err)
		return -err;

	pthread_join(thread, &ret);
	return (int)(intptr_t)ret;
}

/* linux/sched/types.h, which libc's headers collide with */
struct sched_attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

int priority_yield_soon(void)
{
	struct sched_attributes attr = { 0 };

	if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0))
		return -errno;
	attr.runtime = SLICE_NS;
	return syscall(SYS_sched_setattr, 0, &attr, 0) ? -errno : 0;
}
