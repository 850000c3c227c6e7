// SPDX-License-Identifier: GPL-2.0-only
/* Which contents are where, with CRIU's page_read cut down to what it does with entries and parents */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "criu_internals.h"

#include "fill.h"
#include "images.h"
#include "unit.h"

#define PG    4096UL
#define SHMID 0x21

/* What open_page_read() finds: the top, its parent */
static struct {
	int fd; /* of pages-<n>.img, or EMPTY_IMG_FD */
	int nr;
	PagemapEntry pes[8];
} levels[2];

static int nr_levels, nr_closed;

/*
 * Of CRIU
 */

static int advance(struct page_read *pr)
{
	if (++pr->curr_pme >= pr->nr_pmes)
		return 0;
	pr->pe = pr->pmes[pr->curr_pme];
	pr->cvaddr = pr->pe->vaddr;
	return 1;
}

/* To vaddr, forwards only. Each page of an entry with PE_PRESENT that is passed is one in the pages image. */
static void seek(struct page_read *pr, unsigned long vaddr)
{
	for (;;) {
		if (pr->pe && vaddr < pr->pe->vaddr + pr->pe->nr_pages * PG) {
			if (pagemap_present(pr->pe))
				pr->pi_off += (off_t)(vaddr - pr->cvaddr);
			pr->cvaddr = vaddr;
			return;
		}
		if (pr->pe && pagemap_present(pr->pe))
			pr->pi_off += (off_t)(pr->pe->vaddr + pr->pe->nr_pages * PG - pr->cvaddr);
		CHECK_EQ(advance(pr), 1);
	}
}

static int read_pages(struct page_read *pr, unsigned long vaddr, int nr, void *buf, unsigned flags)
{
	int ret;

	CHECK(vaddr >= pr->pe->vaddr && vaddr + (unsigned long)nr * PG <= pr->pe->vaddr + pr->pe->nr_pages * PG);
	if (pagemap_in_parent(pr->pe)) {
		seek(pr->parent, vaddr);
		ret = pr->parent->read_pages(pr->parent, vaddr, nr, buf, flags);
	} else {
		ret = pr->maybe_read_page(pr, vaddr, nr, buf, flags);
	}
	if (ret < 0)
		return -1;
	pr->cvaddr += (unsigned long)nr * PG;
	return 1;
}

static void close_level(struct page_read *pr)
{
	nr_closed++;
	if (pr->parent) {
		close_level(pr->parent);
		free(pr->parent);
	}
	free(pr->pi);
	free(pr->pmes);
}

static void open_level(struct page_read *pr, int level)
{
	int i;

	*pr = (struct page_read){
		.advance = advance,
		.read_pages = read_pages,
		.close = close_level,
		.nr_pmes = levels[level].nr,
		.curr_pme = -1,
		.pages_img_id = (unsigned int)level + 1,
	};
	pr->pmes = calloc(8, sizeof(*pr->pmes));
	pr->pi = malloc(sizeof(*pr->pi));
	CHECK(pr->pmes && pr->pi);
	/* of a file that is not there, CRIU sets no more */
	memset(pr->pi, 0xee, sizeof(*pr->pi));
	pr->pi->fd = levels[level].fd;
	if (pr->pi->fd != EMPTY_IMG_FD)
		bfd_setraw(&pr->pi->_x);
	for (i = 0; i < pr->nr_pmes; i++)
		pr->pmes[i] = &levels[level].pes[i];
	if (level + 1 < nr_levels) {
		pr->parent = malloc(sizeof(*pr->parent));
		CHECK(pr->parent);
		open_level(pr->parent, level + 1);
	}
}

int open_page_read(unsigned long id, struct page_read *pr, int flags)
{
	CHECK_EQ(id, SHMID);
	CHECK_EQ(flags, PR_SHMEM);
	open_level(pr, 0);
	return 1;
}

int open_image_lazy(struct cr_img *img)
{
	(void)img;
	return -1;
}

/*
 * The tests
 */

static int new_level(unsigned long pages)
{
	int fd = EMPTY_IMG_FD;

	if (pages) {
		fd = (int)CHECK_SYS(memfd_create("unit", MFD_CLOEXEC));
		CHECK_SYS(ftruncate(fd, (off_t)(pages * PG)));
	}
	levels[nr_levels++].fd = fd;
	return fd;
}

static void add(unsigned long page, unsigned int nr, uint32_t flags)
{
	PagemapEntry *pe = &levels[nr_levels - 1].pes[levels[nr_levels - 1].nr++];

	*pe = (PagemapEntry){ .vaddr = page * PG, .nr_pages = nr, .has_flags = 1, .flags = flags };
}

static struct extents ex;
static struct images *im;

static int open_it(bool server)
{
	opts.use_page_server = server;
	return images_open(&im, &ex, SHMID, 100 * PG);
}

static void check(size_t i, unsigned long page, unsigned long nr, int fd, unsigned long src_page)
{
	CHECK(i < ex.n);
	CHECK_EQ(ex.v[i].off, page * PG);
	CHECK_EQ(ex.v[i].len, nr * PG);
	CHECK_EQ(ex.v[i].src_fd, fd);
	CHECK_EQ(ex.v[i].src_off, src_page * PG);
}

static void close_it(void)
{
	images_close(im);
	CHECK_EQ(nr_closed, nr_levels);
	extents_free(&ex);
}

static void refused(const char *text)
{
	CHECK_EQ(open_it(false), -1);
	CHECK_EQ(ex.n, 0);
	CHECK_EQ(nr_closed, nr_levels);
	if (!strstr(unit_log(), text))
		unit_failed(__FILE__, __LINE__, "the log does not have: %s", text);
}

/* What the dump left at the source; no pages image is there then */
TEST(all_lazy)
{
	new_level(0);
	add(0, 10, PE_LAZY);
	add(10, 5, PE_LAZY);
	add(20, 5, PE_LAZY);
	CHECK_EQ(open_it(true), 0);
	CHECK_EQ(ex.n, 2);
	check(0, 0, 15, SEG_REMOTE, 0);
	check(1, 20, 5, SEG_REMOTE, 20);
	close_it();
}

/* An entry without contents takes no room in the pages image */
TEST(lazy_and_present)
{
	int fd = new_level(8);

	add(0, 3, PE_PRESENT);
	add(3, 4, PE_LAZY);
	add(10, 5, PE_PRESENT | PE_LAZY);
	CHECK_EQ(open_it(true), 0);
	CHECK_EQ(ex.n, 3);
	check(0, 0, 3, fd, 0);
	check(1, 3, 4, SEG_REMOTE, 3);
	check(2, 10, 5, fd, 3);
	close_it();
}

/* What a pre-dump brought counts, also where the dump's own pages are lazy */
TEST(lazy_and_parent)
{
	int top, parent;

	top = new_level(2);
	add(0, 4, PE_PARENT);
	add(4, 4, PE_LAZY);
	add(8, 2, PE_PRESENT);
	add(10, 6, PE_PARENT);
	parent = new_level(14);
	add(0, 6, PE_PRESENT);
	add(6, 2, PE_LAZY);
	add(8, 8, PE_PRESENT);
	CHECK_EQ(open_it(true), 0);
	CHECK_EQ(ex.n, 4);
	check(0, 0, 4, parent, 0);
	check(1, 4, 4, SEG_REMOTE, 4);
	check(2, 8, 2, top, 0);
	check(3, 10, 6, parent, 8);
	close_it();
}

/* The operator copied all but the pages */
TEST(pages_image_not_here)
{
	new_level(0);
	add(0, 4, PE_PRESENT);
	add(4, 4, PE_PARENT);
	add(20, 4, PE_PRESENT | PE_LAZY);
	new_level(0);
	add(0, 8, PE_PRESENT);
	CHECK_EQ(open_it(true), 0);
	CHECK_EQ(ex.n, 2);
	check(0, 0, 8, SEG_REMOTE, 0);
	check(1, 20, 4, SEG_REMOTE, 20);
	close_it();
}

TEST(local_without_server)
{
	int fd = new_level(8);

	add(0, 3, PE_PRESENT);
	add(10, 5, PE_PRESENT | PE_LAZY);
	CHECK_EQ(open_it(false), 0);
	CHECK_EQ(ex.n, 2);
	check(0, 0, 3, fd, 0);
	check(1, 10, 5, fd, 3);
	close_it();
}

TEST(lazy_without_server)
{
	new_level(8);
	add(0, 3, PE_PRESENT);
	add(10, 5, PE_LAZY);
	refused("Object 0x21: contents of offset 0xa000 are on the page server: criu lazy-pages needs --page-server "
		"--address --port");
}

TEST(no_pages_image_without_server)
{
	new_level(0);
	add(2, 3, PE_PRESENT);
	refused("Object 0x21: no pages-1.img for offset 0x2000; copy it to the images directory");
}

/* That there is a server is no excuse for images that are here and damaged */
TEST(short_pages_image)
{
	new_level(7);
	add(0, 3, PE_PRESENT);
	add(10, 5, PE_PRESENT);
	CHECK_EQ(open_it(true), -1);
	CHECK(strstr(unit_log(), "pages-1.img has 28672 bytes, too short for the 20480 at 0x3000"));
	CHECK_EQ(ex.n, 0);
}

TEST(no_flags)
{
	new_level(8);
	add(0, 3, 0);
	refused("Object 0x21: the images have no contents for offset 0");
}
