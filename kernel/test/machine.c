// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a test needs of the machine: swap, huge pages, huge pages in shmem.
 * What is there already is used; what we change is undone after the test.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/swap.h>
#include <unistd.h>
#include "minor.h"
#include "machine.h"

#define NR_HUGE	  "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
#define FREE_HUGE "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
#define SHMEM_THP "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define SWAP_SIZE (32UL << 20)

static char swap_file[64];
static long huge_before = -1;
static char thp_before[16];

static long number_in(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 ? atol(text) : -1;
}

bool put_string(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok;
}

static bool swap_is_on(void)
{
	FILE *f = fopen("/proc/swaps", "re");
	char line[256];
	int lines = 0;

	while (f && fgets(line, sizeof(line), f))
		lines++;
	if (f)
		fclose(f);
	return lines > 1;
}

/* The header that mkswap writes, and pages without holes below it. */
static bool make_swap_file(int fd)
{
	struct {
		uint32_t version, last_page, nr_badpages;
	} info = { 1, SWAP_SIZE / PAGE - 1, 0 };
	static char zeros[1 << 20];

	for (size_t done = 0; done < SWAP_SIZE; done += sizeof(zeros))
		if (write(fd, zeros, sizeof(zeros)) != sizeof(zeros))
			return false;
	return pwrite(fd, &info, sizeof(info), 1024) == sizeof(info) && pwrite(fd, "SWAPSPACE2", 10, PAGE - 10) == 10 &&
	       !fsync(fd);
}

static const char *need_swap(void)
{
	const char *dir = getenv("TMPDIR");
	bool ok;
	int fd;

	if (swap_is_on())
		return NULL;
	snprintf(swap_file, sizeof(swap_file), "%.40s/minor-swap.XXXXXX", dir ? dir : "/tmp");
	fd = mkostemp(swap_file, O_CLOEXEC);
	if (fd < 0) {
		swap_file[0] = 0;
		return "no swap is on, and no file for it can be made";
	}
	ok = make_swap_file(fd);
	close(fd);
	if (ok && !swapon(swap_file, 0))
		return NULL;
	unlink(swap_file);
	swap_file[0] = 0;
	return "no swap is on, and swapon is refused";
}

static const char *need_huge(void)
{
	char text[32];
	long have = number_in(FREE_HUGE), all = number_in(NR_HUGE);

	if (have < 0)
		return "no huge pages of 2 MiB here";
	if (have >= HUGE_PAGES)
		return NULL;
	huge_before = all;
	snprintf(text, sizeof(text), "%ld", all + HUGE_PAGES - have);
	if (put_string(NR_HUGE, text) && number_in(FREE_HUGE) >= HUGE_PAGES)
		return NULL;
	return "the kernel gives no huge pages";
}

static const char *need_thp(void)
{
	char text[128] = "", *begin, *end;
	int fd = open(SHMEM_THP, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return "no transparent huge pages in shmem here";
	close(fd);
	begin = strchr(text, '[');
	end = begin ? strchr(begin, ']') : NULL;
	if (!end || end - begin > 15)
		return "shmem_enabled is in words that we do not know";
	*end = 0;
	if (!strcmp(begin + 1, "advise") || !strcmp(begin + 1, "always"))
		return NULL;
	if (!put_string(SHMEM_THP, "advise"))
		return "shmem_enabled cannot be changed";
	strcpy(thp_before, begin + 1);
	return NULL;
}

int machine_prepare(int flags, char *reason, size_t size)
{
	const char *why = NULL;

	if (flags & NEEDS_SWAP)
		why = need_swap();
	if (!why && (flags & NEEDS_HUGE))
		why = need_huge();
	if (!why && (flags & NEEDS_THP))
		why = need_thp();
	if (!why)
		return 0;
	machine_restore();
	snprintf(reason, size, "%s", why);
	return -1;
}

void machine_restore(void)
{
	char text[32];

	if (swap_file[0]) {
		swapoff(swap_file);
		unlink(swap_file);
		swap_file[0] = 0;
	}
	if (huge_before >= 0) {
		snprintf(text, sizeof(text), "%ld", huge_before);
		put_string(NR_HUGE, text);
		huge_before = -1;
	}
	if (thp_before[0]) {
		put_string(SHMEM_THP, thp_before);
		thp_before[0] = 0;
	}
}
