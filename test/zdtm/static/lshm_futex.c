// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Tasks wait for each other with what is in shared memory that is being restored";
const char *test_author = "criu-lazy-shmem";

#define NR_TASKS 3
#define ROUNDS	 2000
#define SLOT	 128 /* pages: nothing comes along with another's */

enum { BARRIER = 1,
       MUTEX,
       COUNTER,
       PI_MUTEX,
       PI_COUNTER,
       COND,
       COND_MUTEX,
       LEFT,
       SLEPT_ON,
       BALL,
       NR_SLOTS };

static struct lshm m;
static pid_t pid[NR_TASKS];

static void *in_slot(int slot)
{
	return m.map + slot * SLOT * PAGE_SIZE;
}

static int failed(int error, const char *what)
{
	errno = error;
	if (error)
		pr_perror("%s", what);
	return error != 0;
}

static int make_mutex(int slot, int protocol)
{
	pthread_mutexattr_t attr;

	return failed(pthread_mutexattr_init(&attr) ?: pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ?:
						       pthread_mutexattr_setprotocol(&attr, protocol)		   ?:
														     pthread_mutex_init(in_slot(slot), &attr),
		      "Can't make a mutex");
}

static int make_all(void)
{
	pthread_barrierattr_t battr;
	pthread_condattr_t cattr;

	*(unsigned long *)in_slot(COUNTER) = 0;
	*(unsigned long *)in_slot(PI_COUNTER) = 0;
	*(unsigned long *)in_slot(LEFT) = NR_TASKS + 1;
	*(uint32_t *)in_slot(BALL) = 0;
	return make_mutex(MUTEX, PTHREAD_PRIO_NONE) || make_mutex(PI_MUTEX, PTHREAD_PRIO_INHERIT) ||
	       make_mutex(COND_MUTEX, PTHREAD_PRIO_NONE) || sem_init(in_slot(SLEPT_ON), 1, 0) ||
	       failed(pthread_condattr_init(&cattr) ?: pthread_condattr_setpshared(&cattr, PTHREAD_PROCESS_SHARED) ?:
														     pthread_cond_init(in_slot(COND), &cattr),
		      "Can't make a condition") ||
	       failed(pthread_barrierattr_init(&battr)					     ?:
			      pthread_barrierattr_setpshared(&battr, PTHREAD_PROCESS_SHARED) ?:
											       pthread_barrier_init(in_slot(BARRIER), &battr, NR_TASKS + 1),
		      "Can't make a barrier");
}

static int meet(void)
{
	int ret = pthread_barrier_wait(in_slot(BARRIER));

	return failed(ret == PTHREAD_BARRIER_SERIAL_THREAD ? 0 : ret, "Can't meet");
}

static int count(int mutex, int counter)
{
	unsigned int i;

	for (i = 0; i < ROUNDS; i++) {
		if (failed(pthread_mutex_lock(in_slot(mutex)), "Can't lock"))
			return 1;
		++*(volatile unsigned long *)in_slot(counter);
		if (failed(pthread_mutex_unlock(in_slot(mutex)), "Can't unlock"))
			return 1;
	}
	return 0;
}

/* All of them leave together: the last one tells the others */
static int leave(void)
{
	volatile unsigned long *left = in_slot(LEFT);
	int ret = 0;

	if (failed(pthread_mutex_lock(in_slot(COND_MUTEX)), "Can't lock"))
		return 1;
	if (!--*left)
		ret = failed(pthread_cond_broadcast(in_slot(COND)), "Can't tell");
	while (!ret && *left)
		ret = failed(pthread_cond_wait(in_slot(COND), in_slot(COND_MUTEX)), "Can't wait");
	return failed(pthread_mutex_unlock(in_slot(COND_MUTEX)), "Can't unlock") || ret;
}

/* Player n passes the ball, which nobody has touched, when its value is n modulo the players */
static int play(uint32_t player)
{
	uint32_t *ball = in_slot(BALL), seen;

	while ((seen = __atomic_load_n(ball, __ATOMIC_SEQ_CST)) < ROUNDS) {
		if (seen % (NR_TASKS + 1) == player) {
			__atomic_store_n(ball, seen + 1, __ATOMIC_SEQ_CST);
			syscall(SYS_futex, ball, FUTEX_WAKE, NR_TASKS + 1, NULL, NULL, 0);
		} else if (syscall(SYS_futex, ball, FUTEX_WAIT, seen, NULL, NULL, 0) && errno != EAGAIN && errno != EINTR) {
			pr_perror("Can't wait for the ball");
			return 1;
		}
	}
	return 0;
}

/* So that they do not all come at once */
static int look_around(unsigned long player)
{
	struct lshm rest = lshm_sub(&m, NR_SLOTS * SLOT, m.nr - NR_SLOTS * SLOT);

	return lshm_check_some(&rest, m.seed + player, player * 20);
}

/* Whoever finds something wrong goes on: the others wait for it */
static int take_part(unsigned long player)
{
	int wrong = look_around(player);

	return meet() || count(MUTEX, COUNTER) || count(PI_MUTEX, PI_COUNTER) || play(player) || leave() || wrong;
}

static int task_main(void *arg)
{
	return take_part((unsigned long)arg);
}

/* Sleeps from before the dump until after the restore */
static void *sleeper(void *arg)
{
	while (sem_wait(in_slot(SLEPT_ON)))
		if (errno != EINTR)
			return arg;
	return NULL;
}

static int check_count(int counter)
{
	unsigned long got = *(unsigned long *)in_slot(counter);

	if (got == (NR_TASKS + 1) * ROUNDS)
		return 0;
	fail("counted to %lu and not %u", got, (NR_TASKS + 1) * ROUNDS);
	return 1;
}

static int check_around(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++) {
		unsigned int from = i % SLOT || i / SLOT < BARRIER || i / SLOT >= NR_SLOTS ? 0 : 128;

		if (lshm_check_bytes(m.map + i * PAGE_SIZE, m.seed, i, from, PAGE_SIZE))
			return 1;
	}
	return 0;
}

static pthread_t sleeping;

int lshm_setup(void)
{
	unsigned long t;

	if (lshm_map_anon(&m, 64 * MiB) || make_all())
		return 1;
	for (t = 0; t < NR_TASKS; t++) {
		pid[t] = lshm_fork_task(NULL, task_main, (void *)t);
		if (pid[t] < 0)
			return 1;
	}
	return failed(pthread_create(&sleeping, NULL, sleeper, &m), "Can't create a thread");
}

int lshm_run(void)
{
	void *res = NULL;
	int t, ret;

	if (sem_post(in_slot(SLEPT_ON)) || failed(pthread_join(sleeping, &res), "Can't join") || res) {
		fail("the thread that slept does not wake up");
		return 1;
	}
	ret = take_part(NR_TASKS);
	for (t = 0; t < NR_TASKS; t++)
		ret |= lshm_reap(pid[t]);
	return ret || check_count(COUNTER) || check_count(PI_COUNTER) || check_around();
}
