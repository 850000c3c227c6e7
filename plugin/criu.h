/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_CRIU_H
#define LSHM_CRIU_H

/*
 * The headers of CRIU that the plugin uses. They are built with fewer warnings
 * than ours.
 */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wextra"
#include "criu-plugin.h"
#include "log.h"
#pragma GCC diagnostic pop

#undef LOG_PREFIX
#define LOG_PREFIX "lazy-shmem: "

/* What an operator should see with CRIU's default log level, and is no warning */
#define pr_note(fmt, ...) print_on_level(LOG_WARN, LOG_PREFIX fmt, ##__VA_ARGS__)

#endif
