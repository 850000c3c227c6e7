// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Shared memory that has been restored is swapped out before all of its users have it mapped";
const char *test_author = "criu-lazy-shmem";

#define SWAP_FILE "lshm_swap.tmp"
#define SWAP_SIZE (96 * MiB)
#define NR_PARTS  8

enum { READER,
       WRITER,
       NR_USERS };

static struct lshm m;
static uint64_t new_seed;
/* The users read a byte for each part that is swapped out */
static int go[NR_USERS][2];
static pid_t user[NR_USERS], keeper;
static int keep[2];
static int has_swap; /* without us */

/* What mkswap(8) writes */
static int make_swap_file(void)
{
	static uint8_t buf[MiB];
	uint32_t *header = (uint32_t *)(buf + 1024);
	unsigned int i;
	int fd, ret = 0;

	fd = open(SWAP_FILE, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return 1;
	header[0] = 1;
	header[1] = SWAP_SIZE / PAGE_SIZE - 1;
	memcpy(buf + PAGE_SIZE - 10, "SWAPSPACE2", 10);
	for (i = 0; i < SWAP_SIZE / MiB && !ret; i++) {
		ret = write(fd, buf, MiB) != MiB;
		memset(buf, 0, sizeof(buf));
	}
	ret |= fsync(fd);
	close(fd);
	return ret;
}

static void swap_off(void)
{
	swapoff(SWAP_FILE);
	unlink(SWAP_FILE);
}

/* A user reads the end when the last writer has closed its end: nobody but the parent keeps one */
static void close_writers(void)
{
	int u;

	for (u = 0; u < NR_USERS; u++)
		if (user[u])
			close(go[u][1]);
}

/*
 * The whole machine gets it, so it must not outlive this test, whatever ends
 * that: somebody waits for it.
 */
static void keeper_main(int tell)
{
	char c;

	setsid();
	signal(SIGTERM, SIG_IGN);
	close(keep[1]);
	close_writers();
	if (swapon(SWAP_FILE, 0))
		pr_perror("Can't switch on swap");
	else if (write(tell, "", 1) == 1)
		while (read(keep[0], &c, 1) < 0 && errno == EINTR)
			;
	swap_off();
	_exit(0);
}

static int swap_on(void)
{
	int told[2];
	char c;

	if (pipe(keep) || pipe(told)) {
		pr_perror("Can't create pipes");
		return 1;
	}
	keeper = test_fork();
	if (keeper < 0) {
		pr_perror("Can't fork");
		return 1;
	}
	if (!keeper) {
		close(told[0]);
		keeper_main(told[1]);
	}
	close(told[1]);
	close(keep[0]);
	if (TEMP_FAILURE_RETRY(read(told[0], &c, 1)) != 1) {
		fail("there is no swap");
		return 1;
	}
	close(told[0]);
	return 0;
}

static struct lshm part(int p)
{
	unsigned long nr = m.nr / NR_PARTS;

	return lshm_sub(&m, p * nr, nr);
}

/* The writer's pages, which it does not look at before */
static int is_written(unsigned long i)
{
	return i % 4 == 1;
}

static int check_others(const struct lshm *part)
{
	unsigned long i;

	for (i = 0; i < part->nr; i++)
		if (!is_written(i) && lshm_check_page(part, i))
			return 1;
	return 0;
}

static void write_pages(const struct lshm *part)
{
	unsigned long i;

	for (i = 0; i < part->nr; i++)
		if (is_written(i))
			lshm_rewrite_page(part, i, new_seed);
}

static int user_main(void *arg)
{
	long u = (long)arg;
	int p, ret = 0;
	char c;

	close(go[u][1]);
	close_writers();
	for (p = 0; p < NR_PARTS && !ret; p++) {
		struct lshm mine = part(p);

		if (TEMP_FAILURE_RETRY(read(go[u][0], &c, 1)) != 1)
			return 1;
		if (u == WRITER)
			write_pages(&mine);
		ret = check_others(&mine);
	}
	return ret;
}

/* KiB of the mapping at @addr that are swapped out */
static long swapped(const void *addr)
{
	unsigned long start, end;
	long kib = -1, sum = 0;
	char line[1024];
	int here = 0;
	FILE *f;

	f = fopen("/proc/self/smaps", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (unsigned long)addr && (unsigned long)addr < end;
		else if (here && sscanf(line, "Swap: %ld kB", &kib) == 1)
			sum += kib;
	}
	fclose(f);
	return sum;
}

/* Pages that only this task has touched so far */
static int swap_out(const struct lshm *part)
{
	if (check_others(part))
		return 1;
	if (madvise(part->map, part->nr * PAGE_SIZE, MADV_PAGEOUT)) {
		pr_perror("Can't page out");
		return 1;
	}
	return 0;
}

static int tell_users(void)
{
	int u;

	for (u = 0; u < NR_USERS; u++) {
		if (write(go[u][1], "", 1) != 1) {
			pr_perror("Can't tell a user");
			return 1;
		}
	}
	return 0;
}

static int use_part(int p)
{
	struct lshm here = part(p);
	long before = swapped(m.map), after;

	if (swap_out(&here))
		return 1;
	after = swapped(m.map);
	test_msg("part %d: %ld KiB swapped out, %d mappings are lazy\n", p, after - before, lshm_vmflag(NULL, "ui"));
	/* With the later parts, others may have brought some back meanwhile */
	if (!p && (unsigned long)after * 1024 < here.nr * PAGE_SIZE / 2) {
		fail("no more than %ld KiB were swapped out", after);
		return 1;
	}
	return tell_users() || check_others(&here);
}

static int check_all(void)
{
	unsigned long i;
	int p;

	for (p = 0; p < NR_PARTS; p++) {
		struct lshm here = part(p);

		if (check_others(&here))
			return 1;
		for (i = 0; i < here.nr; i++)
			if (is_written(i) && lshm_check_rewritten(&here, i, new_seed))
				return 1;
	}
	return 0;
}

static int use_parts(void)
{
	struct lshm last = part(NR_PARTS - 1);
	int p, u, ret;

	/* What has not come, before what has come and gone */
	ret = lshm_check_page(&last, last.nr - 2) || lshm_check_page(&last, last.nr / 2);

	for (p = 0; p < NR_PARTS && !ret; p++)
		ret = use_part(p);
	close_writers();
	for (u = 0; u < NR_USERS; u++)
		ret |= lshm_reap(user[u]);
	return ret || check_all();
}

static int start_users(void)
{
	long u;

	for (u = 0; u < NR_USERS; u++) {
		if (pipe(go[u])) {
			pr_perror("Can't create a pipe");
			return 1;
		}
		user[u] = lshm_fork_task(NULL, user_main, (void *)u);
		if (user[u] < 0)
			return 1;
	}
	return 0;
}

static int make_swap(void)
{
	struct sysinfo info;

	if (!sysinfo(&info) && info.totalswap / MiB * info.mem_unit >= SWAP_SIZE / MiB) {
		has_swap = 1;
		return 0;
	}
	if (make_swap_file() || swapon(SWAP_FILE, 0)) {
		skip("no swap here: %s", strerror(errno));
		swap_off();
		return LSHM_SKIP;
	}
	if (swapoff(SWAP_FILE)) {
		pr_perror("Can't switch off swap");
		return 1;
	}
	return 0;
}

int lshm_setup(void)
{
	int ret;

	new_seed = lshm_new_seed();
	ret = make_swap();
	return ret ? ret : lshm_map_anon(&m, 64 * MiB) || start_users();
}

int lshm_run(void)
{
	int ret;

	if (has_swap)
		return use_parts() || lshm_wait_retired() || check_all();

	if (swap_on())
		return 1;
	ret = use_parts();
	close(keep[1]);
	return lshm_reap(keeper) || ret || lshm_wait_retired() || check_all();
}
