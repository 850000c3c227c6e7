/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_COMMON_H__
#define LSHM_COMMON_H__

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "zdtmtst.h"

#define MiB (1UL << 20)

/* What lshm_setup() returns when the test cannot run here */
#define LSHM_SKIP 2
/* What lshm_run() returns for the task to end before all is restored */
#define LSHM_LEAVE 3

/* A run of pages with known contents, as the test sees it */
struct lshm {
	uint8_t *map;	    /* where the first page is mapped */
	unsigned long nr;   /* number of pages */
	unsigned long page; /* index in the object of the first page */
	uint64_t seed;	    /* contents are a function of (seed, index) */
};

/*
 * A test provides these; main() is in lshm_common.c. lshm_setup() runs
 * before the dump, lshm_run() as soon as the task finds itself restored.
 * The object is then most likely not complete yet. Both return 0, or 1 with
 * the reason reported; the test ends when nothing is lazy any more.
 */
extern int lshm_setup(void);
extern int lshm_run(void);

/* Contents */
extern uint64_t lshm_word(uint64_t seed, unsigned long page, unsigned int word);
extern void lshm_fill_page(void *addr, uint64_t seed, unsigned long page);
extern int lshm_check_bytes(const void *addr, uint64_t seed, unsigned long page, unsigned int from, unsigned int to);
extern int lshm_check_zero(const void *addr, unsigned long nr);

/*
 * The calls that take a run work on pages [first, first + nr) of it.
 * All the checks return 0, or 1 with the page and the value reported.
 */
extern void lshm_fill(const struct lshm *m);
extern int lshm_check_page(const struct lshm *m, unsigned long i);
extern int lshm_check_range(const struct lshm *m, unsigned long first, unsigned long nr);
extern int lshm_check(const struct lshm *m);

/* Read every page once (nr is a power of two), or @count pages, in random order */
extern int lshm_check_shuffled(const struct lshm *m, uint64_t rnd);
extern int lshm_check_some(const struct lshm *m, uint64_t rnd, unsigned long count);

/* Rewrite a page with the contents made of @seed, and check for these */
extern void lshm_rewrite_page(const struct lshm *m, unsigned long i, uint64_t seed);
extern int lshm_check_rewritten(const struct lshm *m, unsigned long i, uint64_t seed);

extern struct lshm lshm_sub(const struct lshm *m, unsigned long first, unsigned long nr);
extern uint64_t lshm_rand(uint64_t *state);
extern uint64_t lshm_new_seed(void);

/* Objects. All return 0, or 1 with the reason reported */
extern int lshm_map_anon(struct lshm *m, size_t size);
extern int lshm_map_fd(struct lshm *m, int fd, int prot, int flags, unsigned long page, unsigned long nr);
extern int lshm_memfd(const char *name, unsigned int flags, size_t size);
extern int lshm_map_memfd(struct lshm *m, const char *name, size_t size);

/* What the kernel tells about a mapping */
extern int lshm_stat(const void *addr, size_t len, struct stat *st);
extern int lshm_vmflag(const void *addr, const char *flag);

/* Tasks */
/*
 * Makes a task that belongs to the dumped tree: it calls @prepare (if any)
 * before this returns, and @fn as soon as it has been restored. -1 on error.
 */
extern pid_t lshm_fork_task(int (*prepare)(void *arg), int (*fn)(void *arg), void *arg);
/* Waits for a task; 1 if it failed */
extern int lshm_reap(pid_t pid);
/* Makes threads that run @fn as soon as they have been restored */
extern int lshm_threads(int nr, int (*fn)(unsigned int idx));
/* Waits for them all; 1 if one of them failed */
extern int lshm_join(void);

/* Returns as soon as this task has been restored (again), or is told to stop */
extern void lshm_wait_restored(void);
/*
 * CRIU lets threads go one by one, and a restore fails if one of them is dead
 * by then: for tasks that end, or are ended, right after the restore.
 */
extern void lshm_wait_detached(pid_t pid);
/* Returns 0 as soon as no mapping of this task is lazy any more */
extern int lshm_wait_retired(void);

#endif /* LSHM_COMMON_H__ */
