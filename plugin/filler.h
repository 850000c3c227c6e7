/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_FILLER_H
#define LSHM_FILLER_H

/*
 * Main function of a lane that fills from images, with the threads of fill.h: the
 * pages are charged to the cgroup it is in. arg: unsigned int *, how many threads.
 */
int filler_main(int sk, void *arg);

#endif
