// SPDX-License-Identifier: GPL-2.0-only
#include "criu_internals.h"
#include "object.h"
#include "record.h"
#include "window.h"

/* The run that a fault on page belongs to; NULL if it comes out of the blue */
static struct window_run *find_run(struct windows *w, const struct object *obj, unsigned long page)
{
	unsigned int i;

	for (i = 0; i < WINDOW_RUNS; i++) {
		struct window_run *run = &w->runs[i];

		/* threads that share a run, or a program that skips some, may be ahead */
		if (run->obj == obj && page >= run->next && page - run->next < WINDOW_FILL_PAGES)
			return run;
	}
	return NULL;
}

static struct window clip(const struct object *obj, struct window win)
{
	if (win.end > obj->map.pages)
		win.end = obj->map.pages;
	return win;
}

static struct window around(unsigned long page, unsigned long pages)
{
	unsigned long first = page & ~(pages - 1);

	return (struct window){ .first = first, .end = first + pages };
}

/* Huge pages are large enough, and a recording must see each page wanted */
static bool is_alone(const struct object *obj)
{
	return object_is_huge(obj) || record_is_running();
}

/* min and max: of what comes next in a run */
static struct window choose(struct windows *w, const struct object *obj, unsigned long page, unsigned long at_first,
			    unsigned long min, unsigned long max)
{
	const struct window_run *run = find_run(w, obj, page);
	unsigned long pages;

	if (is_alone(obj))
		return (struct window){ .first = page, .end = page + 1, .is_run = run };
	if (!run)
		return clip(obj, around(page, at_first));

	pages = 2 * run->pages;
	pages = pages < min ? min : pages < max ? pages :
						  max;
	return clip(obj, (struct window){ .first = page, .end = page + pages, .is_run = true });
}

struct window window_to_fill(struct windows *w, const struct object *obj, unsigned long page)
{
	return choose(w, obj, page, WINDOW_FILL_PAGES, 1, WINDOW_MAX_FILL);
}

struct window window_to_map(struct windows *w, const struct object *obj, unsigned long page)
{
	return choose(w, obj, page, WINDOW_PAGES, WINDOW_PAGES, WINDOW_MAX_PAGES);
}

void window_mapped(struct windows *w, const struct object *obj, unsigned long page, unsigned long end)
{
	struct window_run *run = find_run(w, obj, page);

	if (!run) {
		run = &w->runs[w->turn++ % WINDOW_RUNS];
		*run = (struct window_run){ .obj = obj };
	} else {
		run->pages *= 2;
	}
	if (run->pages < end - page)
		run->pages = end - page;
	if (run->pages > WINDOW_MAX_PAGES)
		run->pages = WINDOW_MAX_PAGES;
	run->next = end;
}
