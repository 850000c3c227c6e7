/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef UNIT_PROCESSES_H
#define UNIT_PROCESSES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <linux/userfaultfd.h>

#include "proc_scan.h"

/*
 * Objects, userfaultfds, and tasks that use them. All of it ends the test if
 * something goes wrong that is not what is tested.
 */

#define PG    4096UL
#define MODES (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR)

/* What CRIU asks for, and what the plugin needs */
#define FEATURES                                                                         \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP | \
	 UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM)

int new_memfd(size_t pages);
struct inode_id id_of(int fd);
char *map_shared(int fd, size_t pages);

/* What a page of an object is filled with, never 0 */
unsigned char mark(size_t page);
/* Fills pages of a memfd, as the plugin does it */
void fill_pages(int fd, size_t page, size_t nr);

int new_uffd(uint64_t features);
/* 0 or -errno */
int try_register(int uffd, void *addr, size_t len, uint64_t mode);
void register_range(int uffd, void *addr, size_t len);
/* A bare UFFDIO_CONTINUE. 0 or -errno; *mapped may be NULL */
int bare_continue(int uffd, void *addr, size_t len, int64_t *mapped);

bool uffd_readable(int uffd, int ms);
/* Waits for the next message, which must be of that event. */
struct uffd_msg read_event(int uffd, int event);
/* The same for a fault. Whether it is a minor one. */
bool read_fault(int uffd, const void *addr);
/* "pending" of its fdinfo */
unsigned long pending_faults(int uffd);

/* A thread of this process that reads one byte */
struct toucher {
	pthread_t thread;
	volatile unsigned char *addr;
	volatile int value; /* -1 until it has been read */
};

void touch_start(struct toucher *t, void *addr);
/* The byte that it has read */
int touch_join(struct toucher *t);

/*
 * A process that maps a memfd, registered with a userfaultfd that it passes to
 * us and has then closed itself. Its work starts with task_go().
 */
struct task {
	pid_t pid;
	int sock;
	int uffd; /* of the task, here; -1 if it went elsewhere */
	char *addr;
};

typedef void (*task_work)(char *addr, size_t pages, void *arg);

struct task task_start(int memfd, size_t pages, uint64_t features, task_work work, void *arg);
/* The same, but the userfaultfd is left in the socket for somebody else */
struct task task_start_uffd_pending(int memfd, size_t pages, uint64_t features, task_work work, void *arg);
int task_receive_uffd(struct task *task);
void task_go(struct task *task);
/* In the task: waits for another task_go() */
void task_wait(void);

/* Its wait status. */
int wait_for(pid_t pid);
/* It has been killed by SIGKILL. */
void check_killed(pid_t pid);
/* It has exited, with that value. */
void check_exited(pid_t pid, int value);
bool is_alive(pid_t pid);

/*
 * Lowers this process's limit of descriptors, and opens so many that only some
 * more can be. The limit that was.
 */
unsigned long use_up_fds(int leave);
void set_fd_limit(unsigned long limit);

/*
 * Fills calls with the madvise() calls that threads of pid are seen in now, at
 * most max. How many there are, or -errno.
 */
int madvise_calls_of(pid_t pid, struct madvise_call *calls, size_t max);

#endif
