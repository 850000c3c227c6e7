// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "folios.h"
#include "stats.h"

/* Between two looks: each opens a dozen files, and there is one for each fault in private memory */
#define LOOK_NS 10000000

/* There whether or not the kernel has transparent huge pages */
#define SYS_MM "/sys/kernel/mm"

static bool may_be_large;
static uint64_t last; /* stats_now() of the last look */

/* The chosen one of "always [inherit] never"; empty if there is none */
static void read_choice(const char *dir, const char *sub, char *choice, size_t size)
{
	char path[PATH_MAX], line[128] = "";
	char *from, *to;
	FILE *f;

	*choice = '\0';
	snprintf(path, sizeof(path), "%s/%s/shmem_enabled", dir, sub);
	f = fopen(path, "re");
	if (!f)
		return;

	if (fgets(line, sizeof(line), f) && (from = strchr(line, '[')) && (to = strchr(from, ']'))) {
		*to = '\0';
		snprintf(choice, size, "%s", from + 1);
	}
	fclose(f);
}

static bool allows(const char *choice)
{
	return !strcmp(choice, "always") || !strcmp(choice, "within_size") || !strcmp(choice, "force");
}

bool folios_allowed(const char *dir)
{
	char top[32], choice[32];
	struct dirent *de;
	bool allowed;
	DIR *d;

	read_choice(dir, ".", top, sizeof(top));
	allowed = allows(top);
	/* tmpfs of the kernel's own goes by the sizes, if there are any, but "force" is for all */
	d = opendir(dir);
	while (d && !allowed && (de = readdir(d))) {
		if (strncmp(de->d_name, "hugepages-", 10))
			continue;
		read_choice(dir, de->d_name, choice, sizeof(choice));
		allowed = allows(choice);
	}
	if (d)
		closedir(d);
	return allowed;
}

void folios_look(void)
{
	uint64_t now = stats_now();

	if (may_be_large || (last && now - last < LOOK_NS))
		return;

	last = now;
	/* for good: those that were made stay large when it is switched off. Without a /sys nobody can tell */
	may_be_large = folios_allowed(FOLIOS_DIR) || access(SYS_MM, F_OK);
}

bool folios_may_be_large(void)
{
	return may_be_large;
}
