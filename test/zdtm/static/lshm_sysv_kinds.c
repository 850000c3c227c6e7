// SPDX-License-Identifier: GPL-2.0-only
#include <sys/ipc.h>
#include <sys/shm.h>

#include "lshm_views.h"

const char *test_doc = "SysV segments attached once, often, by several tasks, read-only, and not at all: all are there at once";
const char *test_author = "criu-lazy-shmem";

#define SIZE	 (8 * MiB)
#define NR_PAGES (SIZE / PAGE_SIZE)
#define TAIL	 1000 /* bytes in the last page of the segment with an odd size */
#define KEY	 0x15e6
#define OWNER	 18943

enum { ONCE,
       OFTEN,
       TASKS,
       RDONLY,
       DETACHED,
       ODD,
       SPARSE,
       NR_SEGS };

static struct seg {
	const char *name;
	size_t size;
	int mode;
	int key;
	int attached; /* times, in all tasks */
	int id;
	struct lshm m; /* not attached: only the seed counts */
	struct shmid_ds ds;
} segs[NR_SEGS] = {
	[ONCE] = { "attached once", SIZE, 0600, IPC_PRIVATE, 1 },
	[OFTEN] = { "attached often", SIZE, 0660, KEY, 3 },
	[TASKS] = { "attached by tasks", SIZE, 0606, KEY + 1, 4 },
	[RDONLY] = { "attached read-only", SIZE, 0400, IPC_PRIVATE, 1 },
	[DETACHED] = { "detached", SIZE, 0640, KEY + 2, 0 },
	[ODD] = { "of odd size", SIZE + TAIL, 0600, IPC_PRIVATE, 1 },
	[SPARSE] = { "hardly used", SIZE, 0600, IPC_PRIVATE, 1 },
};

static struct lshm again, rdonly, childs;
static pid_t child;

static int attach(const struct seg *s, struct lshm *view, int flags)
{
	*view = s->m;
	view->nr = NR_PAGES;
	view->map = shmat(s->id, NULL, flags);
	if (view->map == (void *)-1) {
		pr_perror("Can't attach the segment %s", s->name);
		return 1;
	}
	return 0;
}

static int stat_segment(const struct seg *s, struct shmid_ds *ds)
{
	if (shmctl(s->id, IPC_STAT, ds)) {
		pr_perror("Can't stat the segment %s", s->name);
		return 1;
	}
	return 0;
}

static int make(struct seg *s)
{
	s->m.seed = lshm_new_seed();
	s->id = shmget(s->key, s->size, IPC_CREAT | IPC_EXCL | s->mode);
	if (s->id < 0) {
		pr_perror("Can't create the segment %s", s->name);
		return 1;
	}
	return attach(s, &s->m, 0);
}

static int set_owner(struct seg *s)
{
	struct shmid_ds ds;

	if (stat_segment(s, &ds))
		return 1;
	ds.shm_perm.uid = ds.shm_perm.gid = OWNER;
	if (shmctl(s->id, IPC_SET, &ds)) {
		pr_perror("Can't change the segment %s", s->name);
		return 1;
	}
	return 0;
}

static int check_segment(const struct seg *s, int attached)
{
	struct shmid_ds ds;

	if (stat_segment(s, &ds))
		return 1;
	if (lshm_check_long("the size", ds.shm_segsz, s->ds.shm_segsz) ||
	    lshm_check_long("the mode", ds.shm_perm.mode, s->ds.shm_perm.mode) ||
	    lshm_check_long("the key", ds.shm_perm.__key, s->ds.shm_perm.__key) ||
	    lshm_check_long("the user", ds.shm_perm.uid, s->ds.shm_perm.uid) ||
	    lshm_check_long("the group", ds.shm_perm.gid, s->ds.shm_perm.gid) ||
	    lshm_check_long("the number of attaches", ds.shm_nattch, attached)) {
		pr_err("It was the segment %s\n", s->name);
		return 1;
	}
	if (s->key != IPC_PRIVATE && shmget(s->key, 0, 0) != s->id) {
		fail("the key of the segment %s leads elsewhere", s->name);
		return 1;
	}
	return 0;
}

/* Not where another attach is writable: CRIU makes all of them writable then */
static int check_rdonly(const struct lshm *ro)
{
	if (lshm_check_shuffled(ro, ro->seed))
		return 1;
	if (mprotect(ro->map, SIZE, PROT_READ | PROT_WRITE) != -1 || errno != EACCES) {
		fail("a read-only attach has become writable");
		return 1;
	}
	return 0;
}

/* A segment can be attached anew at any time */
static int check_new_attach(const struct seg *s)
{
	struct lshm view;
	int ret;

	if (attach(s, &view, SHM_RDONLY))
		return 1;
	ret = check_rdonly(&view);
	shmdt(view.map);
	return ret;
}

static int check_sparse(void)
{
	const struct lshm *m = &segs[SPARSE].m;
	struct stat st;

	return lshm_stat(m->map, SIZE, &st) ||
	       lshm_check_long("the allocated memory", st.st_blocks * LSHM_SECTOR, 2 * PAGE_SIZE) ||
	       lshm_check_page(m, 0) || lshm_check_zero(m->map + PAGE_SIZE, NR_PAGES - 2) ||
	       lshm_check_page(m, NR_PAGES - 1);
}

static int check_contents(void)
{
	const struct lshm *odd = &segs[ODD].m;

	return check_new_attach(&segs[DETACHED]) || lshm_check_shuffled(&segs[ONCE].m, 1) ||
	       lshm_check_shuffled(&segs[OFTEN].m, 2) || lshm_check_shuffled(&again, 3) ||
	       lshm_check_shuffled(&rdonly, 4) ||
	       check_rdonly(&segs[RDONLY].m) || lshm_check(odd) ||
	       lshm_check_bytes(odd->map + SIZE, odd->seed, NR_PAGES, 0, TAIL) || check_sparse();
}

static int child_prepare(void *arg)
{
	static const int others[] = { ONCE, OFTEN, RDONLY, ODD, SPARSE };
	unsigned int i;

	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		shmdt(segs[others[i]].m.map);
	shmdt(again.map);
	shmdt(rdonly.map);
	return attach(&segs[TASKS], &childs, 0);
}

static int child_main(void *arg)
{
	return lshm_check_shuffled(&segs[TASKS].m, 1) || lshm_check_shuffled(&childs, 2) ||
	       check_new_attach(&segs[ONCE]) || check_new_attach(&segs[DETACHED]);
}

static int fill_all(void)
{
	struct lshm *odd = &segs[ODD].m;
	unsigned int i;

	for (i = 0; i < NR_SEGS; i++)
		if (i != SPARSE)
			lshm_fill(&segs[i].m);
	lshm_rewrite_page(&segs[SPARSE].m, 0, segs[SPARSE].m.seed);
	lshm_rewrite_page(&segs[SPARSE].m, NR_PAGES - 1, segs[SPARSE].m.seed);
	lshm_fill_page(odd->map + SIZE, odd->seed, NR_PAGES);
	shmdt(segs[DETACHED].m.map);
	shmdt(segs[RDONLY].m.map);
	return attach(&segs[RDONLY], &segs[RDONLY].m, SHM_RDONLY);
}

int lshm_setup(void)
{
	struct lshm third;
	unsigned int i;

	for (i = 0; i < NR_SEGS; i++)
		if (make(&segs[i]))
			return 1;
	if (fill_all() || attach(&segs[OFTEN], &again, 0) || attach(&segs[OFTEN], &rdonly, SHM_RDONLY) ||
	    set_owner(&segs[OFTEN]))
		return 1;
	child = lshm_fork_task(child_prepare, child_main, NULL);
	if (child < 0 || attach(&segs[TASKS], &third, 0))
		return 1;
	for (i = 0; i < NR_SEGS; i++)
		if (stat_segment(&segs[i], &segs[i].ds) || check_segment(&segs[i], segs[i].attached))
			return 1;
	return 0;
}

int lshm_run(void)
{
	unsigned int i;

	if (check_contents() || lshm_check_shuffled(&segs[TASKS].m, 1) || lshm_reap(child))
		return 1;
	for (i = 0; i < NR_SEGS; i++)
		if (check_segment(&segs[i], i == TASKS ? 2 : segs[i].attached))
			return 1;
	/* What one attach stores, the other shows */
	lshm_rewrite_page(&segs[OFTEN].m, 1, segs[ONCE].m.seed);
	if (lshm_check_rewritten(&rdonly, 1, segs[ONCE].m.seed))
		return 1;
	for (i = 0; i < NR_SEGS; i++)
		shmctl(segs[i].id, IPC_RMID, NULL);
	return 0;
}
