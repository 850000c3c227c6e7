// SPDX-License-Identifier: GPL-2.0-only
#include "pace.h"
#include "unit.h"

#define SEC 1000000000ULL
#define MIB (1ULL << 20)

static const uint64_t t0 = 12345 * SEC;

TEST(no_limit)
{
	struct pace p;

	pace_init(&p, 0, t0);
	pace_spend(&p, UINT64_MAX / 2);
	pace_spend_anyway(&p, UINT64_MAX / 2);
	CHECK(pace_ready(&p, t0));
	CHECK_EQ(pace_wait(&p), 0);
}

/* What is had in a time, in units, by one who comes whenever he may, or every step ns */
static uint64_t had(struct pace *p, uint64_t unit, uint64_t ns, uint64_t step)
{
	uint64_t now, sum = 0;

	for (now = t0; now < t0 + ns;) {
		while (pace_ready(p, now)) {
			pace_spend(p, unit);
			sum += unit;
		}
		now += step ? step : pace_wait(p);
	}
	return sum;
}

TEST(rate)
{
	static const uint64_t rates[] = { MIB, 32 * MIB, 10000 * MIB };
	static const uint64_t units[] = { 4096, 512 << 10, 2 << 20 };
	struct pace p;
	size_t i, j;

	for (i = 0; i < 3; i++) {
		for (j = 0; j < 3; j++) {
			uint64_t sum;

			pace_init(&p, rates[i], t0);
			sum = had(&p, units[j], 4 * SEC, i == 2 && !j ? 1000000 : 0);
			CHECK(sum >= 4 * rates[i] - rates[i] / 50);
			CHECK(sum <= 4 * rates[i] + units[j] + 1);
		}
	}
}

/* The rest of a division, a million times */
TEST(little_by_little)
{
	struct pace p;
	uint64_t sum;

	pace_init(&p, MIB + 7, t0);
	sum = had(&p, 1, SEC, 1500);
	CHECK(sum >= (MIB + 7) * 99 / 100 && sum <= MIB + 8);
}

TEST(wait_is_right)
{
	struct pace p;
	uint64_t wait;

	pace_init(&p, 3 * MIB, t0);
	CHECK(pace_ready(&p, t0));
	CHECK_EQ(pace_wait(&p), 0);
	pace_spend(&p, 30 * MIB);
	CHECK(!pace_ready(&p, t0));
	wait = pace_wait(&p);
	CHECK(wait > 9 * SEC && wait < 11 * SEC);
	CHECK(!pace_ready(&p, t0 + wait - 1000));
	CHECK(pace_ready(&p, t0 + wait));
}

/* Long ago nothing was wanted: that is no right to much now */
TEST(burst)
{
	struct pace p;
	uint64_t sum = 0;

	pace_init(&p, 100 * MIB, t0);
	while (pace_ready(&p, t0 + 1000000 * SEC)) {
		pace_spend(&p, 4096);
		sum += 4096;
	}
	CHECK(sum > MIB && sum <= 6 * MIB);
}

TEST(faults_count)
{
	struct pace p;

	pace_init(&p, 10 * MIB, t0);
	pace_spend_anyway(&p, 5 * MIB);
	CHECK(!pace_ready(&p, t0 + SEC * 49 / 100));
	CHECK(pace_ready(&p, t0 + SEC * 51 / 100));
}

/* However many there are, the rest goes on a second later; a debt of its own is paid in full */
TEST(faults_do_not_starve)
{
	struct pace p;

	pace_init(&p, MIB, t0);
	pace_spend_anyway(&p, 1000 * MIB);
	pace_spend_anyway(&p, 1000 * MIB);
	CHECK(!pace_ready(&p, t0 + SEC * 99 / 100));
	CHECK(pace_ready(&p, t0 + SEC * 101 / 100));

	pace_init(&p, MIB, t0);
	pace_spend(&p, 2 * MIB);
	pace_spend_anyway(&p, MIB);
	CHECK(!pace_ready(&p, t0 + SEC * 19 / 10));
	CHECK(pace_ready(&p, t0 + SEC * 21 / 10));
}

TEST(time_stands_still)
{
	struct pace p;

	pace_init(&p, MIB, t0);
	pace_spend(&p, MIB);
	CHECK(!pace_ready(&p, t0));
	CHECK(!pace_ready(&p, t0 - SEC));
	CHECK(pace_ready(&p, t0 + 2 * SEC));
}
