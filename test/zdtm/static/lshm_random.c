// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Tasks and their children do to shared memory that is being restored what chance tells them";
const char *test_author = "criu-lazy-shmem";

/* All of it is done with units: what they are is known of every address, and of every object */
#define UNIT	   8 /* pages */
#define UNIT_BYTES (UNIT * PAGE_SIZE)
#define NR_OBJECTS 3
#define UNITS	   512 /* of an object: 16 MiB */
#define NR_SLOTS   (NR_OBJECTS * UNITS)
#define NR_TASKS   2
#define MAX_RUN	   24
#define ROUNDS	   600
#define CHILDREN   4 /* at a time */

static struct lshm obj[NR_OBJECTS];
static uint64_t new_seed, rnd;
static pid_t child;
static int task; /* -1 in a child: it changes no contents */
static uint8_t *arena;

/* What is mapped where, in this task */
static struct slot {
	int obj; /* -1: nothing, no access */
	unsigned int unit;
} slots[NR_SLOTS];

/* Only the task that owns a unit changes its contents. All see here what it did last */
enum { ORIGINAL,
       REMOVED,
       REWRITTEN };
static volatile uint8_t (*contents)[UNITS];

static unsigned int pick(unsigned int nr)
{
	return lshm_rand(&rnd) % nr;
}

static int owner(const struct slot *s)
{
	return s->unit / MAX_RUN % NR_TASKS;
}

static uint8_t *address(unsigned int slot)
{
	return arena + slot * UNIT_BYTES;
}

static int failed(const char *what, unsigned int slot, unsigned int nr)
{
	pr_perror("%s of %u units at %u", what, nr, slot);
	return 1;
}

static uint64_t word(const struct slot *s, int state, unsigned long page, unsigned int w)
{
	if (state == REMOVED)
		return 0;
	return lshm_word(state == REWRITTEN ? new_seed : obj[s->obj].seed, page, w);
}

/* One page of a unit: of somebody else's unit it can be on its way from one state to another */
static int check_page(unsigned int slot, unsigned int i)
{
	const struct slot *s = &slots[slot];
	const volatile uint64_t *p = (uint64_t *)(address(slot) + i * PAGE_SIZE);
	unsigned long page = s->unit * UNIT + i;
	unsigned int w, step = 1 + pick(60);
	int state = contents[s->obj][s->unit];

	for (w = 0; w < PAGE_SIZE / sizeof(*p); w += step) {
		uint64_t got = p[w];

		if (got == word(s, state, page, w))
			continue;
		if (owner(s) != task && (got == word(s, ORIGINAL, page, w) || !got || got == word(s, REWRITTEN, page, w)))
			continue;
		fail("object %d page %lu word %u at %p is %#lx, the state is %d", s->obj, page, w, p, got, state);
		return 1;
	}
	return 0;
}

static int check_run(unsigned int slot, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr * UNIT; i++)
		if (slots[slot + i / UNIT].obj >= 0 && check_page(slot + i / UNIT, i % UNIT))
			return 1;
	return 0;
}

/* The longest run from a slot on, no longer than nr, that is one piece of an object, or of nothing */
static unsigned int run_at(unsigned int slot, unsigned int nr)
{
	unsigned int n;

	for (n = 1; n < nr && slot + n < NR_SLOTS; n++)
		if (slots[slot + n].obj != slots[slot].obj ||
		    (slots[slot].obj >= 0 && slots[slot + n].unit != slots[slot].unit + n))
			break;
	return n;
}

static int is_owned(unsigned int slot, unsigned int nr)
{
	unsigned int n;

	for (n = 0; n < nr; n++)
		if (owner(&slots[slot + n]) != task)
			return 0;
	return 1;
}

static int clear(unsigned int slot, unsigned int nr)
{
	unsigned int n;

	if (mmap(address(slot), nr * UNIT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
		 0) == MAP_FAILED)
		return failed("clear", slot, nr);
	for (n = 0; n < nr; n++)
		slots[slot + n].obj = -1;
	return 0;
}

static int overlap(unsigned int a, unsigned int b, unsigned int nr)
{
	return a < b + nr && b < a + nr;
}

/* Twice: the new place shows what the old one still does */
static int move(unsigned int slot, unsigned int nr, int twice)
{
	unsigned int n, to = pick(NR_SLOTS - nr);
	size_t len = nr * UNIT_BYTES;

	if (overlap(slot, to, nr))
		return 0;
	if (mremap(address(slot), twice ? 0 : len, len, MREMAP_MAYMOVE | MREMAP_FIXED, address(to)) != address(to)) {
		/* It is not one mapping for the kernel; what was there may be gone */
		return errno == EFAULT ? clear(to, nr) : failed("mremap", slot, nr);
	}
	for (n = 0; n < nr; n++)
		slots[to + n] = slots[slot + n];
	return twice ? 0 : clear(slot, nr);
}

static int advise(unsigned int slot, unsigned int nr, int advice)
{
	return madvise(address(slot), nr * UNIT_BYTES, advice) ? failed("madvise", slot, nr) : 0;
}

static void set_contents(unsigned int slot, unsigned int nr, int state)
{
	unsigned int n;

	for (n = 0; n < nr; n++)
		contents[slots[slot].obj][slots[slot].unit + n] = state;
}

static int remove_run(unsigned int slot, unsigned int nr)
{
	if (advise(slot, nr, MADV_REMOVE))
		return 1;
	set_contents(slot, nr, REMOVED);
	return 0;
}

static void rewrite(unsigned int slot, unsigned int nr)
{
	unsigned long i, page = slots[slot].unit * UNIT;

	for (i = 0; i < nr * UNIT; i++)
		lshm_fill_page(address(slot) + i * PAGE_SIZE, new_seed, page + i);
	set_contents(slot, nr, REWRITTEN);
}

/* No access, and access again */
static int protect(unsigned int slot, unsigned int nr)
{
	size_t len = nr * UNIT_BYTES;

	if (mprotect(address(slot), len, PROT_NONE) || mprotect(address(slot), len, PROT_READ | PROT_WRITE))
		return failed("mprotect", slot, nr);
	return 0;
}

static int step(void)
{
	unsigned int slot = pick(NR_SLOTS), nr = run_at(slot, 1 + pick(MAX_RUN));

	if (slots[slot].obj < 0)
		return 0;
	switch (pick(9)) {
	case 0:
		return move(slot, nr, 0);
	case 1:
		return move(slot, nr, 1);
	case 2:
		return pick(4) ? 0 : clear(slot, nr);
	case 3:
		return advise(slot, nr, MADV_DONTNEED);
	case 4:
		return is_owned(slot, nr) ? remove_run(slot, nr) : 0;
	case 5:
		if (is_owned(slot, nr))
			rewrite(slot, nr);
		return 0;
	case 6:
		return protect(slot, nr);
	default:
		return check_run(slot, nr);
	}
}

static void __attribute__((noreturn)) run_child(void)
{
	unsigned int i;

	task = -1;
	for (i = 0; i < 20; i++)
		if (step())
			_exit(1);
	_exit(check_run(pick(NR_SLOTS / 2), NR_SLOTS / 8));
}

static int reap_child(void)
{
	int status;
	pid_t pid;

	pid = TEMP_FAILURE_RETRY(waitpid(-1, &status, 0));
	if (pid < 0) {
		pr_perror("Can't wait for a child");
		return 1;
	}
	if (status) {
		fail("a child ended with %#x", status);
		return 1;
	}
	if (pid != child)
		return 0;

	/* the other task is through before us */
	child = 0;
	return reap_child();
}

static int run_steps(void)
{
	unsigned int i, children = 0;
	int ret = 0;
	pid_t pid;

	for (i = 0; i < ROUNDS && !ret; i++) {
		ret = step();
		if (ret || i % 40)
			continue;
		if (children == CHILDREN) {
			ret = reap_child();
			children--;
		}
		pid = test_fork();
		if (pid < 0) {
			pr_perror("Can't fork");
			return 1;
		}
		if (!pid) {
			rnd += i;
			run_child();
		}
		children++;
	}
	while (children--)
		ret |= reap_child();
	return ret || check_run(0, NR_SLOTS);
}

static int child_main(void *arg)
{
	task = 1;
	rnd += 12345;
	return run_steps();
}

static int map_objects(void)
{
	size_t len = UNITS * UNIT_BYTES;
	unsigned int i;

	arena = mmap(NULL, NR_SLOTS * UNIT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	contents = mmap(NULL, NR_SLOTS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (arena == MAP_FAILED || contents == MAP_FAILED)
		return failed("map", 0, NR_SLOTS);
	for (i = 0; i < NR_OBJECTS; i++) {
		uint8_t *at = arena + i * len;

		if (lshm_map_anon(&obj[i], len) ||
		    mremap(obj[i].map, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at)
			return failed("map", i * UNITS, UNITS);
	}
	for (i = 0; i < NR_SLOTS; i++)
		slots[i] = (struct slot){ .obj = i / UNITS, .unit = i % UNITS };
	memset((void *)contents, ORIGINAL, NR_SLOTS);
	return 0;
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	rnd = lshm_new_seed();
	if (map_objects())
		return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	int ret;

	test_msg("seed %#lx\n", rnd);
	ret = run_steps();
	return (child && lshm_reap(child)) || ret || check_run(0, NR_SLOTS) || lshm_wait_retired() || check_run(0, NR_SLOTS);
}
