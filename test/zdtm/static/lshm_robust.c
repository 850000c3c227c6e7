// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Who holds robust mutexes dies right after the restore, without having touched them";
const char *test_author = "criu-lazy-shmem";

/*
 * The kernel tells of such a death by writing to the mutexes, and does not wait
 * for a page then. If one is missing, the next to lock waits forever.
 */

/* Each mutex has a slot of its own, so that no page comes along with another's */
#define SLOT 128 /* pages */

enum {
	THREADS,	/* held by a thread of this task */
	THREADS_TWO,	/* the same, but its words are on two pages */
	THREADS_PI,	/* the same, with priority inheritance */
	CHILDS,		/* held by a child, of which nobody waits for it */
	CHILDS_TWO,	/* the same, but its words are on two pages */
	CHILDS_AWAITED, /* held by a child, and another one waits for it */
	NR_MUTEXES,
};

static struct lshm m;
static sem_t locked;
static pid_t thread, holder, waiter;
/* Private memory comes by another way, with the same effect at exit */
static pthread_mutex_t *private;

static pthread_mutex_t *mutex(int slot)
{
	uint8_t *page = m.map + (slot + 1) * SLOT * PAGE_SIZE;

	/* The futex is the first word, the links are the last ones */
	if (slot == THREADS_TWO || slot == CHILDS_TWO)
		return (pthread_mutex_t *)(page + PAGE_SIZE - 16);
	return (pthread_mutex_t *)(page + 64);
}

static int make_mutex(pthread_mutex_t *mutex, int protocol)
{
	pthread_mutexattr_t attr;

	errno = pthread_mutexattr_init(&attr) ?: pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ?:
						 pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST)    ?:
						 pthread_mutexattr_setprotocol(&attr, protocol)		     ?:
													       pthread_mutex_init(mutex, &attr);
	if (errno)
		pr_perror("Can't make a mutex");
	return errno != 0;
}

static int make_mutexes(void)
{
	int i;

	for (i = 0; i < NR_MUTEXES; i++)
		if (make_mutex(mutex(i), i == THREADS_PI ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE))
			return 1;
	return make_mutex(private, PTHREAD_PRIO_NONE);
}

static int lock(pthread_mutex_t *mutex)
{
	errno = pthread_mutex_lock(mutex);
	if (errno)
		pr_perror("Can't lock");
	return errno != 0;
}

/* Not forever: a test has to end */
static int lock_of_the_dead(pthread_mutex_t *mutex, int slot)
{
	struct timespec limit;
	int error;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 10;
	error = pthread_mutex_timedlock(mutex, &limit);
	if (error != EOWNERDEAD) {
		fail("mutex %d: its owner's death shows as %d", slot, error);
		return 1;
	}
	errno = pthread_mutex_consistent(mutex) ?: pthread_mutex_unlock(mutex);
	if (errno)
		pr_perror("Can't unlock mutex %d", slot);
	return errno != 0;
}

/* It leaves without the C library, which would look at its mutexes */
static void *thread_main(void *arg)
{
	thread = syscall(SYS_gettid);
	if (lock(private) || lock(mutex(THREADS)) || lock(mutex(THREADS_TWO)) || lock(mutex(THREADS_PI)))
		return NULL;
	sem_post(&locked);

	lshm_wait_restored();
	lshm_wait_detached(getpid());
	syscall(SYS_exit, 0);
	return NULL;
}

static int start_thread(void)
{
	struct timespec limit;
	pthread_t id;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 10;
	errno = pthread_create(&id, NULL, thread_main, NULL);
	if (errno || sem_timedwait(&locked, &limit)) {
		pr_perror("Can't start the thread");
		return 1;
	}
	return 0;
}

static void wait_gone(pid_t tid)
{
	struct timespec step = { .tv_nsec = 100 * 1000 };

	while (!syscall(SYS_tgkill, getpid(), tid, 0))
		nanosleep(&step, NULL);
}

static int holder_locks(void *arg)
{
	return lock(mutex(CHILDS)) || lock(mutex(CHILDS_TWO)) || lock(mutex(CHILDS_AWAITED));
}

static int holder_main(void *arg)
{
	pause();
	return 1;
}

static int waiter_main(void *arg)
{
	return lock_of_the_dead(mutex(CHILDS_AWAITED), CHILDS_AWAITED);
}

static int is_awaited(int slot)
{
	return __atomic_load_n((unsigned int *)mutex(slot), __ATOMIC_SEQ_CST) & FUTEX_WAITERS;
}

static int kill_holder(void)
{
	struct timespec step = { .tv_nsec = 100 * 1000 };
	int status;

	while (!is_awaited(CHILDS_AWAITED)) {
		if (waitpid(waiter, &status, WNOHANG)) {
			fail("the waiter ended with %#x before there was a death", status);
			return 1;
		}
		nanosleep(&step, NULL);
	}
	lshm_wait_detached(holder);
	kill(holder, SIGKILL);
	if (TEMP_FAILURE_RETRY(waitpid(holder, &status, 0)) != holder || !WIFSIGNALED(status)) {
		pr_perror("Can't kill the holder");
		return 1;
	}
	return 0;
}

/* The rest of the pages that mutexes are on, and all other pages */
static int check_around(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++) {
		unsigned long slot = i / SLOT;

		if (slot >= 1 && slot <= NR_MUTEXES && i % SLOT <= 1) {
			if (lshm_check_bytes(m.map + i * PAGE_SIZE, m.seed, i, 128, PAGE_SIZE - 128))
				return 1;
		} else if (lshm_check_page(&m, i)) {
			return 1;
		}
	}
	return 0;
}

/* In the last page, which is the last to come */
static int make_private(void)
{
	uint8_t *map;

	map = mmap(NULL, 64 * MiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED) {
		pr_perror("Can't map private memory");
		return 1;
	}
	memset(map, 1, 64 * MiB);
	private = (pthread_mutex_t *)(map + 64 * MiB - PAGE_SIZE);
	return 0;
}

int lshm_setup(void)
{
	if (lshm_map_anon(&m, 64 * MiB) || sem_init(&locked, 0, 0))
		return 1;
	if (make_private() || make_mutexes())
		return 1;
	holder = lshm_fork_task(holder_locks, holder_main, NULL);
	waiter = lshm_fork_task(NULL, waiter_main, NULL);
	return holder < 0 || waiter < 0 || start_thread();
}

int lshm_run(void)
{
	int ret;

	wait_gone(thread);
	ret = lock_of_the_dead(mutex(THREADS), THREADS) || lock_of_the_dead(mutex(THREADS_TWO), THREADS_TWO) ||
	      lock_of_the_dead(mutex(THREADS_PI), THREADS_PI) || lock_of_the_dead(private, -1);
	if (kill_holder())
		return 1;
	ret |= lock_of_the_dead(mutex(CHILDS), CHILDS) || lock_of_the_dead(mutex(CHILDS_TWO), CHILDS_TWO);
	ret |= lshm_reap(waiter);

	return ret || check_around();
}
