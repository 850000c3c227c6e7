// SPDX-License-Identifier: GPL-2.0-only
/*
 * Changes mappings of shared memory whose contents are still to come, and checks
 * what must be seen there afterwards; test/e2e/mappings.py restores it.
 *
 *   mapper SCENARIO REPORT GO [CHILDREN]
 *
 * It prepares memory, waits for the file GO, acts, checks, and when GO is gone
 * checks once more. REPORT gets the lines "ready", "acted", "checked", "done",
 * and one "wrong ..." for each check that did not hold. Then it waits to be
 * killed, as do its children; they die with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define PAGE  4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define MiB   (1UL << 20)
#define SIZE  (64 * MiB)
#define HALF  (SIZE / 2)
#define RW    (PROT_READ | PROT_WRITE)

static const char *go_file;
static unsigned long children;
static int report_fd = -1;

static void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void report(const char *fmt, ...)
{
	va_list ap;
	char line[256];
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (write(report_fd, line, (size_t)n) != n)
		_exit(1);
}

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	report("wrong call pid=%d %s errno=%d\n", getpid(), what, errno);
	_exit(1);
}

#define NEED(call) need(call, #call)

static char *map(void *addr, size_t size, int prot, int flags, int fd)
{
	char *p = mmap(addr, size, prot, flags | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

	NEED(p != MAP_FAILED);
	return p;
}

static char *move(char *p, size_t old_size, size_t new_size)
{
	char *q = mremap(p, old_size, new_size, MREMAP_MAYMOVE);

	NEED(q != MAP_FAILED);
	return q;
}

static uint64_t value(unsigned long page, unsigned long word)
{
	return 0xabcd000000000000ULL + page * WORDS + word;
}

static void fill(char *p, size_t size, unsigned long page)
{
	uint64_t *words = (uint64_t *)p;
	size_t i;

	for (i = 0; i < size / sizeof(*words); i++)
		words[i] = value(page, i);
}

/* The pages at p are those that were filled from page on; zero: they were removed */
static void check_words(const char *what, char *p, size_t size, unsigned long page, bool zero)
{
	const volatile uint64_t *words = (uint64_t *)p;
	size_t i, first = 0, pages = 0;
	uint64_t seen = 0;

	for (i = 0; i < size / sizeof(*words); i++) {
		uint64_t got = words[i];

		if (got == (zero ? 0 : value(page, i)))
			continue;
		if (!pages++) {
			first = i;
			seen = got;
		}
		i |= WORDS - 1; /* to the next page */
	}
	if (pages)
		report("wrong pid=%d %s: %zu of %zu pages, the first is page=%zu word=%zu got=%#llx\n", getpid(), what, pages,
		       size / PAGE, first / WORDS, first % WORDS, (unsigned long long)seen);
}

static void check_right(const char *what, char *p, size_t size, unsigned long page)
{
	check_words(what, p, size, page, false);
}

static void check_zero(const char *what, char *p, size_t size)
{
	check_words(what, p, size, 0, true);
}

static char *shared(size_t size, unsigned long page)
{
	char *p = map(NULL, size, RW, MAP_SHARED, -1);

	fill(p, size, page);
	return p;
}

/* Keeps two mappings from being neighbours */
static void gap(void)
{
	map(NULL, PAGE, PROT_NONE, MAP_PRIVATE, -1);
}

static void wait_go(bool there)
{
	while (!access(go_file, F_OK) != there)
		usleep(1000);
}

/* True in the child */
static bool child(void)
{
	pid_t pid = fork();

	NEED(pid >= 0);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return !pid;
}

static void __attribute__((noreturn)) wait_for_the_end(void)
{
	for (;;)
		pause();
}

static char *mem, *copy;

static void one_object(void)
{
	mem = shared(SIZE, 0);
}

static void one_object_and_half_a_mapping(void)
{
	one_object();
	NEED(!munmap(mem + HALF, HALF));
}

static void check_all(void)
{
	check_right("memory", mem, SIZE, 0);
}

static void check_second_half(void)
{
	check_right("second half", mem + HALF, HALF, HALF / PAGE);
}

/* Two mappings for us, which the kernel makes one */

static void merge_before(void)
{
	one_object();
	NEED(!mprotect(mem + HALF, HALF, PROT_READ));
}

static void merge_act(void)
{
	NEED(!mprotect(mem + HALF, HALF, RW));
	NEED(!madvise(mem, SIZE, MADV_REMOVE));
}

static void merge_check(void)
{
	check_zero("removed", mem, SIZE);
}

static void remove_half_act(void)
{
	NEED(!madvise(mem + HALF, HALF, MADV_REMOVE));
}

static void remove_half_check(void)
{
	check_zero("removed", mem + HALF, HALF);
	check_right("first half", mem, HALF, 0);
}

/* A second mapping, whose size no event tells */

static void dup_dontneed_act(void)
{
	copy = move(mem, 0, SIZE);
	NEED(!madvise(copy + HALF, HALF, MADV_DONTNEED));
}

static void dup_dontneed_check(void)
{
	check_right("second half of the copy", copy + HALF, HALF, HALF / PAGE);
	check_right("first half of the copy", copy, HALF, 0);
	check_all();
}

static void dup_unmap_act(void)
{
	copy = move(mem, 0, SIZE);
	NEED(!munmap(mem, SIZE));
	NEED(!munmap(copy, PAGE));
}

static void dup_unmap_check(void)
{
	check_right("copy without its first page", copy + PAGE, SIZE - PAGE, 1);
}

/* More of the object is mapped than was; in place there is no event */

static void grow_act(void)
{
	mem = move(mem, HALF, SIZE);
	NEED(!munmap(mem, HALF));
}

static void grow_dontneed_act(void)
{
	mem = move(mem, HALF, SIZE);
	NEED(!madvise(mem + HALF, HALF, MADV_DONTNEED));
}

static void grow_unmap_dontneed_act(void)
{
	grow_act();
	NEED(!madvise(mem + HALF, HALF, MADV_DONTNEED));
}

/* The page cache has pages that were read to be copied for a private mapping */

static char *private;

static void cow_grow_before(void)
{
	int fd = memfd_create("mapper", 0);
	size_t i;

	NEED(fd >= 0 && !ftruncate(fd, SIZE));
	mem = map(NULL, SIZE, RW, MAP_SHARED, fd);
	fill(mem, SIZE, 0);
	private = map(NULL, SIZE, RW, MAP_PRIVATE, fd);
	close(fd);

	for (i = HALF; i < SIZE; i += PAGE)
		memset(private + i, 0, PAGE);
	NEED(!munmap(mem + HALF, HALF));
}

static void cow_grow_act(void)
{
	mem = move(mem, HALF, SIZE);
}

static void cow_grow_check(void)
{
	check_second_half();
	check_right("first half", mem, HALF, 0);
	check_right("private first half", private, HALF, 0);
	check_zero("private second half", private + HALF, HALF);
}

/* One mapping is moved away, another thread moves one to where it was */

#define SWAPS	  8
#define SWAP_SIZE (4 * MiB)

static struct swap {
	char *a, *b, *away;
} swaps[SWAPS];

static void *move_away(void *arg)
{
	struct swap *s = arg;

	NEED(mremap(s->a, SWAP_SIZE, SWAP_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, s->away) == s->away);
	return NULL;
}

static void *move_there(void *arg)
{
	struct swap *s = arg;
	unsigned char resident;

	while (!mincore(s->a, PAGE, &resident) || errno != ENOMEM)
		;
	NEED(mremap(s->b, SWAP_SIZE, SWAP_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, s->a) == s->a);
	return NULL;
}

static void move_swap_before(void)
{
	struct swap *s;

	for (s = swaps; s < swaps + SWAPS; s++) {
		s->a = shared(SWAP_SIZE, 0);
		gap();
		s->b = shared(SWAP_SIZE, 7777);
		gap();
		s->away = map(NULL, SWAP_SIZE, PROT_NONE, MAP_PRIVATE, -1);
		gap();
	}
}

static void move_swap_act(void)
{
	pthread_t away, there;
	struct swap *s;

	for (s = swaps; s < swaps + SWAPS; s++) {
		NEED(!pthread_create(&there, NULL, move_there, s));
		usleep(1000);
		NEED(!pthread_create(&away, NULL, move_away, s));
		pthread_join(there, NULL);
		pthread_join(away, NULL);
	}
}

static void move_swap_dontneed_act(void)
{
	struct swap *s;

	move_swap_act();
	for (s = swaps; s < swaps + SWAPS; s++)
		NEED(!madvise(s->a, SWAP_SIZE, MADV_DONTNEED));
}

static void move_swap_check(void)
{
	struct swap *s;

	for (s = swaps; s < swaps + SWAPS; s++) {
		check_right("moved to where another was", s->a, SWAP_SIZE, 7777);
		check_right("moved away", s->away, SWAP_SIZE, 0);
	}
}

/* A child keeps what its parent removes, at the same moment */

#define RACE_PAGES 500UL

static volatile unsigned long *turn;

static void race_before(void)
{
	one_object();
	turn = (unsigned long *)map(NULL, PAGE, RW, MAP_SHARED, -1);
}

static char *last_page(unsigned long i)
{
	return mem + SIZE - PAGE * (i + 1);
}

static void race_act(void)
{
	unsigned long i;

	if (child()) {
		while (*turn < RACE_PAGES)
			NEED(!madvise(last_page(*turn), PAGE, MADV_DONTNEED));
		wait_for_the_end();
	}

	for (i = 0; i < RACE_PAGES; i++) {
		*turn = i;
		NEED(!madvise(last_page(i), PAGE, MADV_REMOVE));
	}
	*turn = RACE_PAGES;
}

static void race_check(void)
{
	check_zero("removed", mem + SIZE - RACE_PAGES * PAGE, RACE_PAGES * PAGE);
	check_right("rest", mem, SIZE - RACE_PAGES * PAGE, 0);
}

/* So many processes map the object that it takes time to find who called */

#define MANY_REMOVED 64UL

static void many_mappers_child(unsigned long i)
{
	if (i == children - 1)
		NEED(!madvise(mem + HALF, PAGE, MADV_DONTNEED));
	if (i == children - 2)
		NEED(!madvise(last_page(0), PAGE, MADV_REMOVE));
	__atomic_fetch_add(turn, 1, __ATOMIC_SEQ_CST);
	wait_for_the_end();
}

static void many_mappers_act(void)
{
	unsigned long i;

	for (i = 0; i < children; i++)
		if (child())
			many_mappers_child(i);
	while (*turn < children)
		usleep(1000);
}

static void many_mappers_check(void)
{
	check_zero("removed", last_page(0), PAGE);
	check_right("rest", mem, SIZE - PAGE, 0);
}

/* The same with children that were restored, and some that never stop */

static void contender(unsigned long i)
{
	wait_go(true);
	while (i < 8 && *turn < MANY_REMOVED)
		NEED(!madvise(mem, SIZE, MADV_DONTNEED));
	wait_for_the_end();
}

static void contenders_before(void)
{
	unsigned long i;

	race_before();
	for (i = 0; i < children; i++)
		if (child())
			contender(i);
}

static void contenders_act(void)
{
	while (*turn < MANY_REMOVED) {
		NEED(!madvise(last_page(*turn), PAGE, MADV_REMOVE));
		(*turn)++;
	}
}

static void contenders_check(void)
{
	check_zero("removed", last_page(MANY_REMOVED - 1), MANY_REMOVED * PAGE);
	check_right("rest", mem, SIZE - MANY_REMOVED * PAGE, 0);
}

/* More objects than one would search through for each event */

#define MANY_OBJECTS 70
#define MANY_SIZE    MiB

static char *many[MANY_OBJECTS];

static void many_objects_before(void)
{
	unsigned long i;

	for (i = 0; i < MANY_OBJECTS; i++) {
		many[i] = shared(MANY_SIZE, i * 1000);
		gap();
	}
}

static void many_objects_act(void)
{
	size_t i;

	for (i = 0; i < MANY_OBJECTS; i++) {
		many[i] = move(many[i], 0, MANY_SIZE);
		NEED(!madvise(many[i] + MANY_SIZE / 2, MANY_SIZE / 2, MADV_DONTNEED));
	}
}

static void many_objects_check(void)
{
	unsigned long i;

	for (i = 0; i < MANY_OBJECTS; i++)
		check_right("object", many[i], MANY_SIZE, i * 1000);
}

/* What was all there has more mapped, of which nobody knows, while the task has to wait for another object */

static char *small;

static void complete_grow_before(void)
{
	one_object();
	gap();
	small = shared(MiB, 0);
	NEED(!munmap(small + MiB / 2, MiB / 2));
	gap();
}

static void complete_grow_act(void)
{
	small = move(small, MiB / 2, MiB);
}

static void complete_grow_dontneed_act(void)
{
	complete_grow_act();
	NEED(!madvise(small, MiB, MADV_DONTNEED));
}

static void complete_grow_check(void)
{
	check_right("grown", small, MiB, 0);
	check_all();
}

/* A thread that needs its stack before it can run at all */

#define STACK (1 * MiB)

static volatile bool acted, ran;

static void *on_shared_stack(void *arg)
{
	char local[PAGE * 4];

	memset(local, 7, sizeof(local));
	while (!acted)
		usleep(1000);
	if (local[PAGE] != 7)
		report("wrong pid=%d stack\n", getpid());
	ran = true;
	wait_for_the_end();
	return arg;
}

static void thread_stack_before(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	one_object();
	NEED(!pthread_attr_init(&attr) && !pthread_attr_setstack(&attr, mem + HALF, STACK));
	NEED(!pthread_create(&thread, &attr, on_shared_stack, NULL));
	usleep(10000);
}

static void thread_stack_act(void)
{
	acted = true;
	while (!ran)
		usleep(1000);
}

static void thread_stack_check(void)
{
	check_right("before the stack", mem, HALF, 0);
	check_right("after the stack", mem + HALF + STACK, HALF - STACK, (HALF + STACK) / PAGE);
}

/* Nobody can have one more mapping, and private memory is given back */

#define PRIVATE	  (4 * MiB)
#define MANY_MAPS 100000UL

static void max_map_count_before(void)
{
	one_object();
	private = map(NULL, PRIVATE, RW, MAP_PRIVATE, -1);
	fill(private, PRIVATE, 5);
}

static void max_map_count_act(void)
{
	char *p = map(NULL, 2 * MANY_MAPS * PAGE, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE, -1);
	unsigned long i;

	for (i = 0; i < MANY_MAPS && !mprotect(p + 2 * i * PAGE, PAGE, PROT_READ); i++)
		;
	need(i < MANY_MAPS && errno == ENOMEM, "vm.max_map_count was not reached");
	NEED(!madvise(private + PRIVATE / 2, PAGE, MADV_DONTNEED));
}

static void max_map_count_check(void)
{
	const unsigned long page = PRIVATE / 2 / PAGE;

	check_all();
	check_zero("private given back", private + page * PAGE, PAGE);
	check_right("private before", private, page * PAGE, 5);
	check_right("private after", private + (page + 1) * PAGE, PRIVATE - (page + 1) * PAGE, 5 + page + 1);
}

/* Each child needs a descriptor in the daemon */

static void fork_storm_act(void)
{
	unsigned long i;

	for (i = 0; i < children; i++) {
		if (!child())
			continue;
		check_all();
		__atomic_fetch_add(turn, 1, __ATOMIC_SEQ_CST);
		wait_for_the_end();
	}
}

static void fork_storm_check(void)
{
	check_all();
	while (*turn < children)
		usleep(1000);
}
/* One removes pages that have come, and then is always awake; another moves what has not come to their place */

static volatile int stage;

static void *stale_thread(void *arg)
{
	(void)arg;
	while (stage != 1)
		usleep(1000);
	NEED(!madvise(mem, 16 * PAGE, MADV_REMOVE));
	stage = 2;
	while (stage != 3)
		;
	return NULL;
}

static void stale_before(void)
{
	pthread_t t;

	one_object();
	NEED(!pthread_create(&t, NULL, stale_thread, NULL));
}

static void stale_act(void)
{
	check_right("first pages", mem, 16 * PAGE, 0);
	stage = 1;
	while (stage != 2)
		;
	NEED(mremap(mem + HALF, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, mem) == mem);
	NEED(!madvise(mem, 16 * PAGE, MADV_DONTNEED));
	stage = 3;
}

static void stale_check(void)
{
	check_right("moved", mem, 16 * PAGE, HALF / PAGE);
}

static const struct scenario {
	const char *name;
	void (*before)(void); /* the dump */
	void (*act)(void);    /* in the window */
	void (*check)(void);  /* in the window and after it */
} scenarios[] = {
	{ "stale", stale_before, stale_act, stale_check },
	{ "merge", merge_before, merge_act, merge_check },
	{ "remove_half", one_object, remove_half_act, remove_half_check },
	{ "dup_dontneed", one_object, dup_dontneed_act, dup_dontneed_check },
	{ "dup_unmap", one_object, dup_unmap_act, dup_unmap_check },
	{ "grow", one_object_and_half_a_mapping, grow_act, check_second_half },
	{ "grow_dontneed", one_object_and_half_a_mapping, grow_dontneed_act, check_all },
	{ "grow_unmap_dontneed", one_object_and_half_a_mapping, grow_unmap_dontneed_act, check_second_half },
	{ "cow_grow", cow_grow_before, cow_grow_act, cow_grow_check },
	{ "move_swap", move_swap_before, move_swap_act, move_swap_check },
	{ "move_swap_dontneed", move_swap_before, move_swap_dontneed_act, move_swap_check },
	{ "race", race_before, race_act, race_check },
	{ "many_mappers", race_before, many_mappers_act, many_mappers_check },
	{ "contenders", contenders_before, contenders_act, contenders_check },
	{ "many_objects", many_objects_before, many_objects_act, many_objects_check },
	{ "complete_grow", complete_grow_before, complete_grow_act, complete_grow_check },
	{ "complete_grow_dontneed", complete_grow_before, complete_grow_dontneed_act, complete_grow_check },
	{ "thread_stack", thread_stack_before, thread_stack_act, thread_stack_check },
	{ "max_map_count", max_map_count_before, max_map_count_act, max_map_count_check },
	{ "fork_storm", race_before, fork_storm_act, fork_storm_check },
	{ NULL, NULL, NULL, NULL },
};

int main(int argc, char **argv)
{
	const struct scenario *s = scenarios;

	while (argc > 3 && s->name && strcmp(s->name, argv[1]))
		s++;
	if (argc <= 3 || !s->name) {
		fprintf(stderr, "usage: %s SCENARIO REPORT GO [CHILDREN]\n", argv[0]);
		return 2;
	}
	report_fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	NEED(report_fd >= 0);
	go_file = argv[3];
	children = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;

	s->before();
	report("ready pid=%d\n", getpid());
	wait_go(true);
	s->act();
	report("acted\n");
	s->check();
	report("checked\n");
	wait_go(false);
	s->check();
	report("done\n");
	wait_for_the_end();
}
