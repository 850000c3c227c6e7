/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PROGRESS_TEXT_H
#define LSHM_PROGRESS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How things are at a moment */
struct progress_sample {
	uint64_t when;	 /* ns */
	uint64_t total;	 /* bytes the images have, of objects that are lazy */
	uint64_t left;	 /* of which so many are not filled */
	uint64_t faults; /* events so far */
	bool on_demand;	 /* nothing is filled that nobody asked for, so no time can be told */
};

/* per second */
struct progress_rate {
	double bytes, faults;
};

/* From one sample to the next. */
struct progress_rate progress_rate_of(const struct progress_sample *before, const struct progress_sample *now);

/* "42% of 2.0 GiB, 812 MiB/s, 2 s left, 350 faults/s" */
void progress_text(char *buf, size_t size, const struct progress_sample *now, const struct progress_rate *rate);

#endif
