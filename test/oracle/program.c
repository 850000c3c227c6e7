// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

struct program prog;

static void wrong_line(const char *line)
{
	fprintf(stderr, "oracle: this line is not understood: %s\n", line);
	exit(2);
}

static void need_room(bool there_is, const char *line)
{
	if (!there_is)
		wrong_line(line);
}

/* obj ID anon|memfd|fd PAGES TAIL PAST */
static bool object_line(const char *line)
{
	struct object o = { .used = true, .fd = -1 };
	char kind[16];
	long id;

	if (sscanf(line, "obj %ld %15s %ld %ld %ld", &id, kind, &o.pages, &o.tail, &o.past) != 5)
		return false;
	need_room(id >= 0 && id < MAX_OBJECTS, line);
	o.kind = !strcmp(kind, "anon") ? OBJ_ANON : !strcmp(kind, "memfd") ? OBJ_MEMFD :
									     OBJ_FD;
	prog.objects[id] = o;
	return true;
}

/* proc PROC ACTOR... */
static bool proc_line(const char *line)
{
	int n, actor, proc;

	if (sscanf(line, "proc %d%n", &proc, &n) != 1)
		return false;
	for (line += n; sscanf(line, "%d%n", &actor, &n) == 1; line += n) {
		need_room(actor >= 0 && actor < MAX_ACTORS, line);
		prog.proc_of[actor] = proc;
	}
	return true;
}

/* data OBJ FIRST NR */
static bool data_line(const char *line)
{
	struct run r = { 0 };

	if (sscanf(line, "data %ld %ld %ld", &r.id, &r.first, &r.nr) != 3)
		return false;
	need_room(prog.nr_data < MAX_LINES, line);
	prog.data[prog.nr_data++] = r;
	return true;
}

/* cow PROC SLOT FIRST NR */
static bool cow_line(const char *line)
{
	struct run r;

	if (sscanf(line, "cow %ld %ld %ld %ld", &r.id, &r.slot, &r.first, &r.nr) != 4)
		return false;
	need_room(prog.nr_cow < MAX_LINES, line);
	prog.cow[prog.nr_cow++] = r;
	return true;
}

/* map PROC SLOT OBJ PGOFF NR PRIVATE PROT AT */
static bool map_line(const char *line)
{
	struct mapping m;

	if (sscanf(line, "map %ld %ld %ld %ld %ld %ld %ld %ld", &m.proc, &m.slot, &m.obj, &m.pgoff, &m.nr, &m.private,
		   &m.prot, &m.at) != 8)
		return false;
	need_room(prog.nr_maps < MAX_LINES && m.slot >= 0 && m.slot < MAX_SLOTS, line);
	prog.maps[prog.nr_maps++] = m;
	return true;
}

/* slot SLOT PAGES */
static bool slot_line(const char *line)
{
	long slot, pages;

	if (sscanf(line, "slot %ld %ld", &slot, &pages) != 2)
		return false;
	need_room(slot >= 0 && slot < MAX_SLOTS, line);
	prog.slot_pages[slot] = pages;
	return true;
}

/* op ACTOR self|vfork|clone NAME ARG... */
static bool op_line(const char *line)
{
	struct op op = { .step = prog.nr_steps - 1 };
	char via[16], name[16];
	int n, i;

	if (sscanf(line, "op %d %15s %15s%n", &op.actor, via, name, &n) != 3)
		return false;
	op.via = !strcmp(via, "vfork") ? VIA_VFORK : !strcmp(via, "clone") ? VIA_CLONE :
									     VIA_SELF;
	op.name = strdup(name);
	op.fn = op_find(name);
	need_room(op.fn && op.actor >= 0 && op.actor < MAX_ACTORS && prog.nr_ops < MAX_OPS && op.step >= 0, line);
	line += n;
	for (i = 0; i < MAX_ARGS && sscanf(line, "%ld%n", &op.arg[i], &n) == 1; i++)
		line += n;
	prog.ops[prog.nr_ops++] = op;
	return true;
}

static bool step_line(const char *line)
{
	if (strncmp(line, "step", 4))
		return false;
	need_room(prog.nr_steps < MAX_STEPS, line);
	prog.nr_steps++;
	return true;
}

/* What the runner needs only */
static bool other_line(const char *line)
{
	return line[0] == '#' || line[0] == '\n' || !strncmp(line, "disk ", 5);
}

void program_read(const char *file)
{
	static bool (*const lines[])(const char *) = { object_line, proc_line, data_line, cow_line, map_line,
						       slot_line, op_line, step_line, other_line };
	FILE *f = fopen(file, "re");
	char line[256];
	size_t i;

	if (!f) {
		perror(file);
		exit(2);
	}
	for (i = 0; i < MAX_ACTORS; i++)
		prog.proc_of[i] = -1;
	while (fgets(line, sizeof(line), f)) {
		for (i = 0; i < sizeof(lines) / sizeof(lines[0]) && !lines[i](line); i++)
			;
		if (i == sizeof(lines) / sizeof(lines[0]))
			wrong_line(line);
	}
	fclose(f);
}
