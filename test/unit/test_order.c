// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "order.h"
#include "order.pb-c.h"
#include "unit.h"

#define PG    4096ULL
#define PAGES 1000ULL

static const struct order_object object = { .shmid = 0xdf9f, .size = PAGES * PG - 100, .page_size = PG };

static int new_dir(void)
{
	char name[] = "/tmp/unit-order-XXXXXX";

	CHECK(mkdtemp(name));
	return (int)CHECK_SYS(open(name, O_RDONLY | O_DIRECTORY));
}

static void remove_dir(int dir)
{
	char name[ORDER_NAME_LEN], link[64], path[4096];
	ssize_t n;

	order_name(name, object.shmid);
	unlinkat(dir, name, 0);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = CHECK_SYS(readlink(link, path, sizeof(path) - 1));
	path[n] = 0;
	close(dir);
	CHECK_SYS(rmdir(path)); /* with nothing else in it */
}

static void check_run(const struct order *o, size_t i, uint64_t page, uint64_t nr)
{
	CHECK(i < o->n);
	CHECK_EQ(o->v[i].page, page);
	CHECK_EQ(o->v[i].nr, nr);
}

TEST(add)
{
	struct order o = { 0 };

	CHECK_EQ(order_add(&o, 7), 0);
	CHECK_EQ(order_add(&o, 8), 0);
	CHECK_EQ(order_add(&o, 6), 0); /* not ahead of the run: that is an order of its own */
	CHECK_EQ(order_add(&o, 9), 0);
	CHECK_EQ(order_add(&o, 10), 0);
	CHECK_EQ(o.n, 3);
	check_run(&o, 0, 7, 2);
	check_run(&o, 1, 6, 1);
	check_run(&o, 2, 9, 2);
	order_free(&o);
	CHECK_EQ(o.n, 0);
}

TEST(add_without_memory)
{
	struct order o = { 0 };

	unit_fail_realloc(1);
	CHECK_EQ(order_add(&o, 1), -ENOMEM);
	CHECK_EQ(order_add(&o, 1), 0);
	order_free(&o);
}

static void save_random(int dir, struct order *o, unsigned int *seed)
{
	uint64_t first = (uint64_t)rand_r(seed) % PAGES, step = 2 * ((uint64_t)rand_r(seed) % 100) + 1, i;

	/* odd and no multiple of 5: prime to 1000 */
	step += step % 5 ? 0 : 2;
	for (i = 0; i < PAGES / 2; i++)
		CHECK_EQ(order_add(o, (first + i * step) % PAGES), 0);
	CHECK_EQ(order_save(o, &object, dir), 0);
}

TEST(round_trip)
{
	unsigned int seed = unit_seed();
	int dir = new_dir(), i;

	for (i = 0; i < 50; i++) {
		struct order a = { 0 }, b = { 0 };
		const char *why;

		save_random(dir, &a, &seed);
		CHECK_EQ(order_load(&b, &object, dir, &why), 0);
		CHECK_EQ(a.n, b.n);
		CHECK(!memcmp(a.v, b.v, a.n * sizeof(a.v[0])));
		order_free(&a);
		order_free(&b);
	}
	remove_dir(dir);
}

TEST(empty_order)
{
	struct order o = { 0 };
	const char *why;
	int dir = new_dir();

	CHECK_EQ(order_save(&o, &object, dir), 0);
	CHECK_EQ(order_load(&o, &object, dir, &why), 0);
	CHECK_EQ(o.n, 0);
	order_free(&o);
	remove_dir(dir);
}

TEST(no_file)
{
	struct order o = { 0 };
	const char *why;
	int dir = new_dir();

	CHECK_EQ(order_load(&o, &object, dir, &why), -ENOENT);
	remove_dir(dir);
}

static void put(int dir, const void *data, size_t len)
{
	char name[ORDER_NAME_LEN];
	int fd;

	order_name(name, object.shmid);
	fd = (int)CHECK_SYS(openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0600));
	CHECK_EQ(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static void check_bad(int dir, const char *reason)
{
	struct order o = { 0 };
	const char *why;

	CHECK(order_load(&o, &object, dir, &why) < 0);
	unit_note("%s, not %s", why, reason);
	CHECK(strstr(why, reason));
	CHECK(!o.n && !o.v);
}

/* Two runs in a file that is right in all but what is given */
static void put_runs(int dir, const struct order_object *obj, uint64_t a, uint64_t na, uint64_t b, uint64_t nb, size_t n_nr)
{
	uint64_t first[] = { a, b }, nr[] = { na, nb };
	uint32_t head[2] = { 0x4f48534c, 1 };
	Lshm__OrderImage img = LSHM__ORDER_IMAGE__INIT;
	uint8_t buf[256];

	img.shmid = obj->shmid;
	img.size = obj->size;
	img.page_size = obj->page_size;
	img.first = first;
	img.nr = nr;
	img.n_first = 2;
	img.n_nr = n_nr;
	memcpy(buf, head, sizeof(head));
	put(dir, buf, sizeof(head) + lshm__order_image__pack(&img, buf + sizeof(head)));
}

TEST(bad_runs)
{
	struct order o = { 0 };
	const char *why;
	int dir = new_dir();

	put_runs(dir, &object, 990, 10, 0, 990, 2);
	CHECK_EQ(order_load(&o, &object, dir, &why), 0);
	order_free(&o);

	put_runs(dir, &object, 990, 11, 0, 1, 2);
	check_bad(dir, "outside");
	put_runs(dir, &object, 1000, 1, 0, 1, 2);
	check_bad(dir, "outside");
	put_runs(dir, &object, 1, UINT64_MAX, 0, 1, 2);
	check_bad(dir, "outside");
	put_runs(dir, &object, UINT64_MAX, 1, 0, 1, 2);
	check_bad(dir, "outside");
	put_runs(dir, &object, 5, 0, 0, 1, 2);
	check_bad(dir, "empty");
	put_runs(dir, &object, 5, 10, 14, 1, 2);
	check_bad(dir, "overlap");
	put_runs(dir, &object, 14, 1, 5, 10, 2);
	check_bad(dir, "overlap");
	put_runs(dir, &object, 5, 10, 20, 1, 1);
	check_bad(dir, "incomplete");
	remove_dir(dir);
}

TEST(other_object)
{
	struct order_object other = object;
	int dir = new_dir();

	other.shmid++;
	put_runs(dir, &other, 1, 1, 3, 1, 2);
	check_bad(dir, "another object");
	other = object;
	other.size += PG;
	put_runs(dir, &other, 1, 1, 3, 1, 2);
	check_bad(dir, "object of another size");
	other = object;
	other.page_size = 2 << 20;
	put_runs(dir, &other, 1, 1, 3, 1, 2);
	check_bad(dir, "pages of another size");
	remove_dir(dir);
}

TEST(bad_file)
{
	static const uint32_t heads[][3] = { { 0x4f48534d, 1, 0 }, { 0x4f48534c, 2, 0 }, { 0x4f48534c, 1, 0xffffffff } };
	static const uint8_t zeroes[64 + 20 * PAGES + 1];
	char name[ORDER_NAME_LEN];
	int dir = new_dir();

	put(dir, heads, 0);
	check_bad(dir, "too short");
	put(dir, heads[2], 7);
	check_bad(dir, "too short");
	put(dir, heads[0], 12);
	check_bad(dir, "magic");
	put(dir, heads[1], 12);
	check_bad(dir, "version");
	put(dir, heads[2], 8);
	check_bad(dir, "damaged");
	put(dir, heads[2], 12);
	check_bad(dir, "damaged");
	put(dir, zeroes, sizeof(zeroes));
	check_bad(dir, "too large");

	order_name(name, object.shmid);
	CHECK_SYS(unlinkat(dir, name, 0));
	CHECK_SYS(mkfifoat(dir, name, 0600));
	check_bad(dir, "not a file");
	CHECK_SYS(unlinkat(dir, name, 0));
	CHECK_SYS(symlinkat("/etc/passwd", dir, name));
	check_bad(dir, strerror(ELOOP));
	remove_dir(dir);
}

/* A file with any byte changed, or cut off anywhere, is refused or an order of pages of the object */
TEST(any_damage)
{
	unsigned int seed = unit_seed();
	struct order o = { 0 };
	char name[ORDER_NAME_LEN];
	static uint8_t good[65536], bad[65536];
	const char *why;
	ssize_t len;
	int dir = new_dir(), i, fd;

	save_random(dir, &o, &seed);
	order_free(&o);
	order_name(name, object.shmid);
	fd = (int)CHECK_SYS(openat(dir, name, O_RDONLY));
	len = CHECK_SYS(read(fd, good, sizeof(good)));
	close(fd);

	for (i = 0; i < 2000; i++) {
		size_t cut = i % 4 ? (size_t)len : (size_t)rand_r(&seed) % (size_t)len;
		size_t j;

		memcpy(bad, good, (size_t)len);
		bad[(size_t)rand_r(&seed) % (size_t)len] ^= (uint8_t)(1 + rand_r(&seed) % 255);
		put(dir, bad, cut);
		if (order_load(&o, &object, dir, &why))
			continue;
		for (j = 0; j < o.n; j++)
			CHECK(o.v[j].nr && o.v[j].page + o.v[j].nr <= PAGES);
		order_free(&o);
	}
	remove_dir(dir);
}

TEST(replaced_at_once)
{
	struct order a = { 0 }, b = { 0 };
	struct stat before, after;
	const char *why;
	char name[ORDER_NAME_LEN];
	int dir = new_dir(), old;

	order_name(name, object.shmid);
	CHECK_EQ(order_add(&a, 1), 0);
	CHECK_EQ(order_save(&a, &object, dir), 0);
	old = (int)CHECK_SYS(openat(dir, name, O_RDONLY));
	CHECK_EQ(order_add(&a, 5), 0);
	CHECK_EQ(order_save(&a, &object, dir), 0);

	CHECK_EQ(order_load(&b, &object, dir, &why), 0);
	CHECK_EQ(b.n, 2);
	order_free(&b);

	/* whoever had opened the one before has all of that: it is another file */
	CHECK_SYS(fstat(old, &before));
	CHECK_SYS(fstatat(dir, name, &after, 0));
	CHECK(before.st_ino != after.st_ino && before.st_size > 8 && before.st_size < after.st_size);
	close(old);
	order_free(&a);
	remove_dir(dir);
}

/* What has the name of the file that becomes the record: nobody waits for it, or writes to it */
TEST(name_is_taken)
{
	char tmp[ORDER_NAME_LEN + 8], name[ORDER_NAME_LEN];
	int dir = new_dir(), other, fd;
	struct order o = { 0 };
	struct stat st;

	CHECK_EQ(order_add(&o, 7), 0);
	order_name(name, object.shmid);
	snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	CHECK_SYS(mkfifoat(dir, tmp, 0600));
	CHECK_SYS(mkfifoat(dir, "lazy-shmem-order.img.tmp", 0600));
	CHECK_EQ(order_check_dir(dir), 0);
	CHECK_EQ(order_save(&o, &object, dir), 0);

	other = (int)CHECK_SYS(openat(dir, "other", O_RDWR | O_CREAT, 0600));
	CHECK_EQ(write(other, "1234", 4), 4);
	CHECK_SYS(linkat(dir, "other", dir, tmp, 0));
	CHECK_EQ(order_save(&o, &object, dir), 0);
	CHECK_SYS(fstat(other, &st));
	CHECK_EQ(st.st_size, 4);
	fd = (int)CHECK_SYS(openat(dir, name, O_RDONLY));
	CHECK_SYS(fstat(fd, &st));
	CHECK(S_ISREG(st.st_mode) && st.st_nlink == 1);
	close(fd);
	close(other);
	CHECK_SYS(unlinkat(dir, "other", 0));
	order_free(&o);
	remove_dir(dir);
}

TEST(no_directory)
{
	struct order o = { 0 };
	int dir = new_dir();

	CHECK_EQ(order_check_dir(dir), 0);
	remove_dir(dir);
	dir = (int)CHECK_SYS(open("/proc/self", O_RDONLY | O_DIRECTORY));
	CHECK(order_check_dir(dir) < 0);
	CHECK(order_save(&o, &object, dir) < 0);
	close(dir);
}
