// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "cgroup.h"
#include "unit.h"

#define MIB (1ULL << 20)

#define MOUNTS_ROOT "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
#define MOUNTS_V1                                                                         \
	MOUNTS_ROOT "30 22 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"   \
		    "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" \
		    "32 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 master:2 - cgroup cgroup rw,memory\n"
#define MOUNTS_V2     MOUNTS_ROOT "30 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define MOUNTS_HYBRID MOUNTS_V1 "33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

static int parse(struct memcg *cg, const char *cgroup, const char *mounts)
{
	FILE *a = fmemopen((void *)cgroup, strlen(cgroup), "r"), *b = fmemopen((void *)mounts, strlen(mounts), "r");
	int ret;

	CHECK(a && b);
	ret = memcg_parse(cg, a, b);
	fclose(a);
	fclose(b);
	return ret;
}

static void check_path(const char *cgroup, const char *mounts, const char *want)
{
	char procs[PATH_MAX + 32], wanted[PATH_MAX];
	struct memcg cg;

	CHECK_EQ(parse(&cg, cgroup, mounts), 0);
	unit_note("%s, wanted %s", cg.path, want);
	CHECK(!strcmp(cg.path, want));
	CHECK_EQ(memcg_procs(&cg, procs, sizeof(procs)), 0);
	snprintf(wanted, sizeof(wanted), "%s/cgroup.procs", want);
	CHECK(!strcmp(procs, wanted));
	CHECK_EQ(memcg_procs(&cg, procs, 12), -ENAMETOOLONG);
}

TEST(version_1)
{
	check_path("9:cpu,cpuacct:/a\n4:memory:/user/b\n1:name=systemd:/c\n", MOUNTS_V1, "/sys/fs/cgroup/memory/user/b");
	check_path("4:blkio,memory:/\n", MOUNTS_V1, "/sys/fs/cgroup/memory");
	check_path("4:memory:/with:colon and space\n", MOUNTS_V1, "/sys/fs/cgroup/memory/with:colon and space");
}

TEST(version_2)
{
	check_path("0::/user.slice/b\n", MOUNTS_V2, "/sys/fs/cgroup/user.slice/b");
	check_path("0::/\n", MOUNTS_V2, "/sys/fs/cgroup");
}

/* Memory is where version 1 has it, whatever is said first */
TEST(hybrid)
{
	check_path("4:memory:/one\n1:name=systemd:/x\n0::/two\n", MOUNTS_HYBRID, "/sys/fs/cgroup/memory/one");
	check_path("0::/two\n4:memory:/one\n", MOUNTS_HYBRID, "/sys/fs/cgroup/memory/one");
	check_path("4:cpu:/one\n0::/two\n", MOUNTS_HYBRID, "/sys/fs/cgroup/unified/two");
	check_path("4:name=memory:/one\n5:memoryx:/one\n0::/two\n", MOUNTS_HYBRID, "/sys/fs/cgroup/unified/two");
}

/* A container sees a part of the hierarchy */
TEST(part_of_it_mounted)
{
	static const char mounts[] = "40 22 0:28 /docker/c1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
				     "41 22 0:28 /docker/c2 /mnt/a\\040b rw - cgroup cgroup rw,memory\n";
	struct memcg cg;

	check_path("4:memory:/docker/c1/x\n", mounts, "/sys/fs/cgroup/memory/x");
	check_path("4:memory:/docker/c1\n", mounts, "/sys/fs/cgroup/memory");
	check_path("4:memory:/docker/c2/x\n", mounts, "/mnt/a b/x");
	CHECK_EQ(parse(&cg, "4:memory:/docker/c11\n", mounts), -EXDEV);
	CHECK_EQ(parse(&cg, "4:memory:/\n", mounts), -EXDEV);
	CHECK_EQ(parse(&cg, "4:memory:/../c1\n", mounts), -EXDEV);
	CHECK_EQ(parse(&cg, "0::/../../c1\n", MOUNTS_V2), -EXDEV);
}

TEST(nothing_there)
{
	struct memcg cg;

	CHECK_EQ(parse(&cg, "1:name=systemd:/\n", MOUNTS_V1), -ENOENT);
	CHECK_EQ(parse(&cg, "4:memory:/\n", MOUNTS_ROOT), -ENOENT);
	CHECK_EQ(parse(&cg, "0::/\n", MOUNTS_V1), -ENOENT);
	CHECK_EQ(parse(&cg, "nonsense\n", "nonsense\n - \n - cgroup2\na b - cgroup2 x y\n"), -ENOENT);
	CHECK_EQ(memcg_of(&cg, 1 << 30), -ESRCH);
}

static char top[] = "/tmp/unit-cgroup-XXXXXX";

static void put(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(const char *name, const char *fmt, ...)
{
	char path[256];
	va_list args;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", top, name);
	f = fopen(path, "w");
	CHECK(f);
	va_start(args, fmt);
	vfprintf(f, fmt, args);
	va_end(args);
	CHECK_EQ(fclose(f), 0);
}

static void dir(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	CHECK_SYS(mkdir(path, 0700));
}

/* A hierarchy of files: top, a, a/b */
static void make_top(void)
{
	CHECK(mkdtemp(top));
	dir("a");
	dir("a/b");
}

static void remove_top(void)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "rm -r %s", top);
	CHECK_EQ(system(cmd), 0);
}

static void find(struct memcg *cg, const char *path, bool v2)
{
	char cgroup[128], mounts[256];

	snprintf(cgroup, sizeof(cgroup), "%s:%s\n", v2 ? "0:" : "4:memory", path);
	snprintf(mounts, sizeof(mounts), "1 1 0:1 / %s rw - %s cgroup rw,memory\n", top, v2 ? "cgroup2" : "cgroup");
	CHECK_EQ(parse(cg, cgroup, mounts), 0);
}

static uint64_t room_of(const struct memcg *cg, size_t level, uint64_t swap)
{
	struct memcg_room room;

	CHECK_EQ(memcg_room(cg, level, swap, &room), 0);
	return room.room;
}

/* What is in the caches of the processors is not in use */
static uint64_t batches(void)
{
	return 64 * 4096 * (uint64_t)sysconf(_SC_NPROCESSORS_CONF);
}

TEST(levels)
{
	struct memcg cg, other;
	size_t level;

	make_top();
	find(&cg, "/a/b", false);
	level = strlen(top) + 4;
	CHECK_EQ(cg.charged_len, level);
	CHECK_EQ(memcg_parent(&cg, level), level - 2);
	CHECK_EQ(memcg_parent(&cg, level - 2), level - 4);
	CHECK_EQ(memcg_parent(&cg, level - 4), 0);

	CHECK(memcg_same(&cg, &cg));
	find(&other, "/a", false);
	CHECK(!memcg_same(&cg, &other));
	CHECK(memcg_is_below(&cg, &other, level - 2));
	CHECK(!memcg_is_below(&other, &cg, level));
	find(&other, "/a/bc", false);
	CHECK(!memcg_same(&cg, &other));
	CHECK(!memcg_is_below(&other, &cg, level));
	CHECK(memcg_is_below(&other, &cg, level - 2));
	remove_top();
}

/* The controller is where it has been switched on; the process is further down */
TEST(charged_to_an_ancestor)
{
	struct memcg cg, other;
	char want[64], procs[PATH_MAX];

	make_top();
	put("a/memory.current", "0\n");
	find(&cg, "/a/b", true);
	CHECK_EQ(cg.charged_len, strlen(top) + 2);
	CHECK_EQ(memcg_procs(&cg, procs, sizeof(procs)), 0);
	snprintf(want, sizeof(want), "%s/a/b/cgroup.procs", top);
	CHECK(!strcmp(procs, want));
	find(&other, "/a", true);
	CHECK(memcg_same(&cg, &other));
	put("a/b/memory.current", "0\n");
	find(&cg, "/a/b", true);
	CHECK(!memcg_same(&cg, &other));
	remove_top();
}

TEST(room_in_version_1)
{
	struct memcg cg;
	size_t a;

	make_top();
	find(&cg, "/a/b", false);
	a = strlen(top) + 2;
	CHECK_EQ(room_of(&cg, a, 0), UINT64_MAX);

	put("a/memory.usage_in_bytes", "%llu\n", 40 * MIB);
	put("a/memory.limit_in_bytes", "9223372036854771712\n");
	CHECK_EQ(room_of(&cg, a, 0), UINT64_MAX);
	put("a/memory.limit_in_bytes", "%llu\n", 100 * MIB);
	put("a/memory.stat", "cache 5\ninactive_file 7\nactive_file 9\ntotal_inactive_file %llu\ntotal_active_file %llu\n", 3 * MIB,
	    2 * MIB);
	CHECK_EQ(room_of(&cg, a, 0), 65 * MIB + batches());

	/* swap, what is left of it, where it may be used */
	CHECK_EQ(room_of(&cg, a, 9 * MIB), 74 * MIB + batches());
	put("a/memory.swappiness", "0\n");
	CHECK_EQ(room_of(&cg, a, 9 * MIB), 65 * MIB + batches());
	put("a/memory.swappiness", "60\n");
	put("a/memory.memsw.limit_in_bytes", "%llu\n", 110 * MIB);
	put("a/memory.memsw.usage_in_bytes", "%llu\n", 44 * MIB);
	CHECK_EQ(room_of(&cg, a, 9 * MIB), 71 * MIB + batches());

	/* more than allowed: the limit was lowered */
	put("a/memory.memsw.limit_in_bytes", "9223372036854771712\n");
	put("a/memory.limit_in_bytes", "%llu\n", 20 * MIB);
	put("a/memory.usage_in_bytes", "%llu\n", 200 * MIB);
	CHECK_EQ(room_of(&cg, a, 0), 0);
	remove_top();
}

TEST(room_in_version_2)
{
	struct memcg_room room;
	struct memcg cg;

	make_top();
	put("a/memory.current", "%llu\n", 40 * MIB);
	put("a/memory.max", "max\n");
	find(&cg, "/a/b", true);
	CHECK_EQ(room_of(&cg, cg.charged_len, 0), UINT64_MAX);
	put("a/memory.max", "%llu\n", 100 * MIB);
	put("a/memory.stat", "anon 1\nfile 2\ninactive_file %llu\nactive_file %llu\n", 3 * MIB, 2 * MIB);
	CHECK_EQ(memcg_room(&cg, cg.charged_len, 0, &room), 0);
	CHECK_EQ(room.room, 65 * MIB + batches());
	CHECK_EQ(room.limit, 100 * MIB);
	CHECK_EQ(room_of(&cg, cg.charged_len, 9 * MIB), 74 * MIB + batches());
	put("a/memory.swap.max", "%llu\n", 5 * MIB);
	put("a/memory.swap.current", "%llu\n", 1 * MIB);
	CHECK_EQ(room_of(&cg, cg.charged_len, 9 * MIB), 69 * MIB + batches());
	put("a/memory.swap.max", "max\n");
	CHECK_EQ(room_of(&cg, cg.charged_len, 9 * MIB), 74 * MIB + batches());

	put("a/memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n");
	CHECK_EQ(memcg_oom_kills(&cg), 5);
	put("a/memory.max", "much\n");
	CHECK_EQ(memcg_room(&cg, cg.charged_len, 0, &room), -EINVAL);
	remove_top();
}

TEST(this_machine)
{
	struct memcg_room room;
	struct memcg cg;
	char procs[PATH_MAX + 32], line[32];
	bool there = false;
	FILE *f;

	if (memcg_of(&cg, getpid()) == -ENOENT)
		unit_skip("no memory controller");
	CHECK_EQ(memcg_procs(&cg, procs, sizeof(procs)), 0);
	f = fopen(procs, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		there |= atoi(line) == getpid();
	CHECK(there);
	CHECK_EQ(memcg_room(&cg, cg.charged_len, free_swap(), &room), 0);
}
