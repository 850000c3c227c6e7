// SPDX-License-Identifier: GPL-2.0-only
/*
 * What bench/transfer.py compares with: one process sends a shared object from its
 * mapping with send(), another one receives it and writes it into a memfd with pwrite(),
 * 1 MiB at a time.
 *
 *   transfer receive PORT MIB     prints "listening", then the seconds it took
 *   transfer send ADDRESS PORT MIB
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MiB (1UL << 20)

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	exit(1);
}

static int receive(int port, size_t size)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int sk = socket(AF_INET, SOCK_STREAM, 0), one = 1, fd = memfd_create("transfer", 0);
	struct timespec from, to;
	char *buf = malloc(MiB);
	size_t at = 0;
	ssize_t n;

	if (sk < 0 || fd < 0 || !buf || ftruncate(fd, (off_t)size) ||
	    setsockopt(sk, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(sk, (struct sockaddr *)&in, sizeof(in)) || listen(sk, 1))
		die("receive");
	printf("listening\n");
	fflush(stdout);
	sk = accept(sk, NULL, NULL);
	if (sk < 0)
		die("accept");
	clock_gettime(CLOCK_MONOTONIC, &from);
	while (at < size) {
		n = recv(sk, buf, MiB, 0);
		if (n <= 0 || pwrite(fd, buf, (size_t)n, (off_t)at) != n)
			die("recv, pwrite");
		at += (size_t)n;
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%f\n", (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
	return 0;
}

static int send_all(const char *address, int port, size_t size)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int sk = socket(AF_INET, SOCK_STREAM, 0);
	size_t at = 0;
	ssize_t n;

	if (p == MAP_FAILED || sk < 0 || inet_pton(AF_INET, address, &in.sin_addr) != 1)
		die("send");
	memset(p, 0x5a, size);
	if (connect(sk, (struct sockaddr *)&in, sizeof(in)))
		die("connect");
	while (at < size) {
		n = send(sk, p + at, size - at < MiB ? size - at : MiB, 0);
		if (n < 0)
			die("send");
		at += (size_t)n;
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "receive"))
		return receive(atoi(argv[2]), strtoul(argv[3], NULL, 10) * MiB);
	if (argc == 5 && !strcmp(argv[1], "send"))
		return send_all(argv[2], atoi(argv[3]), strtoul(argv[4], NULL, 10) * MiB);
	fprintf(stderr, "usage: transfer receive PORT MIB | send ADDRESS PORT MIB\n");
	return 2;
}
