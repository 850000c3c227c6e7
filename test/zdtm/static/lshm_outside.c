// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Another process reads and writes memory of a task in which it is being restored";
const char *test_author = "criu-lazy-shmem";

#define NR_PARTS 6
#define CHUNK	 16 /* pages in one call */

enum {
	READV,
	WRITEV,
	MEM_READ,
	MEM_WRITE,
	PEEK,
	POKE,
};

static struct lshm m;
static uint64_t new_seed;
/* Restored tasks: one is looked at, one looks and does not map the memory itself */
static pid_t target, outsider;
static int go[2];

static struct lshm part(int p)
{
	unsigned long nr = m.nr / NR_PARTS;

	return lshm_sub(&m, p * nr, nr);
}

static int copy(int p, pid_t pid, uint8_t *buf, unsigned long i, int to)
{
	struct lshm there = part(p);
	struct iovec local = { .iov_base = buf, .iov_len = CHUNK * PAGE_SIZE };
	struct iovec remote = { .iov_base = there.map + i * PAGE_SIZE, .iov_len = CHUNK * PAGE_SIZE };
	ssize_t n;

	n = to ? process_vm_writev(pid, &local, 1, &remote, 1, 0) : process_vm_readv(pid, &local, 1, &remote, 1, 0);
	if (n != CHUNK * PAGE_SIZE) {
		fail("process_vm_%s at page %lu: %zd", to ? "writev" : "readv", i, n);
		return 1;
	}
	return 0;
}

static int check_chunk(int p, uint8_t *buf, unsigned long i, unsigned long nr)
{
	struct lshm there = part(p), here = { .map = buf, .nr = nr, .page = there.page + i, .seed = m.seed };

	return lshm_check(&here);
}

static void fill_chunk(int p, uint8_t *buf, unsigned long i, unsigned long nr)
{
	struct lshm there = part(p), here = { .map = buf, .nr = nr, .page = there.page + i, .seed = new_seed };

	lshm_fill(&here);
}

/* From the end, where the background arrives last; what is left in front is for the target */
static int read_and_write(pid_t pid, uint8_t *buf)
{
	unsigned long i = part(READV).nr / CHUNK * CHUNK;

	while (i) {
		i -= CHUNK;
		if (copy(READV, pid, buf, i, 0) || check_chunk(READV, buf, i, CHUNK))
			return 1;
		fill_chunk(WRITEV, buf, i, CHUNK);
		if (copy(WRITEV, pid, buf, i, 1))
			return 1;
	}
	return 0;
}

/*
 * The kernel does not let /proc/pid/mem and ptrace wait for a userfaultfd: what
 * is not there is an error, and that is for private memory as well. It must be
 * no wrong byte. -1: it was an error.
 */
static int read_mem(int mem, uint8_t *buf, unsigned long i)
{
	struct lshm there = part(MEM_READ);

	if (pread(mem, buf, PAGE_SIZE, (off_t)(unsigned long)(there.map + i * PAGE_SIZE)) != PAGE_SIZE)
		return errno == EIO ? -1 : 1;
	return check_chunk(MEM_READ, buf, i, 1);
}

static int write_mem(int mem, uint8_t *buf, unsigned long i)
{
	struct lshm there = part(MEM_WRITE);

	fill_chunk(MEM_WRITE, buf, i, 1);
	if (pwrite(mem, buf, PAGE_SIZE, (off_t)(unsigned long)(there.map + i * PAGE_SIZE)) != PAGE_SIZE)
		return errno == EIO ? -1 : 1;
	return 0;
}

static int peek(pid_t pid, unsigned long i)
{
	struct lshm there = part(PEEK);
	long got;

	errno = 0;
	got = ptrace(PTRACE_PEEKDATA, pid, there.map + i * PAGE_SIZE + 512, NULL);
	if (errno)
		return errno == EIO ? -1 : 1;
	if ((uint64_t)got != lshm_word(m.seed, there.page + i, 64)) {
		fail("ptrace sees %#lx in page %lu", got, i);
		return 1;
	}
	return 0;
}

static int poke(pid_t pid, unsigned long i)
{
	struct lshm there = part(POKE);

	if (ptrace(PTRACE_POKEDATA, pid, there.map + i * PAGE_SIZE, (void *)i))
		return errno == EIO ? -1 : 1;
	return 0;
}

struct outcome {
	unsigned long done, refused;
};

static int count(struct outcome *o, int ret, const char *what, unsigned long i)
{
	o->done += !ret;
	o->refused += ret < 0;
	if (ret > 0)
		fail("%s of page %lu", what, i);
	return ret > 0;
}

static int each_page(pid_t pid, int mem, uint8_t *buf, struct outcome *o)
{
	unsigned long i;

	for (i = part(0).nr; i-- > 0;)
		if (count(o, read_mem(mem, buf, i), "read", i) || count(o, write_mem(mem, buf, i), "write", i) ||
		    count(o, peek(pid, i), "peek", i) || count(o, poke(pid, i), "poke", i))
			return 1;
	return 0;
}

static int attach(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) ||
	    waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) {
		pr_perror("Can't stop %d", pid);
		return 1;
	}
	return 0;
}

static int look(pid_t pid, const char *when, int complete)
{
	struct outcome o = {};
	uint8_t *buf;
	char path[64];
	int mem, ret;

	ssprintf(path, "/proc/%d/mem", pid);
	buf = mmap(NULL, CHUNK * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mem = open(path, O_RDWR);
	if (buf == MAP_FAILED || mem < 0) {
		pr_perror("Can't open the memory of %d", pid);
		return 1;
	}
	lshm_wait_detached(pid);
	ret = read_and_write(pid, buf) || attach(pid) || each_page(pid, mem, buf, &o);
	test_msg("%s: %lu done, %lu refused\n", when, o.done, o.refused);
	if (!ret && complete && o.refused) {
		fail("%lu refused when all was complete", o.refused);
		ret = 1;
	}
	if (ptrace(PTRACE_DETACH, pid, NULL, NULL) && !ret) {
		pr_perror("Can't let %d go", pid);
		ret = 1;
	}
	close(mem);
	return ret;
}

static int forget(void *arg)
{
	if (munmap(m.map, m.nr * PAGE_SIZE)) {
		pr_perror("Can't unmap");
		return 1;
	}
	close(go[1]);
	return 0;
}

static int outsider_main(void *arg)
{
	char c;

	if (look(target, "in the window", 0))
		return 1;
	/* All is complete when the parent says so */
	if (TEMP_FAILURE_RETRY(read(go[0], &c, 1)) != 1) {
		pr_err("The parent is gone\n");
		return 1;
	}
	return look(target, "after it", 1);
}

static int check_all(void)
{
	struct lshm p[NR_PARTS];
	unsigned long i, chunks = part(0).nr / CHUNK * CHUNK;

	for (i = 0; i < NR_PARTS; i++)
		p[i] = part(i);
	for (i = 0; i < p[0].nr; i++) {
		if (lshm_check_page(&p[READV], i) || lshm_check_page(&p[MEM_READ], i) || lshm_check_page(&p[PEEK], i) ||
		    lshm_check_rewritten(&p[MEM_WRITE], i, new_seed))
			return 1;
		if (i < chunks ? lshm_check_rewritten(&p[WRITEV], i, new_seed) : lshm_check_page(&p[WRITEV], i))
			return 1;
		if (*(uint64_t *)(p[POKE].map + i * PAGE_SIZE) != i) {
			fail("what was poked into page %lu is lost", i);
			return 1;
		}
		if (lshm_check_bytes(p[POKE].map + i * PAGE_SIZE, m.seed, p[POKE].page + i, 8, PAGE_SIZE))
			return 1;
	}
	i = NR_PARTS * p[0].nr;
	return lshm_check_range(&m, i, m.nr - i);
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	target = getpid();
	if (lshm_map_anon(&m, 64 * MiB))
		return 1;
	if (pipe(go)) {
		pr_perror("Can't create a pipe");
		return 1;
	}
	outsider = lshm_fork_task(forget, outsider_main, NULL);
	return outsider < 0;
}

int lshm_run(void)
{
	int ret = lshm_wait_retired();

	if (write(go[1], "", 1) != 1) {
		pr_perror("Can't tell that all is complete");
		ret = 1;
	}
	return lshm_reap(outsider) || ret || check_all();
}
