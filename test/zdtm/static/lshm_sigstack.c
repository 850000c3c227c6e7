// SPDX-License-Identifier: GPL-2.0-only
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "lshm_common.h"

const char *test_doc = "Signals come right after the restore, on stacks that are in shared memory";
const char *test_author = "criu-lazy-shmem";

#define STACK	    (256 * 1024UL)
#define STACK_PAGES (STACK / PAGE_SIZE)
#define LOCAL	    (64 * 1024) /* what a handler uses of it */

/* Who has which part for a stack; the last part is for nobody */
enum { PENDING,
       FAULT,
       TIMER,
       NR_STACKS };

static struct lshm m;
static volatile int wrong, handled[NR_STACKS];
static pid_t child;
static pthread_t thread;
static sem_t ready;
static uint8_t *no_access;

static struct lshm stack(int s)
{
	return lshm_sub(&m, m.nr / 2 + s * 1024, STACK_PAGES);
}

static int is_stack(unsigned long i)
{
	int s;

	for (s = 0; s < NR_STACKS; s++)
		if (i >= stack(s).page && i < stack(s).page + STACK_PAGES)
			return 1;
	return 0;
}

static void use_stack(int s)
{
	struct lshm mine = stack(s);
	volatile uint8_t local[LOCAL];
	unsigned int i;

	if (local < mine.map || local > mine.map + STACK)
		wrong = 1;
	for (i = 0; i < LOCAL; i++)
		local[i] = (i ^ s) & 0xff;
	for (i = 0; i < LOCAL; i++)
		if (local[i] != ((i ^ s) & 0xff))
			wrong = 1;
	handled[s]++;
}

static void on_pending(int sig)
{
	use_stack(PENDING);
}

static void on_timer(int sig)
{
	use_stack(TIMER);
}

/* Access is given back, and the instruction is tried again */
static void on_fault(int sig, siginfo_t *info, void *uc)
{
	use_stack(FAULT);
	if (info->si_addr != no_access || mprotect(no_access, PAGE_SIZE, PROT_READ | PROT_WRITE))
		_exit(99);
}

static int set_stack(int s)
{
	struct lshm mine = stack(s);
	stack_t ss = { .ss_sp = mine.map, .ss_size = STACK };

	if (sigaltstack(&ss, NULL)) {
		pr_perror("Can't set stack %d", s);
		return 1;
	}
	return 0;
}

static int set_handler(int sig, void (*fn)(int sig))
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = fn;
	sa.sa_flags = SA_ONSTACK | SA_RESTART;
	if (fn == (void (*)(int))on_fault)
		sa.sa_flags |= SA_SIGINFO;
	if (sigaction(sig, &sa, NULL)) {
		pr_perror("Can't handle signal %d", sig);
		return 1;
	}
	return 0;
}

static int block(int how, int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	if (sigprocmask(how, &set, NULL)) {
		pr_perror("Can't change the signal mask");
		return 1;
	}
	return 0;
}

static int check_handled(int s)
{
	if (!wrong && handled[s])
		return 0;
	fail("stack %d: %d signals, %s", s, handled[s], wrong ? "wrong" : "right");
	return 1;
}

/* A signal that was pending when the task was dumped */
static int make_pending(void *arg)
{
	if (set_stack(PENDING) || set_handler(SIGUSR1, on_pending) || block(SIG_BLOCK, SIGUSR1))
		return 1;
	return kill(getpid(), SIGUSR1);
}

static int child_main(void *arg)
{
	if (handled[PENDING]) {
		fail("the signal came while it was blocked");
		return 1;
	}
	return block(SIG_UNBLOCK, SIGUSR1) || check_handled(PENDING);
}

/* A thread that has no access to what it reads first */
static void *thread_main(void *arg)
{
	if (set_stack(FAULT))
		return &m;
	sem_post(&ready);
	lshm_wait_restored();
	if (*(volatile uint8_t *)no_access != 0x5a)
		return &m;
	return check_handled(FAULT) ? &m : NULL;
}

static int start_thread(void)
{
	no_access = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (no_access == MAP_FAILED) {
		pr_perror("Can't map a page");
		return 1;
	}
	*no_access = 0x5a;
	if (mprotect(no_access, PAGE_SIZE, PROT_NONE) || set_handler(SIGSEGV, (void (*)(int))on_fault) ||
	    pthread_create(&thread, NULL, thread_main, NULL) || TEMP_FAILURE_RETRY(sem_wait(&ready))) {
		pr_perror("Can't start the thread");
		return 1;
	}
	return 0;
}

/* A timer that runs all the time. It comes to the first thread that lets it: this one */
static int start_timer(void)
{
	struct itimerval it = { .it_value.tv_usec = 2000, .it_interval.tv_usec = 2000 };

	if (set_stack(TIMER) || set_handler(SIGALRM, on_timer) || block(SIG_UNBLOCK, SIGALRM) ||
	    setitimer(ITIMER_REAL, &it, NULL)) {
		pr_perror("Can't start the timer");
		return 1;
	}
	return 0;
}

static int stop_timer(void)
{
	struct itimerval none = {};

	if (setitimer(ITIMER_REAL, &none, NULL)) {
		pr_perror("Can't stop the timer");
		return 1;
	}
	return 0;
}

static int check_around(void)
{
	unsigned long i;

	for (i = 0; i < m.nr; i++)
		if (!is_stack(i) && lshm_check_page(&m, i))
			return 1;
	return 0;
}

int lshm_setup(void)
{
	if (lshm_map_anon(&m, 64 * MiB) || sem_init(&ready, 0, 0) || block(SIG_BLOCK, SIGALRM))
		return 1;
	child = lshm_fork_task(make_pending, child_main, NULL);
	return child < 0 || start_thread() || start_timer();
}

int lshm_run(void)
{
	int before = handled[TIMER], ret;
	void *res;

	ret = check_around();
	if (!ret && handled[TIMER] == before) {
		fail("the timer does not run");
		ret = 1;
	}
	if (stop_timer() || pthread_join(thread, &res) || res) {
		fail("the thread failed");
		return 1;
	}
	return ret || lshm_reap(child) || check_handled(TIMER) || check_around();
}
