/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_WINDOW_H
#define LSHM_WINDOW_H

#include <stdbool.h>

struct object;

/*
 * How much around a fault is brought and mapped with it. A fault costs two context
 * switches. A page more that is filled costs a tenth of a microsecond to map, one that
 * is not takes three times as long to bring, while the thread waits: so these are
 * two windows. Both grow where faults come one after the other.
 *
 * All numbers are pages of one page_size, counted from the beginning of the object.
 */
#define WINDOW_PAGES	  64UL	/* mapped around a fault, aligned to as many, if filled */
#define WINDOW_FILL_PAGES 16UL	/* filled for a fault, aligned as well */
#define WINDOW_MAX_PAGES  512UL /* mapped in a run; a power of two times WINDOW_PAGES */
#define WINDOW_MAX_FILL	  128UL

#define WINDOW_RUNS 16 /* that a task may have at a time, in its threads and objects */

struct window_run {
	const struct object *obj; /* only compared */
	unsigned long next;	  /* where the next fault of it is expected */
	unsigned long pages;	  /* what was mapped last, as the window was */
};

/* Of one task. All zeroes at first. The event loop's alone. */
struct windows {
	struct window_run runs[WINDOW_RUNS];
	unsigned int turn;
};

struct window {
	unsigned long first, end; /* without end */
	bool is_run;		  /* the fault goes on where an earlier one ended */
};

/* What to fill for a fault on page of an object of nr pages, one of them at a time if huge. */
struct window window_to_fill(struct windows *w, const struct object *obj, unsigned long page);

/* What to map, as far as it is filled. */
struct window window_to_map(struct windows *w, const struct object *obj, unsigned long page);

/* [.., end) was mapped of it for a fault on page. */
void window_mapped(struct windows *w, const struct object *obj, unsigned long page, unsigned long end);

#endif
