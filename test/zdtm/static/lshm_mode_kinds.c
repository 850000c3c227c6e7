// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <limits.h>

#include "lshm_views.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

const char *test_doc = "Names, modes and owners of lazily restored memfds";
const char *test_author = "criu-lazy-shmem";

#define NR_PAGES (8 * MiB / PAGE_SIZE)
#define SIZE	 (NR_PAGES * PAGE_SIZE)
#define LONGEST	 249 /* a memfd's name may not be longer */
#define NO_CHMOD 0

static char longest[LONGEST + 1];

static struct kind {
	const char *name;
	unsigned int flags;
	mode_t chmod;
	uid_t owner;
	struct lshm m;
	int seals;
	struct stat st;
} kinds[] = {
	{ "", 0, NO_CHMOD, 0 },
	{ longest, 0, 0640, 0 },
	{ "lshm (deleted)", 0, 0, 18943 },
	{ "exec", MFD_EXEC, 0751, 0 },
	{ "noexec", MFD_NOEXEC_SEAL, NO_CHMOD, 0 },
	{ "noexec 2", MFD_NOEXEC_SEAL, 0400, 18943 },
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static pid_t child;

static int make(struct kind *k)
{
	int fd, ret;

	fd = lshm_memfd(k->name, k->flags, SIZE);
	if (fd < 0)
		return 1;
	if ((k->chmod && fchmod(fd, k->chmod)) || (k->owner && fchown(fd, k->owner, k->owner))) {
		pr_perror("Can't set mode and owner");
		return 1;
	}
	k->m.seed = lshm_new_seed();
	ret = lshm_map_fd(&k->m, fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, NR_PAGES);
	close(fd);
	if (ret)
		return 1;
	lshm_fill(&k->m);
	k->seals = lshm_seals(&k->m);
	return lshm_stat(k->m.map, SIZE, &k->st);
}

static int check_name(const struct kind *k)
{
	unsigned long start = (unsigned long)k->m.map;
	char path[64], link[PATH_MAX], want[PATH_MAX];
	ssize_t len;

	ssprintf(path, "/proc/self/map_files/%lx-%lx", start, start + SIZE);
	len = readlink(path, link, sizeof(link) - 1);
	if (len < 0) {
		pr_perror("Can't read %s", path);
		return 1;
	}
	link[len] = 0;
	ssprintf(want, "/memfd:%s (deleted)", k->name);
	if (strcmp(link, want)) {
		fail("the name is '%s', not '%s'", link, want);
		return 1;
	}
	return 0;
}

static int check_kind(const struct kind *k)
{
	struct stat st;

	return lshm_stat(k->m.map, SIZE, &st) || check_name(k) ||
	       lshm_check_long("the size", st.st_size, k->st.st_size) ||
	       lshm_check_long("the mode", st.st_mode, k->st.st_mode) ||
	       lshm_check_long("the user", st.st_uid, k->st.st_uid) ||
	       lshm_check_long("the group", st.st_gid, k->st.st_gid) ||
	       lshm_check_long("the set of seals", lshm_seals(&k->m), k->seals);
}

static int check_all(int (*check)(const struct kind *k))
{
	unsigned int i;

	for (i = 0; i < NR_KINDS; i++)
		if (check(&kinds[i]))
			return 1;
	return 0;
}

static int check_contents(const struct kind *k)
{
	return lshm_check_shuffled(&k->m, k->m.seed);
}

static int child_main(void *arg)
{
	return check_all(check_kind) || check_all(check_contents);
}

/* Since Linux 6.3; before, that kind is one like the first */
static void check_flags(struct kind *k)
{
	int fd = memfd_create(k->name, k->flags);

	if (fd >= 0) {
		close(fd);
	} else if (errno == EINVAL) {
		test_msg("This kernel has no memfds with flags %#x\n", k->flags);
		k->flags = 0;
	}
}

int lshm_setup(void)
{
	unsigned int i;

	memset(longest, 'n', LONGEST);
	for (i = 0; i < NR_KINDS; i++)
		check_flags(&kinds[i]);
	for (i = 0; i < NR_KINDS; i++)
		if (make(&kinds[i]))
			return 1;
	child = lshm_fork_task(NULL, child_main, NULL);
	return child < 0;
}

int lshm_run(void)
{
	return check_all(check_kind) || check_all(check_contents) || lshm_reap(child) || lshm_wait_retired() ||
	       check_all(check_kind) || check_all(check_contents);
}
