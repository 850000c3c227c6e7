// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "order.h"
#include "order.pb-c.h"

#define ORDER_MAGIC   0x4f48534cU /* LSHO */
#define ORDER_VERSION 1U

/*
 * The most that a run takes in a file: two varints of a page number. It has a page
 * at least, so a file is no larger than that for each page, and a little.
 */
#define RUN_BYTES  20UL
#define HEAD_BYTES 64UL

void order_name(char name[ORDER_NAME_LEN], uint32_t shmid)
{
	snprintf(name, ORDER_NAME_LEN, "lazy-shmem-order-%" PRIu32 ".img", shmid);
}

void order_free(struct order *order)
{
	free(order->v);
	*order = (struct order){ 0 };
}

static int add_run(struct order *order, uint64_t page, uint64_t nr)
{
	if (!order->v || order->n == order->cap) {
		size_t cap = order->cap ? 2 * order->cap : 64;
		struct order_run *v = reallocarray(order->v, cap, sizeof(*v));

		if (!v)
			return -ENOMEM;
		order->v = v;
		order->cap = cap;
	}

	order->v[order->n++] = (struct order_run){ .page = page, .nr = nr };
	return 0;
}

int order_add(struct order *order, uint64_t page)
{
	if (order->n) {
		struct order_run *last = &order->v[order->n - 1];

		if (last->page + last->nr == page) {
			last->nr++;
			return 0;
		}
	}
	return add_run(order, page, 1);
}

/*
 * Writing
 */

/* All that is in the file; *buf is the caller's to free */
static int pack(const struct order *order, const struct order_object *obj, uint8_t **buf, size_t *len)
{
	const uint32_t head[2] = { ORDER_MAGIC, ORDER_VERSION };
	Lshm__OrderImage img = LSHM__ORDER_IMAGE__INIT;
	uint64_t *numbers;
	size_t i;

	numbers = calloc(order->n ? 2 * order->n : 1, sizeof(*numbers));
	if (!numbers)
		return -ENOMEM;
	for (i = 0; i < order->n; i++) {
		numbers[i] = order->v[i].page;
		numbers[order->n + i] = order->v[i].nr;
	}

	img.shmid = obj->shmid;
	img.size = obj->size;
	img.page_size = obj->page_size;
	img.n_first = img.n_nr = order->n;
	img.first = numbers;
	img.nr = numbers + order->n;

	*len = sizeof(head) + lshm__order_image__get_packed_size(&img);
	*buf = malloc(*len);
	if (*buf) {
		memcpy(*buf, head, sizeof(head));
		lshm__order_image__pack(&img, *buf + sizeof(head));
	}
	free(numbers);
	return *buf ? 0 : -ENOMEM;
}

static int write_all(int fd, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t ret = write(fd, buf, len);

		if (ret < 0 && errno == EINTR)
			continue;
		if (ret <= 0)
			return ret ? -errno : -EIO;
		buf += ret;
		len -= (size_t)ret;
	}
	return 0;
}

/* A file of our own: what has the name already may be anything, and the directory anybody's */
static int open_new(int dirfd, const char *name)
{
	int fd;

	if (unlinkat(dirfd, name, 0) && errno != ENOENT)
		return -errno;

	fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

/* Whoever finds the name finds all of the file, after a crash of the machine as well */
static int write_file(int dirfd, const char *name, const uint8_t *buf, size_t len)
{
	char tmp[ORDER_NAME_LEN + 8];
	int fd, err;

	snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	fd = open_new(dirfd, tmp);
	if (fd < 0)
		return fd;

	err = write_all(fd, buf, len);
	if (!err && fsync(fd))
		err = -errno;
	if (close(fd) && !err)
		err = -errno;
	if (!err && renameat(dirfd, tmp, dirfd, name))
		err = -errno;
	if (err)
		unlinkat(dirfd, tmp, 0);
	return err;
}

int order_check_dir(int dirfd)
{
	const char *name = "lazy-shmem-order.img.tmp";
	int fd;

	fd = open_new(dirfd, name);
	if (fd < 0)
		return fd;

	close(fd);
	return unlinkat(dirfd, name, 0) ? -errno : 0;
}

int order_save(const struct order *order, const struct order_object *obj, int dirfd)
{
	char name[ORDER_NAME_LEN];
	uint8_t *buf;
	size_t len;
	int err;

	err = pack(order, obj, &buf, &len);
	if (err)
		return err;

	order_name(name, obj->shmid);
	err = write_file(dirfd, name, buf, len);
	free(buf);
	return err;
}

/*
 * Reading. Everything in there is checked: whoever can write to the directory can
 * have a restore be slow, and nothing else.
 */

static uint64_t pages_of(const struct order_object *obj)
{
	return (obj->size + obj->page_size - 1) / obj->page_size;
}

/* *buf is the caller's to free, after an error as well */
static int read_file(int fd, const struct order_object *obj, uint8_t **buf, size_t *len, const char **why)
{
	struct stat st;
	ssize_t ret;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode)) {
		*why = "it is not a file";
		return -EINVAL;
	}
	if (st.st_size < 0 || (uint64_t)st.st_size > HEAD_BYTES + RUN_BYTES * pages_of(obj)) {
		*why = "it is too large for an object of that size";
		return -EINVAL;
	}

	*len = (size_t)st.st_size;
	*buf = malloc(*len ? *len : 1);
	if (!*buf)
		return -ENOMEM;
	ret = pread(fd, *buf, *len, 0);
	if (ret == (ssize_t)*len)
		return 0;

	*why = "it can't be read";
	return ret < 0 ? -errno : -EIO;
}

static const char *wrong_head(const uint8_t *buf, size_t len)
{
	uint32_t head[2];

	if (len < sizeof(head))
		return "it is too short";
	memcpy(head, buf, sizeof(head));
	if (head[0] != ORDER_MAGIC)
		return "it does not begin with the magic of such a file";
	if (head[1] != ORDER_VERSION)
		return "it is of another version";
	return NULL;
}

static const char *wrong_object(const Lshm__OrderImage *img, const struct order_object *obj)
{
	if (img->shmid != obj->shmid)
		return "it is of another object";
	if (img->size != obj->size)
		return "it is of an object of another size";
	if (img->page_size != obj->page_size)
		return "it is of an object with pages of another size";
	if (img->n_first != img->n_nr)
		return "the runs in it are incomplete";
	return NULL;
}

/* Marks a run in a map with a bit for each page */
static const char *mark_run(uint8_t *seen, uint64_t pages, uint64_t first, uint64_t nr)
{
	uint64_t i;

	if (!nr)
		return "a run in it is empty";
	if (first >= pages || nr > pages - first)
		return "a run in it is outside of the object";

	for (i = first; i < first + nr; i++) {
		if (seen[i / 8] & 1U << i % 8)
			return "runs in it overlap";
		seen[i / 8] |= (uint8_t)(1U << i % 8);
	}
	return NULL;
}

static int take_runs(struct order *order, const Lshm__OrderImage *img, const struct order_object *obj, const char **why)
{
	uint64_t pages = pages_of(obj);
	uint8_t *seen;
	size_t i;
	int err = 0;

	seen = calloc(pages / 8 + 1, 1);
	if (!seen)
		return -ENOMEM;

	for (i = 0; i < img->n_first && !err; i++) {
		*why = mark_run(seen, pages, img->first[i], img->nr[i]);
		err = *why ? -EINVAL : add_run(order, img->first[i], img->nr[i]);
	}
	free(seen);
	if (err)
		order_free(order);
	return err;
}

static int parse(struct order *order, const uint8_t *buf, size_t len, const struct order_object *obj, const char **why)
{
	Lshm__OrderImage *img;
	int err = -EINVAL;

	*why = wrong_head(buf, len);
	if (*why)
		return -EINVAL;

	img = lshm__order_image__unpack(NULL, len - 2 * sizeof(uint32_t), buf + 2 * sizeof(uint32_t));
	if (!img) {
		*why = "it is damaged";
		return -EINVAL;
	}

	*why = wrong_object(img, obj);
	if (!*why)
		err = take_runs(order, img, obj, why);
	lshm__order_image__free_unpacked(img, NULL);
	return err;
}

int order_load(struct order *order, const struct order_object *obj, int dirfd, const char **why)
{
	char name[ORDER_NAME_LEN];
	uint8_t *buf = NULL;
	size_t len = 0;
	int fd, err;

	*why = NULL;
	order_name(name, obj->shmid);
	/* a fifo must not make us wait */
	fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0) {
		err = -errno;
	} else {
		err = read_file(fd, obj, &buf, &len, why);
		close(fd);
		if (!err)
			err = parse(order, buf, len, obj, why);
		free(buf);
	}

	if (err && !*why)
		*why = strerror(-err);
	return err;
}
