/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef KERNEL_TEST_MACHINE_H
#define KERNEL_TEST_MACHINE_H

#include <stddef.h>

/* Provide what a test with these flags needs; 0, or -1 and the reason why not. */
int machine_prepare(int flags, char *reason, size_t size);
/* Undo whatever machine_prepare() did. */
void machine_restore(void);

#endif
