// SPDX-License-Identifier: GPL-2.0-only
/*
 * Races in steps: both begin at once, both end, and then there is but one way
 * that things may stand. A page that was taken away is not mapped, whoever was
 * first; what is left of the object is what its size says.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

#define N 8

struct steps {
	struct area a;
	void (*take)(struct steps *s);
	int begun, ended; /* the round */
	bool stop;
};

static void wait_for(int *what, int value)
{
	while (__atomic_load_n(what, __ATOMIC_ACQUIRE) < value)
		;
}

static long taker(void *arg)
{
	struct steps *s = arg;

	for (int round = 1;; round++) {
		wait_for(&s->begun, round);
		if (s->stop)
			return 0;
		s->take(s);
		__atomic_store_n(&s->ended, round, __ATOMIC_RELEASE);
	}
}

static void by_truncate(struct steps *s)
{
	must(!ftruncate(s->a.fd, 0));
}

static void by_punch(struct steps *s)
{
	punch(&s->a, 0, N);
}

static void try_continue(struct steps *s)
{
	for (int i = 0; i < N; i++) {
		int ret = uffd_continue(s->a.uffd, at(&s->a, i), PAGE, 0, NULL);

		check(!ret || ret == -EFAULT || ret == -EINVAL, "CONTINUE says %d", ret);
	}
}

static void try_copy(struct steps *s)
{
	static char source[PAGE] = "copied";

	for (int i = 0; i < N; i++) {
		int ret = uffd_copy(s->a.uffd, at(&s->a, i), source, PAGE, NULL);

		check(!ret || ret == -EFAULT, "COPY says %d", ret);
	}
}

static void run(int kind, void (*give)(struct steps *), void (*take)(struct steps *), bool filled)
{
	struct steps s = { .take = take };
	struct caller *c;
	long end = now_ms() + race_ms / 2;
	int round = 0;

	area_ready(&s.a, kind, N, MISSING);
	if (give == try_continue)
		area_register(&s.a, 0, BOTH);
	c = call_start(taker, &s);
	do {
		must(!ftruncate(s.a.fd, s.a.len));
		if (filled)
			fill(&s.a, 0, N, 1);
		__atomic_store_n(&s.begun, ++round, __ATOMIC_RELEASE);
		/* Not always the same first. */
		for (volatile int i = round % 64 * 16; i; i--)
			;
		give(&s);
		wait_for(&s.ended, round);
		for (int i = 0; i < N; i++)
			check(!is_mapped(at(&s.a, i)), "round %d: page %d was taken away, and is mapped", round, i);
		eq(blocks(s.a.fd), 0);
	} while (now_ms() < end || round < 20);
	s.stop = true;
	__atomic_store_n(&s.begun, ++round, __ATOMIC_RELEASE);
	call_join(c);
	close(s.a.uffd);
	close(s.a.fd);
	munmap(s.a.mem, s.a.len);
	munmap(s.a.door, s.a.len);
}

TEST(shrink_truncate, 0)
{
	run(MEMFD_SHARED, try_continue, by_truncate, true);
	run(MEMFD_PRIVATE, try_continue, by_truncate, true);
}

TEST(shrink_punch, 0)
{
	run(MEMFD_SHARED, try_continue, by_punch, true);
	run(MEMFD_PRIVATE, try_continue, by_punch, true);
}

TEST(shrink_copy, EVERYWHERE)
{
	run(MEMFD_SHARED, try_copy, by_truncate, false);
}
