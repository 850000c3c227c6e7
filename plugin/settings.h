/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_SETTINGS_H
#define LSHM_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

/* What the operator chooses, by environment variables CRIU_LAZY_SHMEM*; see docs/operations.md. */
struct settings {
	bool off;	       /* CRIU_LAZY_SHMEM=off */
	unsigned int workers;  /* _WORKERS: who fills from images at the same time */
	uint64_t remote_ahead; /* _INFLIGHT: bytes asked of a page server before what was asked has come */
};

extern struct settings settings;

/* All stages: whether the plugin is wanted at all. 0, or -1 with the reason logged. */
int settings_read_switch(void);

/* The daemon: everything. 0, or -1 with the reason logged. */
int settings_read(void);

#endif
