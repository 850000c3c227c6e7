// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operations. Each tells what it has seen, and goes on whatever that was:
 * to judge it is for who compares.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "program.h"

#define BASE	    0x200000000000UL
#define SLOT_SPACE  (64UL << 20)
#define WORDS	    (PAGE / sizeof(uint64_t))
#define LANES	    8
#define CHILD_STACK (256UL << 10)
#define BUFFER	    (16 * PAGE)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Where the thread goes on when it gets SIGSEGV or SIGBUS */
static __thread sigjmp_buf trap;
static __thread volatile bool trapping;

static void on_fault(int sig)
{
	if (!trapping)
		_exit(99);
	siglongjmp(trap, sig);
}

void catch_faults(void)
{
	/* SA_NODEFER: siglongjmp() need not put the mask back */
	struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

char *slot_addr(long slot, long page)
{
	return (char *)BASE + (unsigned long)slot * SLOT_SPACE + (unsigned long)page * PAGE;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ (h >> 29);
}

static uint64_t hash(const void *p, size_t len)
{
	const unsigned char *bytes = p;
	uint64_t h = len;
	size_t i;

	for (i = 0; i < len; i++)
		h = mix(h, bytes[i]);
	return h;
}

/* What may fault: the signal, or 0 */

typedef void (*touch_fn)(volatile uint64_t *words, uint64_t seed, uint64_t *seen);

static int __attribute__((noinline)) touch(char *page, touch_fn fn, uint64_t seed, uint64_t *seen)
{
	int sig;

	trapping = true;
	sig = sigsetjmp(trap, 0);
	if (!sig)
		fn((volatile uint64_t *)page, seed, seen);
	trapping = false;
	return sig;
}

static void touch_load(volatile uint64_t *words, uint64_t seed, uint64_t *seen)
{
	uint64_t h = 0, any = 0;
	size_t i;

	for (i = 0; i < WORDS; i++) {
		uint64_t w = words[i];

		any |= w;
		h = mix(h, w);
	}
	(void)seed;
	*seen = any ? h | 1 : 0;
}

static void touch_store(volatile uint64_t *words, uint64_t seed, uint64_t *seen)
{
	size_t i;

	for (i = 0; i < WORDS; i++)
		words[i] = mix(seed, i);
	(void)seen;
}

/* Words of one lane only: others may be changing the rest */
static void touch_lane(volatile uint64_t *words, uint64_t seed, uint64_t *seen)
{
	uint64_t h = 0;
	size_t i;

	for (i = seed % LANES; i < WORDS; i += LANES) {
		h = mix(h, words[i]);
		words[i] = words[i] * 3 + seed + 1;
	}
	*seen = h | 1;
}

static uint64_t page_seed(uint64_t seed, long page)
{
	return mix(seed + 1, (uint64_t)page);
}

void fill_pages(char *p, long nr, uint64_t seed)
{
	long i;

	for (i = 0; i < nr; i++)
		touch_store((volatile uint64_t *)(p + (unsigned long)i * PAGE), page_seed(seed, i), NULL);
}

static const char *signal_letter(int sig)
{
	return sig == SIGSEGV ? "S" : "B";
}

#define PAGES_IN_LINE 16

/* One line for so many pages, or it would be too long for one write() */
static void look_line(const struct op *op, touch_fn fn, long first, long nr, bool reveal)
{
	char line[PAGES_IN_LINE * 10 + 1];
	size_t n = 0;
	long i;

	for (i = first; i < first + nr; i++) {
		char *page = slot_addr(op->arg[0], i);
		uint64_t seen = 0;
		int sig;

		/* the kernel's word on whether there is a mapping is cheaper than a signal */
		if (reveal && msync(page, PAGE, MS_ASYNC)) {
			n += (size_t)sprintf(line + n, " U");
			continue;
		}
		sig = touch(page, fn, page_seed((uint64_t)op->arg[3], i), &seen);
		if (reveal && sig == SIGSEGV && !mprotect(page, PAGE, PROT_READ))
			sig = touch(page, fn, 0, &seen);
		if (sig)
			n += (size_t)sprintf(line + n, " %s", signal_letter(sig));
		else
			n += (size_t)sprintf(line + n, seen ? " %08x" : " Z", (unsigned int)(seen >> 32));
	}
	observe(op->step, op->actor, "%s slot %ld page %ld:%s", op->name, op->arg[0], first, line);
}

static void look(const struct op *op, touch_fn fn, bool reveal)
{
	long first = op->arg[1], end = first + op->arg[2];

	for (; first < end; first += PAGES_IN_LINE)
		look_line(op, fn, first, end - first < PAGES_IN_LINE ? end - first : PAGES_IN_LINE, reveal);
}

void look_at_all(int step, int actor)
{
	long slot;

	for (slot = 0; slot < MAX_SLOTS; slot++) {
		struct op op = { .step = step, .actor = actor, .name = "all", .arg = { slot, 0, prog.slot_pages[slot] } };

		look(&op, touch_load, true);
	}
}

/* Arguments of what is about pages: SLOT PAGE NR [more] */

static char *addr_of(const struct op *op)
{
	return slot_addr(op->arg[0], op->arg[1]);
}

static size_t len_of(const struct op *op)
{
	return (size_t)op->arg[2] * PAGE;
}

static void returned(const struct op *op, long ret)
{
	int err = ret < 0 ? errno : 0;

	observe(op->step, op->actor, "%s slot %ld page %ld: %ld errno %d", op->name, op->arg[0], op->arg[1], ret, err);
}

static void op_load(const struct op *op)
{
	look(op, touch_load, false);
}

static void op_store(const struct op *op)
{
	look(op, touch_store, false);
}

/* SLOT PAGE NR LANE, the same for all pages */
static void op_lane(const struct op *op)
{
	char line[16];
	uint64_t seen, all = 0;
	long i;

	for (i = 0; i < op->arg[2]; i++) {
		int sig = touch(slot_addr(op->arg[0], op->arg[1] + i), touch_lane, (uint64_t)op->arg[3], &seen);

		all = mix(all, sig ? (uint64_t)sig : seen);
		snprintf(line, sizeof(line), "%08x", (unsigned int)(all >> 32));
	}
	observe(op->step, op->actor, "lane slot %ld page %ld+%ld: %s", op->arg[0], op->arg[1], op->arg[2], line);
}

/* Somebody kills it meanwhile: how far it came is not defined */
static void op_blind(const struct op *op)
{
	uint64_t seen;
	long i;

	for (i = 0; i < op->arg[2]; i++)
		touch(slot_addr(op->arg[0], op->arg[1] + i), touch_load, 0, &seen);
}

static void op_unmap(const struct op *op)
{
	returned(op, munmap(addr_of(op), len_of(op)));
}

static void op_protect(const struct op *op)
{
	returned(op, mprotect(addr_of(op), len_of(op), (int)op->arg[3]));
}

static void op_advise(const struct op *op)
{
	returned(op, madvise(addr_of(op), len_of(op), (int)op->arg[3]));
}

static void op_lock(const struct op *op)
{
	returned(op, op->arg[3] ? mlock2(addr_of(op), len_of(op), MLOCK_ONFAULT) : mlock(addr_of(op), len_of(op)));
}

static void op_unlock(const struct op *op)
{
	returned(op, munlock(addr_of(op), len_of(op)));
}

/*
 * Since Linux 6.17 several mappings can be moved in one call, which mlock() and
 * mprotect() make of one; not so if they are registered with a userfaultfd
 * (mm/mremap.c, vma_multi_allowed()). That is no difference we can do anything
 * about: then they are moved page by page.
 */
static char *move(char *from, size_t len, size_t new_len, int flags, char *to)
{
	char *got = mremap(from, len, new_len, flags, to);
	size_t off;

	if (got != MAP_FAILED || errno != EFAULT || len != new_len || !(flags & MREMAP_FIXED))
		return got;

	for (off = 0; off < len; off += PAGE)
		if (mremap(from + off, PAGE, PAGE, flags, to + off) == MAP_FAILED && (!off || errno != EFAULT))
			return MAP_FAILED;

	return to;
}

/* SLOT PAGE OLD_NR NEW_NR FLAGS TO_SLOT */
static void op_remap(const struct op *op)
{
	char *to = slot_addr(op->arg[5], 0), *got;

	got = move(addr_of(op), len_of(op), (size_t)op->arg[3] * PAGE, (int)op->arg[4], to);
	returned(op, got == MAP_FAILED ? -1 : got == to	 ? 1 :
				      got == addr_of(op) ? 2 :
							   3);
}

/* Private anonymous memory in its place */
static void op_anon(const struct op *op)
{
	char *p = mmap(addr_of(op), len_of(op), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	returned(op, p == MAP_FAILED ? -1 : 0);
}

/* The kernel reads or writes our memory: SLOT OFFSET LEN [SEED] */

static void got_bytes(const struct op *op, ssize_t ret, const char *buf)
{
	int err = ret < 0 ? errno : 0;

	observe(op->step, op->actor, "%s slot %ld offset %ld: %zd errno %d bytes %016llx", op->name, op->arg[0],
		op->arg[1], ret, err, (unsigned long long)(ret > 0 && buf ? hash(buf, (size_t)ret) : 0));
}

static char *byte_addr(const struct op *op)
{
	return slot_addr(op->arg[0], 0) + op->arg[1];
}

static char *new_buffer(uint64_t seed)
{
	char *buf = malloc(BUFFER);

	NEED(buf);
	fill_pages(buf, BUFFER / PAGE, seed);
	return buf;
}

static void op_kwrite(const struct op *op)
{
	char *buf = new_buffer(0);
	int p[2];
	ssize_t ret;

	NEED(!pipe2(p, O_NONBLOCK));
	ret = write(p[1], byte_addr(op), (size_t)op->arg[2]);
	if (ret > 0)
		NEED(read(p[0], buf, BUFFER) == ret);
	got_bytes(op, ret, buf);
	close(p[0]);
	close(p[1]);
	free(buf);
}

static void op_kread(const struct op *op)
{
	char *buf = new_buffer((uint64_t)op->arg[3]);
	int p[2];

	NEED(!pipe2(p, O_NONBLOCK));
	NEED(write(p[1], buf, (size_t)op->arg[2]) == op->arg[2]);
	got_bytes(op, read(p[0], byte_addr(op), (size_t)op->arg[2]), NULL);
	close(p[0]);
	close(p[1]);
	free(buf);
}

/* Somebody else's memory: SLOT OFFSET LEN ACTOR [SEED] */

static void op_vmread(const struct op *op)
{
	char *buf = new_buffer(0);
	struct iovec l = { buf, (size_t)op->arg[2] }, r = { byte_addr(op), (size_t)op->arg[2] };

	got_bytes(op, process_vm_readv(pid_of(op->arg[3]), &l, 1, &r, 1, 0), buf);
	free(buf);
}

static void op_vmwrite(const struct op *op)
{
	char *buf = new_buffer((uint64_t)op->arg[4]);
	struct iovec l = { buf, (size_t)op->arg[2] }, r = { byte_addr(op), (size_t)op->arg[2] };

	got_bytes(op, process_vm_writev(pid_of(op->arg[3]), &l, 1, &r, 1, 0), NULL);
	free(buf);
}

/* By descriptor, on objects that have one: OBJ OFFSET LEN [SEED] */

static int fd_of(const struct op *op)
{
	return prog.objects[op->arg[0]].fd;
}

static void op_truncate(const struct op *op)
{
	returned(op, ftruncate(fd_of(op), op->arg[1]));
}

static void op_punch(const struct op *op)
{
	returned(op, fallocate(fd_of(op), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, op->arg[1], op->arg[2]));
}

static void op_pread(const struct op *op)
{
	char *buf = new_buffer(0);

	got_bytes(op, pread(fd_of(op), buf, (size_t)op->arg[2], op->arg[1]), buf);
	free(buf);
}

static void op_pwrite(const struct op *op)
{
	char *buf = new_buffer((uint64_t)op->arg[3]);

	got_bytes(op, pwrite(fd_of(op), buf, (size_t)op->arg[2], op->arg[1]), NULL);
	free(buf);
}

/* The lives of processes */

/* NEW_ACTOR */
static void op_fork(const struct op *op)
{
	pid_t pid = fork();

	if (!pid)
		be_actor((int)op->arg[0]);
	observe(op->step, op->actor, "fork: %s", pid > 0 ? "done" : "failed");
}

static void op_exit(const struct op *op)
{
	(void)op;
	_exit(0);
}

/* A program that does nothing: what is left of it is its end */
static void op_exec(const struct op *op)
{
	execl("/proc/self/exe", "oracle-done", NULL);
	observe(op->step, op->actor, "exec: errno %d", errno);
	_exit(1);
}

/* ACTOR */
static void op_kill(const struct op *op)
{
	kill(pid_of(op->arg[0]), SIGKILL);
}

op_fn op_find(const char *name)
{
	static const struct {
		const char *name;
		op_fn fn;
	} all[] = {
		{ "load", op_load },
		{ "store", op_store },
		{ "lane", op_lane },
		{ "blind", op_blind },
		{ "unmap", op_unmap },
		{ "protect", op_protect },
		{ "advise", op_advise },
		{ "lock", op_lock },
		{ "unlock", op_unlock },
		{ "remap", op_remap },
		{ "anon", op_anon },
		{ "kwrite", op_kwrite },
		{ "kread", op_kread },
		{ "vmread", op_vmread },
		{ "vmwrite", op_vmwrite },
		{ "truncate", op_truncate },
		{ "punch", op_punch },
		{ "pread", op_pread },
		{ "pwrite", op_pwrite },
		{ "fork", op_fork },
		{ "exit", op_exit },
		{ "exec", op_exec },
		{ "kill", op_kill },
	};
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!strcmp(all[i].name, name))
			return all[i].fn;
	return NULL;
}

static int child_main(void *arg)
{
	const struct op *op = arg;

	op->fn(op);
	_exit(0);
}

/*
 * The child shares all memory with us, errno and the trap included: it works
 * while this thread waits for it.
 */
static void do_in_child(const struct op *op)
{
	int flags = CLONE_VM | (op->via == VIA_VFORK ? CLONE_VFORK : 0), status = -1;
	char *stack = malloc(CHILD_STACK);
	pid_t pid;

	NEED(stack);
	pid = clone(child_main, stack + CHILD_STACK, flags, (void *)op);
	NEED(pid > 0);
	NEED(waitpid(pid, &status, __WALL) == pid);
	observe(op->step, op->actor, "child: status %#x", (unsigned int)status);
	free(stack);
}

void do_op(const struct op *op)
{
	if (op->via == VIA_SELF)
		op->fn(op);
	else
		do_in_child(op);
}
