/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PRIORITY_H
#define LSHM_PRIORITY_H

/* How much those who fill in the background give way to others. */

#define PRIORITY_AS_IS -1 /* of ioprio: nothing was asked for */
#define PRIORITY_IDLE  -2 /* only when nobody else wants the disk */

/* ioprio: one of these, or 0 to 7 of the best-effort class. Before there are threads. */
void priority_choose(int nice, int ioprio);

/* The calling thread is one of them. 0 or -errno. */
int priority_lower(void);

/*
 * Has the scheduler give way to others, whose slice is shorter, as soon as they wake up: a
 * thread that copies all the time would keep the event loop, and tasks that it has woken,
 * waiting for its whole slice. Costs no share of the processor. Linux 6.12; before, it does
 * nothing. For the calling thread. 0 or -errno.
 */
int priority_yield_soon(void);

/* Whether priority_lower() works here, tried out in a thread of its own. 0 or -errno. */
int priority_check(void);

#endif
