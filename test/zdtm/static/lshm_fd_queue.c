// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>
#include <sys/socket.h>

#include "lshm_common.h"

const char *test_doc = "A memfd whose descriptor waits in a socket can be read without a fault: not lazy";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (32 * MiB / PAGE_SIZE)

static struct lshm m;
static int sk[2];

union fd_msg {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static void init_msg(struct msghdr *msg, struct iovec *iov, union fd_msg *control)
{
	static char byte;

	iov->iov_base = &byte;
	iov->iov_len = 1;
	*msg = (struct msghdr){
		.msg_iov = iov,
		.msg_iovlen = 1,
		.msg_control = control->buf,
		.msg_controllen = sizeof(control->buf),
	};
}

static int send_fd(int fd)
{
	union fd_msg control = {};
	struct cmsghdr *cmsg;
	struct msghdr msg;
	struct iovec iov;

	init_msg(&msg, &iov, &control);
	cmsg = CMSG_FIRSTHDR(&msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	if (sendmsg(sk[0], &msg, 0) != 1) {
		pr_perror("Can't send the descriptor");
		return 1;
	}
	return 0;
}

static int recv_fd(void)
{
	union fd_msg control = {};
	struct cmsghdr *cmsg;
	struct msghdr msg;
	struct iovec iov;
	int fd;

	init_msg(&msg, &iov, &control);
	if (recvmsg(sk[1], &msg, 0) != 1 || !(cmsg = CMSG_FIRSTHDR(&msg))) {
		pr_perror("Can't receive the descriptor");
		return -1;
	}
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

int lshm_setup(void)
{
	int fd, ret;

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, sk)) {
		pr_perror("Can't create a socket pair");
		return 1;
	}
	fd = lshm_memfd("lshm_fd_queue", 0, NR_PAGES * PAGE_SIZE);
	if (fd < 0)
		return 1;
	m.seed = lshm_new_seed();
	ret = lshm_map_fd(&m, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES) || send_fd(fd);
	close(fd);
	if (!ret)
		lshm_fill(&m);
	return ret;
}

int lshm_run(void)
{
	struct lshm again = m;
	int fd;

	fd = recv_fd();
	if (fd < 0 || lshm_map_fd(&again, fd, PROT_READ, MAP_SHARED, 0, NR_PAGES))
		return 1;
	return lshm_check_shuffled(&again, m.seed) || lshm_check(&m);
}
