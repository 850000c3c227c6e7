/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_LANE_CHILD_H
#define LSHM_LANE_CHILD_H

#include <sys/types.h>

struct lane_desc;

/* What becomes of the fork that lane_start() makes: parent is who made it */
void lane_child(const struct lane_desc *desc, int sk, pid_t parent) __attribute__((noreturn));

#endif
