/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_CRIU_INTERNALS_H
#define LSHM_CRIU_INTERNALS_H

/*
 * What of CRIU's own code the plugin uses beyond the interface for plugins: it
 * is built for one release.
 */
#include "criu.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "types.h"
#include "cr_options.h"
#include "image.h"
#include "kerndat.h"
#include "lazy-shmem.h"
#include "page.h"
#include "pagemap.h"
#include "util.h"
#pragma GCC diagnostic pop

#undef LOG_PREFIX
#define LOG_PREFIX "lazy-shmem: "

#endif
