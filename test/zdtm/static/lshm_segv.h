/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_SEGV_H__
#define LSHM_SEGV_H__

#include <setjmp.h>
#include <signal.h>
#include <string.h>

#include "lshm_common.h"

/* For tests that read memory which may be taken from them at any moment */

#define NO_MEMORY 2

static __thread sigjmp_buf lshm_segv_env;
static __thread volatile int lshm_segv_armed;

static void lshm_on_segv(int sig)
{
	if (lshm_segv_armed)
		siglongjmp(lshm_segv_env, 1);
	signal(sig, SIG_DFL);
}

static int lshm_catch(int sig)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = lshm_on_segv;
	if (sigaction(sig, &sa, NULL)) {
		pr_perror("Can't catch signal %d", sig);
		return 1;
	}
	return 0;
}

/* 0: the page is right; 1: it is not, which is reported; NO_MEMORY: a signal that is caught */
static int lshm_try_page(const struct lshm *m, unsigned long i)
{
	int ret = NO_MEMORY;

	lshm_segv_armed = 1;
	if (!sigsetjmp(lshm_segv_env, 1))
		ret = lshm_check_page(m, i);
	lshm_segv_armed = 0;
	return ret;
}

#endif /* LSHM_SEGV_H__ */
