/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_GUARD_H
#define LSHM_GUARD_H

/*
 * The guard is a process that shares the daemon's descriptor table (CLONE_FILES)
 * and nothing else. The kernel resolves pending and later faults with zeroes as
 * soon as the last descriptor of a userfaultfd is closed; with the guard alive
 * that does not happen when the daemon dies, not even for a userfaultfd which
 * the kernel has just installed with a fork event. The tasks wait instead, the
 * guard kills all of them that map an object, logs it, and exits with 1.
 *
 * A successor of the daemon could take the descriptors from the guard
 * (pidfd_getfd()) and go on: objects, userfaultfds and page maps are all there.
 */

/* Where the guard's own end is waited for. Before all else. */
void guard_init(int epollfd);

/* Must be called before any thread is started. 0 or -errno. */
int guard_start(void);

/*
 * The users of an object die with the daemon, from guard_watch() until
 * guard_unwatch(). 0, or -ENOSPC: more than GUARD_MAX_OBJECTS.
 */
#define GUARD_MAX_OBJECTS 65536
struct inode_id;
int guard_watch(const struct inode_id *id);
void guard_unwatch(const struct inode_id *id);

/*
 * Ends the guard. From here on nobody looks after the tasks, so there must be
 * none left that waits for contents.
 */
void guard_stop(void);

/* Kills all processes that map one of the objects, and logs each. */
void guard_kill(const struct inode_id *ids, unsigned int nr);

#endif
