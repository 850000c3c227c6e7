/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_ORDER_H
#define LSHM_ORDER_H

#include <stddef.h>
#include <stdint.h>

/*
 * An order of pages of an object, and the file beside the images that keeps it:
 * lazy-shmem-order-<shmid>.img. Pages are counted from the beginning of the object.
 */
struct order_run {
	uint64_t page, nr;
};

/* No page is in it twice. Zero-initialised is empty. */
struct order {
	struct order_run *v;
	size_t n, cap;
};

/* What a file must agree with */
struct order_object {
	uint32_t shmid;
	uint64_t size;	    /* bytes */
	uint32_t page_size; /* bytes */
};

/* Puts page at the end. 0 or -ENOMEM. */
int order_add(struct order *order, uint64_t page);

void order_free(struct order *order);

/* All of them return 0 or -errno; dirfd is the images directory. */

/* Whether order_save() could make files there. */
int order_check_dir(int dirfd);

/* Replaces the file at once, or leaves it as it was. */
int order_save(const struct order *order, const struct order_object *obj, int dirfd);

/*
 * order is empty before, and after an error. -ENOENT: there is no file; with anything
 * else *why tells what is wrong.
 */
int order_load(struct order *order, const struct order_object *obj, int dirfd, const char **why);

/* Its name, for messages */
#define ORDER_NAME_LEN 64
void order_name(char name[ORDER_NAME_LEN], uint32_t shmid);

#endif
