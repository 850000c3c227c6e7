// SPDX-License-Identifier: GPL-2.0-only
/*
 * Maps shared memory and keeps no descriptor of it, which is the kind that can be restored
 * lazily; the word at each offset is known from a seed.
 *
 *   mapper REPORT TASKS COMMON KIB OWN KIB
 *
 * COMMON objects of KIB KiB are mapped by all of TASKS processes, and OWN objects of KIB KiB
 * by each of them alone. "ready pid=P" is appended to REPORT by each; upon SIGUSR1
 * "checked pid=P wrong=N", after all of its words were read.
 */
#include <signal.h>
#include <sys/mman.h>

#include "known.h"

#define MAX_OBJECTS 1024

struct objects {
	unsigned int nr;
	uint64_t size;
	uint64_t *mem[MAX_OBJECTS];
};

static struct objects common, own;

static void make(struct objects *o, unsigned int seed)
{
	unsigned int n;
	uint64_t i;

	for (n = 0; n < o->nr; n++) {
		o->mem[n] = mmap(NULL, o->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (o->mem[n] == MAP_FAILED)
			exit(1);
		for (i = 0; i < o->size / sizeof(uint64_t); i++)
			o->mem[n][i] = word(seed + n, i);
	}
}

static long check(const struct objects *o, unsigned int seed)
{
	unsigned int n;
	long wrong = 0;
	uint64_t i;

	for (n = 0; n < o->nr; n++)
		for (i = 0; i < o->size / sizeof(uint64_t); i++)
			wrong += o->mem[n][i] != word(seed + n, i);
	return wrong;
}

static void hold(unsigned int task)
{
	unsigned int seed = (task + 1) * MAX_OBJECTS;
	sigset_t set;
	int sig;

	make(&own, seed);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	report("ready", -1);
	while (!sigwait(&set, &sig))
		report("checked", check(&common, 0) + check(&own, seed));
	exit(1);
}

int main(int argc, char **argv)
{
	unsigned int tasks;

	if (argc != 7)
		return 2;
	report_file = argv[1];
	tasks = (unsigned int)atoi(argv[2]);
	common.nr = (unsigned int)atoi(argv[3]);
	common.size = strtoul(argv[4], NULL, 10) << 10;
	own.nr = (unsigned int)atoi(argv[5]);
	own.size = strtoul(argv[6], NULL, 10) << 10;
	if (!tasks || common.nr > MAX_OBJECTS || own.nr > MAX_OBJECTS)
		return 2;

	make(&common, 0);
	return run_tasks(tasks, hold);
}
