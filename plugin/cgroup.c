// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"

/* The kernel charges so many pages at a time, for each processor */
#define CHARGE_BATCH 64

/*
 * Where it is
 */

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);
	const char *p;

	for (p = list; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (!strncmp(p, word, len) && (p[len] == ',' || !p[len]))
			return true;
	}
	return false;
}

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* \040 and the like, in place */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && is_octal(s[1]) && is_octal(s[2]) && is_octal(s[3])) {
			*to++ = (char)((s[1] & 7) * 64 + (s[2] & 7) * 8 + (s[3] & 7));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* A line of /proc/<pid>/cgroup, hierarchy:controllers:path */
static int find_path(FILE *f, char *path, size_t size, bool *v2)
{
	char *line = NULL, *controllers, *p;
	size_t cap = 0;
	int ret = -ENOENT;

	while (getline(&line, &cap, f) > 0) {
		bool unified = !strncmp(line, "0::", 3);

		line[strcspn(line, "\n")] = '\0';
		controllers = strchr(line, ':');
		p = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!p)
			continue;
		*p++ = '\0';

		/* version 1 has it if version 1 knows it; the other one then has not */
		if (!unified && !has_word(controllers + 1, "memory"))
			continue;
		ret = strlen(p) < size ? 0 : -ENAMETOOLONG;
		if (ret)
			break;
		memcpy(path, p, strlen(p) + 1);
		*v2 = unified;
		if (!unified)
			break;
	}

	free(line);
	return ret;
}

/* What of path is below root, or NULL */
static const char *path_below(const char *path, const char *root)
{
	size_t len = strlen(root);

	if (!strcmp(root, "/"))
		return strcmp(path, "/") ? path : "";
	if (strncmp(path, root, len) || (path[len] && path[len] != '/'))
		return NULL;
	return path + len;
}

struct mount {
	char *root, *point;
};

/* A line of mountinfo: id parent major:minor root point options [optional...] - type source options */
static bool parse_mount(char *line, bool v2, struct mount *mnt)
{
	char *rest, *save, *type, *word[5];
	const char *options;
	int i;

	line[strcspn(line, "\n")] = '\0';
	rest = strstr(line, " - ");
	if (!rest)
		return false;
	*rest = '\0';

	type = strtok_r(rest + 3, " ", &save);
	strtok_r(NULL, " ", &save);
	options = strtok_r(NULL, " ", &save);
	if (!type || strcmp(type, v2 ? "cgroup2" : "cgroup") || (!v2 && (!options || !has_word(options, "memory"))))
		return false;

	for (i = 0; i < 5; i++) {
		word[i] = strtok_r(i ? NULL : line, " ", &save);
		if (!word[i])
			return false;
	}
	unescape(word[3]);
	unescape(word[4]);
	*mnt = (struct mount){ .root = word[3], .point = word[4] };
	return true;
}

static int find_mount(struct memcg *cg, FILE *mountinfo, const char *path)
{
	char *line = NULL;
	size_t cap = 0;
	int ret = -ENOENT;

	while (ret && getline(&line, &cap, mountinfo) > 0) {
		const char *below;
		struct mount mnt;
		int len;

		if (!parse_mount(line, cg->v2, &mnt))
			continue;
		below = path_below(path, mnt.root);
		if (!below) {
			ret = -EXDEV; /* another mount may have it */
			continue;
		}

		len = snprintf(cg->path, sizeof(cg->path), "%s%s", mnt.point, below);
		if (len < 0 || (size_t)len >= sizeof(cg->path)) {
			ret = -ENAMETOOLONG;
			break;
		}
		cg->mount_len = strlen(mnt.point);
		ret = 0;
	}

	free(line);
	return ret;
}

static bool level_has(const struct memcg *cg, size_t level, const char *file)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%.*s/%s", (int)level, cg->path, file);
	return !access(path, F_OK);
}

int memcg_parse(struct memcg *cg, FILE *cgroup, FILE *mountinfo)
{
	char path[PATH_MAX];
	size_t level;
	int ret;

	*cg = (struct memcg){};
	ret = find_path(cgroup, path, sizeof(path), &cg->v2);
	if (ret)
		return ret;

	/* what is not below the root of our cgroup namespace */
	if (strstr(path, "/.."))
		return -EXDEV;

	ret = find_mount(cg, mountinfo, path);
	if (ret)
		return ret;

	level = strlen(cg->path);
	while (cg->v2 && level > cg->mount_len && !level_has(cg, level, "memory.current"))
		level = memcg_parent(cg, level);
	cg->charged_len = level;
	return 0;
}

int memcg_of(struct memcg *cg, pid_t pid)
{
	FILE *cgroup = NULL, *mountinfo = NULL;
	char path[64];
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	cgroup = fopen(path, "re");
	if (cgroup)
		mountinfo = fopen("/proc/self/mountinfo", "re");
	if (!mountinfo)
		ret = errno == ENOENT ? -ESRCH : -errno;
	if (!ret)
		ret = memcg_parse(cg, cgroup, mountinfo);

	if (cgroup)
		fclose(cgroup);
	if (mountinfo)
		fclose(mountinfo);
	return ret;
}

bool memcg_same(const struct memcg *a, const struct memcg *b)
{
	return a->charged_len == b->charged_len && !memcmp(a->path, b->path, a->charged_len);
}

int memcg_procs(const struct memcg *cg, char *path, size_t size)
{
	int len = snprintf(path, size, "%s/cgroup.procs", cg->path);

	return len < 0 || (size_t)len >= size ? -ENAMETOOLONG : 0;
}

/*
 * How much it takes
 */

size_t memcg_parent(const struct memcg *cg, size_t level)
{
	if (level <= cg->mount_len)
		return 0;
	while (level > cg->mount_len && cg->path[level - 1] != '/')
		level--;
	return level > cg->mount_len ? level - 1 : cg->mount_len;
}

bool memcg_is_below(const struct memcg *cg, const struct memcg *other, size_t level)
{
	return cg->charged_len >= level && !memcmp(cg->path, other->path, level) &&
	       (cg->charged_len == level || cg->path[level] == '/');
}

static int read_level(const struct memcg *cg, size_t level, const char *file, char *buf, size_t size)
{
	char path[PATH_MAX + 64];
	size_t len;
	FILE *f;

	buf[0] = '\0';
	snprintf(path, sizeof(path), "%.*s/%s", (int)level, cg->path, file);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	len = fread(buf, 1, size - 1, f);
	buf[len] = '\0';
	fclose(f);
	return 0;
}

/* A number alone, or "max" */
static int read_number(const struct memcg *cg, size_t level, const char *file, uint64_t *value)
{
	char buf[64], *end;
	int ret;

	ret = read_level(cg, level, file, buf, sizeof(buf));
	if (ret)
		return ret;
	if (!strncmp(buf, "max", 3)) {
		*value = UINT64_MAX;
		return 0;
	}

	*value = strtoull(buf, &end, 10);
	return end == buf ? -EINVAL : 0;
}

/* The number behind a word at the beginning of a line, 0 if there is none */
static uint64_t read_word(const char *text, const char *word)
{
	unsigned long long value;
	char name[64];
	const char *p;

	for (p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (sscanf(p, "%63s %llu", name, &value) == 2 && !strcmp(name, word))
			return value;
	}
	return 0;
}

static uint64_t sub(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

static uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What is charged and would not be if somebody needed it */
static uint64_t reclaimable(const struct memcg *cg, size_t level)
{
	uint64_t batches = CHARGE_BATCH * (uint64_t)sysconf(_SC_PAGESIZE) * (uint64_t)sysconf(_SC_NPROCESSORS_CONF);
	char stat[8192];

	if (read_level(cg, level, "memory.stat", stat, sizeof(stat)))
		return batches;
	if (cg->v2)
		return batches + read_word(stat, "inactive_file") + read_word(stat, "active_file");
	return batches + read_word(stat, "total_inactive_file") + read_word(stat, "total_active_file");
}

/* What may be swapped, UINT64_MAX: as much as the machine can */
static uint64_t swap_room(const struct memcg *cg, size_t level)
{
	uint64_t limit, used;

	if (!cg->v2)
		return read_number(cg, level, "memory.swappiness", &used) || used ? UINT64_MAX : 0;
	if (read_number(cg, level, "memory.swap.max", &limit) || read_number(cg, level, "memory.swap.current", &used))
		return UINT64_MAX;
	return limit == UINT64_MAX ? limit : sub(limit, used);
}

static bool is_limit(const struct memcg *cg, uint64_t limit)
{
	/* version 1 says "none" by the largest number of pages there can be, in bytes */
	return cg->v2 ? limit != UINT64_MAX : limit < INT64_MAX - 0xffff;
}

int memcg_room(const struct memcg *cg, size_t level, uint64_t swap_free, struct memcg_room *room)
{
	const char *limit_file = cg->v2 ? "memory.max" : "memory.limit_in_bytes";
	const char *used_file = cg->v2 ? "memory.current" : "memory.usage_in_bytes";
	uint64_t limit, used, cache;
	int ret;

	*room = (struct memcg_room){ .limit = UINT64_MAX, .room = UINT64_MAX };

	ret = read_number(cg, level, limit_file, &limit);
	if (ret == -ENOENT) /* the root, or no controller there */
		return 0;
	if (!ret)
		ret = read_number(cg, level, used_file, &used);
	if (ret)
		return ret;

	cache = reclaimable(cg, level);
	if (is_limit(cg, limit)) {
		room->limit = limit;
		room->room = add(sub(limit, sub(used, cache)), min(swap_free, swap_room(cg, level)));
	}

	/* memory and swap together */
	if (!cg->v2 && !read_number(cg, level, "memory.memsw.limit_in_bytes", &limit) && is_limit(cg, limit) &&
	    !read_number(cg, level, "memory.memsw.usage_in_bytes", &used) && sub(limit, sub(used, cache)) < room->room) {
		room->limit = limit;
		room->room = sub(limit, sub(used, cache));
	}
	return 0;
}

uint64_t free_swap(void)
{
	struct memcg proc = { .path = "/proc" };
	char text[4096];

	if (read_level(&proc, strlen(proc.path), "meminfo", text, sizeof(text)))
		return 0;
	return read_word(text, "SwapFree:") << 10;
}

uint64_t memcg_oom_kills(const struct memcg *cg)
{
	char text[1024];

	if (read_level(cg, cg->charged_len, cg->v2 ? "memory.events" : "memory.oom_control", text, sizeof(text)))
		return 0;
	return read_word(text, "oom_kill");
}
