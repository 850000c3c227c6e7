/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef ORACLE_PROGRAM_H
#define ORACLE_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE 4096UL

/* What a program can have at most; oracle.py keeps below that */
#define MAX_OBJECTS 8
#define MAX_ACTORS  16
#define MAX_SLOTS   128
#define MAX_STEPS   512
#define MAX_OPS	    1024
#define MAX_LINES   256 /* of each other kind */
#define MAX_ARGS    6

/* Who does an op: the actor, or a process that shares its memory */
enum via { VIA_SELF,
	   VIA_VFORK,
	   VIA_CLONE };

struct op;
typedef void (*op_fn)(const struct op *op);

struct op {
	int step, actor;
	enum via via;
	const char *name;
	op_fn fn;
	long arg[MAX_ARGS];
};

enum object_kind { OBJ_ANON,
		   OBJ_MEMFD,
		   OBJ_FD };

struct object {
	bool used;
	enum object_kind kind;
	long pages;
	long tail;     /* bytes in the last page, 0 for all */
	long past;     /* something was stored in the rest of it */
	char *staging; /* all of it, mapped until the processes have their own mappings */
	int fd;
};

/* A run of an object's pages that have contents; in a mapping, that were copied */
struct run {
	long id, slot, first, nr;
};

struct mapping {
	long proc, slot, obj, pgoff, nr, private, prot;
	long at; /* page of the slot where it begins */
};

/* Everything that happens, as read from the file; nobody changes it later */
struct program {
	struct object objects[MAX_OBJECTS];
	struct run data[MAX_LINES], cow[MAX_LINES];
	struct mapping maps[MAX_LINES];
	struct op ops[MAX_OPS];
	int nr_data, nr_cow, nr_maps, nr_ops, nr_steps;
	int proc_of[MAX_ACTORS];    /* before any fork; -1: is not there yet */
	long slot_pages[MAX_SLOTS]; /* that are ever mapped, or looked at */
};

extern struct program prog;

void program_read(const char *file);

/* ops.c */
op_fn op_find(const char *name);
void do_op(const struct op *op);
void look_at_all(int step, int actor);
void catch_faults(void);
char *slot_addr(long slot, long page);
void fill_pages(char *p, long nr, uint64_t seed);

/* oracle.c */
struct command {
	int step;
	pid_t pids[MAX_ACTORS];
};

#define STEP_READY -1
#define STEP_LOOK  1000 /* all actors look at all that they map */
#define STEP_AGAIN 1001

void observe(int step, int actor, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
pid_t pid_of(long actor);
void be_actor(int actor) __attribute__((noreturn));
void need(bool ok, const char *what);

#define NEED(call) need(call, #call)

#endif
