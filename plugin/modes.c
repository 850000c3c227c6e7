// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "criu_internals.h"
#include "filling.h"
#include "folios.h"
#include "modes.h"
#include "pace.h"
#include "priority.h"
#include "record.h"
#include "settings.h"
#include "stats.h"
#include "task.h"

static struct pace pace;
static struct epoll_rfd tick_rfd, pace_rfd, signal_rfd;
static bool waits_for_pace; /* its timer is set */
static bool background;
static long seconds; /* since resume */
static int epoll_fd = -1;

static int watch(struct epoll_rfd *rfd, int fd, int (*event)(struct epoll_rfd *), const char *what)
{
	if (fd < 0) {
		pr_perror("Can't make a %s", what);
		return -1;
	}

	rfd->fd = fd;
	rfd->read_event = event;
	return epoll_add_rfd(epoll_fd, rfd);
}

static int new_timer(void)
{
	return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
}

static int set_timer(const struct epoll_rfd *rfd, uint64_t first_ns, uint64_t every_ns)
{
	struct itimerspec its = {
		.it_value = { .tv_sec = (time_t)(first_ns / NSEC_PER_SEC), .tv_nsec = (long)(first_ns % NSEC_PER_SEC) },
		.it_interval = { .tv_sec = (time_t)(every_ns / NSEC_PER_SEC), .tv_nsec = (long)(every_ns % NSEC_PER_SEC) },
	};

	if (!timerfd_settime(rfd->fd, 0, &its, NULL))
		return 0;

	pr_perror("Can't set a timer");
	return -1;
}

/* How often it has expired, 0 if it has not */
static uint64_t read_timer(const struct epoll_rfd *rfd)
{
	uint64_t n;

	return read(rfd->fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static int tick(struct epoll_rfd *rfd)
{
	seconds += (long)read_timer(rfd);
	tasks_probe();
	folios_look();
	record_tick(seconds);
	return filling_event();
}

static int pace_again(struct epoll_rfd *rfd)
{
	read_timer(rfd);
	waits_for_pace = false;
	return filling_event();
}

/* The operator wants the rest as well: to dump the tasks again, for example */
static int signalled(struct epoll_rfd *rfd)
{
	struct signalfd_siginfo info;

	if (read(rfd->fd, &info, sizeof(info)) != sizeof(info))
		return 0;

	if (!background)
		pr_note("process %u asks for the rest of shared memory (SIGUSR1): it is filled in the background now\n",
			info.ssi_pid);
	background = true;
	return filling_event();
}

static sigset_t wanted_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	return set;
}

int modes_hold_signal(void)
{
	sigset_t set = wanted_signals();

	return sigprocmask(SIG_BLOCK, &set, NULL) ? -errno : 0;
}

static int new_signalfd(void)
{
	sigset_t set = wanted_signals();

	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int modes_init(int epollfd)
{
	int err;

	epoll_fd = epollfd;
	background = !settings.on_demand;
	pace_init(&pace, settings.bandwidth, stats_now());
	priority_choose(settings.nice, settings.ioprio);

	err = priority_check();
	if (err)
		pr_warn("Can't lower the priority of who fills shared memory (CRIU_LAZY_SHMEM_NICE, CRIU_LAZY_SHMEM_IOPRIO): %s\n",
			strerror(-err));

	if (watch(&signal_rfd, new_signalfd(), signalled, "descriptor for SIGUSR1") ||
	    watch(&tick_rfd, new_timer(), tick, "timer"))
		return -1;
	return settings.bandwidth ? watch(&pace_rfd, new_timer(), pace_again, "timer") : 0;
}

int modes_resume(void)
{
	return set_timer(&tick_rfd, NSEC_PER_SEC, NSEC_PER_SEC);
}

bool modes_background(void)
{
	return background;
}

void modes_bring_all(void)
{
	if (!background)
		pr_note("a thread waits for all of shared memory: it is filled in the background now\n");
	background = true;
	record_let_go();
	/* before resume there may be no workers yet; they are there when filling begins */
	filling_kick();
}

bool modes_may_fill(void)
{
	if (pace_ready(&pace, stats_now()))
		return true;

	/* the debt may have grown since the timer was set: then it is set again */
	if (!waits_for_pace)
		waits_for_pace = !set_timer(&pace_rfd, pace_wait(&pace), 0);
	return false;
}

void modes_spent(uint64_t bytes, bool wanted)
{
	if (wanted)
		pace_spend_anyway(&pace, bytes);
	else
		pace_spend(&pace, bytes);
}
