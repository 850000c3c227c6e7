// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_views.h"

const char *test_doc = "Code in lazily restored memfds, mapped once to write and once to execute, as a JIT compiler does";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (16 * MiB / PAGE_SIZE)
#define SIZE	 (NR_PAGES * PAGE_SIZE)

#if defined(__x86_64__) || defined(__i386__)
/* mov $value, %eax; ret */
static void emit(uint8_t *code, uint32_t value)
{
	code[0] = 0xb8;
	memcpy(code + 1, &value, sizeof(value));
	code[5] = 0xc3;
}
#elif defined(__aarch64__)
/* movz w0, #value; movk w0, #value >> 16, lsl #16; ret */
static void emit(uint8_t *code, uint32_t value)
{
	uint32_t insn[] = { 0x52800000 | (value & 0xffff) << 5, 0x72a00000 | value >> 16 << 5, 0xd65f03c0 };

	memcpy(code, insn, sizeof(insn));
}
#else
#define NO_CODE
static void emit(uint8_t *code, uint32_t value)
{
}
#endif

/* The functions are in the middle of the pages, where corrupt.hook finds them */
#define CODE (PAGE_SIZE / 2)

static struct object {
	uint64_t seed;
	uint8_t *rw, *rx;
} jit, code_only, own;

static uint32_t value_of(const struct object *o, unsigned long page)
{
	return (uint32_t)lshm_word(o->seed, page, 1);
}

static int map(uint8_t **p, int fd, int prot, int flags)
{
	*p = mmap(NULL, SIZE, prot, flags, fd, 0);
	if (*p == MAP_FAILED) {
		pr_perror("Can't map the code");
		return 1;
	}
	return 0;
}

static int make(struct object *o, int flags)
{
	unsigned long i;
	int fd, ret;

	o->seed = lshm_new_seed();
	fd = lshm_memfd("lshm_exec_kinds", 0, SIZE);
	if (fd < 0)
		return 1;
	ret = map(&o->rw, fd, PROT_READ | PROT_WRITE, MAP_SHARED) || map(&o->rx, fd, PROT_READ | PROT_EXEC, flags);
	close(fd);
	if (ret)
		return 1;
	for (i = 0; i < NR_PAGES; i++)
		emit(o->rw + i * PAGE_SIZE + CODE, value_of(o, i));
	return 0;
}

static int call(const struct object *o, unsigned long page, uint32_t want)
{
	uint8_t *addr = o->rx + page * PAGE_SIZE + CODE;
	uint32_t (*fn)(void), got;

	memcpy(&fn, &addr, sizeof(fn));
	got = fn();
	if (got == want)
		return 0;
	fail("the function in page %lu returns %#x, not %#x", page, got, want);
	return 1;
}

static int call_all(const struct object *o)
{
	uint64_t rnd = o->seed, a = lshm_rand(&rnd) | 1, b = lshm_rand(&rnd);
	unsigned long i, page;

	for (i = 0; i < NR_PAGES; i++) {
		page = (a * i + b) & (NR_PAGES - 1);
		if (call(o, page, value_of(o, page)))
			return 1;
	}
	return 0;
}

/* A function that has not been called yet is compiled anew */
static int rewrite(const struct object *o, unsigned long page, uint32_t value)
{
	uint8_t *code = o->rw + page * PAGE_SIZE + CODE, *addr = o->rx + page * PAGE_SIZE + CODE;

	emit(code, value);
	__builtin___clear_cache((char *)addr, (char *)addr + 64);
	return call(o, page, value);
}

int lshm_setup(void)
{
#ifdef NO_CODE
	skip("nobody wrote code for this architecture");
	return LSHM_SKIP;
#endif
	if (make(&jit, MAP_SHARED) || make(&code_only, MAP_SHARED) || make(&own, MAP_PRIVATE))
		return 1;
	munmap(code_only.rw, SIZE);
	munmap(own.rw, SIZE);
	return 0;
}

int lshm_run(void)
{
	unsigned long last = NR_PAGES - 1;

	if (rewrite(&jit, last, ~value_of(&jit, last)))
		return 1;
	emit(jit.rw + last * PAGE_SIZE + CODE, value_of(&jit, last));
	__builtin___clear_cache((char *)jit.rx + last * PAGE_SIZE, (char *)jit.rx + SIZE);
	return call_all(&jit) || call_all(&code_only) || call_all(&own) || lshm_wait_retired() || call_all(&jit) ||
	       call_all(&code_only) || call_all(&own);
}
