// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "processes.h"
#include "unit.h"

int new_memfd(size_t pages)
{
	int fd = (int)CHECK_SYS(memfd_create("unit", MFD_CLOEXEC | MFD_ALLOW_SEALING));

	CHECK_SYS(ftruncate(fd, (off_t)(pages * PG)));
	return fd;
}

struct inode_id id_of(int fd)
{
	struct stat st;

	CHECK_SYS(fstat(fd, &st));
	return (struct inode_id){ .dev = st.st_dev, .ino = st.st_ino };
}

char *map_shared(int fd, size_t pages)
{
	char *addr = mmap(NULL, pages * PG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(addr != MAP_FAILED);
	return addr;
}

unsigned char mark(size_t page)
{
	return (unsigned char)(1 + page % 255);
}

void fill_pages(int fd, size_t page, size_t nr)
{
	unsigned char buf[PG];

	for (; nr; page++, nr--) {
		memset(buf, mark(page), PG);
		CHECK_EQ(pwrite(fd, buf, PG, (off_t)(page * PG)), PG);
	}
}

int new_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		unit_skip("no userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_API, &api))
		unit_skip("userfaultfd has not all features of %#llx: %s", (unsigned long long)features, strerror(errno));
	return uffd;
}

int try_register(int uffd, void *addr, size_t len, uint64_t mode)
{
	struct uffdio_register reg = { .range = { .start = (uintptr_t)addr, .len = len }, .mode = mode };

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

void register_range(int uffd, void *addr, size_t len)
{
	CHECK_EQ(try_register(uffd, addr, len, MODES), 0);
}

int bare_continue(int uffd, void *addr, size_t len, int64_t *mapped)
{
	struct uffdio_continue c = { .range = { .start = (uintptr_t)addr, .len = len } };
	int ret = ioctl(uffd, UFFDIO_CONTINUE, &c) ? -errno : 0;

	if (mapped)
		*mapped = c.mapped;
	return ret;
}

bool uffd_readable(int uffd, int ms)
{
	struct pollfd pfd = { .fd = uffd, .events = POLLIN };

	return poll(&pfd, 1, ms) == 1 && pfd.revents == POLLIN;
}

struct uffd_msg read_event(int uffd, int event)
{
	struct uffd_msg msg;

	CHECK(uffd_readable(uffd, 5000));
	CHECK_EQ(read(uffd, &msg, sizeof(msg)), sizeof(msg));
	CHECK_EQ(msg.event, event);
	return msg;
}

bool read_fault(int uffd, const void *addr)
{
	struct uffd_msg msg = read_event(uffd, UFFD_EVENT_PAGEFAULT);

	CHECK_EQ(msg.arg.pagefault.address & ~(PG - 1), (uintptr_t)addr & ~(PG - 1));
	return msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR;
}

unsigned long pending_faults(int uffd)
{
	unsigned long nr = 0;
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	f = fopen(path, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "pending: %lu", &nr) == 1)
			break;
	fclose(f);
	return nr;
}

static void *touch(void *arg)
{
	struct toucher *t = arg;

	t->value = *t->addr;
	return NULL;
}

void touch_start(struct toucher *t, void *addr)
{
	t->addr = addr;
	t->value = -1;
	CHECK_EQ(pthread_create(&t->thread, NULL, touch, t), 0);
}

int touch_join(struct toucher *t)
{
	pthread_join(t->thread, NULL);
	return t->value;
}

/*
 * Tasks
 */

static void send_uffd(int sock, int uffd, char *addr)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} u = { 0 };
	struct iovec iov = { .iov_base = &addr, .iov_len = sizeof(addr) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof(u.buf) };
	struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);

	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &uffd, sizeof(int));
	CHECK_EQ(sendmsg(sock, &mh, 0), sizeof(addr));
}

int task_receive_uffd(struct task *task)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} u = { 0 };
	struct iovec iov = { .iov_base = &task->addr, .iov_len = sizeof(task->addr) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof(u.buf) };
	ssize_t ret = recvmsg(task->sock, &mh, MSG_CMSG_CLOEXEC);

	if (ret == 0) /* it has skipped the test, or failed it */
		_exit(0);
	CHECK_EQ(ret, sizeof(task->addr));
	CHECK(CMSG_FIRSTHDR(&mh));
	memcpy(&task->uffd, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(int));
	return task->uffd;
}

static int sock_of_task;

void task_wait(void)
{
	char c;

	CHECK_EQ(read(sock_of_task, &c, 1), 1);
}

struct task task_start_uffd_pending(int memfd, size_t pages, uint64_t features, task_work work, void *arg)
{
	struct task task = { .uffd = -1 };
	int sk[2];

	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sk));
	task.pid = (pid_t)CHECK_SYS(fork());
	if (!task.pid) {
		int uffd;

		prctl(PR_SET_NAME, "unit-task");
		close(sk[0]);
		uffd = new_uffd(features);
		task.addr = map_shared(memfd, pages);
		register_range(uffd, task.addr, pages * PG);
		send_uffd(sk[1], uffd, task.addr);
		close(uffd);
		sock_of_task = sk[1];
		task_wait();
		work(task.addr, pages, arg);
		_exit(0);
	}

	close(sk[1]);
	task.sock = sk[0];
	return task;
}

struct task task_start(int memfd, size_t pages, uint64_t features, task_work work, void *arg)
{
	struct task task = task_start_uffd_pending(memfd, pages, features, work, arg);

	task_receive_uffd(&task);
	return task;
}

void task_go(struct task *task)
{
	CHECK_EQ(write(task->sock, "", 1), 1);
}

int wait_for(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

void check_killed(pid_t pid)
{
	int status = wait_for(pid);

	if (!WIFSIGNALED(status))
		CHECK_EQ(WEXITSTATUS(status), -1);
	CHECK_EQ(WTERMSIG(status), SIGKILL);
}

void check_exited(pid_t pid, int value)
{
	int status = wait_for(pid);

	if (WIFSIGNALED(status))
		CHECK_EQ(WTERMSIG(status), 0);
	CHECK_EQ(WEXITSTATUS(status), value);
}

bool is_alive(pid_t pid)
{
	siginfo_t info = { 0 };

	CHECK_SYS(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT));
	return !info.si_pid;
}

void set_fd_limit(unsigned long limit)
{
	struct rlimit lim;

	CHECK_SYS(getrlimit(RLIMIT_NOFILE, &lim));
	lim.rlim_cur = limit;
	CHECK_SYS(setrlimit(RLIMIT_NOFILE, &lim));
}

unsigned long use_up_fds(int leave)
{
	struct rlimit lim;
	int fd, last[16];
	unsigned int n = 0;

	CHECK_SYS(getrlimit(RLIMIT_NOFILE, &lim));
	set_fd_limit(100);
	while ((fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)) >= 0)
		last[n++ % 16] = fd;
	CHECK_EQ(errno, EMFILE);

	CHECK(leave <= 16 && n >= (unsigned int)leave);
	while (leave--)
		close(last[--n % 16]);
	return lim.rlim_cur;
}

int madvise_calls_of(pid_t pid, struct madvise_call *calls, size_t max)
{
	struct madvise_calls seen = { 0 };
	int ret = look_for_madvise(pid, &seen);
	size_t i;

	for (i = 0; i < seen.n && i < max; i++)
		calls[i] = seen.v[i];
	if (ret >= 0)
		ret = (int)seen.n;
	free(seen.v);
	return ret;
}
