/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_RECORD_H
#define LSHM_RECORD_H

#include <stdbool.h>

struct fill_job;
struct object;

/*
 * The recorded working set: in which order the tasks of a restore accessed the
 * pages of each object for the first time, and what a later restore of the
 * same images makes of that. The event loop's alone.
 */

/* What is known of an object: either it is being recorded, or it was. */
struct record;

/* When the daemon starts: whether a record could be written. 0, or -1 with the reason logged. */
int record_init(void);

/* For a lazy object, whose pages are known. A record that is no good is only warned of. 0, or -1 with the reason logged. */
int record_open(struct object *obj);
void record_close(struct object *obj);

/*
 * Recording
 */

/* Each fault must be seen: it maps its own page and no other */
bool record_is_running(void);

/* Tasks keep their userfaultfds although all has come, for more faults to see */
bool record_holds_tasks(void);

/* ... from now on no more, though what comes by then is noted */
void record_let_go(void);

/* A task wants this page */
void record_note(struct object *obj, unsigned long page);

/* Once a second, seconds after resume: whether the recording has ended with that. */
bool record_tick(long seconds);

/* The daemon ends; good: as it should. Writes what is not written yet. */
void record_end(bool good);

/*
 * Using
 */

/* The next pages to fill, all EMPTY; false if there are none left. */
bool record_next(struct object *obj, unsigned long *page, unsigned long *nr);

/* A job for such pages (FILL_RECORD) was submitted, or is done */
void record_submitted(const struct fill_job *job);
void record_filled(const struct fill_job *job);

/* CRIU_LAZY_SHMEM_PREFILL: more of it is to be filled before COMMIT is answered, and can be */
bool record_prefills(void);

/* All mappings are registered, no task runs: what is filled is mapped, and what will be as soon as it is. */
void record_commit(void);

#endif
