// SPDX-License-Identifier: GPL-2.0-only
/*
 * The harness's other half: runs tests and says what came of them.
 *
 *   unit -n [MODULE | MODULE/NAME]...          how many tests there are
 *   unit LOGDIR [MODULE | MODULE/NAME]...      run them
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "criu.h"
#include "unit.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "util.h"
#pragma GCC diagnostic pop

/* Appended to the names of modules */
#ifndef UNIT_SUFFIX
#define UNIT_SUFFIX ""
#endif

/* Shared by the runner, the test, and all processes the test makes */
static struct {
	int failed, skipped;
	char reason[512];
	char note[128];
	size_t log_len;
	char log[32768];
} * shared;

static struct unit_test *tests, **last_test = &tests;
static unsigned int realloc_countdown;

void unit_register(struct unit_test *test)
{
	*last_test = test;
	last_test = &test->next;
}

/*
 * For the tests
 */

void unit_failed(const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	va_list args;
	int n;

	if (!__atomic_exchange_n(&shared->failed, 1, __ATOMIC_SEQ_CST)) {
		n = snprintf(shared->reason, sizeof(shared->reason), "%s:%d: ", base ? base + 1 : file, line);
		va_start(args, fmt);
		vsnprintf(shared->reason + n, sizeof(shared->reason) - (size_t)n, fmt, args);
		va_end(args);
		dprintf(STDERR_FILENO, "%s\n", shared->reason);
	}
	_exit(1);
}

void unit_check_eq(const char *file, int line, const char *a, const char *b, intmax_t va, intmax_t vb)
{
	if (va != vb)
		unit_failed(file, line, "%s == %s: %jd (%#jx) and %jd (%#jx)", a, b, va, (uintmax_t)va, vb, (uintmax_t)vb);
}

intmax_t unit_check_sys(const char *file, int line, const char *call, intmax_t ret)
{
	if (ret == -1)
		unit_failed(file, line, "%s: %s", call, strerror(errno));
	return ret;
}

void unit_skip(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(shared->reason, sizeof(shared->reason), fmt, args);
	va_end(args);
	shared->skipped = 1;
	_exit(0);
}

void unit_note(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(shared->note, sizeof(shared->note), fmt, args);
	va_end(args);
	dprintf(STDERR_FILENO, "%s\n", shared->note);
}

unsigned int unit_seed(void)
{
	const char *setting = getenv("UNIT_SEED");
	struct timespec now;
	unsigned int seed;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = setting ? (unsigned int)strtoul(setting, NULL, 0) : (unsigned int)(now.tv_sec * 1000003 + now.tv_nsec);
	unit_note("UNIT_SEED=%u", seed);
	return seed;
}

const char *unit_log(void)
{
	return shared->log;
}

void *unit_shared_alloc(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(mem != MAP_FAILED);
	return mem;
}

int unit_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	CHECK(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr - 3; /* . and .. and the directory itself */
}

void unit_sleep_ms(unsigned int ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

void unit_fail_realloc(unsigned int nth)
{
	realloc_countdown = nth;
}

/* The linker makes these of the plugin's calls of reallocarray(), see ./run */
void *__real_reallocarray(void *mem, size_t nr, size_t size) __attribute__((weak));
void *__wrap_reallocarray(void *mem, size_t nr, size_t size);

void *__wrap_reallocarray(void *mem, size_t nr, size_t size)
{
	if (realloc_countdown && !--realloc_countdown) {
		errno = ENOMEM;
		return NULL;
	}
	return __real_reallocarray(mem, nr, size);
}

/*
 * Of CRIU, whose log the plugin writes
 */

int log_get_fd(void)
{
	return STDERR_FILENO;
}

void print_on_level(unsigned int level, const char *fmt, ...)
{
	char line[512];
	va_list args;
	size_t at;
	int n;

	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (n < 0)
		return;
	if ((size_t)n >= sizeof(line))
		n = sizeof(line) - 1;

	at = __atomic_fetch_add(&shared->log_len, (size_t)n, __ATOMIC_SEQ_CST);
	if (at + (size_t)n < sizeof(shared->log))
		memcpy(shared->log + at, line, (size_t)n);
	dprintf(STDERR_FILENO, "%u: %s", level, line);
}

/*
 * Of CRIU's event loop
 */

int epoll_add_rfd(int epfd, struct epoll_rfd *rfd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = rfd };

	return epoll_ctl(epfd, EPOLL_CTL_ADD, rfd->fd, &ev);
}

int epoll_del_rfd(int epfd, struct epoll_rfd *rfd)
{
	return epoll_ctl(epfd, EPOLL_CTL_DEL, rfd->fd, NULL);
}

int unit_handle_event(int epfd, int ms)
{
	struct epoll_event ev;
	struct epoll_rfd *rfd;
	int ret;

	ret = (int)CHECK_SYS(epoll_wait(epfd, &ev, 1, ms));
	if (!ret)
		return UNIT_NO_EVENT;

	rfd = ev.data.ptr;
	ret = ev.events & EPOLLIN ? rfd->read_event(rfd) : 0;
	if (ret < 0 || !(ev.events & (EPOLLHUP | EPOLLRDHUP)))
		return ret;

	if (rfd->hangup_event)
		ret = rfd->hangup_event(rfd);
	if (ret >= 0) {
		CHECK_EQ(epoll_del_rfd(epfd, rfd), 0);
		close(rfd->fd);
		rfd->fd = -1;
	}
	return ret;
}

/*
 * The runner
 */

static const char *module_of(const struct unit_test *test)
{
	static char name[64];
	const char *base = strrchr(test->file, '/');

	base = base ? base + 1 : test->file;
	if (!strncmp(base, "test_", 5))
		base += 5;
	snprintf(name, sizeof(name), "%.*s" UNIT_SUFFIX, (int)strcspn(base, "."), base);
	return name;
}

static bool wanted(const struct unit_test *test, char **which)
{
	const char *module = module_of(test);
	size_t len = strlen(module);

	if (!*which)
		return true;

	for (; *which; which++)
		if (!strncmp(*which, module, len) &&
		    (!(*which)[len] || ((*which)[len] == '/' && !strcmp(*which + len + 1, test->name))))
			return true;

	return false;
}

static void enter_namespace(void)
{
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("proc", "/proc", "proc", 0, NULL))
		unit_skip("no mount namespace with a /proc of its own: %s", strerror(errno));
}

static void __attribute__((noreturn)) child(const struct unit_test *test, int log)
{
	int null = open("/dev/null", O_RDONLY);

	/* the group is killed when the test ends */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(null, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	syscall(SYS_close_range, 3, ~0U, 0);
	if (test->flags & UNIT_NS)
		enter_namespace();

	test->run();
	/* not _exit(): now the sanitizer looks for leaks */
	exit(0);
}

static pid_t start(const struct unit_test *test, int log)
{
	int here = -1;
	pid_t pid;

	if (test->flags & UNIT_NS) {
		here = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
		if (here < 0 || unshare(CLONE_NEWPID)) {
			snprintf(shared->reason, sizeof(shared->reason), "no PID namespace: %s", strerror(errno));
			shared->skipped = 1;
			return 0;
		}
	}

	pid = fork();
	if (!pid)
		child(test, log);
	if (pid < 0)
		perror("fork");

	if (here >= 0) {
		if (setns(here, CLONE_NEWPID))
			perror("setns");
		close(here);
	}
	return pid;
}

/* Seconds that a test has; more where processors are emulated */
static int time_limit(void)
{
	const char *slow = getenv("LSHM_SLOW");

	return UNIT_TIMEOUT * (slow && atoi(slow) > 1 ? atoi(slow) : 1);
}

/* Waits for the test. Its wait status, or -1 if it took too long. */
static int finish(pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), status = 0, ready;
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	ready = poll(&pfd, 1, time_limit() * 1000);
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	close(pidfd);
	return ready == 1 ? status : -1;
}

static void explain(int status)
{
	char *reason = shared->reason;
	size_t size = sizeof(shared->reason);

	shared->failed = 1;
	if (status == -1)
		snprintf(reason, size, "not done after %d s", time_limit());
	else if (WIFSIGNALED(status))
		snprintf(reason, size, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(reason, size, "exited with %d, see its log", WEXITSTATUS(status));
}

/* Whether it did not fail */
static bool run_one(const struct unit_test *test, const char *logdir)
{
	const char *module = module_of(test);
	char path[512];
	int log, status;
	pid_t pid;

	memset(shared, 0, sizeof(*shared));
	snprintf(path, sizeof(path), "%s/%s.%s.log", logdir, module, test->name);
	log = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
	if (log < 0) {
		perror(path);
		exit(1);
	}

	pid = start(test, log);
	close(log);
	if (pid) {
		status = pid < 0 ? 256 : finish(pid);
		if (status && !shared->failed)
			explain(status);
	}

	if (shared->failed)
		printf("not ok unit/%s/%s: %s%s%s%s\n", module, test->name, shared->reason, *shared->note ? " [" : "",
		       shared->note, *shared->note ? "]" : "");
	else if (shared->skipped)
		printf("skip unit/%s/%s: %s\n", module, test->name, shared->reason);
	else
		printf("ok unit/%s/%s\n", module, test->name);
	fflush(stdout);
	return !shared->failed;
}

int main(int argc, char **argv)
{
	const struct unit_test *test;
	bool count, good = true;
	unsigned int nr = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: %s -n | LOGDIR [MODULE | MODULE/NAME]...\n", argv[0]);
		return 1;
	}

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("mmap");
		return 1;
	}

	count = !strcmp(argv[1], "-n");
	for (test = tests; test; test = test->next) {
		if (!wanted(test, argv + 2))
			continue;
		nr++;
		if (!count)
			good &= run_one(test, argv[1]);
	}
	if (count)
		printf("%u\n", nr);

	return good ? 0 : 1;
}

#define HUGE (2UL << 20)

int unit_huge_memfd(unsigned long nr)
{
	int fd = memfd_create("unit-huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	int tries = 0;

	if (fd < 0)
		unit_skip("no huge pages of 2 MiB: %s", strerror(errno));
	CHECK_SYS(ftruncate(fd, (off_t)(nr * HUGE)));
	/* those of the test before may come free only when the last of its processes has ended */
	while (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(nr * HUGE)) && errno == ENOSPC && tries++ < 500)
		usleep(10000);
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(nr * HUGE)))
		unit_skip("no free huge pages of 2 MiB (vm.nr_hugepages): %s", strerror(errno));
	CHECK_SYS(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, (off_t)(nr * HUGE)));
	return fd;
}
