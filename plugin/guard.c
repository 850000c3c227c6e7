// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "criu_internals.h"
#include "guard.h"
#include "proc_scan.h"

/* What the daemon tells the guard; it writes, the guard reads when the daemon is dead */
#define SPARE_FDS 8

struct guard_shared {
	volatile int released;
	/*
	 * Descriptors that are there when all others are in use. The table is one
	 * for daemon and guard, so which they are must be one as well.
	 */
	volatile int spare[SPARE_FDS];
	volatile unsigned int nr;
	struct inode_id ids[GUARD_MAX_OBJECTS]; /* only the pages in use are allocated */
};

static struct guard_shared *shared;

static int guard_pidfd = -1;	  /* of the daemon, for the guard to wait for */
static struct epoll_rfd exit_rfd; /* the guard's pidfd, for the daemon */
static int epoll_fd = -1;
static pid_t guard_pid = -1;
static unsigned long args_start, args_end;

static void keep_spare_fds(void)
{
	int i;

	for (i = 0; i < SPARE_FDS; i++)
		if (shared->spare[i] < 0)
			shared->spare[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void free_spare_fds(void)
{
	int i;

	for (i = 0; i < SPARE_FDS; i++) {
		int fd = shared->spare[i];

		shared->spare[i] = -1;
		if (fd >= 0)
			close(fd);
	}
}

static void log_killed(pid_t pid, const char *comm, int err)
{
	if (!err)
		pr_err("Killed %d (%s): it maps shared memory whose contents can not come any more\n", pid, comm);
	else if (pid)
		pr_err("Can't kill %d (%s): %s. It waits for shared memory that can not come; kill it\n", pid, comm,
		       strerror(err));
	else
		pr_err("Can't look at all processes: %s. Who maps shared memory that can not come waits until we can, or "
		       "until it is killed\n",
		       strerror(err));
}

void guard_kill(const struct inode_id *ids, unsigned int nr)
{
	if (!nr)
		return;

	if (shared)
		free_spare_fds();
	kill_mappers(ids, nr, log_killed);
	if (shared)
		keep_spare_fds();
}

/*
 * Where the command line is on the stack. The guard's copy is at the same place; it
 * does not look itself, because a descriptor that is open when it is killed stays.
 */
static void find_command_line(void)
{
	char buf[1024], *p;
	ssize_t ret;
	int fd, i;

	fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ret = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[ret > 0 ? ret : 0] = '\0';

	/* arg_start and arg_end are fields 48 and 49, the second ends in ")" */
	p = strrchr(buf, ')');
	for (i = 2; p && i < 48; i++)
		p = strchr(p + 1, ' ');
	if (!p || sscanf(p, "%lu %lu", &args_start, &args_end) != 2)
		args_end = args_start;
}

/* Not to be taken for CRIU by who kills by name: that is when we are needed */
static void rename_self(void)
{
	prctl(PR_SET_NAME, "lazyshm-guard");

	if (args_end < args_start + sizeof("lazyshm-guard"))
		return;
	memset((void *)args_start, 0, args_end - args_start);
	memcpy((void *)args_start, "lazyshm-guard", sizeof("lazyshm-guard"));
}

static void wait_for_exit(int pidfd)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
}

static void __attribute__((noreturn)) guard_main(pid_t daemon)
{
	/* A signal for the daemon's group or session is not for us either */
	setsid();
	rename_self();
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

/* fork(), with the descriptor table shared instead of copied */
static int spawn(void)
{
	pid_t self = getpid();

	guard_pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, NULL, NULL, 0);
	if (guard_pid == 0)
		guard_main(self);
	if (guard_pid < 0)
		return -errno;

	exit_rfd.fd = (int)syscall(SYS_pidfd_open, guard_pid, 0);
	if (exit_rfd.fd < 0)
		return -errno;

	pr_info("Guard %d keeps the userfaultfds if this daemon dies\n", guard_pid);
	return epoll_add_rfd(epoll_fd, &exit_rfd) ? -EIO : 0;
}

/*
 * Somebody killed the guard. Another can be cloned although there are threads by
 * now: none of them allocates memory, so no lock is held that it could need.
 */
static int guard_died(struct epoll_rfd *rfd)
{
	int err;

	if (epoll_del_rfd(epoll_fd, rfd))
		return -1;
	close(rfd->fd);
	rfd->fd = -1;
	waitpid(guard_pid, NULL, 0);

	pr_warn("Guard %d was killed, starting another\n", guard_pid);
	err = spawn();
	if (!err)
		return 0;

	pr_err("Can't start another guard: %s\n", strerror(-err));
	return -1;
}

void guard_init(int epollfd)
{
	epoll_fd = epollfd;
	exit_rfd.fd = -1;
	exit_rfd.read_event = guard_died;
	/* if it were ignored, as whoever started us may have left it, the guard would not wait to be waited for */
	signal(SIGCHLD, SIG_DFL);
}

int guard_start(void)
{
	int err, i;

	if (guard_pid > 0)
		return 0;

	guard_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (guard_pidfd < 0)
		return -errno;

	/* what the guard needs at the worst moment is allocated now */
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (shared == MAP_FAILED) {
		err = -errno;
		shared = NULL;
		close(guard_pidfd);
		guard_pidfd = -1;
		return err;
	}
	for (i = 0; i < SPARE_FDS; i++)
		shared->spare[i] = -1;
	keep_spare_fds();
	find_command_line();

	err = spawn();
	if (err)
		guard_stop();
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
		if (!same_inode(&shared->ids[i], id))
			continue;
		shared->ids[i] = shared->ids[shared->nr - 1];
		__atomic_store_n(&shared->nr, shared->nr - 1, __ATOMIC_RELEASE);
		return;
	}
}

void guard_stop(void)
{
	if (!shared)
		return;

	shared->released = 1;
	if (exit_rfd.fd >= 0) {
		epoll_del_rfd(epoll_fd, &exit_rfd);
		close(exit_rfd.fd);
		exit_rfd.fd = -1;
	}
	if (guard_pid > 0) {
		kill(guard_pid, SIGKILL);
		while (waitpid(guard_pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	guard_pid = -1;
	close(guard_pidfd);
	guard_pidfd = -1;
	free_spare_fds();
	munmap(shared, sizeof(*shared));
	shared = NULL;
}
