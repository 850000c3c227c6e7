// SPDX-License-Identifier: GPL-2.0-only
/*
 * CONTINUE while something else happens to the object or the mapping.
 *
 * Whatever comes first, what is read is the pattern's or zero (where pages are
 * taken away), never another. What the kernel thinks of it, its own
 * checks say in its log.
 */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "minor.h"

#define N 32

struct race {
	struct area a;
	volatile bool stop;
	bool zeros; /* pages may be taken away */
	long (*disturb)(struct race *r, long n);
	/* What it came to: a race in which one of these is 0 was none. */
	volatile long continued, faults, disturbed, reads;
};

static __thread sigjmp_buf bus;

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(bus, 1);
}

/* The kernel may write, and zero, byte by byte: some bytes of a word may be zero. */
static bool partly(uint64_t got, uint64_t want)
{
	for (int shift = 0; shift < 64; shift += 8) {
		uint64_t byte = got >> shift & 0xff;

		if (byte && byte != (want >> shift & 0xff))
			return false;
	}
	return true;
}

/* A page past the end for now is no page; else each word is what it may be. */
static void look(struct race *r, size_t page)
{
	const volatile uint64_t *w = (const volatile uint64_t *)at(&r->a, page);

	if (sigsetjmp(bus, 1))
		return;
	for (size_t i = 0; i < PAGE / sizeof(*w); i += 37) {
		uint64_t got = w[i], want = (uint64_t)1 << 48 | (uint64_t)(page + 1) << 16 | i;

		check(got == want || (r->zeros && partly(got, want)), "page %zu, word %zu is 0x%llx, not 0x%llx", page, i,
		      (long long)got, (long long)want);
	}
	r->reads++;
}

static long reader(void *arg)
{
	struct race *r = arg;

	for (size_t page = 0; !r->stop; page = (page + 7) % N)
		look(r, page);
	return 0;
}

static long disturber(void *arg)
{
	struct race *r = arg;
	long n = 0;

	while (!r->stop) {
		must(!r->disturb(r, n++));
		r->disturbed = n;
	}
	return 0;
}

/* The errors there may be, all of them harmless to who serves faults. */
static void try_continue(struct race *r, char *mem, size_t pages)
{
	int64_t mapped;
	int ret = uffd_continue(r->a.uffd, mem, pages * PAGE, 0, &mapped);

	switch (ret) {
	case 0:
		eq(mapped, pages * PAGE);
		r->continued++;
		break;
	case -EAGAIN:
		check(mapped == -EAGAIN || mapped == UNTOUCHED || (mapped > 0 && mapped < (int64_t)(pages * PAGE)),
		      "EAGAIN with mapped %ld", (long)mapped);
		r->continued += mapped > 0 && mapped != UNTOUCHED;
		break;
	case -EEXIST:
	case -EFAULT:
	case -EINVAL:
	case -ENOENT:
		eq(mapped, ret);
		break;
	default:
		flunk("CONTINUE says %d", ret);
	}
}

/* Answer what faults there are, read other events. */
static void serve(struct race *r)
{
	struct uffd_msg msg;

	while (read(r->a.uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		char *mem;

		if (msg.event == UFFD_EVENT_REMAP)
			r->a.mem = (char *)(uintptr_t)msg.arg.remap.to;
		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		check(msg.arg.pagefault.flags & F_MINOR, "a missing event in minor mode");
		mem = (char *)(uintptr_t)(msg.arg.pagefault.address & ~(PAGE - 1));
		r->faults++;
		try_continue(r, mem, 1);
		/* Woken in vain it comes again. */
		uffd_wake(r->a.uffd, mem, PAGE);
	}
}

/* In rounds: serve faults, and now and then map a range that nobody asked for. */
static void race(struct race *r)
{
	struct sigaction act = { .sa_handler = on_bus, .sa_flags = SA_NODEFER };
	struct caller *readers[2], *disturbing;
	long end = now_ms() + race_ms;
	size_t page = 0;

	sigaction(SIGBUS, &act, NULL);
	readers[0] = call_start(reader, r);
	readers[1] = call_start(reader, r);
	disturbing = call_start(disturber, r);
	/* On a slow machine as long as it takes for each to have had its turn. */
	while (now_ms() < end || !r->continued || !r->faults || r->disturbed < 10) {
		serve(r);
		page = (page + 5) % N;
		try_continue(r, at(&r->a, page), page % 5 + 1 > N - page ? 1 : page % 5 + 1);
	}
	r->stop = true;
	while (!call_done(readers[0]) || !call_done(readers[1]) || !call_done(disturbing))
		serve(r);
	call_join(readers[0]);
	call_join(readers[1]);
	call_join(disturbing);
	check(r->reads, "nothing was read");
}

/* At the end every page is whole, and nothing is left behind. */
static void settle(struct race *r)
{
	struct area *a = &r->a;

	close(a->uffd);
	fill(a, 0, N, 1);
	for (int i = 0; i < N; i++)
		page_has(door_at(a, i), i, 1);
	if (a->kind == MEMFD_SHARED)
		for (int i = 0; i < N; i++)
			page_has(at(a, i), i, 1);
	must(!munmap(a->mem, a->len));
	must(!ftruncate(a->fd, 0));
	eq(blocks(a->fd), 0);
}

static void run(int kind, uint64_t features, bool zeros, long (*disturb)(struct race *, long))
{
	struct race r = { .zeros = zeros, .disturb = disturb };

	area_make(&r.a, kind, N, PROT_READ | PROT_WRITE);
	fill(&r.a, 0, N, 1);
	area_register(&r.a, features, MINOR);
	race(&r);
	settle(&r);
}

/* Write a page whole, as who fills the object does. */
static void refill(struct race *r, size_t page)
{
	fill(&r->a, page, 1, 1);
}

static long by_truncate(struct race *r, long n)
{
	must(!ftruncate(r->a.fd, n % N * PAGE + n % 3 * 100 / 8 * 8));
	must(!ftruncate(r->a.fd, r->a.len));
	for (size_t i = 0; i < N; i++)
		refill(r, i);
	return 0;
}

TEST(race_truncate, 0)
{
	run(MEMFD_SHARED, 0, true, by_truncate);
}

TEST(race_truncate_private, 0)
{
	run(MEMFD_PRIVATE, 0, true, by_truncate);
}

static long by_punch(struct race *r, long n)
{
	size_t first = n * 11 % N, count = n % 6 + 1;

	if (first + count > N)
		count = N - first;
	punch(&r->a, first, count);
	for (size_t i = 0; i < count; i++)
		refill(r, first + i);
	return 0;
}

TEST(race_punch, 0)
{
	run(MEMFD_SHARED, 0, true, by_punch);
}

TEST(race_punch_private, 0)
{
	run(MEMFD_PRIVATE, 0, true, by_punch);
}

/* What fallocate() has allocated, nobody has zeroed: CONTINUE may come first. */
static long by_fallocate(struct race *r, long n)
{
	size_t first = n * 11 % (N - 6);

	punch(&r->a, first, 6);
	must(!fallocate(r->a.fd, 0, first * PAGE, 6 * PAGE));
	if (n % 2)
		for (size_t i = 0; i < 6; i++)
			refill(r, first + i);
	return 0;
}

TEST(race_fallocate, 0)
{
	run(MEMFD_SHARED, 0, true, by_fallocate);
}

/* The contents are never gone: not one zero may be read. */
static long by_dontneed(struct race *r, long n)
{
	return madvise(at(&r->a, n % N), (n % (N - n % N) + 1) * PAGE, MADV_DONTNEED);
}

TEST(race_dontneed, 0)
{
	run(MEMFD_SHARED, 0, false, by_dontneed);
}

TEST(race_dontneed_private, 0)
{
	run(MEMFD_PRIVATE, 0, false, by_dontneed);
}

static long by_pageout(struct race *r, long n)
{
	size_t first = n * 4 % N;

	must(!madvise(at(&r->a, first), 4 * PAGE, MADV_PAGEOUT));
	if (n % 2)
		must(!madvise(at(&r->a, first), 4 * PAGE, MADV_DONTNEED));
	return 0;
}

TEST(race_swap, NEEDS_SWAP)
{
	run(MEMFD_SHARED, 0, false, by_pageout);
}

/* Registered and not: the reader never waits for ever, and reads what is there. */
static long by_register(struct race *r, long n)
{
	struct area *a = &r->a;

	/* See event_unregister_wakes_minor_only: here it is not what is tested. */
	eq(uffd_unregister(a->uffd, a->mem, a->len), 0);
	uffd_wake(a->uffd, a->mem, a->len);
	must(!madvise(at(a, n % N), PAGE, MADV_DONTNEED));
	eq(uffd_register(a->uffd, a->mem, a->len, MINOR, NULL), 0);
	must(!madvise(a->mem, a->len, MADV_DONTNEED));
	return 0;
}

TEST(race_unregister, 0)
{
	run(MEMFD_SHARED, 0, false, by_register);
}

static long by_protect(struct race *r, long n)
{
	must(!mprotect(at(&r->a, n % N), PAGE, PROT_READ));
	must(!madvise(at(&r->a, n % N), PAGE, MADV_DONTNEED));
	return mprotect(at(&r->a, n % N), PAGE, PROT_READ | PROT_WRITE);
}

TEST(race_mprotect, 0)
{
	run(MEMFD_SHARED, 0, false, by_protect);
}

/*
 * A mapping that moves to and fro: no reader could know where. The mover reads
 * it himself, and the server must keep pace by the events.
 */
struct move {
	struct race *r;
	char *home, *away;
};

static long mover(void *arg)
{
	struct move *m = arg;
	struct race *r = m->r;
	char *from = m->home, *to = m->away;

	for (long n = 0; !r->stop; n++) {
		must(mremap(from, r->a.len, r->a.len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
		for (int i = 0; i < 3; i++) {
			size_t page = (n + i) % N;

			page_has(to + page * PAGE, page, 1);
		}
		from = to;
		to = to == m->away ? m->home : m->away;
		r->reads++;
	}
	return 0;
}

TEST(race_mremap, 0)
{
	struct race r = {};
	struct move m = { .r = &r };
	struct caller *c;
	long end = now_ms() + race_ms;

	area_make(&r.a, MEMFD_SHARED, N, PROT_READ | PROT_WRITE);
	fill(&r.a, 0, N, 1);
	area_register(&r.a, UFFD_FEATURE_EVENT_REMAP, MINOR);
	m.home = r.a.mem;
	m.away = mmap(NULL, r.a.len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(m.away != MAP_FAILED);
	c = call_start(mover, &m);
	while (now_ms() < end || r.reads < 10 || !r.continued) {
		serve(&r);
		try_continue(&r, at(&r.a, r.reads % N), 1);
	}
	r.stop = true;
	while (!call_done(c))
		serve(&r);
	call_join(c);
	settle(&r);
}

/* Two continue the same pages: each page is mapped by one of them. */
static long continuer(void *arg)
{
	struct race *r = arg;
	long done = 0;

	for (int i = 0; i < N; i++) {
		int64_t mapped;
		int ret = uffd_continue(r->a.uffd, at(&r->a, i), PAGE, 0, &mapped);

		check(!ret || ret == -EEXIST, "CONTINUE says %d", ret);
		done += !ret;
	}
	return done;
}

TEST(race_two_continue, 0)
{
	struct race r = {};
	long end = now_ms() + race_ms / 2;

	area_ready(&r.a, MEMFD_SHARED, N, BOTH);
	fill(&r.a, 0, N, 1);
	do {
		struct caller *other = call_start(continuer, &r);
		long mine = continuer(&r), its = call_join(other);

		eq(mine + its, N);
		eq(smaps_kb(r.a.mem, "Rss"), N * 4);
		must(!madvise(r.a.mem, r.a.len, MADV_DONTNEED));
	} while (now_ms() < end);
	settle(&r);
}

/*
 * A debugger stores to a private mapping, from which the page is taken and to
 * which it is given back all the while. Whoever wins, the object is not written.
 */
static long forcer(void *arg)
{
	struct race *r = arg;
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	must(mem >= 0);
	while (!r->stop) {
		ssize_t n = pwrite(mem, "w", 1, (uintptr_t)r->a.mem + 4);

		/* A page that is not mapped now: this fault waits for nobody. */
		check(n == 1 || errno == EIO, "a store to /proc/self/mem: errno %d", errno);
		r->reads += n == 1;
	}
	close(mem);
	return 0;
}

static long dropper(void *arg)
{
	struct race *r = arg;

	while (!r->stop) {
		must(!madvise(r->a.mem, PAGE, MADV_DONTNEED));
		/* Sooner or later, so that each step of the store is met. */
		for (volatile int i = r->disturbed * 97 % 5000; i; i--)
			;
		r->disturbed++;
	}
	return 0;
}

TEST(race_force_store, 0)
{
	struct race r = {};
	struct caller *c[2];
	long end = now_ms() + race_ms;

	area_make(&r.a, MEMFD_PRIVATE, N, PROT_READ);
	fill(&r.a, 0, N, 1);
	area_register(&r.a, 0, MINOR);
	c[0] = call_start(forcer, &r);
	c[1] = call_start(dropper, &r);
	while (now_ms() < end || !r.continued || r.reads < 10) {
		try_continue(&r, r.a.mem, 1);
		page_has(r.a.door, 0, 1);
	}
	r.stop = true;
	call_join(c[0]);
	call_join(c[1]);
	page_has(r.a.door, 0, 1);
	settle(&r);
}

/* The mapping comes and goes, nobody reads there. */
static long unmapper(void *arg)
{
	struct race *r = arg;
	struct area *a = &r->a;
	long n = 0;

	while (!r->stop) {
		must(mmap(a->mem, a->len, PROT_READ | PROT_WRITE, n % 2 ? MAP_SHARED | MAP_FIXED : MAP_PRIVATE | MAP_FIXED,
			  a->fd, 0) == a->mem);
		eq(uffd_register(a->uffd, a->mem, a->len, MINOR, NULL), 0);
		if (n % 3)
			must(!munmap(a->mem, a->len));
		r->disturbed = n++;
	}
	must(mmap(a->mem, a->len, PROT_READ, MAP_SHARED | MAP_FIXED, a->fd, 0) == a->mem);
	return 0;
}

TEST(race_munmap, 0)
{
	struct race r = {};
	struct caller *c;
	long end = now_ms() + race_ms, n = 0;

	area_make(&r.a, MEMFD_SHARED, N, PROT_READ | PROT_WRITE);
	/* Not the room that a thread's stack would take once it is free. */
	r.a.mem = (char *)0x100000000000;
	fill(&r.a, 0, N, 1);
	r.a.uffd = uffd_open(0);
	c = call_start(unmapper, &r);
	while (now_ms() < end || !r.continued || r.disturbed < 10)
		try_continue(&r, at(&r.a, n++ % N), 1);
	r.stop = true;
	call_join(c);
	settle(&r);
}

static long forks(void *arg)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (!pid) {
		look(arg, 0);
		_exit(0);
	}
	return pid;
}

/* A task ends while its faults are served: ESRCH when it is gone, nothing worse. */
static void exits_once(void)
{
	struct race r = {};
	struct uffd_msg msg;
	struct caller *c;
	int uffd, ret = 0;
	pid_t pid;

	area_make(&r.a, MEMFD_SHARED, N, PROT_READ | PROT_WRITE);
	fill(&r.a, 0, N, 1);
	area_register(&r.a, UFFD_FEATURE_EVENT_FORK, MINOR);
	c = call_start(forks, &r);
	expect_event(r.a.uffd, UFFD_EVENT_FORK, &msg);
	uffd = msg.arg.fork.ufd;
	pid = call_join(c);
	for (size_t i = 0; ret != -ESRCH; i++) {
		ret = uffd_continue(uffd, at(&r.a, i % N), PAGE, 0, NULL);
		check(!ret || ret == -EEXIST || ret == -ESRCH || ret == -ENOENT, "CONTINUE says %d", ret);
	}
	must(waitpid(pid, NULL, 0) == pid);
	close(uffd);
	settle(&r);
	close(r.a.fd);
	munmap(r.a.door, r.a.len);
}

TEST(race_exit, 0)
{
	long end = now_ms() + race_ms / 2;

	do {
		exits_once();
	} while (now_ms() < end);
}
