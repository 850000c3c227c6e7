/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_SETTINGS_H
#define LSHM_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

enum progress_setting {
	PROGRESS_AUTO, /* on the terminal if there is one, else in the log */
	PROGRESS_OFF,
	PROGRESS_LOG, /* in the log, every progress_seconds */
};

/* What the operator chooses, by environment variables CRIU_LAZY_SHMEM*; see docs/operations.md. */
struct settings {
	bool off;	       /* CRIU_LAZY_SHMEM=off */
	unsigned int workers;  /* _WORKERS: who fills from images at the same time */
	uint64_t remote_ahead; /* _INFLIGHT: bytes asked of a page server before what was asked has come */

	bool on_demand;	    /* _FILL: what nobody asked for is not brought */
	uint64_t bandwidth; /* _BANDWIDTH: bytes a second of that, 0: no limit */
	int nice;	    /* _NICE, and */
	int ioprio;	    /* _IOPRIO of who brings that, as in priority.h */

	long record_seconds; /* _RECORD: after resume, 0: until all is complete, NO_RECORD: not at all */
	bool ignore_order;   /* _ORDER=off: not what was recorded either */
	uint64_t prefill;    /* _PREFILL: bytes of it before resume */

	enum progress_setting progress; /* _PROGRESS */
	unsigned int progress_seconds;	/* between two lines in the log */
};

#define NO_RECORD -1

extern struct settings settings;

/* All stages: whether the plugin is wanted at all. 0, or -1 with the reason logged. */
int settings_read_switch(void);

/* The daemon: everything. 0, or -1 with the reason logged. */
int settings_read(void);

#endif
