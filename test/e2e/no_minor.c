// SPDX-License-Identifier: GPL-2.0-only
/* A kernel without minor faults, for LD_PRELOAD: hides the feature bits. */
#include <dlfcn.h>
#include <stdarg.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

int ioctl(int fd, unsigned long request, ...)
{
	static int (*next)(int fd, unsigned long request, ...);
	va_list ap;
	void *arg;
	int ret;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);

	if (!next)
		next = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	ret = next(fd, request, arg);
	if (request == UFFDIO_API && !ret)
		((struct uffdio_api *)arg)->features &= ~(UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS);

	return ret;
}
