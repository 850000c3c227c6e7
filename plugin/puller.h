/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PULLER_H
#define LSHM_PULLER_H

/*
 * Fills from the page server: what a lane (lane.h) does that has a connection of its
 * own to it, in the role PS_ROLE_SHMEM. It asks for the remote segments of all jobs
 * that it has, as far as MAX_ASKED allows, and answers come in the order of the
 * questions. Local segments of such jobs it copies as the fill workers do.
 *
 * A connection that is lost, or silent for opts.lazy_timeout seconds, is made anew, and
 * what was not answered in full is asked for again. opts.lazy_retries such losses may
 * come one after the other without an answer between them; and one may take
 * opts.lazy_timeout seconds until there is a connection again. Otherwise, and when the
 * server refuses, all jobs fail, also those that come later. Logs.
 */
int puller_main(int sk, void *arg);

#endif
