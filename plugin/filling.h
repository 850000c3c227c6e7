/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_FILLING_H
#define LSHM_FILLING_H

#include <stdbool.h>
#include <stdint.h>

struct object;
struct window;

/*
 * What the fill workers do next: makes jobs of the pages of objects, and hands
 * back what has become of them. Here is the policy. The event loop's alone.
 */

/* epollfd: where events are waited for. */
void filling_init(int epollfd);

/* Starts the workers, if they are not there yet. After guard_start(). 0, or -1 with the reason logged. */
int filling_start(void);

/* Keeps the workers busy with what object_wants_fill(), the objects taking turns. */
void filling_more(void);

/*
 * Whether page may be asked for already. A page server is told only at resume that
 * it is needed: until then it may have the tasks still.
 */
bool filling_is_allowed(const struct object *obj, unsigned long page);

/*
 * A fault waits for page, which is EMPTY, FILLING or DOOMED: it goes before all others, and with
 * it what is EMPTY around it in win. May call object_filled() before it returns. 0 or -ENOMEM.
 */
int filling_urgent(struct object *obj, unsigned long page, const struct window *win);

/*
 * Has [off, off + len), bytes in a hole, allocated where that is charged to the cgroup of
 * obj. 1: object_zeroed() follows; 0: the daemon may do it itself; or -ENOMEM.
 */
int filling_allocate(struct object *obj, uint64_t off, uint64_t len);

/*
 * Has the event loop call tasks_retry() soon, after it has looked at the
 * userfaultfds, and look for tasks that are not busy any more.
 */
void filling_kick(void);

/* Looks for jobs that are done, and all that follows from it: what a read_event() returns. */
int filling_event(void);

/* Lets the workers finish what they have in hand, and ends them. */
void filling_fini(void);

#endif
