// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lshm_segv.h"

const char *test_doc = "ftruncate and fallocate of memfds right after the restore; mappings beyond the end of an object";
const char *test_author = "criu-lazy-shmem";

#define HERE   (32 * MiB)
#define BEYOND 512 /* pages that a mapping has more than its object */

/* Of the first two a descriptor is open: they must be complete. The others are lazy */
static struct lshm shrunk, punched, lazy, short_one;
static int shrunk_fd, punched_fd;
static uint64_t new_seed;
static pid_t child;

static int make_open(struct lshm *m, int *fd, const char *name)
{
	*fd = lshm_memfd(name, 0, HERE);
	if (*fd < 0)
		return 1;
	m->seed = lshm_new_seed();
	if (lshm_map_fd(m, *fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, HERE / PAGE_SIZE))
		return 1;
	lshm_fill(m);
	return 0;
}

/* The mapping has more pages than there are in the object */
static int make_short(void)
{
	int fd = lshm_memfd("short", 0, HERE);

	if (fd < 0)
		return 1;
	short_one.seed = lshm_new_seed();
	if (lshm_map_fd(&short_one, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, HERE / PAGE_SIZE + BEYOND))
		return 1;
	close(fd);
	short_one.nr -= BEYOND;
	lshm_fill(&short_one);
	return 0;
}

static int beyond_is_bus_error(const struct lshm *m, unsigned long i)
{
	if (lshm_try_page(m, i) == NO_MEMORY)
		return 0;
	fail("page %lu is beyond the end, and there", i);
	return 1;
}

static int check_beyond(void)
{
	unsigned long i;

	for (i = 0; i < BEYOND; i += 50)
		if (beyond_is_bus_error(&short_one, short_one.nr + i))
			return 1;
	return 0;
}

static int truncate_to(int fd, unsigned long bytes)
{
	if (ftruncate(fd, bytes)) {
		pr_perror("Can't truncate to %lu", bytes);
		return 1;
	}
	return 0;
}

/* Half of it goes, and one page in part; what comes back is zero */
static int shrink(void)
{
	unsigned long half = shrunk.nr / 2;

	if (truncate_to(shrunk_fd, half * PAGE_SIZE - 1000) || beyond_is_bus_error(&shrunk, half) ||
	    beyond_is_bus_error(&shrunk, shrunk.nr - 1))
		return 1;
	return truncate_to(shrunk_fd, HERE) || lshm_check_zero(shrunk.map + half * PAGE_SIZE, half);
}

static int check_zeroes_from(const struct lshm *m, unsigned long i, unsigned int from)
{
	const uint8_t *page = m->map + i * PAGE_SIZE;
	unsigned int b;

	for (b = from; b < PAGE_SIZE; b++) {
		if (page[b]) {
			fail("page %lu byte %u is %#x, not zero", i, b, page[b]);
			return 1;
		}
	}
	return lshm_check_bytes(page, m->seed, i, 0, from);
}

static int check_shrunk(void)
{
	unsigned long half = shrunk.nr / 2;

	return lshm_check_range(&shrunk, 0, half - 1) || check_zeroes_from(&shrunk, half - 1, PAGE_SIZE - 1000) ||
	       lshm_check_zero(shrunk.map + half * PAGE_SIZE, half);
}

/* Every hole is seen at once by the mapping and by the descriptor */
#define NR_HOLES 64

static unsigned long hole(int h)
{
	return h * (punched.nr / NR_HOLES) + 7;
}

static int punch(void)
{
	uint8_t page[PAGE_SIZE];
	int h;

	for (h = NR_HOLES - 1; h >= 0; h--) {
		off_t off = hole(h) * PAGE_SIZE;

		if (fallocate(punched_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, 3 * PAGE_SIZE)) {
			pr_perror("Can't punch hole %d", h);
			return 1;
		}
		if (lshm_check_zero(punched.map + off, 3))
			return 1;
		/* The next page has not been looked at: the descriptor comes first */
		if (pread(punched_fd, page, PAGE_SIZE, off + 3 * PAGE_SIZE) != PAGE_SIZE) {
			pr_perror("Can't read");
			return 1;
		}
		if (lshm_check_bytes(page, punched.seed, hole(h) + 3, 0, PAGE_SIZE))
			return 1;
		lshm_fill_page(page, new_seed, hole(h) + 1);
		if (pwrite(punched_fd, page, PAGE_SIZE, off + PAGE_SIZE) != PAGE_SIZE) {
			pr_perror("Can't write");
			return 1;
		}
	}
	return 0;
}

static int check_punched(void)
{
	unsigned long next = 0;
	int h;

	for (h = 0; h < NR_HOLES; h++) {
		unsigned long at = hole(h);

		if (lshm_check_range(&punched, next, at - next) || lshm_check_zero(punched.map + at * PAGE_SIZE, 1) ||
		    lshm_check_rewritten(&punched, at + 1, new_seed) ||
		    lshm_check_zero(punched.map + (at + 2) * PAGE_SIZE, 1))
			return 1;
		next = at + 3;
	}
	return lshm_check_range(&punched, next, punched.nr - next);
}

/* Another task shares it all, and sees the same when the first has done its work */
static int go[2];

static int check_all(void)
{
	return check_shrunk() || check_punched() || lshm_check(&lazy) || lshm_check(&short_one) || check_beyond();
}

static int child_main(void *arg)
{
	char c;

	close(go[1]);
	if (check_beyond() || lshm_check_shuffled(&lazy, lazy.seed))
		return 1;
	if (TEMP_FAILURE_RETRY(read(go[0], &c, 1)) != 1) {
		pr_err("The parent has failed\n");
		return 1;
	}
	return check_all();
}

int lshm_setup(void)
{
	new_seed = lshm_new_seed();
	if (make_open(&shrunk, &shrunk_fd, "shrunk") || make_open(&punched, &punched_fd, "punched") || make_short() ||
	    lshm_map_anon(&lazy, HERE) || lshm_catch(SIGBUS))
		return 1;
	if (pipe(go)) {
		pr_perror("Can't create a pipe");
		return 1;
	}
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	int ret = shrink() || punch() || check_beyond();

	if (!ret && write(go[1], "", 1) != 1) {
		pr_perror("Can't tell the child");
		ret = 1;
	}
	close(go[1]);
	return lshm_reap(child) || ret || check_all() || lshm_wait_retired() || check_all();
}
