// SPDX-License-Identifier: GPL-2.0-only
#include <sys/socket.h>

#include "lshm_views.h"

const char *test_doc = "Memfds whose only descriptors wait in socket queues, of several tasks, some mapped nowhere";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (8 * MiB / PAGE_SIZE)
#define SIZE	 (NR_PAGES * PAGE_SIZE)
#define NR_FDS	 2

/*
 * The first message has two descriptors: one object that is mapped nowhere, and
 * one that the receiver's parent maps. The second is received by the child,
 * which maps that object.
 */
static struct lshm unmapped, parents, childs;
static int own[2], other[2];
static pid_t child;

union fd_msg {
	char buf[CMSG_SPACE(NR_FDS * sizeof(int))];
	struct cmsghdr align;
};

static void init_msg(struct msghdr *msg, struct iovec *iov, union fd_msg *control, int nr)
{
	static char byte;

	iov->iov_base = &byte;
	iov->iov_len = 1;
	*msg = (struct msghdr){
		.msg_iov = iov,
		.msg_iovlen = 1,
		.msg_control = control->buf,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
}

/* The descriptors are closed here: nobody else has one */
static int send_fds(int sk, int *fds, int nr)
{
	union fd_msg control = {};
	struct cmsghdr *cmsg;
	struct msghdr msg;
	struct iovec iov;

	init_msg(&msg, &iov, &control, nr);
	cmsg = CMSG_FIRSTHDR(&msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, nr * sizeof(int));
	if (sendmsg(sk, &msg, 0) != 1) {
		pr_perror("Can't send the descriptors");
		return 1;
	}
	while (nr--)
		close(fds[nr]);
	return 0;
}

static int recv_fds(int sk, int *fds, int nr)
{
	union fd_msg control = {};
	struct cmsghdr *cmsg;
	struct msghdr msg;
	struct iovec iov;

	init_msg(&msg, &iov, &control, nr);
	if (recvmsg(sk, &msg, 0) != 1 || !(cmsg = CMSG_FIRSTHDR(&msg)) || cmsg->cmsg_len != CMSG_LEN(nr * sizeof(int))) {
		pr_perror("Can't receive %d descriptors", nr);
		return 1;
	}
	memcpy(fds, CMSG_DATA(cmsg), nr * sizeof(int));
	return 0;
}

static int make(struct lshm *m, int *fd)
{
	m->seed = lshm_new_seed();
	*fd = lshm_memfd("lshm_queue_kinds", 0, SIZE);
	if (*fd < 0 || lshm_map_fd(m, *fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES))
		return 1;
	lshm_fill(m);
	return 0;
}

static int check_received(int fd, const struct lshm *m)
{
	return lshm_check_fstat(fd, SIZE, SIZE) || lshm_check_pread_shuffled(fd, m) ||
	       lshm_check_new_map(fd, m, MAP_SHARED) || lshm_check_new_map(fd, m, MAP_PRIVATE);
}

static int child_prepare(void *arg)
{
	munmap(parents.map, SIZE);
	close(own[0]);
	close(own[1]);
	return 0;
}

static int child_main(void *arg)
{
	int fd;

	return recv_fds(other[1], &fd, 1) || check_received(fd, &childs) || lshm_check(&childs);
}

int lshm_setup(void)
{
	int fds[NR_FDS], fd;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, own) || socketpair(AF_UNIX, SOCK_DGRAM, 0, other)) {
		pr_perror("Can't create socket pairs");
		return 1;
	}
	if (make(&unmapped, &fds[0]) || make(&parents, &fds[1]) || make(&childs, &fd))
		return 1;
	munmap(unmapped.map, SIZE);
	if (send_fds(own[0], fds, NR_FDS) || send_fds(other[0], &fd, 1))
		return 1;
	child = lshm_fork_task(child_prepare, child_main, NULL);
	if (child < 0)
		return 1;
	munmap(childs.map, SIZE);
	close(other[0]);
	close(other[1]);
	return 0;
}

int lshm_run(void)
{
	int fds[NR_FDS];

	return recv_fds(own[1], fds, NR_FDS) || check_received(fds[0], &unmapped) || lshm_check(&parents) ||
	       check_received(fds[1], &parents) || lshm_reap(child);
}
