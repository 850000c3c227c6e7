// SPDX-License-Identifier: GPL-2.0-only
/*
 * Minor faults together with what else there is: two calls that change
 * mappings at a time, KSM, and stores that are forced on a private mapping.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "minor.h"

#ifndef MADV_MERGEABLE
#define MADV_MERGEABLE	 12
#define MADV_UNMERGEABLE 13
#endif

static long remove_two(void *arg)
{
	struct area *a = arg;

	return madvise(at(a, 2), 2 * PAGE, MADV_REMOVE);
}

static long unmap_two(void *arg)
{
	struct area *a = arg;

	return munmap(at(a, 6), 2 * PAGE);
}

/*
 * Two events are due. When the first is read and its call has returned, the
 * other call's mappings are still changing. A call that unmaps is known to
 * have begun when the mapping is gone.
 */
TEST(changing_two_events, 0)
{
	struct caller *c[2];
	unsigned char vec;
	struct uffd_msg msg;
	struct area a;
	int first;

	area_make(&a, MEMFD_SHARED, 8, PROT_READ | PROT_WRITE);
	area_register(&a, UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP, BOTH);
	fill(&a, 0, 2, 1);
	c[0] = call_start(remove_two, &a);
	await_event(a.uffd);
	c[1] = call_start(unmap_two, &a);
	for (long end = now_ms() + wait_ms; !mincore(at(&a, 6), PAGE, &vec);) {
		check(now_ms() < end, "nothing was unmapped");
		nap();
	}

	must(read(a.uffd, &msg, sizeof(msg)) == sizeof(msg));
	check(msg.event == UFFD_EVENT_REMOVE || msg.event == UFFD_EVENT_UNMAP, "event 0x%x", msg.event);
	first = msg.event == UFFD_EVENT_UNMAP;
	eq(call_join(c[first]), 0);
	continue_fails(a.uffd, a.mem, PAGE, EAGAIN);

	expect_event(a.uffd, first ? UFFD_EVENT_REMOVE : UFFD_EVENT_UNMAP, &msg);
	eq(call_join(c[!first]), 0);
	must_continue(a.uffd, a.mem, 2 * PAGE);
}

/* To take back what KSM was told takes nothing else back. */
TEST(api_unmergeable, 0)
{
	struct area a;

	area_make(&a, MEMFD_PRIVATE, 4, PROT_READ | PROT_WRITE);
	if (madvise(a.mem, a.len, MADV_MERGEABLE)) {
		eq(errno, EINVAL);
		skip("a kernel without KSM");
	}
	area_register(&a, 0, MINOR);
	fill(&a, 0, 4, 1);
	must(!madvise(a.mem, a.len, MADV_UNMERGEABLE));
	check(has_flag(a.mem, "ui"), "not registered for minor faults any more");
	touch_continue(a.uffd, a.mem, READ);
	/* Here the kernel would find a userfaultfd that is registered for nothing. */
	close(a.uffd);
	page_has(at(&a, 1), 1, 1);
}

struct forced {
	struct area a;
	volatile bool stop;
	volatile long stored, dropped, continued;
};

static long force_stores(void *arg)
{
	struct forced *f = arg;
	int fd = open("/proc/self/mem", O_RDWR);
	char byte = 0x77;

	must(fd >= 0);
	/* Where nothing is mapped it is a fault that nobody waits for: EIO. */
	while (!f->stop)
		if (pwrite(fd, &byte, 1, (uintptr_t)f->a.mem) == 1)
			f->stored++;
	close(fd);
	return 0;
}

static long drop(void *arg)
{
	struct forced *f = arg;

	while (!f->stop) {
		must(!madvise(f->a.mem, PAGE, MADV_DONTNEED));
		f->dropped++;
	}
	return 0;
}

/*
 * /proc/PID/mem stores into a private mapping that may not be written, to a
 * copy. If the copy is dropped just then and the object's page mapped, it has
 * to copy again: what tells a copy from the object's page, up to Linux 6.0,
 * is that the page table calls it dirty.
 */
TEST(private_forced_store, 0)
{
	static struct forced f;
	struct caller *store, *dropper;

	area_make(&f.a, MEMFD_PRIVATE, 1, PROT_READ);
	area_register(&f.a, 0, MINOR);
	fill(&f.a, 0, 1, 1);
	store = call_start(force_stores, &f);
	dropper = call_start(drop, &f);
	for (long end = now_ms() + race_ms; now_ms() < end;) {
		int64_t mapped;

		if (!uffd_continue(f.a.uffd, f.a.mem, PAGE, 0, &mapped))
			f.continued++;
		check(page_is(door_at(&f.a, 0), 0, 1), "the object was written to, after %ld stores", f.stored);
	}
	f.stop = true;
	call_join(store);
	call_join(dropper);
	page_has(door_at(&f.a, 0), 0, 1);
	check(f.stored && f.dropped && f.continued, "no race: %ld stores, %ld drops, %ld pages", f.stored, f.dropped,
	      f.continued);
}
