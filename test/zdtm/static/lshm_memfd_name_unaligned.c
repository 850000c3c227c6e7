// SPDX-License-Identifier: GPL-2.0-only
#include <limits.h>
#include <sys/mman.h>

#include "lshm_common.h"

const char *test_doc = "Lazily restored memfds of odd sizes, with odd names";
const char *test_author = "criu-lazy-shmem";

#define NAME "lshm: a /name, of  sorts"
#define TAIL 1234
#define SIZE (16 * MiB + TAIL)

static struct lshm m, empty;

static int check_tail(void)
{
	const uint8_t *last = m.map + (m.nr - 1) * PAGE_SIZE;
	unsigned int i;

	if (lshm_check_bytes(last, m.seed, m.nr - 1, 0, TAIL))
		return 1;
	for (i = TAIL; i < PAGE_SIZE; i++) {
		if (!last[i])
			continue;
		fail("byte %u after the end of the file is %#x", i - TAIL, last[i]);
		return 1;
	}
	return 0;
}

static int check_size(const struct lshm *obj, size_t len, off_t size)
{
	struct stat st;

	if (lshm_stat(obj->map, len, &st))
		return 1;
	if (st.st_size != size) {
		fail("the size is %ld, not %ld", (long)st.st_size, (long)size);
		return 1;
	}
	return 0;
}

static int check_name(void)
{
	unsigned long start = (unsigned long)m.map;
	char path[64], link[PATH_MAX];
	ssize_t len;

	ssprintf(path, "/proc/self/map_files/%lx-%lx", start, start + m.nr * PAGE_SIZE);
	len = readlink(path, link, sizeof(link) - 1);
	if (len < 0) {
		pr_perror("Can't read %s", path);
		return 1;
	}
	link[len] = 0;
	if (!strstr(link, "/memfd:" NAME)) {
		fail("the name is %s", link);
		return 1;
	}
	return 0;
}

static int map_empty(void)
{
	int fd, ret;

	fd = lshm_memfd("lshm_empty", 0, 0);
	if (fd < 0)
		return 1;
	ret = lshm_map_fd(&empty, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 1);
	close(fd);
	return ret;
}

int lshm_setup(void)
{
	if (lshm_map_memfd(&m, NAME, SIZE) || map_empty())
		return 1;
	/* The fill went beyond the end of the file */
	memset(m.map + SIZE, 0, PAGE_SIZE - TAIL);
	return 0;
}

int lshm_run(void)
{
	return check_tail() || lshm_check_range(&m, 0, m.nr - 1) || check_size(&m, SIZE, SIZE) ||
	       check_size(&empty, PAGE_SIZE, 0) || check_name() || lshm_wait_retired() || check_tail();
}
