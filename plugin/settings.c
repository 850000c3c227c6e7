// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "criu_internals.h"
#include "priority.h"
#include "settings.h"

#define MIN_WORKERS 2
#define MAX_WORKERS 64

/* KiB */
#define DEFAULT_INFLIGHT 2048
#define MAX_INFLIGHT	 (1 << 20)

/* MiB a second */
#define MAX_BANDWIDTH 10000

#define MAX_NICE	   19
#define MAX_RECORD_SECONDS 1000000
#define MAX_PREFILL	   (1 << 30) /* MiB */

/* Seconds: short restores have no such line */
#define DEFAULT_PROGRESS 5
#define MAX_PROGRESS	 3600

struct settings settings;

/* A number from the environment; *nr stays as it is if there is none */
static int read_number(const char *name, long min, long max, long *nr)
{
	const char *text = getenv(name);
	char *end;

	if (!text || !*text)
		return 0;

	*nr = strtol(text, &end, 10);
	if (!*end && *nr >= min && *nr <= max)
		return 0;

	pr_err("%s is '%s', but must be a number from %ld to %ld\n", name, text, min, max);
	return -1;
}

/* One of two words, the first of which is the default; *second tells whether it is the other one */
static int read_choice(const char *name, const char *a, const char *b, bool *second)
{
	const char *text = getenv(name);

	*second = text && !strcmp(text, b);
	if (!text || !*text || *second || !strcmp(text, a))
		return 0;

	pr_err("%s is '%s', but can be '%s' (the default) or '%s'\n", name, text, a, b);
	return -1;
}

static int read_ioprio(int *ioprio)
{
	const char *text = getenv("CRIU_LAZY_SHMEM_IOPRIO");

	*ioprio = PRIORITY_AS_IS;
	if (!text || !*text)
		return 0;

	if (!strcmp(text, "idle"))
		*ioprio = PRIORITY_IDLE;
	else if (text[0] >= '0' && text[0] <= '7' && !text[1])
		*ioprio = text[0] - '0';
	else
		pr_err("CRIU_LAZY_SHMEM_IOPRIO is '%s', but must be 'idle' or a number from 0 to 7\n", text);
	return *ioprio == PRIORITY_AS_IS ? -1 : 0;
}

/* What is brought though nobody waits for it */
static int read_modes(void)
{
	long bandwidth = 0, nice = 0;

	if (read_choice("CRIU_LAZY_SHMEM_FILL", "background", "on-demand", &settings.on_demand) ||
	    read_number("CRIU_LAZY_SHMEM_BANDWIDTH", 0, MAX_BANDWIDTH, &bandwidth) ||
	    read_number("CRIU_LAZY_SHMEM_NICE", 0, MAX_NICE, &nice) || read_ioprio(&settings.ioprio))
		return -1;

	settings.bandwidth = (uint64_t)bandwidth << 20;
	settings.nice = (int)nice;
	return 0;
}

static int read_record(void)
{
	long prefill = 0;

	settings.record_seconds = NO_RECORD;
	if (read_number("CRIU_LAZY_SHMEM_RECORD", 0, MAX_RECORD_SECONDS, &settings.record_seconds) ||
	    read_choice("CRIU_LAZY_SHMEM_ORDER", "on", "off", &settings.ignore_order) ||
	    read_number("CRIU_LAZY_SHMEM_PREFILL", 0, MAX_PREFILL, &prefill))
		return -1;

	settings.prefill = (uint64_t)prefill << 20;
	return 0;
}

/* At least two, so that a slow read does not stop everything */
static long default_workers(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < MIN_WORKERS ? MIN_WORKERS : cpus > MAX_WORKERS ? MAX_WORKERS :
								       cpus;
}

int settings_read_switch(void)
{
	return read_choice("CRIU_LAZY_SHMEM", "on", "off", &settings.off);
}

static int read_progress(void)
{
	const char *name = "CRIU_LAZY_SHMEM_PROGRESS", *text = getenv(name);
	long seconds = DEFAULT_PROGRESS;
	char *end;

	settings.progress = PROGRESS_AUTO;
	if (text && !strcmp(text, "off")) {
		settings.progress = PROGRESS_OFF;
	} else if (text && *text && strcmp(text, "auto")) {
		seconds = strtol(text, &end, 10);
		if (*end || seconds < 1 || seconds > MAX_PROGRESS) {
			pr_err("%s is '%s', but can be 'auto' (the default), 'off', or a number of seconds from 1 to %d\n", name,
			       text, MAX_PROGRESS);
			return -1;
		}
		settings.progress = PROGRESS_LOG;
	}

	settings.progress_seconds = (unsigned int)seconds;
	return 0;
}

int settings_read(void)
{
	long workers = default_workers(), inflight = DEFAULT_INFLIGHT;

	if (read_number("CRIU_LAZY_SHMEM_WORKERS", 1, MAX_WORKERS, &workers) ||
	    read_number("CRIU_LAZY_SHMEM_INFLIGHT", 1, MAX_INFLIGHT, &inflight) || read_modes() ||
	    read_record() || read_progress())
		return -1;

	settings.workers = (unsigned int)workers;
	settings.remote_ahead = (uint64_t)inflight << 10;
	return 0;
}
