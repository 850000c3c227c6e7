// SPDX-License-Identifier: GPL-2.0-only
/*
 * The simplest handler of faults there is, to compare with: it answers each with one
 * UFFDIO_COPY of one page that it reads from an image, and does nothing else.
 *
 *   copy_handler IMAGE PLAN MIB seq|random|zipf TASKS THREADS [PAUSE_US]
 *
 * IMAGE has the words of touching.h, page after page, as in the pages-*.img of such an
 * object. Each task has a userfaultfd of its own, and one process answers them all.
 * Accesses are recorded in PLAN; with PAUSE_US there is that much time between those of a
 * thread, so that the handler sleeps when a fault comes. Prints "done wrong=N faults=N cpu_us=N".
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "touching.h"

static struct plan *plan;
static uint64_t *mem;
static uint64_t size, pause_ns;
static unsigned int nr_tasks, nr_threads;
static pthread_barrier_t *start;

static struct {
	int uffd[TOUCH_LANES];
	volatile uint64_t faults;
} * channel;

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int answer(int uffd, int image, uint64_t address)
{
	static char page[TOUCH_PAGE] __attribute__((aligned(4096)));
	uint64_t offset = address - (uint64_t)(uintptr_t)mem;
	struct uffdio_copy copy = { .dst = address, .src = (uintptr_t)page, .len = TOUCH_PAGE };
	struct uffdio_range range = { .start = address, .len = TOUCH_PAGE };

	if (pread(image, page, TOUCH_PAGE, (off_t)offset) != (ssize_t)TOUCH_PAGE)
		return fail("image");
	if (!ioctl(uffd, UFFDIO_COPY, &copy))
		return 0;
	/* another thread or task was before us; only those it waited with were woken */
	if (errno == EEXIST && !ioctl(uffd, UFFDIO_WAKE, &range))
		return 0;
	return fail("UFFDIO_COPY");
}

/* One event at a time, in a process of its own, as a daemon would be */
static int handle(int image)
{
	struct pollfd fds[TOUCH_LANES];
	struct uffd_msg msg;
	unsigned int i;

	for (i = 0; i < nr_tasks; i++)
		fds[i] = (struct pollfd){ .fd = channel->uffd[i], .events = POLLIN };
	for (;;) {
		if (poll(fds, nr_tasks, -1) < 0)
			return fail("poll");
		for (i = 0; i < nr_tasks; i++) {
			if (!(fds[i].revents & POLLIN))
				continue;
			if (read(fds[i].fd, &msg, sizeof(msg)) != sizeof(msg)) {
				if (errno == EAGAIN)
					continue;
				return fail("userfaultfd");
			}
			if (msg.event != UFFD_EVENT_PAGEFAULT || answer(fds[i].fd, image, msg.arg.pagefault.address & -TOUCH_PAGE))
				return 1;
			channel->faults++;
		}
	}
}

static void *touch(void *arg)
{
	pthread_barrier_wait(start);
	touch_all(plan, (unsigned int)(uintptr_t)arg, mem, pause_ns);
	return NULL;
}

static int task(unsigned int number)
{
	pthread_t threads[TOUCH_LANES];
	unsigned int i;

	for (i = 0; i < nr_threads; i++)
		if (pthread_create(&threads[i], NULL, touch, (void *)(uintptr_t)(number * nr_threads + i)))
			return 1;
	for (i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

/* A userfaultfd belongs to the memory of who opens it: each task must, the handler gets it by pidfd. */
static int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { .start = (uintptr_t)mem, .len = size }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		return -1;
	return fd;
}

static pid_t start_task(unsigned int number)
{
	int up[2], pidfd, theirs = -1;
	pid_t pid;

	if (pipe(up))
		return -1;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		theirs = open_uffd();
		if (theirs < 0 || write(up[1], &theirs, sizeof(theirs)) != sizeof(theirs))
			_exit(fail("userfaultfd"));
		_exit(task(number));
	}
	close(up[1]);
	if (pid < 0 || read(up[0], &theirs, sizeof(theirs)) != sizeof(theirs))
		return -1;
	close(up[0]);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	channel->uffd[number] = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
	close(pidfd);
	return channel->uffd[number] < 0 ? -1 : pid;
}

static int prepare(char **argv)
{
	pthread_barrierattr_t attr;

	size = strtoul(argv[3], NULL, 10) << 20;
	nr_tasks = (unsigned int)atoi(argv[5]);
	nr_threads = (unsigned int)atoi(argv[6]);
	pause_ns = argv[7] ? strtoul(argv[7], NULL, 10) * 1000 : 0;
	if (!size || !nr_tasks || !nr_threads || nr_tasks * nr_threads > TOUCH_LANES)
		return 1;
	plan = touch_plan(argv[2], size / TOUCH_PAGE, argv[4], nr_tasks * nr_threads);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	start = mmap(NULL, sizeof(*start), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	channel = mmap(NULL, sizeof(*channel), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!plan || mem == MAP_FAILED || start == MAP_FAILED || channel == MAP_FAILED)
		return 1;
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	/* the handler is the last to come */
	return pthread_barrier_init(start, &attr, nr_tasks * nr_threads + 1);
}

/* Who fails takes the others along: without its handler a task would wait for ever. */
static int wait_for_all(const pid_t *tasks, pid_t handler, struct rusage *usage)
{
	unsigned int i, left = nr_tasks;
	int status, ret = 0;
	pid_t pid;

	while (left && !ret) {
		pid = wait(&status);
		ret = pid < 0 || pid == handler || status;
		left--;
	}
	for (i = 0; i < nr_tasks && ret; i++)
		kill(tasks[i], SIGKILL);
	kill(handler, SIGKILL);
	wait4(handler, &status, 0, usage);
	return ret;
}

int main(int argc, char **argv)
{
	pid_t tasks[TOUCH_LANES], handler;
	struct rusage usage;
	uint64_t wrong = 0;
	int image, ret;
	unsigned int i;

	if (argc != 7 && argc != 8)
		return 2;
	image = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (image < 0 || prepare(argv))
		return fail(argv[0]);
	for (i = 0; i < nr_tasks; i++) {
		tasks[i] = start_task(i);
		if (tasks[i] < 0)
			return fail("task");
	}
	handler = fork();
	if (!handler) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pthread_barrier_wait(start);
		_exit(handle(image));
	}
	ret = wait_for_all(tasks, handler, &usage);
	for (i = 0; i < nr_tasks * nr_threads; i++)
		wrong += plan->lane[i].wrong;
	printf("done wrong=%" PRIu64 " faults=%" PRIu64 " cpu_us=%ld\n", wrong, channel->faults,
	       (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000L + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
	return ret ? 1 : 0;
}
