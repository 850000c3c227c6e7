// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs a program made by oracle.py, over shared memory:
 *
 *   oracle PROGRAM LOG GO RESTORED READY
 *
 * Processes and their threads are the program's actors. They prepare the memory,
 * the directory READY comes to be, and all wait to be dumped. Once restored (the file GO
 * is there) they do the program's steps. In a step some actors do an op each, at
 * the same time; the next step comes when all have done theirs. What they see they
 * write to LOG, in lines "STEP ACTOR ...". In the end all look at all that they
 * map, and once more when GO is gone. Nobody dies before the file RESTORED is there.
 *
 * The first process, the director, maps nothing of the memory under test. It tells
 * the others by pipes when to act. Nothing else of ours is shared.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "program.h"

struct done {
	int actor, step;
	pid_t pid;
};

static const char *log_file, *go_file, *restored_file;
static int cmd_pipe[MAX_ACTORS][2], done_pipe[2];

/* The actor's view: who is where, from the last command */
static __thread struct command command;

/* The director's view */
static pid_t pids[MAX_ACTORS]; /* 0: is not there */
static int pidfds[MAX_ACTORS];

void need(bool ok, const char *what)
{
	if (ok)
		return;
	observe(0, -1, "could not: %s, errno %d", what, errno);
	_exit(98);
}

void observe(int step, int actor, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n, fd;

	n = snprintf(line, sizeof(line), "%d %d ", step, actor);
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	line[n++] = '\n';

	/* opened for each line: no file is open when we are dumped */
	fd = open(log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		_exit(97);
	close(fd);
}

pid_t pid_of(long actor)
{
	return command.pids[actor];
}

static void tell_done(int actor, int step)
{
	struct done d = { .actor = actor, .step = step, .pid = getpid() };

	NEED(write(done_pipe[1], &d, sizeof(d)) == sizeof(d));
}

static void do_step(int actor, int step)
{
	int i;

	if (step >= STEP_LOOK) {
		look_at_all(step, actor);
		return;
	}
	for (i = 0; i < prog.nr_ops; i++)
		if (prog.ops[i].step == step && prog.ops[i].actor == actor)
			do_op(&prog.ops[i]);
}

/* A forked actor says that it is there before it is told anything */
void be_actor(int actor)
{
	tell_done(actor, STEP_READY);
	for (;;) {
		NEED(read(cmd_pipe[actor][0], &command, sizeof(command)) == sizeof(command));
		do_step(actor, command.step);
		tell_done(actor, command.step);
	}
}

static void *actor_thread(void *arg)
{
	be_actor((int)(intptr_t)arg);
}

/* Before the dump */

static void make_object(struct object *o)
{
	size_t len = (size_t)o->pages * PAGE;

	if (o->kind != OBJ_ANON) {
		o->fd = memfd_create("oracle", 0);
		NEED(o->fd >= 0);
		NEED(!ftruncate(o->fd, (off_t)(o->tail ? len - PAGE + (size_t)o->tail : len)));
	}
	o->staging = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | (o->fd < 0 ? MAP_ANONYMOUS : 0), o->fd, 0);
	NEED(o->staging != MAP_FAILED);
}

static void make_objects(void)
{
	int i;

	for (i = 0; i < MAX_OBJECTS; i++)
		if (prog.objects[i].used)
			make_object(&prog.objects[i]);
	for (i = 0; i < prog.nr_data; i++) {
		const struct run *r = &prog.data[i];
		char *p = prog.objects[r->id].staging + (size_t)r->first * PAGE;

		fill_pages(p, r->nr, (uint64_t)(r->id * 100000 + r->first));
	}
	for (i = 0; i < MAX_OBJECTS; i++) {
		const struct object *o = &prog.objects[i];

		if (o->used && o->tail && !o->past)
			memset(o->staging + (size_t)(o->pages - 1) * PAGE + o->tail, 0, PAGE - (size_t)o->tail);
	}
}

/* Everybody who does not need the object as a whole any more */
static void leave_staging(void)
{
	int i;

	for (i = 0; i < MAX_OBJECTS; i++) {
		struct object *o = &prog.objects[i];

		if (!o->used)
			continue;
		NEED(!munmap(o->staging, (size_t)o->pages * PAGE));
		if (o->kind == OBJ_MEMFD) {
			close(o->fd);
			o->fd = -1;
		}
	}
}

static void make_mapping(const struct mapping *m)
{
	const struct object *o = &prog.objects[m->obj];
	char *to = slot_addr(m->slot, m->at), *from = o->staging + (size_t)m->pgoff * PAGE;
	size_t len = (size_t)m->nr * PAGE;

	if (o->kind == OBJ_ANON) {
		NEED(mremap(from, 0, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
		NEED(!mprotect(to, len, (int)m->prot));
	} else {
		NEED(mmap(to, len, (int)m->prot, (m->private ? MAP_PRIVATE : MAP_SHARED) | MAP_FIXED_NOREPLACE, o->fd,
			  m->pgoff * (off_t)PAGE) == to);
	}
}

static void __attribute__((noreturn)) be_process(int proc)
{
	int i, first = -1;
	pthread_t t;

	for (i = 0; i < prog.nr_maps; i++)
		if (prog.maps[i].proc == proc)
			make_mapping(&prog.maps[i]);
	leave_staging();
	for (i = 0; i < prog.nr_cow; i++) {
		const struct run *r = &prog.cow[i];

		if (r->id == proc)
			fill_pages(slot_addr(r->slot, r->first), r->nr, (uint64_t)(7000000 + r->slot * 1000 + r->first));
	}

	for (i = 0; i < MAX_ACTORS; i++) {
		if (prog.proc_of[i] != proc)
			continue;
		if (first < 0)
			first = i;
		else
			NEED(!pthread_create(&t, NULL, actor_thread, (void *)(intptr_t)i));
	}
	be_actor(first);
}

static int start_processes(void)
{
	int i, nr = 0;

	for (i = 0; i < MAX_ACTORS; i++) {
		int proc = prog.proc_of[i], j = 0;

		if (proc < 0)
			continue;
		nr++;
		while (prog.proc_of[j] != proc)
			j++;
		if (j < i)
			continue;

		pid_t pid = fork();

		NEED(pid >= 0);
		if (!pid)
			be_process(proc);
	}
	return nr;
}

/* The director */

static void note(const struct done *d)
{
	pids[d->actor] = d->pid;
}

static void open_pidfds(void)
{
	int i;

	for (i = 0; i < MAX_ACTORS; i++)
		if (pids[i] && pidfds[i] < 0)
			pidfds[i] = (int)syscall(SYS_pidfd_open, pids[i], 0);
}

static void __attribute__((noreturn)) finish(void)
{
	int i;

	for (i = 0; i < MAX_ACTORS; i++)
		if (pids[i])
			kill(pids[i], SIGKILL);
	exit(0);
}

/* Who must not be there after a step, by process */
static void expect_deaths(int step, bool *dies)
{
	int i, a;

	memset(dies, 0, MAX_ACTORS * sizeof(*dies));
	for (i = 0; i < prog.nr_ops; i++) {
		const struct op *op = &prog.ops[i];
		pid_t pid;

		if (op->step != step || op->via != VIA_SELF)
			continue;
		if (!strcmp(op->name, "exit") || !strcmp(op->name, "exec"))
			pid = pids[op->actor];
		else if (!strcmp(op->name, "kill"))
			pid = pids[op->arg[0]];
		else
			continue;
		for (a = 0; a < MAX_ACTORS; a++)
			dies[a] |= pids[a] && pids[a] == pid;
	}
}

/* The process that an actor was in is dead: was that to be expected? */
static void buried(int step, int actor, const bool *dies)
{
	if (!dies[actor]) {
		observe(step, actor, "died, and nobody had killed it");
		finish();
	}
	close(pidfds[actor]);
	pidfds[actor] = -1;
	pids[actor] = 0;
}

static bool any(const bool *flags)
{
	int i;

	for (i = 0; i < MAX_ACTORS; i++)
		if (flags[i])
			return true;
	return false;
}

/* Waits until all who are busy have said that they are done, or are dead if they are to die */
static void wait_for_all(int step, bool *busy, const bool *dies)
{
	struct pollfd p[MAX_ACTORS + 1];
	struct done d;
	int i;

	while (any(busy)) {
		for (i = 0; i < MAX_ACTORS; i++)
			p[i] = (struct pollfd){ .fd = pidfds[i], .events = POLLIN };
		p[MAX_ACTORS] = (struct pollfd){ .fd = done_pipe[0], .events = POLLIN };
		NEED(poll(p, MAX_ACTORS + 1, -1) > 0);

		if (p[MAX_ACTORS].revents) {
			NEED(read(done_pipe[0], &d, sizeof(d)) == sizeof(d));
			note(&d);
			if (!dies[d.actor])
				busy[d.actor] = false;
			continue; /* what was said before a death comes first */
		}
		for (i = 0; i < MAX_ACTORS; i++) {
			if (!p[i].revents)
				continue;
			buried(step, i, dies);
			busy[i] = false;
		}
	}
	open_pidfds();
}

static void wait_file(const char *file, bool there)
{
	while (!access(file, F_OK) != there)
		usleep(1000);
}

static void direct(int step, const bool *who)
{
	struct command c = { .step = step };
	bool busy[MAX_ACTORS], dies[MAX_ACTORS];
	int i;

	expect_deaths(step, dies);
	if (any(dies)) /* criu must have let go of them all, it does not expect one to be gone */
		wait_file(restored_file, true);
	memcpy(c.pids, pids, sizeof(pids));
	for (i = 0; i < MAX_ACTORS; i++)
		busy[i] = (who[i] && pids[i]) || dies[i];
	for (i = 0; i < prog.nr_ops; i++)
		if (prog.ops[i].step == step && !strcmp(prog.ops[i].name, "fork"))
			busy[prog.ops[i].arg[0]] = true;
	for (i = 0; i < MAX_ACTORS; i++)
		if (who[i] && pids[i])
			NEED(write(cmd_pipe[i][1], &c, sizeof(c)) == sizeof(c));
	wait_for_all(step, busy, dies);
}

static void direct_program(void)
{
	int i, step;

	for (step = 0; step < prog.nr_steps; step++) {
		bool who[MAX_ACTORS] = { 0 };
		struct timespec now;

		for (i = 0; i < prog.nr_ops; i++)
			if (prog.ops[i].step == step)
				who[prog.ops[i].actor] = true;
		clock_gettime(CLOCK_MONOTONIC, &now);
		observe(step, -2, "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
		direct(step, who);
	}
}

/* One of each process */
static void direct_look(int step)
{
	bool who[MAX_ACTORS];
	int i, j;

	for (i = 0; i < MAX_ACTORS; i++) {
		who[i] = pids[i];
		for (j = 0; j < i; j++)
			if (pids[j] == pids[i])
				who[i] = false;
	}
	direct(step, who);
}

static void make_pipes(void)
{
	int i;

	NEED(!pipe(done_pipe));
	for (i = 0; i < MAX_ACTORS; i++) {
		NEED(!pipe(cmd_pipe[i]));
		pidfds[i] = -1;
	}
}

int main(int argc, char **argv)
{
	struct done d;
	int nr;

	if (!strcmp(argv[0], "oracle-done"))
		return 0;
	if (argc != 6)
		return 2;
	program_read(argv[1]);
	log_file = argv[2];
	go_file = argv[3];
	restored_file = argv[4];

	catch_faults();
	make_pipes();
	make_objects();
	for (nr = start_processes(); nr; nr--) {
		NEED(read(done_pipe[0], &d, sizeof(d)) == sizeof(d));
		note(&d);
	}
	leave_staging();
	NEED(!mkdir(argv[5], 0700)); /* no file: it could be open when we are dumped */

	wait_file(go_file, true);
	open_pidfds();
	direct_program();
	direct_look(STEP_LOOK);
	observe(STEP_LOOK, -1, "looked");
	wait_file(go_file, false);
	direct_look(STEP_AGAIN);
	observe(STEP_AGAIN, -1, "end");
	finish();
}
