/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_PROC_SCAN_H
#define LSHM_PROC_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* An inode as /proc/<pid>/maps shows it */
struct inode_id {
	dev_t dev;
	ino_t ino;
};

static inline bool same_inode(const struct inode_id *a, const struct inode_id *b)
{
	return a->ino == b->ino && a->dev == b->dev;
}

/* Whether id is one of ids. 0, which mappings of no file show, is no inode. */
bool inode_is_in(const struct inode_id *id, const struct inode_id *ids, size_t nr);

/*
 * Who maps an object is not asked of tables, but of the kernel: a userfaultfd
 * has no pid, and children of children of restored tasks are in no table of
 * pids. All processes of this /proc are looked at, ourselves excepted, and those that
 * scan_spare() was told of.
 */

/*
 * A child of ours is none of the users of objects, though it may map them for a
 * moment; until it is waited for. 0 or -ENOMEM.
 */
int scan_spare(pid_t pid, bool spare);

/*
 * Calls fn for each process that maps one of ids. The sum of what fn returned, or
 * -errno if some process could not be looked at and so may have been missed.
 */
int for_each_mapper(const struct inode_id *ids, size_t nr, int (*fn)(pid_t pid, int pidfd, void *arg), void *arg);

/*
 * Kills whoever maps one of ids, until nobody does. told is called for each
 * process that is killed (err 0), and for what stands in the way (err > 0, an
 * errno; pid 0 if it is /proc). Blocks for as long as that takes, for ever if it
 * can't be done: whoever calls it keeps the userfaultfds open, so the tasks wait
 * instead of running on zeroes.
 */
void kill_mappers(const struct inode_id *ids, size_t nr, void (*told)(pid_t pid, const char *comm, int err));

/* A line of /proc/<pid>/maps, in bytes */
struct proc_mapping {
	uint64_t start, end, pgoff;
	struct inode_id id;
	int is_private;
};

/* The mapping of pid that contains addr: 1 found, 0 none, -ESRCH no such process, or not ours, -errno. */
int find_mapping(pid_t pid, uint64_t addr, struct proc_mapping *m);

/* Whether something of ids is mapped in [start, end). */
bool maps_between(pid_t pid, uint64_t start, uint64_t end, const struct inode_id *ids, size_t nr);

/* Whether pid is there, no zombie, and ours to look at. */
bool has_memory(pid_t pid);

/* Whether pid maps one of ids. */
bool maps_one_of(pid_t pid, const struct inode_id *ids, size_t nr);

/* Calls fn for the threads of pid, until it returns true: whether it did. */
bool find_thread(pid_t pid, bool (*fn)(pid_t pid, pid_t tid, void *arg), void *arg);

/* The parent of pid, or 0. */
pid_t parent_of(pid_t pid);

/* The number of pid in its own pid namespace, or 0. */
pid_t innermost_pid(pid_t pid);

/* The process of a thread of our own pid namespace, if it is in no other; or 0. */
pid_t process_of(pid_t tid);

/*
 * Whether pid has a thread that is tid in its own pid namespace, and if it is in a
 * page fault, then not because of a call that reaches into another's memory.
 */
bool thread_in_own_fault(pid_t pid, pid_t tid);

/* A madvise() that a thread is in */
struct madvise_call {
	pid_t pid, tid;
	uint64_t start, len;
	int advice;
	uint64_t switches; /* context switches of the thread when it was seen */
	uint64_t run_ns;   /* processor time it had used then */
	unsigned int look; /* the look at which that was */
	uint64_t passed;   /* up to where its events were read, the user's */
	pid_t owner;	   /* whose memory it had then, the user's */
};

/* The same for all threads of a process, as they were seen last; zeroed is empty */
struct madvise_calls {
	struct madvise_call *v;
	size_t n, cap;
	unsigned int look; /* counted up by the user before each round of looks */
};

#define LOOK_RUNNING (1U << 0) /* some thread is running, or about to */
#define LOOK_WAITS   (1U << 1) /* some thread waits for its event to be read */
#define LOOK_DOUBT   (1U << 2) /* one that was noted is running: has it left its call? */

/*
 * Looks at all threads of pid: notes those blocked in madvise(), forgets those
 * blocked elsewhere. To read one event wakes all threads which wait for theirs to
 * be read, for a moment: so one that is running is forgotten only when it has run
 * for longer than that takes. Returns LOOK_*; what could not be looked at is not seen.
 */
unsigned int look_for_madvise(pid_t pid, struct madvise_calls *calls);

/* Whether the thread has moved since the call was noted. */
int madvise_call_left(const struct madvise_call *call);

#endif
