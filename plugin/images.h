/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_IMAGES_H
#define LSHM_IMAGES_H

#include <stdint.h>

#include "extents.h"

/*
 * Where the contents of objects are: in local images, parents included, or with
 * --page-server also on the page server. CRIU's page_read does the work, with the
 * function that would read a page replaced by one that notes where it is.
 *
 * On the page server is what the dump left there (PE_LAZY, no contents), and what a
 * pages image has that is not in the images directory: a page server that works from
 * images has it, and nobody needs to copy it.
 */
struct images;

/*
 * Finds and checks the contents of object shmid of size bytes. *ex gets them,
 * and refers to descriptors that are open until images_close(). Everything that
 * is wrong with the images is found here, before a task runs. Logs errors.
 * Event loop only. 0 or -1.
 */
int images_open(struct images **im, struct extents *ex, uint32_t shmid, uint64_t size);
void images_close(struct images *im);

/* The descriptor of extents whose contents are not in a parent, or -1 if there is none. */
int images_top_fd(const struct images *im);

#endif
