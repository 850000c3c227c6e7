/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PROGRESS_H
#define LSHM_PROGRESS_H

/*
 * Tells, while tasks run and contents are to come, how far it is: in a line on the terminal, or now
 * and then in the log. The event loop's alone. What goes wrong here is no reason for
 * anything to fail.
 */

void progress_init(int epollfd);

/* The tasks run. */
void progress_start(void);

/* Something was done, for whoever had stopped looking because nothing was. */
void progress_activity(void);

/* Cleans up the terminal. */
void progress_stop(void);

#endif
