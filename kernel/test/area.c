// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects, their patterns, and what /proc tells of mappings.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "minor.h"

const char *kind_name[] = { "memfd, shared", "memfd, private", "anonymous, shared" };

void area_make(struct area *a, enum kind kind, size_t pages, int prot)
{
	int type = kind == MEMFD_PRIVATE ? MAP_PRIVATE : MAP_SHARED;

	*a = (struct area){ .kind = kind, .fd = -1, .uffd = -1, .pages = pages, .len = pages * PAGE };
	if (kind == ANON_SHARED) {
		a->door = mmap(NULL, a->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		must(a->door != MAP_FAILED);
		/* Of size 0: a second mapping of the same pages. */
		a->mem = mremap(a->door, 0, a->len, MREMAP_MAYMOVE);
		must(a->mem != MAP_FAILED);
		must(!mprotect(a->mem, a->len, prot));
		return;
	}
	a->fd = memfd_create("minor", MFD_CLOEXEC);
	must(a->fd >= 0);
	must(!ftruncate(a->fd, a->len));
	a->mem = mmap(NULL, a->len, prot, type, a->fd, 0);
	must(a->mem != MAP_FAILED);
	a->door = mmap(NULL, a->len, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
	must(a->door != MAP_FAILED);
}

void area_register(struct area *a, uint64_t features, uint64_t mode)
{
	if (a->uffd < 0)
		a->uffd = uffd_open(features);
	eq(uffd_register(a->uffd, a->mem, a->len, mode, NULL), 0);
}

void area_ready(struct area *a, enum kind kind, size_t pages, uint64_t mode)
{
	area_make(a, kind, pages, PROT_READ | PROT_WRITE);
	area_register(a, 0, mode);
}

char *at(struct area *a, size_t page)
{
	return a->mem + page * PAGE;
}

char *door_at(struct area *a, size_t page)
{
	return a->door + page * PAGE;
}

static uint64_t pattern(size_t page, int gen, size_t word)
{
	return gen ? (uint64_t)gen << 48 | (uint64_t)(page + 1) << 16 | word : 0;
}

void fill_page(char *mem, size_t page, int gen)
{
	uint64_t *w = (uint64_t *)mem;

	for (size_t i = 0; i < PAGE / sizeof(*w); i++)
		w[i] = pattern(page, gen, i);
}

/*
 * By pwrite() where there is a descriptor: that leaves the door without the
 * page mapped, and the page as only a write() leaves it.
 */
void fill(struct area *a, size_t page, size_t count, int gen)
{
	char buf[PAGE] __attribute__((aligned(8)));

	for (size_t i = page; i < page + count; i++) {
		if (a->fd < 0) {
			fill_page(door_at(a, i), i, gen);
			continue;
		}
		fill_page(buf, i, gen);
		must(pwrite(a->fd, buf, PAGE, i * PAGE) == PAGE);
	}
}

bool page_is(const char *mem, size_t page, int gen)
{
	const volatile uint64_t *w = (const volatile uint64_t *)mem;

	for (size_t i = 0; i < PAGE / sizeof(*w); i++)
		if (w[i] != pattern(page, gen, i))
			return false;
	return true;
}

void page_has(const char *mem, size_t page, int gen)
{
	const uint64_t *w = (const uint64_t *)mem;

	for (size_t i = 0; i < PAGE / sizeof(*w); i++)
		check(w[i] == pattern(page, gen, i), "page %zu, word %zu is 0x%llx, not 0x%llx", page, i,
		      (long long)w[i], (long long)pattern(page, gen, i));
}

void punch(struct area *a, size_t page, size_t count)
{
	if (a->fd >= 0)
		must(!fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, count * PAGE));
	else
		must(!madvise(door_at(a, page), count * PAGE, MADV_REMOVE));
}

static uint64_t pagemap_of(const void *addr)
{
	uint64_t entry;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	must(fd >= 0);
	must(pread(fd, &entry, sizeof(entry), (uintptr_t)addr / PAGE * sizeof(entry)) == sizeof(entry));
	close(fd);
	return entry;
}

bool is_mapped(const void *addr)
{
	return pagemap_of(addr) >> 63;
}

bool is_soft_dirty(const void *addr)
{
	return pagemap_of(addr) >> 55 & 1;
}

/* A page that was just written is soft-dirty, where there is such a thing. */
bool has_soft_dirty(void)
{
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ret;

	must(p != MAP_FAILED);
	*p = 1;
	ret = is_soft_dirty(p);
	munmap(p, PAGE);
	return ret;
}

/* The line of the mapping's part of smaps that begins with that field. */
static void smaps_line(const void *addr, const char *field, char *line, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start, end;
	bool here = false;

	must(f);
	while (fgets(line, size, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = (uintptr_t)addr >= start && (uintptr_t)addr < end;
		else if (here && !strncmp(line, field, strlen(field)) && line[strlen(field)] == ':') {
			fclose(f);
			return;
		}
	}
	flunk("smaps has no %s for %p", field, addr);
}

bool has_flag(const void *addr, const char *flag)
{
	char line[512], word[8];

	smaps_line(addr, "VmFlags", line, sizeof(line));
	snprintf(word, sizeof(word), " %s ", flag);
	return strstr(line, word);
}

long smaps_kb(const void *addr, const char *field)
{
	char line[512];

	smaps_line(addr, field, line, sizeof(line));
	return atol(strchr(line, ':') + 1);
}

long file_kb(const char *path, const char *field)
{
	FILE *f = fopen(path, "re");
	char line[256];
	long ret;

	must(f);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, field, strlen(field)) || line[strlen(field)] != ':')
			continue;
		ret = atol(line + strlen(field) + 1);
		fclose(f);
		return ret;
	}
	flunk("%s has no %s", path, field);
}

/* In pages. */
long blocks(int fd)
{
	struct stat st;

	must(!fstat(fd, &st));
	return st.st_blocks * 512 / PAGE;
}

static size_t resident(struct area *a, size_t page, size_t count)
{
	unsigned char vec[count];
	size_t n = 0;

	must(!mincore(door_at(a, page), count * PAGE, vec));
	for (size_t i = 0; i < count; i++)
		n += vec[i] & 1;
	return n;
}

/*
 * Each processor keeps the pages it last touched in a list of its own, where
 * none can be reclaimed. MADV_PAGEOUT empties the list of its processor first,
 * also where there is nothing to reclaim. The last processor is where we stay.
 */
static void drain(cpu_set_t *before)
{
	char *nothing = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(nothing != MAP_FAILED);
	must(!sched_getaffinity(0, sizeof(*before), before));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t one;

		if (!CPU_ISSET(cpu, before))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		must(!sched_setaffinity(0, sizeof(one), &one));
		must(!madvise(nothing, PAGE, MADV_PAGEOUT));
	}
	munmap(nothing, PAGE);
}

/*
 * MADV_PAGEOUT wants the page mapped where it is told, and nowhere else: that
 * is the registered mapping if the page is there, or else the door.
 */
static void page_out_once(struct area *a, size_t page, size_t count)
{
	cpu_set_t before;

	drain(&before);
	must(!madvise(door_at(a, page), count * PAGE, MADV_DONTNEED));
	for (size_t i = page; i < page + count; i++) {
		char *where = is_mapped(at(a, i)) ? at(a, i) : door_at(a, i);

		(void)*(volatile char *)where;
		must(!madvise(where, PAGE, MADV_PAGEOUT));
	}
	must(!sched_setaffinity(0, sizeof(before), &before));
}

/*
 * Done when the object has swap entries for them, or nothing (a clean page is
 * dropped). What was written may stay in the swap cache: mincore() calls that
 * resident, though the object does not. A page that somebody held for a moment
 * is tried again.
 */
void page_out(struct area *a, size_t page, size_t count)
{
	long end = now_ms() + wait_ms, again = 0;

	while (resident(a, page, count) && smaps_kb(a->door, "Swap") * 1024 < (long)(count * PAGE)) {
		check(now_ms() < end, "%zu of %zu pages are not reclaimed, %ld kB are; %ld kB mapped", resident(a, page, count), count, smaps_kb(a->door, "Swap"), smaps_kb(a->mem, "Rss"));
		if (now_ms() >= again) {
			page_out_once(a, page, count);
			again = now_ms() + 200;
		}
		nap();
	}
}
