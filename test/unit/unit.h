/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef UNIT_H
#define UNIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/*
 * A small test harness.
 *
 *   TEST(name) { CHECK_EQ(1 + 1, 2); }
 *
 * Each test runs in a process of its own and fails if a CHECK does not hold, in
 * that process or in any it has made, if it dies, or if it is not done in time.
 * It belongs to the module that its file is named for: test_MODULE.c.
 *
 * TEST_NS(name) runs as process 1 of a new PID namespace with its own /proc:
 * whatever it starts is gone when it ends, orphans become its children, and
 * code under test that kills can kill no one else.
 */
#define TEST(name)    UNIT_TEST(name, 0)
#define TEST_NS(name) UNIT_TEST(name, UNIT_NS)

#define UNIT_NS	     1
#define UNIT_TIMEOUT 20 /* seconds */

/*
 * All CHECKs work in threads and in child processes as well; if they do not
 * hold they end the process.
 */
#define CHECK(cond) \
	((cond) ? (void)0 : unit_failed(__FILE__, __LINE__, "%s", #cond))

#define CHECK_EQ(a, b) \
	unit_check_eq(__FILE__, __LINE__, #a, #b, (intmax_t)(a), (intmax_t)(b))

/* The value of a system call, which must not be -1 */
#define CHECK_SYS(call) unit_check_sys(__FILE__, __LINE__, #call, (intmax_t)(call))

/* Waits until cond holds */
#define WAIT_FOR(cond)                                                                   \
	do {                                                                             \
		int left_ = 5000;                                                        \
		while (!(cond)) {                                                        \
			if (!left_--)                                                    \
				unit_failed(__FILE__, __LINE__, "waited for %s", #cond); \
			unit_sleep_ms(1);                                                \
		}                                                                        \
	} while (0)

/* Ends the test as one that can not run here */
void unit_skip(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Appended to the reason if the test fails, and printed to its log */
void unit_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* UNIT_SEED from the environment or a new one; noted */
unsigned int unit_seed(void);

/* What the code under test has logged so far, all processes together */
const char *unit_log(void);

/*
 * Waits for one of what the code under test has given to epoll_add_rfd(), and
 * calls for it what CRIU's event loop would. What that returned.
 */
int unit_handle_event(int epfd, int ms);
#define UNIT_NO_EVENT 1000 /* in that time */

/* Zeroed memory that child processes share */
void *unit_shared_alloc(size_t size);

/* Makes the nth reallocarray() from now on fail; 0: none */
void unit_fail_realloc(unsigned int nth);

/* How many descriptors this process has open */
int unit_count_fds(void);

void unit_sleep_ms(unsigned int ms);

/* A memfd with room for nr huge pages of 2 MiB, which this machine must have free: else the test is skipped */
int unit_huge_memfd(unsigned long nr);

/* Behind the macros */

struct unit_test {
	const char *file, *name;
	void (*run)(void);
	unsigned int flags;
	struct unit_test *next;
};

void unit_register(struct unit_test *test);
void unit_failed(const char *file, int line, const char *fmt, ...) __attribute__((noreturn, format(printf, 3, 4)));
void unit_check_eq(const char *file, int line, const char *a, const char *b, intmax_t va, intmax_t vb);
intmax_t unit_check_sys(const char *file, int line, const char *call, intmax_t ret);

#define UNIT_TEST(test_name, test_flags)                                    \
	static void test_##test_name(void);                                 \
	static void __attribute__((constructor)) register_##test_name(void) \
	{                                                                   \
		static struct unit_test t = {                               \
			.file = __FILE__,                                   \
			.name = #test_name,                                 \
			.run = test_##test_name,                            \
			.flags = test_flags,                                \
		};                                                          \
		unit_register(&t);                                          \
	}                                                                   \
	static void test_##test_name(void)

#endif
