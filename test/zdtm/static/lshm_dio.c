// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "The kernel reads and writes shared memory that is being restored: files, pipes, sockets";
const char *test_author = "criu-lazy-shmem";

enum {
	DIRECT_OUT,
	DIRECT_IN,
	FILE_OUT,
	FILE_IN,
	SPLICED,
	PIPED_IN,
	SENT,
	RECEIVED,
	NR_KINDS,
};

static struct lshm m;
static uint64_t new_seed;
static pid_t child;

#define PIPE_PAGES 8

/* Each of two tasks has a part for each kind */
static struct lshm part(int task, int kind)
{
	unsigned long nr = m.nr / NR_KINDS / 2;

	return lshm_sub(&m, (task * NR_KINDS + kind) * nr, nr);
}

/* What comes in is less than the part, and not aligned to anything but a page */
static struct lshm inner(const struct lshm *part)
{
	return lshm_sub(part, 3, part->nr - 70);
}

static int is_input(int kind)
{
	return kind % 2;
}

static int moved(ssize_t n, size_t want, const char *what)
{
	if (n == (ssize_t)want)
		return 0;
	pr_perror("%s: %zd bytes and not %zu", what, n, want);
	return 1;
}

/* Private memory with the contents that the run has, or is to have */
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

static void drop_copy(const struct lshm *copy)
{
	munmap(copy->map, copy->nr * PAGE_SIZE);
}

static int open_file(int task, int flags)
{
	char name[64];
	int fd;

	ssprintf(name, "lshm_dio.%d.tmp", task);
	fd = open(name, O_RDWR | O_CREAT | flags, 0600);
	if (fd < 0 && flags && errno == EINVAL) {
		test_msg("No O_DIRECT on this file system\n");
		fd = open(name, O_RDWR | O_CREAT, 0600);
	}
	if (fd < 0)
		pr_perror("Can't open %s", name);
	else
		unlink(name);
	return fd;
}

static int write_file(int task, int kind, int flags)
{
	struct lshm from = part(task, kind), copy;
	size_t len = from.nr * PAGE_SIZE;
	int fd, ret;

	fd = open_file(task, flags);
	if (fd < 0 || make_copy(&copy, &from, ~m.seed))
		return 1;
	ret = moved(pwrite(fd, from.map, len, 0), len, "write") || moved(pread(fd, copy.map, len, 0), len, "read back");
	copy.seed = m.seed;
	ret = ret || lshm_check(&copy);
	drop_copy(&copy);
	close(fd);
	return ret;
}

static int read_file(int task, int kind, int flags)
{
	struct lshm all = part(task, kind), to = inner(&all), copy;
	size_t len = to.nr * PAGE_SIZE;
	int fd, ret;

	fd = open_file(task, flags);
	if (fd < 0 || make_copy(&copy, &to, new_seed))
		return 1;
	ret = moved(pwrite(fd, copy.map, len, 0), len, "write") || moved(pread(fd, to.map, len, 0), len, "read");
	drop_copy(&copy);
	close(fd);
	return ret;
}

/* The pages themselves go into the pipe, as they are */
static int splice_out(int task)
{
	struct lshm from = part(task, SPLICED), copy;
	unsigned long i;
	int p[2], ret = 0;

	if (pipe(p) || make_copy(&copy, &from, ~m.seed)) {
		pr_perror("Can't prepare");
		return 1;
	}
	for (i = 0; i < from.nr && !ret; i += PIPE_PAGES) {
		struct iovec iov = { .iov_base = from.map + i * PAGE_SIZE, .iov_len = PIPE_PAGES * PAGE_SIZE };

		ret = moved(vmsplice(p[1], &iov, 1, 0), iov.iov_len, "vmsplice") ||
		      moved(read(p[0], copy.map + i * PAGE_SIZE, iov.iov_len), iov.iov_len, "read a pipe");
	}
	copy.seed = m.seed;
	ret = ret || lshm_check(&copy);
	drop_copy(&copy);
	close(p[0]);
	close(p[1]);
	return ret;
}

static int pipe_in(int task)
{
	struct lshm all = part(task, PIPED_IN), to = inner(&all), copy;
	unsigned long i;
	int p[2], ret = 0;

	if (pipe(p) || make_copy(&copy, &to, new_seed)) {
		pr_perror("Can't prepare");
		return 1;
	}
	for (i = 0; i < to.nr && !ret; i++) {
		struct iovec iov[2] = {
			{ .iov_base = to.map + i * PAGE_SIZE, .iov_len = 100 },
			{ .iov_base = to.map + i * PAGE_SIZE + 100, .iov_len = PAGE_SIZE - 100 },
		};

		ret = moved(write(p[1], copy.map + i * PAGE_SIZE, PAGE_SIZE), PAGE_SIZE, "write a pipe") ||
		      moved(readv(p[0], iov, 2), PAGE_SIZE, "readv");
	}
	drop_copy(&copy);
	close(p[0]);
	close(p[1]);
	return ret;
}

/* From one part to the other, through a socket */
static int send_and_receive(int task)
{
	struct lshm from = part(task, SENT), all = part(task, RECEIVED), to = inner(&all);
	int s[2], ret = 0;
	unsigned long i;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s)) {
		pr_perror("Can't create sockets");
		return 1;
	}
	for (i = 0; i < to.nr && !ret; i++)
		ret = moved(send(s[0], from.map + i * PAGE_SIZE, PAGE_SIZE, 0), PAGE_SIZE, "send") ||
		      moved(recv(s[1], to.map + i * PAGE_SIZE, PAGE_SIZE, MSG_WAITALL), PAGE_SIZE, "receive");
	close(s[0]);
	close(s[1]);
	return ret;
}

static int check_part(int task, int kind)
{
	struct lshm all = part(task, kind), in = inner(&all), want;

	if (!is_input(kind))
		return lshm_check(&all);
	want = in;
	want.seed = new_seed;
	if (kind == RECEIVED) {
		want.seed = m.seed;
		want.page = part(task, SENT).page;
	}
	return lshm_check(&want) || lshm_check_range(&all, 0, 3) || lshm_check_range(&all, all.nr - 67, 67);
}

static int check_parts(int task)
{
	int kind;

	for (kind = 0; kind < NR_KINDS; kind++)
		if (check_part(task, kind))
			return 1;
	return 0;
}

static int use_parts(int task)
{
	return read_file(task, DIRECT_IN, O_DIRECT) || write_file(task, DIRECT_OUT, O_DIRECT) || splice_out(task) ||
	       read_file(task, FILE_IN, 0) || write_file(task, FILE_OUT, 0) || pipe_in(task) || send_and_receive(task) ||
	       check_parts(task);
}

static int child_main(void *arg)
{
	return use_parts(1);
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	return use_parts(0) || lshm_reap(child) || check_parts(1) || lshm_wait_retired() || check_parts(0) || check_parts(1);
}
