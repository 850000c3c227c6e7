/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PACE_H
#define LSHM_PACE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A limit of bytes a second, as a bucket of tokens. What is wanted by somebody who
 * waits is not held back, but counts.
 */
struct pace {
	uint64_t rate;	  /* bytes a second, 0: no limit */
	int64_t tokens;	  /* bytes that may be had now; below 0 what was had too early */
	uint64_t last_ns; /* up to when tokens were given */
};

/* now: stats_now() */
void pace_init(struct pace *p, uint64_t rate, uint64_t now);

/* Whether something may be had that nobody waits for. However large it is: its rest is a debt. */
bool pace_ready(struct pace *p, uint64_t now);

/* Nanoseconds from the last pace_ready() until it is true; 0 if it was */
uint64_t pace_wait(const struct pace *p);

/* It was had, with pace_ready() before ... */
void pace_spend(struct pace *p, uint64_t bytes);

/* ... or without. The debt from this is no more than of one second, so the
 * others go on that long after the last of it at the latest. While it comes faster than the rate they do not. */
void pace_spend_anyway(struct pace *p, uint64_t bytes);

#endif
