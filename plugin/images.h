/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_IMAGES_H
#define LSHM_IMAGES_H

#include <stdint.h>

#include "extents.h"

/*
 * Contents of objects from local images, parents included. CRIU's page_read
 * does the work, with the function that would read a page replaced by one that
 * notes where it is.
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

#endif
