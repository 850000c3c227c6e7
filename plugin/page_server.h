/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PAGE_SERVER_H
#define LSHM_PAGE_SERVER_H

#include "criu_internals.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "page-client.h"
#include "page-proto.h"
#pragma GCC diagnostic pop

#undef LOG_PREFIX
#define LOG_PREFIX "lazy-shmem: "

#endif
