// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds memfds whose descriptors stay open, which is why they can not be restored
 * lazily; the word at each offset is known from a seed.
 *
 *   holder REPORT OBJECTS MIB TASKS
 *
 * Each of TASKS processes has its share of OBJECTS objects of MIB MiB. "ready
 * pid=P" is appended to REPORT by each; upon SIGUSR1 "checked pid=P wrong=N",
 * after all of its objects were read through their descriptors and mappings.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "known.h"

#define MAX_OBJECTS 256

static struct {
	int fd;
	uint64_t *mem;
} held[MAX_OBJECTS];

static unsigned int nr_objects, nr_tasks;
static uint64_t size;

static void make(unsigned int object)
{
	uint64_t i;

	held[object].fd = memfd_create("held", MFD_CLOEXEC);
	if (held[object].fd < 0 || ftruncate(held[object].fd, (off_t)size))
		exit(1);
	held[object].mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, held[object].fd, 0);
	if (held[object].mem == MAP_FAILED)
		exit(1);
	for (i = 0; i < size / sizeof(uint64_t); i++)
		held[object].mem[i] = word(object, i);
}

static long check(unsigned int object)
{
	static uint64_t buf[8192];
	uint64_t off, i;
	long wrong = 0;

	for (off = 0; off < size; off += sizeof(buf)) {
		if (pread(held[object].fd, buf, sizeof(buf), (off_t)off) != sizeof(buf))
			return -1;
		for (i = 0; i < sizeof(buf) / sizeof(buf[0]); i++) {
			uint64_t at = off / sizeof(uint64_t) + i;

			wrong += buf[i] != word(object, at) || held[object].mem[at] != buf[i];
		}
	}
	return wrong;
}

static void hold(unsigned int task)
{
	sigset_t set;
	unsigned int i;
	int sig;

	prctl(PR_SET_PDEATHSIG, 0);
	for (i = task; i < nr_objects; i += nr_tasks)
		make(i);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	report("ready", -1);
	while (!sigwait(&set, &sig)) {
		long wrong = 0;

		for (i = task; i < nr_objects; i += nr_tasks)
			wrong += check(i);
		report("checked", wrong);
	}
	exit(1);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	report_file = argv[1];
	nr_objects = (unsigned int)atoi(argv[2]);
	size = strtoul(argv[3], NULL, 10) << 20;
	nr_tasks = (unsigned int)atoi(argv[4]);
	if (!nr_objects || nr_objects > MAX_OBJECTS || !size || !nr_tasks || nr_tasks > nr_objects)
		return 2;

	return run_tasks(nr_tasks, hold);
}
