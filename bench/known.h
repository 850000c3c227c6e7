/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef BENCH_KNOWN_H
#define BENCH_KNOWN_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What holder.c and mapper.c share: contents that are known, and what they say of them */

#define WORD_SEED 0x9e3779b97f4a7c15UL

static const char *report_file;

/* "WHAT pid=P", and if there is a result " wrong=N" */
static void report(const char *what, long wrong)
{
	char line[96];
	int fd, len;

	len = wrong < 0 ? snprintf(line, sizeof(line), "%s pid=%d\n", what, getpid()) :
			  snprintf(line, sizeof(line), "%s pid=%d wrong=%ld\n", what, getpid(), wrong);
	fd = open(report_file, O_WRONLY | O_APPEND | O_CREAT, 0644);
	if (fd < 0 || write(fd, line, (size_t)len) != len)
		exit(1);
	close(fd);
}

/* The one at index i of an object */
static uint64_t word(unsigned int object, uint64_t i)
{
	uint64_t x = (i + 1) * WORD_SEED + object;

	return (x ^ (x >> 29)) | 1;
}

/* Forks all tasks but the first, which is the caller; run() does not return. Or the exit status. */
static int run_tasks(unsigned int nr, void (*run)(unsigned int task))
{
	unsigned int i;

	for (i = 1; i < nr; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (!pid)
			run(i);
	}
	run(0);
	return 1;
}

#endif
