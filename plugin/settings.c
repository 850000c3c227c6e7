// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "criu_internals.h"
#include "settings.h"

#define MIN_WORKERS 2
#define MAX_WORKERS 64

/* KiB */
#define DEFAULT_INFLIGHT 2048
#define MAX_INFLIGHT	 (1 << 20)

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

/* At least two, so that a slow read does not stop everything */
static long default_workers(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < MIN_WORKERS ? MIN_WORKERS : cpus > MAX_WORKERS ? MAX_WORKERS :
								       cpus;
}

int settings_read_switch(void)
{
	const char *text = getenv("CRIU_LAZY_SHMEM");

	if (text && *text && strcmp(text, "on") && strcmp(text, "off")) {
		pr_err("CRIU_LAZY_SHMEM is '%s', but can be 'on' (the default) or 'off'\n", text);
		return -1;
	}

	settings.off = text && !strcmp(text, "off");
	return 0;
}

int settings_read(void)
{
	long workers = default_workers(), inflight = DEFAULT_INFLIGHT;

	if (read_number("CRIU_LAZY_SHMEM_WORKERS", 1, MAX_WORKERS, &workers) ||
	    read_number("CRIU_LAZY_SHMEM_INFLIGHT", 1, MAX_INFLIGHT, &inflight))
		return -1;

	settings.workers = (unsigned int)workers;
	settings.remote_ahead = (uint64_t)inflight << 10;
	return 0;
}
