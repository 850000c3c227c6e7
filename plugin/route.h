/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_ROUTE_H
#define LSHM_ROUTE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct fill_job;
struct fill_pool;
struct object;

/*
 * Who fills which object: the threads of the daemon, a process in the memory cgroup
 * that the pages must be charged to (filler.h), or processes with a connection to the
 * page server (puller.h). There is a route for each memory cgroup that has objects.
 * The event loop's alone.
 */
struct route;

void routes_init(int epollfd);

/*
 * The route of an object which the task opener has announced (0: not known). Starts the
 * processes that it needs, so after guard_start(). 0, or -1 with the reason logged.
 */
int route_of(struct object *obj, pid_t opener);

/* Whether what the daemon allocates of obj is charged to the wrong cgroup. */
bool route_is_foreign(const struct object *obj);

/* Whether another job of obj for no fault should be made. */
bool route_is_idle(const struct object *obj, bool remote);

/* Whether the daemon may do the job itself. */
bool route_is_own(const struct fill_job *job);

/* pool: the daemon's own threads. */
void route_submit(struct fill_pool *pool, struct fill_job *job);
void route_promote(struct fill_pool *pool, struct object *obj, uint64_t off);

/* What is done, linked by next; of pool, or of all processes. */
struct fill_job *routes_reap(void);

/* A job was taken back from whoever had it. */
void route_done(const struct fill_job *job);

/* For an error of a job: where its pages are charged, and what ended the process. */
const char *route_cgroup(const struct object *obj);
const char *route_why_died(const struct object *obj, int status, char *buf, size_t size);

/*
 * Whether there is room for what is still to be brought, in each cgroup. Logs what has
 * no room, and calls with_each for its objects. 0 or -1.
 */
int routes_check_room(void (*with_each)(struct object *obj));

/* Whether all processes are there still. Logs which one is not. */
bool routes_alive(void);

/* Ends processes that have nothing to do any more. */
void routes_trim(void);

void routes_fini(void);

#endif
