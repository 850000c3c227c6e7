/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of minor faults share: the interface under test, verdicts,
 * and objects with a mapping that is registered and a door that is not.
 */
#ifndef KERNEL_TEST_MINOR_H
#define KERNEL_TEST_MINOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <sys/mman.h>
#include <linux/userfaultfd.h>

/* The headers of Linux 5.10 know nothing of minor faults. */
#ifndef UFFD_FEATURE_MINOR_HUGETLBFS
#define UFFD_FEATURE_MINOR_HUGETLBFS (1 << 9)
#endif
#ifndef UFFD_FEATURE_MINOR_SHMEM
#define UFFD_FEATURE_MINOR_SHMEM (1 << 10)
#endif
#ifndef UFFDIO_REGISTER_MODE_MINOR
#define UFFDIO_REGISTER_MODE_MINOR ((__u64)1 << 2)
#endif
#ifndef UFFD_PAGEFAULT_FLAG_MINOR
#define UFFD_PAGEFAULT_FLAG_MINOR (1 << 2)
#endif
#ifndef UFFDIO_CONTINUE
#define _UFFDIO_CONTINUE	      (0x07)
#define UFFDIO_CONTINUE_MODE_DONTWAKE ((__u64)1 << 0)
struct uffdio_continue {
	struct uffdio_range range;
	__u64 mode;
	__s64 mapped;
};
#define UFFDIO_CONTINUE _IOWR(UFFDIO, _UFFDIO_CONTINUE, struct uffdio_continue)
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define MINOR	UFFDIO_REGISTER_MODE_MINOR
#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define BOTH	(MISSING | MINOR)

/* The flags of an event. */
#define F_MINOR UFFD_PAGEFAULT_FLAG_MINOR
#define F_WRITE UFFD_PAGEFAULT_FLAG_WRITE

#define PAGE 4096UL
#define HUGE (2UL << 20)

/* No ioctl writes this to 'mapped': it tells that nothing was written. */
#define UNTOUCHED 0x5a5a5a5a5a5aL

/*
 * A test is a function; what it needs of the machine the runner provides
 * before and takes back after it, or else skips the test with the reason.
 */
enum {
	NEEDS_SWAP = 1,	  /* a swap area */
	NEEDS_HUGE = 2,	  /* HUGE_PAGES free pages for hugetlb */
	NEEDS_THP = 4,	  /* huge pages in shmem where they are advised */
	WHERE_ABSENT = 8, /* for kernels without minor faults, and only those */
	EVERYWHERE = 16,  /* for kernels with and without */
};
#define HUGE_PAGES 8

struct test {
	const char *name;
	void (*run)(void);
	int flags;
	struct test *next;
};

void test_add(struct test *t);

#define TEST(id, what)                                                            \
	static void id(void);                                                     \
	static struct test test_##id = { .name = #id, .run = id, .flags = what }; \
	__attribute__((constructor)) static void add_##id(void)                   \
	{                                                                         \
		test_add(&test_##id);                                             \
	}                                                                         \
	static void id(void)

/* Milliseconds that a race goes on for; what is waited for comes sooner than in wait_ms. */
extern int race_ms;
extern int wait_ms;

/* The end of a test, from whichever thread or process of it. */
__attribute__((noreturn, format(printf, 3, 4))) void fail_at(const char *file, int line, const char *fmt, ...);
__attribute__((noreturn, format(printf, 1, 2))) void skip(const char *fmt, ...);

#define flunk(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define check(cond, ...)                    \
	do {                                \
		if (!(cond))                \
			flunk(__VA_ARGS__); \
	} while (0)
#define must(cond) check(cond, "%s: errno %d", #cond, errno)
#define eq(expr, want)                                                                                           \
	do {                                                                                                     \
		long long _got = (expr), _want = (want);                                                         \
		check(_got == _want, "%s is %lld (0x%llx), not %lld (0x%llx)", #expr, _got, _got, _want, _want); \
	} while (0)

/*
 * The interface: each returns 0 or -errno. 'mapped' and 'copied' hold
 * UNTOUCHED if the kernel wrote nothing there.
 */
int uffd_bare(void);
int uffd_api(int uffd, uint64_t features, uint64_t *offered);
int uffd_open(uint64_t features);
uint64_t features_offered(void);
int uffd_register(int uffd, void *addr, size_t len, uint64_t mode, uint64_t *ioctls);
int uffd_unregister(int uffd, void *addr, size_t len);
int uffd_wake(int uffd, void *addr, size_t len);
int uffd_continue(int uffd, void *addr, size_t len, uint64_t mode, int64_t *mapped);
int uffd_copy(int uffd, void *dst, const void *src, size_t len, int64_t *copied);
int uffd_zeropage(int uffd, void *addr, size_t len, int64_t *zeroed);

/* CONTINUE of the whole range: ends the test if it is anything but that. */
#define must_continue(uffd, addr, len)                              \
	do {                                                        \
		int64_t _mapped;                                    \
		eq(uffd_continue(uffd, addr, len, 0, &_mapped), 0); \
		eq(_mapped, (int64_t)(len));                        \
	} while (0)
/* CONTINUE that does nothing, and says why in both places. */
#define continue_fails(uffd, addr, len, error)                             \
	do {                                                               \
		int64_t _mapped;                                           \
		eq(uffd_continue(uffd, addr, len, 0, &_mapped), -(error)); \
		eq(_mapped, -(error));                                     \
	} while (0)

/* Events. */
void next_msg(int uffd, struct uffd_msg *msg);
void expect_fault(int uffd, const void *addr, uint64_t flags);
void expect_event(int uffd, int event, struct uffd_msg *msg);
void no_event(int uffd);
void await_event(int uffd);
/* Threads that wait in a fault, whether their event was read or not. */
int waiters(int uffd);

/* A thread that reads or writes one byte. */
struct toucher;
enum { READ = -1 };
struct toucher *touch_start(void *addr, int value);
bool touch_done(struct toucher *t);
int touch_join(struct toucher *t);
/* The access raises no event. Returns what was read. */
int touch_native(int uffd, void *addr, int value);
/* The access raises one minor event, which CONTINUE of the page resolves. */
int touch_continue(int uffd, void *addr, int value);
/* What an access comes to where it may be SIGBUS: then -1. */
int touch_or_bus(void *addr, int value);

/* A call in a thread of its own. */
struct caller;
struct caller *call_start(long (*fn)(void *), void *arg);
bool call_done(struct caller *c);
long call_join(struct caller *c);

/* An object, its mapping that is registered, and the door, which never is. */
enum kind { MEMFD_SHARED,
	    MEMFD_PRIVATE,
	    ANON_SHARED,
	    KINDS };
extern const char *kind_name[];

struct area {
	enum kind kind;
	int fd; /* -1: the object is anonymous */
	int uffd;
	size_t pages, len;
	char *mem;
	char *door;
};

void area_make(struct area *a, enum kind kind, size_t pages, int prot);
void area_register(struct area *a, uint64_t features, uint64_t mode);
/* Both, for reading and writing, with nothing but faults to be told. */
void area_ready(struct area *a, enum kind kind, size_t pages, uint64_t mode);
char *at(struct area *a, size_t page);
char *door_at(struct area *a, size_t page);
/* Write the pattern of a generation through the door. */
void fill(struct area *a, size_t page, size_t count, int gen);
void fill_page(char *mem, size_t page, int gen);
/* Does mem hold the pattern of that page? Generation 0 is zeros. */
bool page_is(const char *mem, size_t page, int gen);
void page_has(const char *mem, size_t page, int gen);
void punch(struct area *a, size_t page, size_t count);

/* What the kernel tells of memory. */
bool is_mapped(const void *addr);
bool is_soft_dirty(const void *addr);
bool has_soft_dirty(void);
bool has_flag(const void *addr, const char *flag);
long smaps_kb(const void *addr, const char *field);
long file_kb(const char *path, const char *field);
long blocks(int fd);
bool file_has(const char *path, const char *word);
/* Write the page out to swap through the door and see it gone. */
void page_out(struct area *a, size_t page, size_t count);

long now_ms(void);
void nap(void);
bool put_string(const char *path, const char *text);

#endif
