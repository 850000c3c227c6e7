// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "guard.h"
#include "processes.h"
#include "unit.h"

/*
 * The test is process 1: it sees which of its children is killed, and inherits
 * the guard when the daemon is dead. Only the daemon has the tasks' userfaultfds.
 */

/* What everybody tells us */
static struct {
	volatile int ready;	 /* the daemon has done its part */
	volatile pid_t guard;	 /* its guard */
	volatile int seen[4];	 /* what each task has read, -1: nothing yet */
	volatile pid_t child[4]; /* that each task has forked */
} * told;

static int epfd; /* of the daemon's event loop */

struct reader {
	int nr;
	bool forks;
};

static void read_a_byte(char *addr, size_t pages, void *arg)
{
	const struct reader *r = arg;

	(void)pages;
	if (r->forks) {
		pid_t pid = (pid_t)CHECK_SYS(fork());

		if (pid) {
			told->child[r->nr] = pid;
			while (1)
				pause();
		}
	}
	told->seen[r->nr] = *(volatile unsigned char *)addr;
	/* it would go on with a wrong value */
	while (1)
		pause();
}

static void setup(void)
{
	int i;

	told = unit_shared_alloc(sizeof(*told));
	for (i = 0; i < 4; i++)
		told->seen[i] = -1;
	epfd = (int)CHECK_SYS(epoll_create1(EPOLL_CLOEXEC));
	guard_init(epfd);
}

static struct task new_task(int fd, struct reader *r)
{
	return task_start_uffd_pending(fd, 1, FEATURES, read_a_byte, r);
}

/* The daemon's only child */
static pid_t find_guard(void)
{
	char path[64], buf[64] = "";
	pid_t pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	f = fopen(path, "r");
	if (f) {
		CHECK(fgets(buf, sizeof(buf), f));
		fclose(f);
		pid = atoi(buf);
	}
	CHECK(pid > 0);
	return pid;
}

static void start_guard(void)
{
	CHECK_EQ(guard_start(), 0);
	told->guard = find_guard();
}

/* In the daemon: the task has its fault, and sleeps */
static void serve(struct task *task, struct reader *r)
{
	int uffd = task_receive_uffd(task);

	task_go(task);
	if (r->forks)
		uffd = (int)read_event(uffd, UFFD_EVENT_FORK).arg.fork.ufd;
	read_fault(uffd, task->addr);
}

static void __attribute__((noreturn)) wait_to_be_killed(void)
{
	told->ready = 1;
	while (1)
		pause();
}

static void kill_daemon(pid_t daemon)
{
	WAIT_FOR(told->ready);
	CHECK_SYS(kill(daemon, SIGKILL));
	check_killed(daemon);
}

/* The guard is ours now. It ends with 1, as tasks depended on the daemon. */
static void check_guard_ends(void)
{
	check_exited(told->guard, 1);
}

/* No guard, no zombie, nothing */
static void check_no_child_left(void)
{
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
	CHECK_EQ(errno, ECHILD);
}

/* Those that come later, too; and nothing else */
TEST_NS(guard_shares_descriptors)
{
	pid_t guard;
	char link[128] = "", path[64];
	int fd;

	setup();
	start_guard();
	guard = told->guard;
	fd = new_memfd(1); /* later than the guard */
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", guard, fd);
	CHECK(readlink(path, link, sizeof(link) - 1) > 0);
	CHECK(strstr(link, "memfd:unit"));
	if (syscall(SYS_kcmp, getpid(), guard, KCMP_FILES, 0, 0))
		CHECK_EQ(errno, ENOSYS);
	CHECK(syscall(SYS_kcmp, getpid(), guard, KCMP_VM, 0, 0) != 0);
	guard_stop();
	check_no_child_left();
}

TEST_NS(daemon_dies_task_is_killed)
{
	struct reader r = { .nr = 0 };
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	struct task task;
	char name[64];
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		start_guard();
		CHECK_EQ(guard_watch(&id), 0);
		serve(&task, &r);
		wait_to_be_killed();
	}
	close(task.sock);
	WAIT_FOR(told->ready);
	unit_sleep_ms(20);
	CHECK(is_alive(task.pid));

	kill_daemon(daemon);
	check_killed(task.pid);
	CHECK_EQ(told->seen[0], -1);
	check_guard_ends();
	check_no_child_left();

	/* the operator is told */
	snprintf(name, sizeof(name), "criu lazy-pages (%d) died", daemon);
	CHECK(strstr(unit_log(), name));
	snprintf(name, sizeof(name), "Killed %d (unit-task)", task.pid);
	CHECK(strstr(unit_log(), name));
}

/* The same over and over, since it is a race that must always be won */
TEST_NS(daemon_dies_20_times)
{
	struct reader r = { .nr = 0 };
	int round;

	setup();
	for (round = 0; round < 20; round++) {
		int fd = new_memfd(1);
		struct inode_id id = id_of(fd);
		struct task task = new_task(fd, &r);
		pid_t daemon = (pid_t)CHECK_SYS(fork());

		if (!daemon) {
			start_guard();
			CHECK_EQ(guard_watch(&id), 0);
			serve(&task, &r);
			wait_to_be_killed();
		}
		close(task.sock);
		kill_daemon(daemon);
		check_killed(task.pid);
		CHECK_EQ(told->seen[0], -1);
		check_guard_ends();
		check_no_child_left();
		told->ready = 0;
		close(fd);
	}
}

/* However it dies: by exit, or a signal that dumps core */
static void dies_by(int sig)
{
	struct reader r = { .nr = 0 };
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	struct task task;
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		signal(sig, SIG_DFL);
		start_guard();
		CHECK_EQ(guard_watch(&id), 0);
		serve(&task, &r);
		if (sig)
			raise(sig);
		_exit(0);
	}
	close(task.sock);
	wait_for(daemon);
	check_killed(task.pid);
	CHECK_EQ(told->seen[0], -1);
	check_guard_ends();
	check_no_child_left();
}

TEST_NS(daemon_exits)
{
	dies_by(0);
}

TEST_NS(daemon_crashes)
{
	dies_by(SIGSEGV);
}

TEST_NS(daemon_is_terminated)
{
	dies_by(SIGTERM);
}

/*
 * The guard dies first
 */

/* In the daemon: somebody kills the guard, and the event loop notices */
static void replace_guard(void)
{
	pid_t first = told->guard;

	CHECK_EQ(unit_handle_event(epfd, 0), UNIT_NO_EVENT);
	CHECK_SYS(kill(first, SIGKILL));
	CHECK_EQ(unit_handle_event(epfd, 5000), 0);
	told->guard = find_guard(); /* there is one child, so the first is no zombie */
	CHECK(told->guard != first);
	CHECK_EQ(unit_handle_event(epfd, 0), UNIT_NO_EVENT);
}

static void daemon_dies_after_guard(int times)
{
	struct reader r = { .nr = 0 };
	int fd = new_memfd(1), i;
	struct inode_id id = id_of(fd);
	struct task task;
	char text[64];
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		start_guard();
		CHECK_EQ(guard_watch(&id), 0);
		for (i = 0; i < times; i++) {
			snprintf(text, sizeof(text), "Guard %d was killed", told->guard);
			replace_guard();
			CHECK(strstr(unit_log(), text));
		}
		serve(&task, &r);
		wait_to_be_killed();
	}
	close(task.sock);
	WAIT_FOR(told->ready);
	CHECK(is_alive(task.pid));
	kill_daemon(daemon);
	check_killed(task.pid);
	CHECK_EQ(told->seen[0], -1);
	check_guard_ends();
	check_no_child_left();
}

TEST_NS(guard_is_replaced)
{
	daemon_dies_after_guard(1);
}

TEST_NS(guard_is_replaced_again_and_again)
{
	daemon_dies_after_guard(20);
}

/* What comes after the guard was replaced is in the hands of the new one, too */
TEST_NS(replaced_guard_knows_what_is_watched)
{
	struct reader r[2] = { { .nr = 0 }, { .nr = 1 } };
	int fd[2] = { new_memfd(1), new_memfd(1) }, i;
	struct inode_id id[2] = { id_of(fd[0]), id_of(fd[1]) };
	struct task task[2];
	pid_t daemon;

	setup();
	for (i = 0; i < 2; i++)
		task[i] = new_task(fd[i], &r[i]);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		start_guard();
		CHECK_EQ(guard_watch(&id[0]), 0);
		serve(&task[0], &r[0]);
		replace_guard();
		guard_unwatch(&id[0]);
		CHECK_EQ(guard_watch(&id[1]), 0);
		serve(&task[1], &r[1]);
		fill_pages(fd[0], 0, 1);
		CHECK_EQ(bare_continue(task[0].uffd, task[0].addr, PG, NULL), 0);
		wait_to_be_killed();
	}
	for (i = 0; i < 2; i++)
		close(task[i].sock);
	WAIT_FOR(told->seen[0] == mark(0));
	kill_daemon(daemon);
	check_killed(task[1].pid);
	check_guard_ends();
	CHECK(is_alive(task[0].pid));
	CHECK_EQ(told->seen[1], -1);
}

TEST_NS(replaced_guard_is_stopped)
{
	int fds, i;

	setup();
	fds = unit_count_fds();
	for (i = 0; i < 3; i++) {
		start_guard();
		replace_guard();
		guard_stop();
		check_no_child_left();
		CHECK_EQ(unit_count_fds(), fds);
		CHECK_EQ(unit_handle_event(epfd, 0), UNIT_NO_EVENT);
	}
}

/* It is dead, but nobody has noticed yet */
TEST_NS(dead_guard_is_stopped)
{
	int fds;

	setup();
	fds = unit_count_fds();
	start_guard();
	CHECK_SYS(kill(told->guard, SIGKILL));
	WAIT_FOR(!is_alive(told->guard));
	guard_stop();
	check_no_child_left();
	CHECK_EQ(unit_count_fds(), fds);
	CHECK_EQ(unit_handle_event(epfd, 0), UNIT_NO_EVENT);
}

/* The whole of a file in /proc, zeroes and all */
static size_t read_proc(pid_t pid, const char *file, char *buf, size_t size)
{
	char path[64];
	ssize_t ret;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = (int)CHECK_SYS(open(path, O_RDONLY | O_CLOEXEC));
	ret = CHECK_SYS(read(fd, buf, size));
	close(fd);
	return (size_t)ret;
}

static bool is_named_guard(pid_t pid)
{
	static const char name[] = "lazyshm-guard";
	char comm[64] = "", cmdline[4096] = "";
	size_t len, i;

	read_proc(pid, "comm", comm, sizeof(comm) - 1);
	if (strcmp(comm, "lazyshm-guard\n"))
		return false;
	len = read_proc(pid, "cmdline", cmdline, sizeof(cmdline));
	if (len < sizeof(name) || memcmp(cmdline, name, sizeof(name)))
		return false;
	for (i = sizeof(name); i < len; i++)
		if (cmdline[i])
			return false;
	return true;
}

/* Who kills by name or command line does not mean it; the daemon keeps its own */
TEST_NS(guard_has_another_name)
{
	char comm[2][64] = { "", "" }, cmdline[2][4096] = { "", "" };
	size_t len;

	setup();
	read_proc(getpid(), "comm", comm[0], sizeof(comm[0]));
	len = read_proc(getpid(), "cmdline", cmdline[0], sizeof(cmdline[0]));
	start_guard();
	WAIT_FOR(is_named_guard(told->guard));
	replace_guard();
	WAIT_FOR(is_named_guard(told->guard));

	read_proc(getpid(), "comm", comm[1], sizeof(comm[1]));
	CHECK(!memcmp(comm[0], comm[1], sizeof(comm[0])));
	CHECK_EQ(read_proc(getpid(), "cmdline", cmdline[1], sizeof(cmdline[1])), len);
	CHECK(!memcmp(cmdline[0], cmdline[1], len));
	guard_stop();
}

/* What a process ignores, a bit each, 1 for signal 1 */
static unsigned long ignored(pid_t pid)
{
	char path[64], line[256];
	unsigned long mask = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "SigIgn: %lx", &mask) == 1)
			break;
	fclose(f);
	return mask;
}

/* kill(-pgid), a terminal that hangs up, killall: the guard is there for that */
TEST_NS(whole_group_is_killed)
{
	struct reader r = { .nr = 0 };
	static const int sigs[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE };
	int fd = new_memfd(1), i;
	struct inode_id id = id_of(fd);
	struct task task;
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		setpgid(0, 0);
		start_guard();
		CHECK_EQ(guard_watch(&id), 0);
		serve(&task, &r);
		wait_to_be_killed();
	}
	close(task.sock);
	WAIT_FOR(told->ready);
	WAIT_FOR(getsid(told->guard) == told->guard);
	for (i = 0; i < 5; i++) {
		WAIT_FOR(ignored(told->guard) & 1UL << (sigs[i] - 1));
		CHECK_SYS(kill(told->guard, sigs[i]));
	}

	CHECK_SYS(kill(-daemon, SIGKILL));
	check_killed(daemon);
	check_killed(task.pid);
	CHECK_EQ(told->seen[0], -1);
	check_guard_ends();
	check_no_child_left();
}

/* A forked child blocks on a userfaultfd that came with an event */
TEST_NS(forked_child_is_killed)
{
	struct reader r = { .nr = 0, .forks = true };
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	struct task task;
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		start_guard();
		CHECK_EQ(guard_watch(&id), 0);
		serve(&task, &r);
		wait_to_be_killed();
	}
	close(task.sock);
	WAIT_FOR(told->child[0]);
	kill_daemon(daemon);
	check_killed(task.pid);
	check_killed(told->child[0]); /* an orphan by now */
	CHECK_EQ(told->seen[0], -1);
	check_guard_ends();
	check_no_child_left();
}

/* An event that nobody has read: there is no userfaultfd of the child yet */
TEST_NS(forking_task_is_killed)
{
	struct reader r = { .nr = 0, .forks = true };
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	struct task task;
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		start_guard();
		CHECK_EQ(guard_watch(&id), 0);
		task_receive_uffd(&task);
		task_go(&task);
		CHECK(uffd_readable(task.uffd, 5000));
		wait_to_be_killed();
	}
	close(task.sock);
	kill_daemon(daemon);
	check_killed(task.pid);
	check_guard_ends();
	/* it has never run, or was killed as well */
	WAIT_FOR(waitpid(-1, NULL, WNOHANG) < 0);
	CHECK_EQ(told->seen[0], -1);
}

/* Two objects, one of them complete: its users live on */
TEST_NS(only_users_of_watched_objects_die)
{
	struct reader r[2] = { { .nr = 0 }, { .nr = 1 } };
	int fd[2] = { new_memfd(1), new_memfd(1) }, i;
	struct inode_id id[2] = { id_of(fd[0]), id_of(fd[1]) };
	struct task task[2];
	pid_t daemon;

	setup();
	for (i = 0; i < 2; i++)
		task[i] = new_task(fd[i], &r[i]);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		start_guard();
		CHECK_EQ(guard_watch(&id[0]), 0);
		CHECK_EQ(guard_watch(&id[1]), 0);
		for (i = 0; i < 2; i++)
			serve(&task[i], &r[i]);
		fill_pages(fd[1], 0, 1);
		CHECK_EQ(bare_continue(task[1].uffd, task[1].addr, PG, NULL), 0);
		guard_unwatch(&id[1]);
		wait_to_be_killed();
	}
	WAIT_FOR(told->seen[1] == mark(0));
	kill_daemon(daemon);
	check_killed(task[0].pid);
	check_guard_ends();
	CHECK(is_alive(task[1].pid));
	CHECK_EQ(told->seen[0], -1);
}

/* Nothing is watched any more: the daemon may die, and the guard with it */
TEST_NS(unwatched_task_lives)
{
	struct reader r = { .nr = 0 };
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	struct task task;
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		start_guard();
		CHECK_EQ(guard_watch(&id), 0);
		serve(&task, &r);
		fill_pages(fd, 0, 1);
		CHECK_EQ(bare_continue(task.uffd, task.addr, PG, NULL), 0);
		guard_unwatch(&id);
		wait_to_be_killed();
	}
	WAIT_FOR(told->seen[0] == mark(0));
	kill_daemon(daemon);
	WAIT_FOR(waitpid(told->guard, NULL, WNOHANG) == told->guard);
	unit_sleep_ms(20);
	CHECK(is_alive(task.pid));
	CHECK(!strstr(unit_log(), "Killed"));
}

/* After guard_stop() there is no guard, and nobody is killed */
TEST_NS(stopped_guard_is_gone)
{
	struct reader r = { .nr = 0 };
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	struct task task;
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		int fds;

		task_receive_uffd(&task);
		fds = unit_count_fds();
		start_guard();
		CHECK_EQ(guard_watch(&id), 0); /* it is not unwatched */
		task_go(&task);
		read_fault(task.uffd, task.addr);
		fill_pages(fd, 0, 1);
		CHECK_EQ(bare_continue(task.uffd, task.addr, PG, NULL), 0);
		guard_stop();
		CHECK_EQ(kill(told->guard, 0), -1);
		CHECK_EQ(errno, ESRCH);
		check_no_child_left();
		CHECK_EQ(unit_count_fds(), fds);
		guard_stop(); /* harmless */
		wait_to_be_killed();
	}
	WAIT_FOR(told->seen[0] == mark(0));
	kill_daemon(daemon);
	unit_sleep_ms(50);
	CHECK(is_alive(task.pid));
	CHECK(!strstr(unit_log(), "Killed"));
}

/* A daemon that comes to its end, as it should: guard_stop() and exit */
TEST_NS(stop_then_start_again)
{
	int i, fds;

	setup();
	fds = unit_count_fds();
	for (i = 0; i < 3; i++) {
		pid_t first;

		start_guard();
		first = told->guard;
		CHECK_EQ(guard_start(), 0); /* there is one */
		CHECK_EQ(find_guard(), first);
		guard_stop();
		check_no_child_left();
		CHECK_EQ(unit_count_fds(), fds);
	}
}

static struct inode_id nth_id(unsigned int n)
{
	return (struct inode_id){ .dev = 1, .ino = 1000 + n };
}

TEST_NS(watches_so_many_and_no_more)
{
	struct inode_id id, none = { .dev = 2, .ino = 1000 };
	unsigned int i;

	setup();
	start_guard();
	for (i = 0; i < GUARD_MAX_OBJECTS; i++) {
		id = nth_id(i);
		CHECK_EQ(guard_watch(&id), 0);
	}
	id = nth_id(i);
	CHECK_EQ(guard_watch(&id), -ENOSPC);

	guard_unwatch(&none); /* is not there */
	CHECK_EQ(guard_watch(&id), -ENOSPC);
	none = nth_id(77);
	guard_unwatch(&none);
	CHECK_EQ(guard_watch(&id), 0);
	CHECK_EQ(guard_watch(&id), -ENOSPC);
	guard_stop();
}

/* First, last and in the middle of those watched: each of the others still is */
static void unwatch_one(int which)
{
	struct reader r[3] = { { .nr = 0 }, { .nr = 1 }, { .nr = 2 } };
	struct task task[3];
	struct inode_id id[3];
	int fd[3], i;
	pid_t daemon;

	unit_note("unwatch %d", which);
	setup();
	for (i = 0; i < 3; i++) {
		fd[i] = new_memfd(1);
		id[i] = id_of(fd[i]);
		task[i] = new_task(fd[i], &r[i]);
	}
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		start_guard();
		for (i = 0; i < 3; i++)
			CHECK_EQ(guard_watch(&id[i]), 0);
		guard_unwatch(&id[which]);
		/* when it is here the task has its mapping; there is no fault */
		for (i = 0; i < 3; i++)
			task_receive_uffd(&task[i]);
		wait_to_be_killed();
	}
	kill_daemon(daemon);
	check_guard_ends();
	for (i = 0; i < 3; i++) {
		if (i == which) {
			CHECK(is_alive(task[i].pid));
			CHECK_SYS(kill(task[i].pid, SIGKILL));
		}
		check_killed(task[i].pid);
	}
	check_no_child_left();
}

TEST_NS(unwatch_first)
{
	unwatch_one(0);
}

TEST_NS(unwatch_middle)
{
	unwatch_one(1);
}

TEST_NS(unwatch_last)
{
	unwatch_one(2);
}

/* What the daemon itself calls when an object can not be completed */
TEST_NS(kill_users_of_one_object)
{
	struct reader r[2] = { { .nr = 0 }, { .nr = 1 } };
	int fd[2] = { new_memfd(1), new_memfd(1) }, i;
	struct inode_id id[2] = { id_of(fd[0]), id_of(fd[1]) };
	struct task task[2];

	setup();
	for (i = 0; i < 2; i++) {
		task[i] = new_task(fd[i], &r[i]);
		serve(&task[i], &r[i]);
	}
	guard_kill(id, 0);
	CHECK(is_alive(task[0].pid) && is_alive(task[1].pid));
	guard_kill(&id[1], 1);
	check_killed(task[1].pid);
	CHECK(is_alive(task[0].pid));
	guard_kill(id, 2);
	check_killed(task[0].pid);
	CHECK_EQ(told->seen[0], -1);
	CHECK_EQ(told->seen[1], -1);
}

/*
 * All descriptors are in use
 */

/* Not one is left, but for those the guard keeps for itself */
static void check_no_fd_left(void)
{
	CHECK_EQ(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0), -1);
	CHECK_EQ(errno, EMFILE);
}

TEST_NS(kills_without_a_descriptor_left)
{
	struct reader r[2] = { { .nr = 0 }, { .nr = 1 } };
	int fd[2] = { new_memfd(1), new_memfd(1) }, i;
	struct inode_id id[2] = { id_of(fd[0]), id_of(fd[1]) };
	struct task task[2];
	char text[64];

	setup();
	for (i = 0; i < 2; i++)
		task[i] = new_task(fd[i], &r[i]);
	start_guard();
	for (i = 0; i < 2; i++)
		serve(&task[i], &r[i]);
	use_up_fds(0);
	for (i = 0; i < 2; i++) {
		guard_kill(&id[i], 1);
		check_killed(task[i].pid);
		CHECK_EQ(told->seen[i], -1);
		snprintf(text, sizeof(text), "Killed %d (unit-task)", task[i].pid);
		CHECK(strstr(unit_log(), text));
		check_no_fd_left(); /* it has taken them back */
	}
	guard_stop();
	check_no_child_left();
}

/* The guard shares the table, and finds it full */
static void daemon_dies_without_a_descriptor_left(bool replace)
{
	struct reader r = { .nr = 0 };
	int fd = new_memfd(1);
	struct inode_id id = id_of(fd);
	struct task task;
	pid_t daemon;

	setup();
	task = new_task(fd, &r);
	daemon = (pid_t)CHECK_SYS(fork());
	if (!daemon) {
		set_fd_limit(100); /* as use_up_fds() does; the guard has its own */
		start_guard();
		CHECK_EQ(guard_watch(&id), 0);
		serve(&task, &r);
		if (replace)
			replace_guard();
		/* it has read what it needs for its name */
		WAIT_FOR(is_named_guard(told->guard));
		use_up_fds(0);
		wait_to_be_killed();
	}
	close(task.sock);
	kill_daemon(daemon);
	check_killed(task.pid);
	CHECK_EQ(told->seen[0], -1);
	check_guard_ends();
	check_no_child_left();
}

TEST_NS(daemon_dies_with_all_descriptors_in_use)
{
	daemon_dies_without_a_descriptor_left(false);
}

TEST_NS(replaced_guard_has_spare_descriptors)
{
	daemon_dies_without_a_descriptor_left(true);
}

/* The daemon's objects end after the guard, or without there ever having been one */
TEST_NS(unwatch_after_stop)
{
	struct inode_id id[2] = { nth_id(1), nth_id(2) };

	setup();
	guard_unwatch(&id[0]);
	guard_stop();
	start_guard();
	CHECK_EQ(guard_watch(&id[0]), 0);
	CHECK_EQ(guard_watch(&id[1]), 0);
	guard_unwatch(&id[0]);
	guard_stop();
	guard_unwatch(&id[0]);
	guard_unwatch(&id[1]);
	guard_unwatch(&id[1]);
	guard_stop();
	check_no_child_left();

	/* and nothing of it is left for the next */
	start_guard();
	CHECK_EQ(guard_watch(&id[1]), 0);
	guard_unwatch(&id[1]);
	guard_stop();
}
