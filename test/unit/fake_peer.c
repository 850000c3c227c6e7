// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "page_server.h"

#include "fake_peer.h"
#include "unit.h"

#define PG	4096UL
#define SESSION 0x5e55

struct cr_options opts;
struct peer *peer;
static int listening = -1;
static pid_t server_pid;

unsigned char peer_byte(uint64_t shmid, uint64_t off)
{
	uint64_t x = (off + shmid * 0x1000003) * 0x9e3779b97f4a7c15ULL;

	return (unsigned char)(1 + (x >> 40) % 251);
}

/*
 * The server
 */

struct conn {
	int sk;
	unsigned int nr; /* which one it is */
	struct peer_conn plan;
	uint64_t sent;
	unsigned int nr_answers;
};

static bool recv_all(int sk, void *buf, size_t len)
{
	return recv(sk, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static void hang_up(struct conn *c, bool reset)
{
	struct linger l = { .l_onoff = 1 };
	char buf[4096];

	if (reset)
		CHECK_SYS(setsockopt(c->sk, SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
	else
		/* what is unread would make it a reset, which overtakes what was sent */
		while (recv(c->sk, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
	close(c->sk);
	c->sk = -1;
}

/* Until the peer closes; whether more may be sent */
static void stall(struct conn *c)
{
	char buf[4096];

	while (recv(c->sk, buf, sizeof(buf), 0) > 0)
		;
	hang_up(c, false);
}

/* false: the connection is over */
static bool send_some(struct conn *c, const void *buf, size_t len)
{
	bool limited = c->plan.does == PEER_CLOSE || c->plan.does == PEER_RESET || c->plan.does == PEER_STALL;
	bool last = limited && c->sent + len >= c->plan.at;

	if (last)
		len = c->plan.at - c->sent;
	if (len && send(c->sk, buf, len, MSG_NOSIGNAL) != (ssize_t)len)
		return false;
	c->sent += len;
	if (!last)
		return true;

	if (c->plan.does == PEER_STALL)
		stall(c);
	else
		hang_up(c, c->plan.does == PEER_RESET);
	return false;
}

static bool refuse(struct conn *c, enum ps_refusal why)
{
	struct page_server_iov pi = { .cmd = PS_IOV_REFUSED, .nr_pages = PS_VERSION, .dst_id = why };

	CHECK_EQ(send(c->sk, &pi, sizeof(pi), MSG_NOSIGNAL), sizeof(pi));
	return false;
}

static void lie(struct page_server_iov *pi, enum peer_does how)
{
	switch (how) {
	case PEER_LIE_CMD:
		pi->cmd = PS_IOV_ADD;
		break;
	case PEER_LIE_SHMID:
		pi->dst_id++;
		break;
	case PEER_LIE_OFF:
		pi->vaddr += PG;
		break;
	case PEER_LIE_MORE_PAGES:
		pi->nr_pages++;
		break;
	case PEER_LIE_FEWER_PAGES:
		pi->nr_pages--;
		break;
	case PEER_LIE_NO_PAGES:
		pi->nr_pages = 0;
		break;
	default:
		break;
	}
}

static bool answer(struct conn *c, struct page_server_iov pi)
{
	uint64_t shmid = pi.dst_id, off = pi.vaddr, end = off + pi.nr_pages * PG, i;
	unsigned char page[PG];
	unsigned int nr = c->nr_answers++;

	if (c->plan.does == PEER_REFUSE && nr == c->plan.at)
		return refuse(c, PS_REFUSED_REQUEST);

	pi.cmd = encode_ps_cmd(PS_IOV_ADD_F, PE_PRESENT);
	if (nr == c->plan.at)
		lie(&pi, c->plan.does);
	if (!send_some(c, &pi, sizeof(pi)))
		return false;
	for (; off < end; off += PG) {
		for (i = 0; i < PG; i++)
			page[i] = peer_byte(shmid, off + i);
		if (!send_some(c, page, PG))
			return false;
	}
	return true;
}

static bool take_question(struct conn *c, struct page_server_iov *pi)
{
	if (!recv_all(c->sk, pi, sizeof(*pi)))
		return false;
	if (pi->cmd == PS_IOV_CLOSE) {
		int32_t status = 0;

		CHECK_EQ(send(c->sk, &status, sizeof(status), MSG_NOSIGNAL), sizeof(status));
		peer->nr_farewells++;
		return false;
	}
	CHECK_EQ(pi->cmd, PS_IOV_GET_SHMEM);
	CHECK(pi->nr_pages && pi->nr_pages <= PS_SHMEM_MAX_PAGES && !(pi->vaddr % PG));
	CHECK(peer->nr_questions < PEER_QUESTIONS);

	peer->questions[peer->nr_questions].conn = c->nr;
	peer->questions[peer->nr_questions].shmid = pi->dst_id;
	peer->questions[peer->nr_questions].off = pi->vaddr;
	peer->questions[peer->nr_questions].nr_pages = pi->nr_pages;
	peer->nr_questions++;
	return true;
}

static bool gather(struct conn *c)
{
	unsigned int i, nr = c->plan.gather;
	struct page_server_iov *pi = calloc(nr, sizeof(*pi));
	bool good = true;

	CHECK(pi);
	for (i = 0; i < nr && good; i++)
		good = take_question(c, &pi[i]);
	while (good && !peer->open)
		unit_sleep_ms(1);
	for (i = 0; i < nr && good; i++)
		good = answer(c, pi[i]);
	free(pi);
	return good;
}

static void serve(struct conn *c)
{
	struct page_server_iov pi;
	bool good;

	if (!recv_all(c->sk, &pi, sizeof(pi)))
		return;
	CHECK_EQ(pi.cmd, PS_IOV_HELLO);
	CHECK_EQ(pi.nr_pages, PS_VERSION);
	CHECK_EQ(pi.dst_id, PS_ROLE_SHMEM);
	CHECK_EQ(pi.vaddr, SESSION);
	if (c->plan.does == PEER_REFUSE_HELLO) {
		refuse(c, PS_REFUSED_SESSION);
		return;
	}
	CHECK_EQ(send(c->sk, &pi, sizeof(pi), MSG_NOSIGNAL), sizeof(pi));

	good = !c->plan.gather || gather(c);
	while (good)
		good = take_question(c, &pi) && answer(c, pi);
}

static void __attribute__((noreturn)) server(void)
{
	int one = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		struct conn c = { .nr = peer->nr_conns };

		c.sk = (int)CHECK_SYS(accept(listening, NULL, NULL));
		CHECK(c.nr < PEER_CONNS);
		peer->nr_conns++;
		c.plan = peer->conns[c.nr];
		setsockopt(c.sk, SOL_TCP, TCP_NODELAY, &one, sizeof(one));
		serve(&c);
		if (c.sk >= 0)
			close(c.sk);
		peer->nr_ended++;
	}
}

void peer_prepare(void)
{
	peer = unit_shared_alloc(sizeof(*peer));
	opts.lazy_timeout = 10;
	opts.lazy_retries = 2;
}

void peer_start(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);

	listening = (int)CHECK_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	CHECK_SYS(bind(listening, (struct sockaddr *)&addr, len));
	CHECK_SYS(listen(listening, 8));
	CHECK_SYS(getsockname(listening, (struct sockaddr *)&addr, &len));
	peer->port = addr.sin_port;

	server_pid = (pid_t)CHECK_SYS(fork());
	if (!server_pid)
		server();
	close(listening);
}

void peer_stop(void)
{
	CHECK_SYS(kill(server_pid, SIGKILL));
	CHECK_EQ(waitpid(server_pid, NULL, 0), server_pid);
}

/*
 * In place of CRIU's, for the code under test
 */

static int sk = -1;

int page_server_shmem_connect(void)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = peer->port,
	};
	struct timeval timeout = { .tv_sec = opts.lazy_timeout };
	struct page_server_iov pi = {
		.cmd = PS_IOV_HELLO, .nr_pages = PS_VERSION, .vaddr = SESSION, .dst_id = PS_ROLE_SHMEM
	};

	CHECK_EQ(sk, -1);
	sk = (int)CHECK_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	setsockopt(sk, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	if (connect(sk, (struct sockaddr *)&addr, sizeof(addr)) ||
	    send(sk, &pi, sizeof(pi), MSG_NOSIGNAL) != sizeof(pi) || !recv_all(sk, &pi, sizeof(pi))) {
		page_server_shmem_disconnect();
		return -EAGAIN;
	}
	if (pi.cmd != PS_IOV_HELLO) {
		page_server_shmem_disconnect();
		return -EACCES;
	}
	return 0;
}

void page_server_shmem_disconnect(void)
{
	CHECK_EQ(close(sk), 0);
	sk = -1;
}

void page_server_shmem_close(void)
{
	struct page_server_iov pi = { .cmd = PS_IOV_CLOSE };
	int32_t status;

	/* it may be gone */
	if (send(sk, &pi, sizeof(pi), MSG_NOSIGNAL) == sizeof(pi))
		recv_all(sk, &status, sizeof(status));
	page_server_shmem_disconnect();
}

int page_server_shmem_fd(void)
{
	CHECK(sk >= 0);
	return sk;
}

int page_server_shmem_ask(uint32_t shmid, uint64_t off, uint32_t nr_pages)
{
	struct page_server_iov pi = {
		.cmd = PS_IOV_GET_SHMEM,
		.nr_pages = nr_pages,
		.vaddr = off,
		.dst_id = shmid,
	};

	CHECK(sk >= 0);
	return send(sk, &pi, sizeof(pi), MSG_NOSIGNAL) == sizeof(pi) ? 0 : -errno;
}

int page_server_shmem_answer(uint32_t *shmid, uint64_t *off, uint32_t *nr_pages)
{
	struct page_server_iov pi;
	ssize_t ret;

	ret = recv(sk, &pi, sizeof(pi), MSG_WAITALL);
	if (ret < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (ret != sizeof(pi))
		return -ECONNRESET;
	/* refused, or not what was asked for */
	if (pi.cmd != encode_ps_cmd(PS_IOV_ADD_F, PE_PRESENT))
		return -EACCES;
	*shmid = (uint32_t)pi.dst_id;
	*off = pi.vaddr;
	*nr_pages = pi.nr_pages;
	return 0;
}

/* What it would be with TLS, as far as the callers know: nobody else may read the socket then */
ssize_t page_server_shmem_recv(void *buf, size_t len)
{
	ssize_t ret = recv(sk, buf, len, MSG_WAITALL);

	return ret < 0 ? errno == EAGAIN ? -ETIMEDOUT : -errno : ret;
}
