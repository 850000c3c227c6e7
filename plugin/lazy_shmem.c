// SPDX-License-Identifier: GPL-2.0-only
/*
 * The plugin's face to CRIU: hooks, settings, and what each stage needs.
 *
 * dump        SHMEM_LEAVE: what the page server can serve is left to it
 * restore     SHMEM_LAZY decides which objects are lazy, CRIU does the rest
 * lazy-pages  everything else: objects and tasks are announced, the tasks are
 *             resumed, faults and completed jobs drive the event loop
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#include <sys/resource.h>

#include "criu_internals.h"
#include "eligible.h"
#include "filling.h"
#include "folios.h"
#include "guard.h"
#include "modes.h"
#include "object.h"
#include "progress.h"
#include "record.h"
#include "report.h"
#include "settings.h"
#include "task.h"

static bool active; /* in this stage */
static bool leaves; /* a dump leaves shared memory to its page server */

/* Why nothing is lazy in this run, or NULL */
static const char *why_inactive(void)
{
	if (settings.off)
		return "CRIU_LAZY_SHMEM=off";
	if (!(kdat.uffd_features & UFFD_FEATURE_MINOR_SHMEM))
		return "this kernel has no minor faults for shmem (UFFD_FEATURE_MINOR_SHMEM, Linux 5.14)";
	if (opts.stream)
		return "images are streamed";
	if (opts.auto_dedup)
		return "--auto-dedup changes the images while they are read";
	return NULL;
}

static bool concerns_us(int stage)
{
	return stage == CR_PLUGIN_STAGE__LAZY_PAGES ||
	       ((stage == CR_PLUGIN_STAGE__RESTORE || stage == CR_PLUGIN_STAGE__DUMP) && opts.lazy_pages);
}

static int lazy_shmem_init(int stage)
{
	const char *why;

	if (!concerns_us(stage))
		return 0;

	if (settings_read_switch())
		return -1;

	/* the kernel needs no minor faults here, but at the destination */
	if (stage == CR_PLUGIN_STAGE__DUMP) {
		leaves = !settings.off;
		return 0;
	}

	why = why_inactive();
	if (why)
		pr_note("shared memory is restored before resume: %s\n", why);
	active = !why;
	if (active && stage == CR_PLUGIN_STAGE__LAZY_PAGES && modes_hold_signal()) {
		pr_perror("Can't block SIGUSR1");
		return -1;
	}
	return 0;
}

static void lazy_shmem_fini(int stage, int ret)
{
	(void)stage;
	(void)ret;
}

CR_PLUGIN_REGISTER("lazy_shmem", lazy_shmem_init, lazy_shmem_fini)

/*
 * Dump
 */

static int shmem_leave(const struct cr_shmem_object *obj)
{
	(void)obj;
	return leaves ? 0 : -ENOTSUP;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__SHMEM_LEAVE, shmem_leave)

/*
 * Restore
 */

static int shmem_lazy(const struct cr_shmem_object *obj)
{
	enum lshm_verdict verdict;

	if (!active)
		return -ENOTSUP;
	if (!obj)
		return 0;

	verdict = lshm_eligible(obj, kdat.uffd_features);
	if (verdict != LSHM_LAZY)
		pr_note("object %#x not lazy: %s, filled before resume\n", obj->shmid, lshm_verdict_text(verdict));

	return lshm_delivery(obj, verdict);
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__SHMEM_LAZY, shmem_lazy)

/*
 * The lazy-pages daemon
 */

/* Each task, children included, is a descriptor or two */
static void raise_fd_limit(void)
{
	struct rlimit lim;

	if (!getrlimit(RLIMIT_NOFILE, &lim) && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

static int start(int epollfd)
{
	if (!active)
		return -ENOTSUP;
	if (settings_read())
		return -1;

	raise_fd_limit();
	folios_look();
	guard_init(epollfd);
	filling_init(epollfd);
	progress_init(epollfd);
	report_start();
	return modes_init(epollfd) || record_init() ? -1 : 0;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_START, start)

static int take_object(const struct cr_shmem_object *obj, int fd)
{
	int want = obj->flags & CR_SHMEM_FILL_FIRST ? CR_SHMEM_BEFORE_RESUME : CR_SHMEM_LAZY;
	enum lshm_verdict verdict;

	if (!active)
		return -ENOTSUP;

	/* restore decided that already, but what comes over a socket is checked */
	verdict = lshm_eligible(obj, kdat.uffd_features);
	if (lshm_delivery(obj, verdict) != want) {
		pr_err("Restore wants object %#x to be %s: %s\n", obj->shmid,
		       want == CR_SHMEM_LAZY ? "lazy, but that can't be" : "filled before resume, but that is not for us",
		       lshm_verdict_text(verdict));
		return -1;
	}

	return object_add(obj, fd);
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_OBJECT, take_object)

CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_TASK, task_add)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_PEEK, task_peek)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_EVENT, task_event)
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_EXIT, task_exit)

static int commit(void)
{
	return active ? objects_commit() : -ENOTSUP;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_COMMIT, commit)

static int resume(void)
{
	if (!active)
		return -ENOTSUP;

	report_resumed();
	if (objects_start())
		return -1;
	progress_start();
	return 0;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_RESUME, resume)

static int finish(int err)
{
	int ret = 0;

	if (!active)
		return -ENOTSUP;

	/* if the daemon gives up, nobody will bring what is missing */
	if (err < 0)
		objects_fail_all();
	if (objects_failed())
		ret = -1;

	progress_stop();
	record_end(!ret && err >= 0);
	report_write(ret || err < 0);
	tasks_fini();
	objects_fini();
	stats_fini();
	guard_stop();
	return ret;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__LAZY_PAGES_FINISH, finish)
