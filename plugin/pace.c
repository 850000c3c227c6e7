// SPDX-License-Identifier: GPL-2.0-only
#include "pace.h"

#define NSEC_PER_SEC 1000000000ULL

/* What can be saved up: so much of a second */
#define BURST_PART 20

void pace_init(struct pace *p, uint64_t rate, uint64_t now)
{
	*p = (struct pace){ .rate = rate, .tokens = 1, .last_ns = now };
}

/* In steps of a second at most, which can not overflow */
static void refill(struct pace *p, uint64_t now)
{
	int64_t burst = (int64_t)(p->rate / BURST_PART) + 1;

	while (p->tokens < burst && now > p->last_ns) {
		uint64_t ns = now - p->last_ns < NSEC_PER_SEC ? now - p->last_ns : NSEC_PER_SEC;
		uint64_t add = ns * p->rate / NSEC_PER_SEC;

		if (!add)
			return;
		p->tokens += (int64_t)add;
		/* what was too little for a byte is not lost; rounded up, so never too early */
		p->last_ns += (add * NSEC_PER_SEC + p->rate - 1) / p->rate;
	}

	if (p->tokens >= burst) {
		p->tokens = burst;
		p->last_ns = now;
	}
}

bool pace_ready(struct pace *p, uint64_t now)
{
	if (!p->rate)
		return true;

	refill(p, now);
	return p->tokens > 0;
}

uint64_t pace_wait(const struct pace *p)
{
	uint64_t bytes;

	if (!p->rate || p->tokens > 0)
		return 0;

	bytes = (uint64_t)(1 - p->tokens);
	return bytes / p->rate * NSEC_PER_SEC + bytes % p->rate * NSEC_PER_SEC / p->rate + 1;
}

void pace_spend(struct pace *p, uint64_t bytes)
{
	if (p->rate)
		p->tokens -= (int64_t)bytes;
}

void pace_spend_anyway(struct pace *p, uint64_t bytes)
{
	int64_t floor = -(int64_t)p->rate;

	if (!p->rate || p->tokens < floor)
		return;
	p->tokens -= (int64_t)bytes;
	if (p->tokens < floor)
		p->tokens = floor;
}
