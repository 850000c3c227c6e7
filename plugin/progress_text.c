// SPDX-License-Identifier: GPL-2.0-only
#include <inttypes.h>
#include <stdio.h>

#include "progress_text.h"

/* Longer than that it is no use to tell */
#define MAX_HOURS 999

struct progress_rate progress_rate_of(const struct progress_sample *before, const struct progress_sample *now)
{
	double seconds = now->when > before->when ? (double)(now->when - before->when) / 1e9 : 0;
	struct progress_rate rate = { 0 };

	if (seconds <= 0)
		return rate;
	/* what is left can become more, when an object is not counted any more it becomes less at once */
	if (before->left > now->left)
		rate.bytes = (double)(before->left - now->left) / seconds;
	if (now->faults > before->faults)
		rate.faults = (double)(now->faults - before->faults) / seconds;
	return rate;
}

static const char *bytes_text(char *buf, size_t size, double bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned int i;

	bytes /= 1024;
	for (i = 0; bytes >= 1024 && i < sizeof(units) / sizeof(units[0]) - 1; i++)
		bytes /= 1024;
	snprintf(buf, size, "%.*f %s", bytes < 10 && bytes > 0 ? 1 : 0, bytes, units[i]);
	return buf;
}

static const char *time_text(char *buf, size_t size, double seconds)
{
	if (seconds < 1)
		snprintf(buf, size, "< 1 s left");
	else if (seconds < 120)
		snprintf(buf, size, "%.0f s left", seconds);
	else if (seconds < 7200)
		snprintf(buf, size, "%.0f min left", seconds / 60);
	else if (seconds <= MAX_HOURS * 3600.0)
		snprintf(buf, size, "%.0f h left", seconds / 3600);
	else
		snprintf(buf, size, "> %d h left", MAX_HOURS);
	return buf;
}

/* 100 only when nothing is left */
static unsigned int percent(const struct progress_sample *now)
{
	uint64_t left = now->left < now->total ? now->left : now->total;
	unsigned int share;

	if (!left)
		return 100;
	share = (unsigned int)((double)(now->total - left) / (double)now->total * 100);
	return share < 99 ? share : 99;
}

void progress_text(char *buf, size_t size, const struct progress_sample *now, const struct progress_rate *rate)
{
	char total[32], speed[32], time[32];
	const char *when;

	if (now->on_demand)
		when = "the rest on demand only";
	else if (!now->left)
		when = "complete";
	else if (rate->bytes <= 0)
		when = "nothing comes";
	else
		when = time_text(time, sizeof(time), (double)now->left / rate->bytes);

	snprintf(buf, size, "%u%% of %s, %s/s, %s, %.0f faults/s", percent(now),
		 bytes_text(total, sizeof(total), (double)now->total), bytes_text(speed, sizeof(speed), rate->bytes), when,
		 rate->faults);
}
