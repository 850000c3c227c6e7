// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "io_uring with registered buffers in shared memory that is being restored";
const char *test_author = "criu-lazy-shmem";

enum { OUT,
       IN,
       NR_BUFFERS };

#define BUFFER_PAGES 256
#define ENTRIES	     8

static struct lshm m;
static uint64_t new_seed;
static pid_t child;

struct ring {
	int fd;
	uint8_t *map;
	struct io_uring_sqe *sqes;
	struct io_uring_params p;
};

/* Each of two tasks has its buffers; none begins at its window's first page */
static struct lshm buffer(int task, int b)
{
	return lshm_sub(&m, m.nr / 2 + (task * NR_BUFFERS + b) * 2 * BUFFER_PAGES + 5, BUFFER_PAGES);
}

static int setup_ring(struct io_uring_params *p)
{
	memset(p, 0, sizeof(*p));
	return syscall(SYS_io_uring_setup, ENTRIES, p);
}

static int make_ring(struct ring *r)
{
	size_t sq, cq;

	r->fd = setup_ring(&r->p);
	if (r->fd < 0) {
		pr_perror("Can't set up a ring");
		return 1;
	}
	/* One mapping of both: kernels without that have been gone since 5.4 */
	sq = r->p.sq_off.array + r->p.sq_entries * sizeof(uint32_t);
	cq = r->p.cq_off.cqes + r->p.cq_entries * sizeof(struct io_uring_cqe);
	r->map = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		      IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, r->p.sq_entries * sizeof(*r->sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		       r->fd, IORING_OFF_SQES);
	if (r->map == MAP_FAILED || r->sqes == MAP_FAILED) {
		pr_perror("Can't map the ring");
		return 1;
	}
	return 0;
}

/* Pins all of their pages, and waits for them */
static int register_buffers(struct ring *r, int task)
{
	struct iovec iov[NR_BUFFERS];
	int b;

	for (b = 0; b < NR_BUFFERS; b++) {
		struct lshm buf = buffer(task, b);

		iov[b].iov_base = buf.map;
		iov[b].iov_len = buf.nr * PAGE_SIZE;
	}
	if (syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, iov, NR_BUFFERS)) {
		pr_perror("Can't register the buffers");
		return 1;
	}
	return 0;
}

static uint32_t *sq_word(struct ring *r, uint32_t off)
{
	return (uint32_t *)(r->map + off);
}

static int run_one(struct ring *r, const struct io_uring_sqe *sqe, const char *what)
{
	uint32_t tail = *sq_word(r, r->p.sq_off.tail), mask = *sq_word(r, r->p.sq_off.ring_mask);
	struct io_uring_cqe *cqes = (struct io_uring_cqe *)(r->map + r->p.cq_off.cqes);
	uint32_t head = *sq_word(r, r->p.cq_off.head);
	int res;

	r->sqes[tail & mask] = *sqe;
	sq_word(r, r->p.sq_off.array)[tail & mask] = tail & mask;
	__atomic_store_n(sq_word(r, r->p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);

	if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) {
		pr_perror("Can't submit: %s", what);
		return 1;
	}
	/* A signal, as zdtm.py's, ends the wait of a call that has submitted something */
	while (__atomic_load_n(sq_word(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE) == head) {
		if (syscall(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 && errno != EINTR) {
			pr_perror("Can't wait: %s", what);
			return 1;
		}
	}
	res = cqes[head & *sq_word(r, r->p.cq_off.ring_mask)].res;
	__atomic_store_n(sq_word(r, r->p.cq_off.head), head + 1, __ATOMIC_RELEASE);
	if (res != (int)sqe->len) {
		fail("%s: %d and not %u", what, res, sqe->len);
		return 1;
	}
	return 0;
}

static int transfer(struct ring *r, int op, int fd, const struct lshm *buf, int index, const char *what)
{
	struct io_uring_sqe sqe;

	memset(&sqe, 0, sizeof(sqe));
	sqe.opcode = op;
	sqe.fd = fd;
	sqe.addr = (uintptr_t)buf->map;
	sqe.len = buf->nr * PAGE_SIZE;
	sqe.buf_index = index;
	return run_one(r, &sqe, what);
}

static int open_file(int task)
{
	char name[64];
	int fd;

	ssprintf(name, "lshm_uring.%d.tmp", task);
	fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		pr_perror("Can't open %s", name);
	else
		unlink(name);
	return fd;
}

static int make_copy(struct lshm *copy, const struct lshm *of, uint64_t seed)
{
	*copy = *of;
	copy->seed = seed;
	copy->map = mmap(NULL, of->nr * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy->map == MAP_FAILED) {
		pr_perror("Can't allocate a copy");
		return 1;
	}
	lshm_fill(copy);
	return 0;
}

static int write_out(struct ring *r, int task)
{
	struct lshm out = buffer(task, OUT), copy;
	size_t len = out.nr * PAGE_SIZE;
	int fd = open_file(task);

	if (fd < 0 || make_copy(&copy, &out, ~m.seed) || transfer(r, IORING_OP_WRITE_FIXED, fd, &out, OUT, "write"))
		return 1;
	if (pread(fd, copy.map, len, 0) != (ssize_t)len) {
		pr_perror("Can't read back");
		return 1;
	}
	close(fd);
	copy.seed = m.seed;
	return lshm_check(&copy);
}

static int read_in(struct ring *r, int task)
{
	struct lshm in = buffer(task, IN), copy;
	size_t len = in.nr * PAGE_SIZE;
	int fd = open_file(task);

	if (fd < 0 || make_copy(&copy, &in, new_seed))
		return 1;
	if (pwrite(fd, copy.map, len, 0) != (ssize_t)len) {
		pr_perror("Can't prepare the file");
		return 1;
	}
	if (transfer(r, IORING_OP_READ_FIXED, fd, &in, IN, "read"))
		return 1;
	close(fd);
	return 0;
}

/* A buffer that is not registered: the pages are looked for when the request runs */
static int write_plain(struct ring *r, int task)
{
	struct lshm rest = lshm_sub(&m, task * 1024 + 4096, BUFFER_PAGES), copy;
	size_t len = rest.nr * PAGE_SIZE;
	int fd = open_file(task);

	if (fd < 0 || make_copy(&copy, &rest, ~m.seed) || transfer(r, IORING_OP_WRITE, fd, &rest, 0, "plain write"))
		return 1;
	if (pread(fd, copy.map, len, 0) != (ssize_t)len) {
		pr_perror("Can't read back");
		return 1;
	}
	close(fd);
	copy.seed = m.seed;
	return lshm_check(&copy);
}

static int use_ring(int task)
{
	struct ring r;
	int ret;

	ret = make_ring(&r) || register_buffers(&r, task) || read_in(&r, task) || write_out(&r, task) ||
	      write_plain(&r, task);
	if (r.fd >= 0)
		close(r.fd);
	return ret;
}

static int is_input(unsigned long i)
{
	int task;

	for (task = 0; task < 2; task++) {
		struct lshm in = buffer(task, IN);

		if (i >= in.page && i < in.page + in.nr)
			return 1;
	}
	return 0;
}

static int check_all(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++)
		if (is_input(i) ? lshm_check_rewritten(&m, i, new_seed) : lshm_check_page(&m, i))
			return 1;
	return 0;
}

static int child_main(void *arg)
{
	return use_ring(1);
}

int lshm_setup(void)
{
	struct io_uring_params p;
	int fd;

	fd = setup_ring(&p);
	if (fd < 0) {
		skip("no io_uring here: %s", strerror(errno));
		return LSHM_SKIP;
	}
	close(fd);

	new_seed = lshm_new_seed();
	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	return use_ring(0) || lshm_reap(child) || check_all() || lshm_wait_retired() || check_all();
}
