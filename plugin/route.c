// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>

#include "cgroup.h"
#include "criu_internals.h"
#include "fill.h"
#include "filler.h"
#include "filling.h"
#include "lane.h"
#include "object.h"
#include "priority.h"
#include "proc_scan.h"
#include "puller.h"
#include "route.h"
#include "settings.h"

enum process_kind {
	FILLER, /* from images, in another cgroup than the daemon's */
	BULK,	/* from the page server */
	URGENT, /* as well, what a fault waits for: it must not queue behind the others on one connection */
	NR_KINDS,
};

/* What no fault waits for may wait for others, too */
static int bulk_main(int sk, void *arg)
{
	priority_lower();
	return puller_main(sk, arg);
}

static const struct {
	const char *name;
	int (*main)(int sk, void *arg);
} kinds[NR_KINDS] = {
	[FILLER] = { "lazyshm-fill", filler_main },
	[BULK] = { "lazyshm-bulk", bulk_main },
	[URGENT] = { "lazyshm-urgent", puller_main },
};

#define SMALL_JOBS     64  /* for each worker, at most */
#define MAX_SMALL_JOBS 128 /* in all: fewer than a filler takes, or an urgent one would wait behind them in its socket */

/* Routes with connections, two each: a page server takes 256 */
#define MAX_CONNECTED 100

struct process {
	struct lane *lane;
	struct epoll_rfd rfd; /* of a duplicate: CRIU closes it when the process has ended */
};

struct route {
	struct list_head l;
	struct memcg cg;
	bool known;	       /* cg is */
	bool foreign;	       /* not the daemon's, so that its processes enter it */
	struct route *instead; /* of objects to come: it could not be entered */
	uint64_t oom_kills;    /* before our processes were there */
	struct process procs[NR_KINDS];

	/* jobs for no fault that are under way */
	unsigned int nr_local, nr_remote;
	uint64_t bytes_local, bytes_remote;
};

static LIST_HEAD(routes);
static struct route *own; /* the daemon's cgroup; the first of them */
static int epoll_fd = -1;

static int process_event(struct epoll_rfd *rfd)
{
	(void)rfd;
	return filling_event();
}

static struct route *new_route(const struct memcg *cg)
{
	struct route *r;
	int i;

	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;

	if (cg) {
		r->cg = *cg;
		r->known = true;
	}
	for (i = 0; i < NR_KINDS; i++) {
		r->procs[i].rfd.fd = -1;
		r->procs[i].rfd.read_event = process_event;
		r->procs[i].rfd.hangup_event = process_event;
	}
	list_add_tail(&r->l, &routes);
	return r;
}

void routes_init(int epollfd)
{
	epoll_fd = epollfd;
}

/*
 * Processes
 */

static void stop_process(struct process *p)
{
	if (!p->lane)
		return;

	if (!lane_is_dead(p->lane))
		scan_spare(lane_pid(p->lane), false);
	lane_stop(p->lane);
	p->lane = NULL;

	if (p->rfd.fd < 0)
		return;
	epoll_del_rfd(epoll_fd, &p->rfd);
	close(p->rfd.fd);
	p->rfd.fd = -1;
}

static void stop_processes(struct route *r)
{
	int i;

	for (i = 0; i < NR_KINDS; i++)
		stop_process(&r->procs[i]);
}

static int start_process(struct route *r, enum process_kind kind)
{
	struct process *p = &r->procs[kind];
	char procs[PATH_MAX + 16];
	struct lane_desc desc = {
		.name = kinds[kind].name,
		.main = kinds[kind].main,
		.arg = &settings.workers,
		.cgroup_procs = r->foreign ? procs : NULL,
	};
	int err = 0;

	if (p->lane)
		return 0;
	if (r->foreign)
		err = memcg_procs(&r->cg, procs, sizeof(procs));
	if (!err)
		err = lane_start(&p->lane, &desc);
	if (err)
		return err;

	err = scan_spare(lane_pid(p->lane), true);
	p->rfd.fd = fcntl(lane_fd(p->lane), F_DUPFD_CLOEXEC, 0);
	if (!err && p->rfd.fd < 0)
		err = -errno;
	if (!err && epoll_add_rfd(epoll_fd, &p->rfd))
		err = -EIO;
	if (err) {
		stop_process(p);
		return err;
	}

	pr_info("Process %d (%s) brings shared memory%s%s\n", lane_pid(p->lane), desc.name,
		r->foreign ? " in the cgroup " : "", r->foreign ? r->cg.path : "");
	return 0;
}

/* Whether the page server would take two connections more, it has no end of them */
static bool may_connect(void)
{
	const struct route *r;
	unsigned int nr = 0;

	list_for_each_entry(r, &routes, l)
		nr += r->procs[BULK].lane != NULL;
	return nr < MAX_CONNECTED;
}

static int start_processes(struct route *r, const struct object *obj)
{
	bool remote = false;
	int err = 0;
	size_t i;

	for (i = 0; i < obj->extents.n && !remote; i++)
		remote = obj->extents.v[i].src_fd == SEG_REMOTE;

	if (remote && r->foreign && !r->procs[BULK].lane && !may_connect())
		return -EUSERS;
	/* also if all is remote: there may be holes to allocate */
	if (r->foreign)
		err = start_process(r, FILLER);
	if (!err && remote)
		err = start_process(r, BULK);
	if (!err && remote)
		err = start_process(r, URGENT);
	return err;
}

/*
 * Which route
 */

static struct route *find_route(const struct memcg *cg)
{
	struct route *r;

	list_for_each_entry(r, &routes, l)
		if (r->known && memcg_same(&r->cg, cg))
			return r;

	r = new_route(cg);
	if (r) {
		r->foreign = true;
		r->oom_kills = memcg_oom_kills(cg);
	}
	return r;
}

static int start_own(void)
{
	struct memcg cg;
	int err;

	if (own)
		return 0;

	err = memcg_of(&cg, getpid());
	own = new_route(err ? NULL : &cg);
	if (own)
		own->oom_kills = err ? 0 : memcg_oom_kills(&cg);
	return own ? 0 : -ENOMEM;
}

/* The route for the cgroup of that task; one line if it can't be had, and then what else */
static struct route *route_of_task(const struct object *obj, pid_t opener)
{
	struct memcg cg;
	int err;

	/* without a memory controller, or with one that is not mounted, there is nothing to tell */
	if (!opener || !own->known)
		return own;

	err = memcg_of(&cg, opener);
	if (!err)
		return find_route(&cg);
	if (err != -ENOENT)
		pr_warn("Object %#x is charged to this daemon's cgroup: can't tell the one of task %d: %s\n", obj->shmid,
			opener, strerror(-err));
	return own;
}

int route_of(struct object *obj, pid_t opener)
{
	struct route *r = NULL;
	int err;

	err = start_own();
	if (!err) {
		r = route_of_task(obj, opener);
		err = r ? 0 : -ENOMEM;
	}
	if (r && r->instead)
		r = r->instead;
	if (!err)
		err = start_processes(r, obj);
	if (err && r && r->foreign) {
		pr_warn("Shared memory of the cgroup %s is charged to this daemon's: no process of ours can be in there: %s\n",
			r->cg.path, strerror(-err));
		/* those that are there may have work for objects that came before */
		r->instead = own;
		r = own;
		err = start_processes(r, obj);
	}
	if (err) {
		pr_err("Object %#x: can't start a process to fill it: %s\n", obj->shmid, strerror(-err));
		return -1;
	}

	obj->route = r;
	return 0;
}

/*
 * Jobs
 */

bool route_is_foreign(const struct object *obj)
{
	return obj->route->foreign && obj->route->procs[FILLER].lane;
}

bool route_is_idle(const struct object *obj, bool remote)
{
	const struct route *r = obj->route;

	if (remote)
		return r->nr_remote < 2 || r->bytes_remote < settings.remote_ahead;
	/* one to work at, another that is ready when it is done; more if they are small */
	return r->nr_local < 2 * settings.workers ||
	       (r->nr_local < SMALL_JOBS * settings.workers && r->nr_local < MAX_SMALL_JOBS && r->bytes_local < settings.workers * FILL_UNIT / 2);
}

static struct lane *lane_for(const struct route *r, const struct fill_job *job)
{
	if (job->remote)
		return r->procs[job->cause == FILL_FAULT ? URGENT : BULK].lane;
	return r->procs[FILLER].lane;
}

bool route_is_own(const struct fill_job *job)
{
	const struct object *obj = job->owner;

	return !lane_for(obj->route, job);
}

static void count_job(const struct fill_job *job, int sign)
{
	struct route *r = ((struct object *)job->owner)->route;

	if (job->cause == FILL_FAULT)
		return;
	if (job->remote) {
		r->nr_remote += (unsigned int)sign;
		r->bytes_remote += (uint64_t)sign * job->len;
	} else {
		r->nr_local += (unsigned int)sign;
		r->bytes_local += (uint64_t)sign * job->len;
	}
}

void route_submit(struct fill_pool *pool, struct fill_job *job)
{
	const struct object *obj = job->owner;
	struct lane *lane = lane_for(obj->route, job);

	count_job(job, 1);
	if (!lane) {
		fill_submit(pool, job, job->cause == FILL_FAULT);
		return;
	}

	lane_submit(lane, job, job->cause == FILL_FAULT);
	/* nobody else will have us look */
	if (lane_is_dead(lane))
		filling_kick();
}

void route_promote(struct fill_pool *pool, struct object *obj, uint64_t off)
{
	int i;

	fill_promote(pool, obj, off);
	for (i = 0; i < NR_KINDS; i++)
		if (obj->route->procs[i].lane)
			lane_promote(obj->route->procs[i].lane, obj, off);
}

struct fill_job *routes_reap(void)
{
	struct fill_job *all = NULL, **end = &all;
	struct route *r;
	bool was_dead;
	int i;

	list_for_each_entry(r, &routes, l) {
		for (i = 0; i < NR_KINDS; i++) {
			struct process *p = &r->procs[i];

			if (!p->lane)
				continue;
			was_dead = lane_is_dead(p->lane);
			*end = lane_reap(p->lane);
			while (*end)
				end = &(*end)->next;
			/* its pid may be another's from now on */
			if (!was_dead && lane_is_dead(p->lane))
				scan_spare(lane_pid(p->lane), false);
		}
	}
	return all;
}

void route_done(const struct fill_job *job)
{
	count_job(job, -1);
}

/*
 * Errors
 */

const char *route_cgroup(const struct object *obj)
{
	static char path[PATH_MAX];
	const struct route *r = obj->route;

	if (!r->known)
		return "this daemon";
	snprintf(path, sizeof(path), "%.*s", (int)r->cg.charged_len, r->cg.path);
	return path;
}

const char *route_why_died(const struct object *obj, int status, char *buf, size_t size)
{
	const struct route *r = obj->route;

	if (WIFSIGNALED(status) && r->known && memcg_oom_kills(&r->cg) > r->oom_kills)
		snprintf(buf, size, "was killed for lack of memory in the cgroup %s; raise its limit", route_cgroup(obj));
	else if (WIFSIGNALED(status))
		snprintf(buf, size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(buf, size, "ended with status %d", WEXITSTATUS(status));
	return buf;
}

/*
 * Room
 */

/* Bytes that object is still to be charged for: hugetlb pages are not charged to memory cgroups */
static uint64_t bytes_to_come(const struct object *obj)
{
	if (obj->state != OBJECT_FILLING || object_is_huge(obj))
		return 0;
	return (uint64_t)obj->map.empty * obj->page_size;
}

static bool counts_for(const struct object *obj, const struct route *r, size_t level)
{
	return obj->route && obj->route->known && memcg_is_below(&obj->route->cg, &r->cg, level);
}

static void no_room(const struct route *r, size_t level, const struct memcg_room *room, uint64_t need,
		    void (*with_each)(struct object *obj))
{
	struct object *obj;

	pr_err("The cgroup %.*s has room for %" PRIu64 " bytes, and %" PRIu64 " of shared memory are to come: its limit is %" PRIu64
	       "; raise that, or let it swap\n",
	       (int)level, r->cg.path, room->room, need, room->limit);

	list_for_each_entry(obj, &objects, l) {
		uint64_t bytes = counts_for(obj, r, level) ? bytes_to_come(obj) : 0;

		if (!bytes)
			continue;
		pr_err("Object %#x needs %" PRIu64 " bytes of the cgroup %.*s\n", obj->shmid, bytes, (int)level, r->cg.path);
		if (with_each)
			with_each(obj);
	}
}

static int check_level(const struct route *r, size_t level, void (*with_each)(struct object *obj))
{
	struct memcg_room room;
	struct object *obj;
	uint64_t need = 0;
	int err;

	err = memcg_room(&r->cg, level, free_swap(), &room);
	if (err) {
		pr_warn("Can't tell how much memory the cgroup %.*s has: %s\n", (int)level, r->cg.path, strerror(-err));
		return 0;
	}

	list_for_each_entry(obj, &objects, l)
		if (counts_for(obj, r, level))
			need += bytes_to_come(obj);
	if (need <= room.room)
		return 0;

	no_room(r, level, &room, need, with_each);
	return -1;
}

int routes_check_room(void (*with_each)(struct object *obj))
{
	struct route *r;
	size_t level;

	list_for_each_entry(r, &routes, l) {
		if (!r->known)
			continue;
		for (level = r->cg.charged_len; level; level = memcg_parent(&r->cg, level))
			if (check_level(r, level, with_each))
				return -1;
	}
	return 0;
}

/*
 * The end
 */

static bool process_alive(const struct process *p)
{
	struct pollfd pfd = { .fd = lane_fd(p->lane) };

	return !lane_is_dead(p->lane) && (poll(&pfd, 1, 0) <= 0 || !(pfd.revents & POLLHUP));
}

bool routes_alive(void)
{
	const struct route *r;
	bool alive = true;
	int i;

	list_for_each_entry(r, &routes, l) {
		for (i = 0; i < NR_KINDS; i++) {
			if (!r->procs[i].lane || process_alive(&r->procs[i]))
				continue;
			pr_err("Process %d (%s), which was to bring shared memory, has ended before any task runs\n",
			       lane_pid(r->procs[i].lane), kinds[i].name);
			alive = false;
		}
	}
	return alive;
}

/* When all has come, a task may still want a hole */
static bool may_need_more(const struct object *obj)
{
	return obj->state == OBJECT_FILLING || (obj->state == OBJECT_COMPLETE && obj->delivery == CR_SHMEM_LAZY);
}

static bool is_needed(const struct route *r)
{
	const struct object *obj;
	int i;

	if (r->nr_local || r->nr_remote)
		return true;
	/* it may be among the events that CRIU is about to look at, and must find it as it was */
	for (i = 0; i < NR_KINDS; i++)
		if (r->procs[i].lane && lane_is_dead(r->procs[i].lane))
			return true;
	list_for_each_entry(obj, &objects, l)
		if (obj->route == r && may_need_more(obj))
			return true;
	return false;
}

void routes_trim(void)
{
	struct route *r;

	list_for_each_entry(r, &routes, l)
		if (!is_needed(r))
			stop_processes(r);
}

void routes_fini(void)
{
	struct route *r, *n;

	list_for_each_entry_safe(r, n, &routes, l) {
		stop_processes(r);
		list_del(&r->l);
		free(r);
	}
	own = NULL;
}
