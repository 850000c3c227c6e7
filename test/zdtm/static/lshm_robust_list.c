// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Robust lists whose words are all over shared memory, or nonsense; threads that die with them";
const char *test_author = "criu-lazy-shmem";

#define SLOT 128 /* pages: what is in one does not come along with another's */
#define USED 24	 /* bytes of a slot, at the beginning of its first page */

/* Slots, one word or head in each. Futexes are so many bytes behind their entries */
#define OFFSET (16L * SLOT * PAGE_SIZE)
enum {
	HEAD = 1,
	FIRST,
	SECOND,
	PENDING,
	TID,
	CYCLE_HEAD,
	CYCLE,
	NOWHERE_HEAD,
	NOWHERE,
	FUTEXES = 16,
};

static struct lshm m;
static sem_t ready;
static pid_t owner;

static void *in_slot(int slot)
{
	return m.map + slot * SLOT * PAGE_SIZE;
}

static uint32_t *futex_of(int slot)
{
	return in_slot(slot + FUTEXES);
}

static struct robust_list_head *make_head(int slot, void *first, void *pending)
{
	struct robust_list_head *head = in_slot(slot);

	head->list.next = first;
	head->futex_offset = OFFSET;
	head->list_op_pending = pending;
	return head;
}

static void link_to(int slot, void *next)
{
	((struct robust_list *)in_slot(slot))->next = next;
}

/* The head, two entries, one about to be made, and a thread id, each in a slot of its own */
static struct robust_list_head *make_list(uint32_t tid)
{
	struct robust_list_head *head = make_head(HEAD, in_slot(FIRST), in_slot(PENDING));

	link_to(FIRST, in_slot(SECOND));
	link_to(SECOND, head);
	*futex_of(FIRST) = tid;
	*futex_of(SECOND) = tid | FUTEX_WAITERS;
	*futex_of(PENDING) = tid;
	*(uint32_t *)in_slot(TID) = tid;
	return head;
}

static int use_list(void *head)
{
	if (syscall(SYS_set_robust_list, head, sizeof(struct robust_list_head))) {
		pr_perror("Can't set the robust list");
		return 1;
	}
	sem_post(&ready);
	lshm_wait_restored();
	return 0;
}

static void *owner_main(void *arg)
{
	owner = syscall(SYS_gettid);
	syscall(SYS_set_tid_address, in_slot(TID));
	if (use_list(make_list(owner)))
		return NULL;
	lshm_wait_detached(getpid());
	syscall(SYS_exit, 0);
	return NULL;
}

/* Lists as no thread should have them. They have to survive the restore, as they are */
static int broken_main(unsigned int idx)
{
	struct robust_list_head *head, *seen;
	size_t len;

	switch (idx) {
	case 0:
		head = (void *)8;
		break;
	case 1:
		head = make_head(CYCLE_HEAD, in_slot(CYCLE), (void *)16);
		link_to(CYCLE, in_slot(CYCLE));
		break;
	default:
		head = make_head(NOWHERE_HEAD, in_slot(NOWHERE), NULL);
		link_to(NOWHERE, (void *)-4096L);
	}
	if (use_list(head))
		return 1;

	if (syscall(SYS_get_robust_list, 0, &seen, &len) || seen != head || len != sizeof(*head)) {
		fail("thread %u has another list: %p, not %p", idx, seen, head);
		return 1;
	}
	return 0;
}

static void *broken_thread(void *arg)
{
	return (void *)(long)broken_main((unsigned long)arg);
}

#define NR_BROKEN 3
static pthread_t broken[NR_BROKEN];

static int start(pthread_t *id, void *(*fn)(void *arg), unsigned long arg)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 10;
	errno = pthread_create(id, NULL, fn, (void *)arg);
	if (errno || sem_timedwait(&ready, &limit)) {
		pr_perror("Can't start a thread");
		return 1;
	}
	return 0;
}

static int join_broken(void)
{
	int i, ret = 0;
	void *res;

	for (i = 0; i < NR_BROKEN; i++) {
		errno = pthread_join(broken[i], &res);
		if (errno) {
			pr_perror("Can't join a thread");
			return 1;
		}
		ret |= res != NULL;
	}
	return ret;
}

static int check_futex(const char *what, const uint32_t *futex, uint32_t want)
{
	uint32_t got = __atomic_load_n(futex, __ATOMIC_SEQ_CST);

	if (got != want)
		fail("%s is %#x, not %#x", what, got, want);
	return got != want;
}

/* What the kernel has to have written when the owner died */
static int check_death(void)
{
	struct timespec step = { .tv_nsec = 100 * 1000 };

	while (!syscall(SYS_tgkill, getpid(), owner, 0))
		nanosleep(&step, NULL);

	return check_futex("the first futex", futex_of(FIRST), FUTEX_OWNER_DIED) |
	       check_futex("the second futex", futex_of(SECOND), FUTEX_WAITERS | FUTEX_OWNER_DIED) |
	       check_futex("the pending futex", futex_of(PENDING), FUTEX_OWNER_DIED) |
	       check_futex("the thread id", in_slot(TID), 0);
}

static int check_around(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++)
		if (lshm_check_bytes(m.map + i * PAGE_SIZE, m.seed, i, i % SLOT ? 0 : USED, PAGE_SIZE))
			return 1;
	return 0;
}

int lshm_setup(void)
{
	unsigned long i;
	pthread_t id;

	if (lshm_map_anon(&m, 64 * MiB) || sem_init(&ready, 0, 0) || start(&id, owner_main, 0))
		return 1;
	for (i = 0; i < NR_BROKEN; i++)
		if (start(&broken[i], broken_thread, i))
			return 1;
	return 0;
}

int lshm_run(void)
{
	return check_death() | join_broken() || check_around();
}
