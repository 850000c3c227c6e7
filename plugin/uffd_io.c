// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stddef.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "uffd_io.h"

uint64_t uffd_nr_continue;

int uffd_wake(int uffd, uint64_t addr, uint64_t len)
{
	struct uffdio_range range = { .start = addr, .len = len };

	return ioctl(uffd, UFFDIO_WAKE, &range) ? -errno : 0;
}

/*
 * Asks to end the write protection of a page that any task could have. Nothing is ever
 * registered for that, so it fails: with ENOENT, or EAGAIN. (UFFDIO_CONTINUE could map
 * something, and UFFDIO_WAKE does not look whether the memory is still there.)
 */
int uffd_probe(int uffd)
{
	struct uffdio_writeprotect wp = { .range = { .start = 1UL << 30, .len = (uint64_t)sysconf(_SC_PAGESIZE) } };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

/* Bytes mapped, or -errno if not even the first page was */
static int64_t continue_once(int uffd, uint64_t addr, uint64_t len)
{
	struct uffdio_continue c = { .range = { .start = addr, .len = len } };

	uffd_nr_continue++;
	if (!ioctl(uffd, UFFDIO_CONTINUE, &c))
		return (int64_t)len;

	/*
	 * A part that was mapped is reported as EAGAIN together with its size;
	 * what stopped it is the first error of the next attempt.
	 */
	return c.mapped > 0 ? c.mapped : -errno;
}

/* Where pages were mapped already: nobody needs to wait, but a thread may have gone to sleep before that */
struct stepped_over {
	uint64_t start, end;
};

static void step_over(struct stepped_over *so, uint64_t addr, uint64_t page_size)
{
	if (!so->end)
		so->start = addr;
	so->end = addr + page_size;
}

int uffd_continue(int uffd, uint64_t addr, uint64_t len, uint64_t *mapped, uint64_t page_size)
{
	struct stepped_over so = { 0 };
	uint64_t end = addr + len;
	uint64_t step = len;
	int err = 0;

	if (mapped)
		*mapped = 0;

	while (addr < end && !err) {
		int64_t ret = continue_once(uffd, addr, step);

		if (ret > 0) {
			if (mapped)
				*mapped += (uint64_t)ret;
			addr += (uint64_t)ret;
		} else if (ret == -EEXIST) {
			step_over(&so, addr, page_size);
			addr += page_size;
		} else if (ret == -ENOENT && step > page_size) {
			/* mprotect() and madvise() split mappings without an event */
			step = page_size;
			continue;
		} else {
			err = (int)ret;
		}
		step = step == page_size ? page_size : end - addr;
	}

	if (so.end)
		uffd_wake(uffd, so.start, so.end - so.start);
	return err;
}
