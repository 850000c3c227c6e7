/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PAGE_SERVER_H
#define LSHM_PAGE_SERVER_H

#include "criu_internals.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "page-proto.h"
#include "page-xfer.h"
#pragma GCC diagnostic pop

#undef LOG_PREFIX
#define LOG_PREFIX "lazy-shmem: "

/*
 * A connection to the page server for a process of its own. To go when page-xfer.h
 * has these; until then they may be absent, and the plugin loads all the same.
 */
int page_server_shmem_connect(void) __attribute__((weak));
void page_server_shmem_disconnect(void) __attribute__((weak));
int page_server_shmem_fd(void) __attribute__((weak));
int page_server_shmem_ask(uint32_t shmid, uint64_t off, uint32_t nr_pages) __attribute__((weak));
int page_server_shmem_answer(uint32_t *shmid, uint64_t *off, uint32_t *nr_pages) __attribute__((weak));
ssize_t page_server_shmem_recv(void *buf, size_t len) __attribute__((weak));

#endif
