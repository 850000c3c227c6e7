// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include "criu_internals.h"
#include "modes.h"
#include "object.h"
#include "progress.h"
#include "progress_text.h"
#include "settings.h"
#include "stats.h"

#define REDRAW_MS 200
/* What comes in pieces of 512 KiB, or is asked of a slow disk, should not make the line jump */
#define SMOOTH 8

enum form {
	NOTHING,
	TERMINAL, /* one line, drawn again and again */
	LOG,	  /* a line each time */
};

static int epoll_fd = -1;
static enum form form;
static struct epoll_rfd timer = { .fd = -1 };
static bool dozing; /* nothing happens: the timer is off until something does */
static int terminal = -1;
static bool drawn; /* there is a line on it */
static struct progress_sample before;
static struct progress_rate smooth;

/*
 * The terminal
 */

static bool log_is_on(const struct stat *tty)
{
	struct stat st;

	return !fstat(log_get_fd(), &st) && S_ISCHR(st.st_mode) && st.st_rdev == tty->st_rdev;
}

/* Drawing from the background would be a nuisance, and can stop us (stty tostop) */
static bool in_foreground(int fd)
{
	pid_t group = tcgetpgrp(fd);

	/* with no group it is not the terminal that controls us */
	return group < 0 || group == getpgrp();
}

/*
 * A description of our own, so that it can be non-blocking: a terminal that is stopped
 * (Ctrl-S) must not stop whoever waits for us.
 */
static int open_terminal(void)
{
	const char *kind = getenv("TERM");
	struct stat st;

	if (!isatty(STDERR_FILENO) || !kind || !strcmp(kind, "dumb") || !in_foreground(STDERR_FILENO))
		return -1;
	/* at a higher level so much comes that nobody would see the line */
	if (fstat(STDERR_FILENO, &st) || (log_is_on(&st) && log_get_loglevel() > LOG_WARN))
		return -1;

	return open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* What does not get through is drawn again soon */
static void draw(const char *text)
{
	struct winsize ws = { 0 };
	size_t len = strlen(text);
	char line[256];
	int n;

	if (!in_foreground(terminal))
		return;
	if (!ioctl(terminal, TIOCGWINSZ, &ws) && ws.ws_col && len >= ws.ws_col)
		len = ws.ws_col - 1U;

	/* back to the first column: a line of the log goes over it */
	n = snprintf(line, sizeof(line), "\r%.*s\033[K\r", (int)len, text);
	drawn = n > 0 && write(terminal, line, (size_t)n) == n;
}

/*
 * The timer
 */

static struct progress_sample take_sample(void)
{
	struct progress_sample now = { .when = stats_now(), .on_demand = !modes_background() };
	const struct object *obj;

	list_for_each_entry(obj, &objects, l) {
		if (obj->delivery != CR_SHMEM_LAZY || obj->state == OBJECT_FAILED || obj->state == OBJECT_ABANDONED)
			continue;
		now.total += obj->stats.to_fill * obj->page_size;
		now.left += (uint64_t)obj->map.left * obj->page_size;
		now.faults += stats_faults(&obj->stats.faults);
	}
	return now;
}

static int set_timer(long ms)
{
	struct timespec period = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	struct itimerspec spec = { .it_interval = period, .it_value = period };

	return timerfd_settime(timer.fd, 0, &spec, NULL) ? -errno : 0;
}

static long period_ms(void)
{
	return form == TERMINAL ? REDRAW_MS : settings.progress_seconds * 1000L;
}

static void smoothen(const struct progress_rate *rate)
{
	if (smooth.bytes <= 0 || form == LOG)
		smooth = *rate;
	smooth.bytes += (rate->bytes - smooth.bytes) / SMOOTH;
	smooth.faults += (rate->faults - smooth.faults) / SMOOTH;
}

static void show(const struct progress_sample *now)
{
	char text[160];

	progress_text(text, sizeof(text), now, &smooth);
	if (form == TERMINAL)
		draw(text);
	else
		pr_note("%s\n", text);
}

static int tick(struct epoll_rfd *rfd)
{
	struct progress_sample now;
	struct progress_rate rate;
	uint64_t expired;

	if (read(rfd->fd, &expired, sizeof(expired)) < 0)
		return 0;

	now = take_sample();
	if (!now.left) {
		progress_stop();
		return 0;
	}

	rate = progress_rate_of(&before, &now);
	smoothen(&rate);
	show(&now);

	/* the terminal gets some more, in which the rate goes down */
	dozing = now.left == before.left && now.faults == before.faults && (form == LOG || smooth.bytes < 1);
	if (dozing)
		set_timer(0);
	before = now;
	return 0;
}

void progress_activity(void)
{
	if (!dozing)
		return;
	dozing = false;
	before = take_sample();
	set_timer(period_ms());
}

void progress_init(int epollfd)
{
	epoll_fd = epollfd;
}

static enum form choose_form(void)
{
	if (settings.progress == PROGRESS_OFF)
		return NOTHING;
	if (settings.progress == PROGRESS_AUTO)
		terminal = open_terminal();
	return terminal >= 0 ? TERMINAL : LOG;
}

void progress_start(void)
{
	int err;

	before = take_sample();
	if (!before.left)
		return;
	form = choose_form();
	if (form == NOTHING)
		return;

	timer.read_event = tick;
	timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	err = timer.fd < 0 ? -errno : set_timer(period_ms());
	if (!err && epoll_add_rfd(epoll_fd, &timer))
		err = -EIO;
	if (!err)
		return;

	pr_warn("No progress will be told: %s\n", strerror(-err));
	if (timer.fd >= 0)
		close(timer.fd);
	timer.fd = -1;
	progress_stop();
}

void progress_stop(void)
{
	if (drawn)
		draw("");
	if (terminal >= 0)
		close(terminal);
	terminal = -1;
	drawn = dozing = false;

	if (timer.fd >= 0) {
		epoll_del_rfd(epoll_fd, &timer);
		close(timer.fd);
	}
	timer.fd = -1;
	form = NOTHING;
}
