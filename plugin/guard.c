// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "criu.h"
#include "guard.h"
#include "proc_scan.h"

/* What the daemon tells the guard; it writes, the guard reads when the daemon is dead */
static struct guard_shared {
	volatile int released;
	volatile unsigned int nr;
	struct inode_id ids[GUARD_MAX_OBJECTS]; /* only the pages in use are allocated */
} * shared;

static int guard_pidfd = -1; /* of the daemon, for the guard to wait for */
static pid_t guard_pid = -1;

static void log_killed(pid_t pid, const char *comm)
{
	pr_err("Killed %d (%s): it maps shared memory whose contents can not come any more\n", pid, comm);
}

void guard_kill(const struct inode_id *ids, unsigned int nr)
{
	if (nr)
		kill_mappers(ids, nr, log_killed);
}

static void wait_for_exit(int pidfd)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
}

static void __attribute__((noreturn)) guard_main(pid_t daemon)
{
	/*
	 * A signal for the daemon's group or session, or by name, is not for
	 * us: that is exactly when we are needed.
	 */
	setsid();
	prctl(PR_SET_NAME, "criu-lazy-guard");
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);

	wait_for_exit(guard_pidfd);
	if (shared->released)
		_exit(0);

	if (shared->nr) {
		pr_err("criu lazy-pages (%d) died before the contents of shared memory were complete\n", daemon);
		guard_kill(shared->ids, shared->nr);
	}
	_exit(1);
}

int guard_start(void)
{
	pid_t self = getpid();
	int err;

	if (guard_pid > 0)
		return 0;

	guard_pidfd = (int)syscall(SYS_pidfd_open, self, 0);
	if (guard_pidfd < 0)
		return -errno;

	/* what the guard needs at the worst moment is allocated now */
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (shared == MAP_FAILED) {
		err = -errno;
		goto out;
	}

	/* like fork(), with the descriptor table shared instead of copied */
	guard_pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, NULL, NULL, 0);
	if (guard_pid == 0)
		guard_main(self);
	if (guard_pid > 0) {
		pr_info("Guard %d keeps the userfaultfds if this daemon dies\n", guard_pid);
		return 0;
	}
	err = -errno;
	munmap(shared, sizeof(*shared));
out:
	shared = NULL;
	close(guard_pidfd);
	guard_pidfd = -1;
	return err;
}

int guard_watch(const struct inode_id *id)
{
	if (shared->nr == GUARD_MAX_OBJECTS)
		return -ENOSPC;

	/* in this order: the daemon may die between any two instructions */
	shared->ids[shared->nr] = *id;
	__atomic_store_n(&shared->nr, shared->nr + 1, __ATOMIC_RELEASE);
	return 0;
}

void guard_unwatch(const struct inode_id *id)
{
	unsigned int i;

	if (!shared)
		return;

	for (i = 0; i < shared->nr; i++) {
		if (shared->ids[i].ino != id->ino || shared->ids[i].dev != id->dev)
			continue;
		shared->ids[i] = shared->ids[shared->nr - 1];
		__atomic_store_n(&shared->nr, shared->nr - 1, __ATOMIC_RELEASE);
		return;
	}
}

void guard_stop(void)
{
	if (guard_pid <= 0)
		return;

	shared->released = 1;
	kill(guard_pid, SIGKILL);
	while (waitpid(guard_pid, NULL, 0) < 0 && errno == EINTR)
		;
	guard_pid = -1;
	close(guard_pidfd);
	guard_pidfd = -1;
	munmap(shared, sizeof(*shared));
	shared = NULL;
}
