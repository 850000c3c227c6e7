// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ioctls, events, and threads that wait in a fault.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "minor.h"

long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000L + t.tv_nsec / 1000000;
}

/* Between two looks at a condition. */
void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
}

int uffd_bare(void)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	check(fd >= 0, "userfaultfd: errno %d", errno);
	return fd;
}

int uffd_api(int uffd, uint64_t features, uint64_t *offered)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int ret = ioctl(uffd, UFFDIO_API, &api) ? -errno : 0;

	if (offered)
		*offered = api.features;
	return ret;
}

int uffd_open(uint64_t features)
{
	int fd = uffd_bare();

	eq(uffd_api(fd, features, NULL), 0);
	return fd;
}

uint64_t features_offered(void)
{
	uint64_t offered;
	int fd = uffd_bare();

	eq(uffd_api(fd, 0, &offered), 0);
	close(fd);
	return offered;
}

int uffd_register(int uffd, void *addr, size_t len, uint64_t mode, uint64_t *ioctls)
{
	struct uffdio_register reg = { .range = { (uintptr_t)addr, len }, .mode = mode };
	int ret = ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;

	if (ioctls)
		*ioctls = reg.ioctls;
	return ret;
}

int uffd_unregister(int uffd, void *addr, size_t len)
{
	struct uffdio_range range = { (uintptr_t)addr, len };

	return ioctl(uffd, UFFDIO_UNREGISTER, &range) ? -errno : 0;
}

int uffd_wake(int uffd, void *addr, size_t len)
{
	struct uffdio_range range = { (uintptr_t)addr, len };

	return ioctl(uffd, UFFDIO_WAKE, &range) ? -errno : 0;
}

int uffd_continue(int uffd, void *addr, size_t len, uint64_t mode, int64_t *mapped)
{
	struct uffdio_continue arg = { .range = { (uintptr_t)addr, len }, .mode = mode, .mapped = UNTOUCHED };
	int ret = ioctl(uffd, UFFDIO_CONTINUE, &arg) ? -errno : 0;

	if (mapped)
		*mapped = arg.mapped;
	return ret;
}

int uffd_copy(int uffd, void *dst, const void *src, size_t len, int64_t *copied)
{
	struct uffdio_copy arg = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = len, .copy = UNTOUCHED };
	int ret = ioctl(uffd, UFFDIO_COPY, &arg) ? -errno : 0;

	if (copied)
		*copied = arg.copy;
	return ret;
}

int uffd_zeropage(int uffd, void *addr, size_t len, int64_t *zeroed)
{
	struct uffdio_zeropage arg = { .range = { (uintptr_t)addr, len }, .zeropage = UNTOUCHED };
	int ret = ioctl(uffd, UFFDIO_ZEROPAGE, &arg) ? -errno : 0;

	if (zeroed)
		*zeroed = arg.zeropage;
	return ret;
}

static bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) > 0 && (p.revents & POLLIN);
}

void await_event(int uffd)
{
	check(readable(uffd, wait_ms), "no event came");
}

void no_event(int uffd)
{
	check(!readable(uffd, 0), "an event that should not be");
}

void next_msg(int uffd, struct uffd_msg *msg)
{
	await_event(uffd);
	check(read(uffd, msg, sizeof(*msg)) == sizeof(*msg), "an event cannot be read: errno %d", errno);
}

void expect_event(int uffd, int event, struct uffd_msg *msg)
{
	next_msg(uffd, msg);
	eq(msg->event, event);
}

void expect_fault(int uffd, const void *addr, uint64_t flags)
{
	struct uffd_msg msg;

	expect_event(uffd, UFFD_EVENT_PAGEFAULT, &msg);
	eq(msg.arg.pagefault.address & ~(PAGE - 1), (uintptr_t)addr & ~(PAGE - 1));
	eq(msg.arg.pagefault.flags, flags);
}

int waiters(int uffd)
{
	char path[64], line[128];
	int total = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	f = fopen(path, "re");
	must(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "total: %d", &total);
	fclose(f);
	check(total >= 0, "%s tells no total", path);
	return total;
}

/*
 * A call in a thread of its own, and an eventfd that tells when it is done.
 */
struct caller {
	pthread_t thread;
	long (*fn)(void *);
	void *arg;
	long ret;
	int done;
};

static void *call_run(void *arg)
{
	struct caller *c = arg;

	c->ret = c->fn(c->arg);
	must(!eventfd_write(c->done, 1));
	return NULL;
}

struct caller *call_start(long (*fn)(void *), void *arg)
{
	struct caller *c = calloc(1, sizeof(*c));

	must(c);
	c->fn = fn;
	c->arg = arg;
	c->done = eventfd(0, EFD_CLOEXEC);
	must(c->done >= 0);
	must(!pthread_create(&c->thread, NULL, call_run, c));
	return c;
}

bool call_done(struct caller *c)
{
	return readable(c->done, 0);
}

long call_join(struct caller *c)
{
	long ret;

	check(readable(c->done, wait_ms), "a thread still waits");
	must(!pthread_join(c->thread, NULL));
	ret = c->ret;
	close(c->done);
	free(c);
	return ret;
}

struct toucher {
	struct caller *call;
	volatile unsigned char *addr;
	int value;
};

static long touch_run(void *arg)
{
	struct toucher *t = arg;

	if (t->value == READ)
		return *t->addr;
	*t->addr = t->value;
	return t->value;
}

struct toucher *touch_start(void *addr, int value)
{
	struct toucher *t = calloc(1, sizeof(*t));

	must(t);
	t->addr = addr;
	t->value = value;
	t->call = call_start(touch_run, t);
	return t;
}

bool touch_done(struct toucher *t)
{
	return call_done(t->call);
}

int touch_join(struct toucher *t)
{
	int ret = call_join(t->call);

	free(t);
	return ret;
}

int touch_native(int uffd, void *addr, int value)
{
	struct toucher *t = touch_start(addr, value);
	struct pollfd p[2] = { { .fd = t->call->done, .events = POLLIN }, { .fd = uffd, .events = POLLIN } };

	must(poll(p, 2, wait_ms) > 0);
	check(!(p[1].revents & POLLIN), "an event for what the kernel should have done itself");
	return touch_join(t);
}

int touch_continue(int uffd, void *addr, int value)
{
	void *page = (void *)((uintptr_t)addr & ~(PAGE - 1));
	struct toucher *t = touch_start(addr, value);

	expect_fault(uffd, addr, F_MINOR | (value == READ ? 0 : F_WRITE));
	must_continue(uffd, page, PAGE);
	return touch_join(t);
}

static __thread sigjmp_buf bus;

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(bus, 1);
}

int touch_or_bus(void *addr, int value)
{
	struct sigaction act = { .sa_handler = on_bus }, old;
	volatile unsigned char *p = addr;
	volatile int ret = -1;

	sigaction(SIGBUS, &act, &old);
	if (!sigsetjmp(bus, 1)) {
		if (value == READ) {
			ret = *p;
		} else {
			*p = value;
			ret = value;
		}
	}
	sigaction(SIGBUS, &old, NULL);
	return ret;
}
