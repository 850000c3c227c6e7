/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_MODES_H
#define LSHM_MODES_H

#include <stdbool.h>
#include <stdint.h>

/*
 * How much is brought that nobody waits for, and what has to be done from time to
 * time. The event loop's alone.
 */

/*
 * SIGUSR1 waits from here on, in all threads and processes that we start as well: before the
 * daemon says that it is ready, or it could be the end of it. 0 or -errno.
 */
int modes_hold_signal(void);

/* When the daemon starts, before there are threads. epollfd: where events are waited for. 0, or -1 with the reason logged. */
int modes_init(int epollfd);

/* The tasks run. 0, or -1 with the reason logged. */
int modes_resume(void);

/* Whether pages that nobody asked for are brought at all; a signal may change it. */
bool modes_background(void);

/* A thread can go on only when its task is retired: all is brought, and no recording holds the tasks. */
void modes_bring_all(void);

/* Whether the bandwidth allows for more; if not, filling_event() is called when it does. */
bool modes_may_fill(void);

/* So many bytes were asked for; somebody waits for them, or not. */
void modes_spent(uint64_t bytes, bool wanted);

#endif
