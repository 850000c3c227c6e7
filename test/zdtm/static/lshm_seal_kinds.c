// SPDX-License-Identifier: GPL-2.0-only
#include "lshm_views.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

const char *test_doc = "Memfds with seals: those against other sizes do not hinder, those against writing do";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (16 * MiB / PAGE_SIZE)
#define SIZE	 (NR_PAGES * PAGE_SIZE)

enum { KEEP_FD = 1,
       NO_MAPPING = 2 };

/* .expect counts them: those with KEEP_FD or a seal against writing are not lazy */
static struct sealed {
	int seals;
	int prot, flags; /* of the mapping that is made before the seals are set */
	int what;
	struct lshm m;
	int fd;
} kinds[] = {
	{ F_SEAL_SHRINK, PROT_READ | PROT_WRITE, MAP_SHARED },
	{ F_SEAL_GROW, PROT_READ | PROT_WRITE, MAP_SHARED },
	{ F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, PROT_READ | PROT_WRITE, MAP_SHARED },
	{ F_SEAL_SHRINK | F_SEAL_GROW, PROT_READ | PROT_WRITE, MAP_PRIVATE },
	{ F_SEAL_SHRINK | F_SEAL_GROW, PROT_READ | PROT_WRITE, MAP_SHARED, KEEP_FD },
	{ F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, PROT_READ, MAP_PRIVATE, KEEP_FD },
	{ F_SEAL_WRITE, PROT_READ, MAP_PRIVATE, KEEP_FD | NO_MAPPING },
	{ F_SEAL_WRITE | F_SEAL_SHRINK, PROT_READ, MAP_PRIVATE },
	{ F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW, PROT_READ | PROT_WRITE, MAP_SHARED },
	{ F_SEAL_FUTURE_WRITE, PROT_READ, MAP_PRIVATE },
	{ F_SEAL_FUTURE_WRITE | F_SEAL_SEAL, PROT_READ | PROT_WRITE, MAP_SHARED, KEEP_FD },
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static pid_t child;

static int fill(int fd, uint64_t seed)
{
	struct lshm all = { .seed = seed };

	if (lshm_map_fd(&all, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES))
		return 1;
	lshm_fill(&all);
	munmap(all.map, SIZE);
	return 0;
}

static int make(struct sealed *k)
{
	k->m.seed = lshm_new_seed();
	k->fd = lshm_memfd("lshm_seal_kinds", MFD_ALLOW_SEALING, SIZE);
	if (k->fd < 0 || fill(k->fd, k->m.seed) || lshm_map_fd(&k->m, k->fd, k->prot, k->flags, 0, NR_PAGES))
		return 1;
	if (k->what & NO_MAPPING)
		munmap(k->m.map, SIZE);
	if (fcntl(k->fd, F_ADD_SEALS, k->seals)) {
		pr_perror("Can't add seals %#x", k->seals);
		return 1;
	}
	if (!(k->what & KEEP_FD))
		close(k->fd);
	return 0;
}

static int check_through_mapping(const struct sealed *k)
{
	return !(k->what & NO_MAPPING) && lshm_check_shuffled(&k->m, k->m.seed);
}

static int check_through_fd(const struct sealed *k)
{
	return k->what & KEEP_FD && (lshm_check_fstat(k->fd, SIZE, SIZE) || lshm_check_pread_shuffled(k->fd, &k->m) ||
				     lshm_check_new_map(k->fd, &k->m, MAP_PRIVATE));
}

static int check_all_contents(void)
{
	unsigned int i;

	/* At once, where nothing would wait for what is not there yet */
	for (i = 0; i < NR_KINDS; i++)
		if (check_through_fd(&kinds[i]))
			return 1;
	for (i = 0; i < NR_KINDS; i++)
		if (check_through_mapping(&kinds[i]))
			return 1;
	return 0;
}

static int check_refused(const char *what, int ret, int refused)
{
	if (refused ? ret == -1 && errno == EPERM : !ret)
		return 0;
	fail("%s returns %d; it should be %s", what, ret, refused ? "refused" : "allowed");
	return 1;
}

/* Seals do what they are there for, and what is not sealed can be done */
static int check_effect(const struct sealed *k)
{
	int ret, fd = k->fd, no_write = k->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);

	if (!(k->what & KEEP_FD)) {
		fd = lshm_open_mapped(k->m.map, SIZE, O_RDWR);
		if (fd < 0)
			return 1;
	}
	ret = lshm_check_long("the set of seals", fcntl(fd, F_GET_SEALS), k->seals) ||
	      check_refused("write", pwrite(fd, "", 1, 0) == 1 ? 0 : -1, no_write) ||
	      check_refused("grow", ftruncate(fd, SIZE + PAGE_SIZE), k->seals & F_SEAL_GROW) ||
	      check_refused("shrink", ftruncate(fd, SIZE - PAGE_SIZE), k->seals & F_SEAL_SHRINK) ||
	      check_refused("seal", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), k->seals & F_SEAL_SEAL);
	if (fd != k->fd)
		close(fd);
	return ret;
}

static int child_main(void *arg)
{
	return check_all_contents();
}

int lshm_setup(void)
{
	unsigned int i;

	for (i = 0; i < NR_KINDS; i++)
		if (make(&kinds[i]))
			return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	unsigned int i;

	for (i = 0; i < NR_KINDS; i++)
		if (!(kinds[i].what & NO_MAPPING) &&
		    lshm_check_long("the set of seals", lshm_seals(&kinds[i].m), kinds[i].seals))
			return 1;
	if (check_all_contents() || lshm_reap(child) || lshm_wait_retired())
		return 1;
	for (i = 0; i < NR_KINDS; i++)
		if (check_effect(&kinds[i]))
			return 1;
	return 0;
}
