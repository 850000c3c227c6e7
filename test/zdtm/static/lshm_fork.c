// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_common.h"

const char *test_doc = "Fork a child and a grandchild while shared memory is being restored";
const char *test_author = "criu-lazy-shmem";

#define STEP 16 /* the parent writes the first word of every 16th page */

static struct lshm m;
static int written[2]; /* reads EOF when the parent has written all its words */

static int is_written(unsigned long i)
{
	return i % STEP == 0;
}

static uint64_t first_word(unsigned long i)
{
	return *(volatile uint64_t *)(m.map + i * PAGE_SIZE);
}

static uint64_t new_word(unsigned long i)
{
	return ~lshm_word(m.seed, i, 0);
}

/* While the parent is still writing, either value is right, and nothing else */
static int check_racing(unsigned long i)
{
	uint64_t got;

	if (!is_written(i))
		return lshm_check_page(&m, i);

	got = first_word(i);
	if (got != lshm_word(m.seed, i, 0) && got != new_word(i)) {
		fail("page %lu starts with %#lx", i, got);
		return 1;
	}
	return lshm_check_bytes(m.map + i * PAGE_SIZE, m.seed, i, sizeof(got), PAGE_SIZE);
}

static int check_all_racing(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++)
		if (check_racing(i))
			return 1;
	return 0;
}

static int check_written(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i += STEP) {
		if (first_word(i) != new_word(i)) {
			fail("page %lu starts with %#lx, not %#lx", i, first_word(i), new_word(i));
			return 1;
		}
	}
	return 0;
}

static int check_as_child(void)
{
	char c;

	close(written[1]);
	if (check_all_racing())
		return 1;
	if (TEMP_FAILURE_RETRY(read(written[0], &c, 1)) != 0) {
		pr_perror("Can't wait for the parent");
		return 1;
	}
	return check_written();
}

static int run_child(void)
{
	pid_t pid;
	int ret;

	pid = test_fork();
	if (pid < 0) {
		pr_perror("Can't fork the grandchild");
		return 1;
	}
	ret = check_as_child();
	if (!pid)
		_exit(ret);
	return lshm_reap(pid) || ret;
}

static void write_words(void)
{
	unsigned long i, n = m.nr / STEP;

	/* From the end, where the background is bound to arrive last */
	for (i = n; i-- > 0;)
		*(volatile uint64_t *)(m.map + i * STEP * PAGE_SIZE) = new_word(i * STEP);
}

int lshm_setup(void)
{
	return lshm_map_anon(&m, 64 * MiB);
}

int lshm_run(void)
{
	pid_t pid;

	if (pipe(written)) {
		pr_perror("Can't create a pipe");
		return 1;
	}
	pid = test_fork();
	if (pid < 0) {
		pr_perror("Can't fork");
		return 1;
	}
	if (!pid)
		_exit(run_child());

	close(written[0]);
	write_words();
	close(written[1]);

	return lshm_reap(pid) || check_all_racing() || check_written();
}
