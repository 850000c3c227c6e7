// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "folios.h"
#include "unit.h"

static char dir[] = "build/unit/folios-XXXXXX";

static void choose(const char *sub, const char *text)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, sub);
	CHECK(!mkdir(path, 0700) || !access(path, F_OK));
	snprintf(path, sizeof(path), "%s/%s/shmem_enabled", dir, sub);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

TEST(as_chosen)
{
	CHECK(mkdtemp(dir));
	CHECK(!folios_allowed(dir)); /* a kernel without them */

	choose(".", "always within_size advise [never] deny force\n");
	CHECK(!folios_allowed(dir));
	choose("hugepages-64kB", "always inherit within_size advise [never]\n");
	choose("hugepages-2048kB", "always [inherit] within_size advise never\n");
	CHECK(!folios_allowed(dir));
	choose("hugepages-64kB", "[always] inherit within_size advise never\n");
	CHECK(folios_allowed(dir));
	choose("hugepages-64kB", "always inherit [within_size] advise never\n");
	CHECK(folios_allowed(dir));
	choose("hugepages-64kB", "always inherit within_size [advise] never\n");
	CHECK(!folios_allowed(dir));
	choose("other", "[always]\n");
	CHECK(!folios_allowed(dir));
	choose(".", "always [within_size] advise never deny force\n");
	CHECK(folios_allowed(dir));
	choose(".", "always within_size advise never deny [force]\n");
	CHECK(folios_allowed(dir));
	choose(".", "always within_size [advise] never deny force\n");
	CHECK(!folios_allowed(dir));
	choose(".", "nonsense");
	CHECK(!folios_allowed(dir));
}
