/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_REPORT_H
#define LSHM_REPORT_H

#include <stdbool.h>

/* In the work directory, which is the daemon's current one */
#define REPORT_FILE "lazy-shmem-stats.json"

/*
 * What a restore was like: lines in the log, and REPORT_FILE; docs/operations.md says
 * what is in there. The event loop's alone.
 */

/* The daemon is ready. What an earlier one has left is removed. */
void report_start(void);

/* The tasks run. */
void report_resumed(void);

/*
 * All is over, but objects and tasks are still known. If it can not be written there is a
 * warning, and that is all. Does nothing without report_start().
 */
void report_write(bool failed);

#endif
