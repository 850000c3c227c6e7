/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_RECEIVE_H
#define LSHM_RECEIVE_H

#include <stddef.h>
#include <stdint.h>

#include "fill.h"

/*
 * Moves pages from a page server's answer into an object: from the socket to a
 * pipe, and on to the page cache, which is one copy. With TLS, through a buffer.
 */
struct receiver {
	int pipe[2];
	size_t pipe_size;
	char *buf; /* of pipe_size, and at least of FILL_UNIT */

	/* Waits until there are bytes; 0 or -errno. */
	int (*wait)(void *arg);
	void *arg;
};

/* 0 or -errno */
int receiver_init(struct receiver *rc, int (*wait)(void *arg), void *arg);
void receiver_fini(struct receiver *rc);

/*
 * Takes len bytes, whole pages, from the connection for the pages of the job's object from
 * off on, which must be in the job. If they can not be stored, the job's result, err
 * and err_off say why, and the rest is taken and dropped; as is all of it if the
 * result is not FILL_OK to begin with. 0; or what is wrong with the connection, -errno,
 * and *done is how many bytes have come before.
 */
int receive_pages(struct receiver *rc, struct fill_job *job, uint64_t off, uint64_t len, uint64_t *done);

#endif
