// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "criu_internals.h"

#include "fill.h"
#include "images.h"

struct images {
	struct page_read pr;
};

/* What note_pages() works for; page_read has no place for a pointer of ours */
static struct {
	struct extents *ex;
	uint32_t shmid;
	uint64_t limit; /* bytes of the object, in whole pages */
} noting;

/* Never img_raw_fd() of an image that is not there: it looks at fields that were not set */
static bool has_pages_image(const struct page_read *pr)
{
	return pr->pi && !empty_image(pr->pi);
}

/* The pages are at pr->pi_off in pr->pi */
static int locate_local(struct page_read *pr, struct extent *e)
{
	struct stat st;

	e->src_fd = img_raw_fd(pr->pi);
	e->src_off = (uint64_t)pr->pi_off;
	if (e->src_fd < 0 || fstat(e->src_fd, &st)) {
		pr_err("Object %#x: can't use pages-%u.img for offset %#" PRIx64 "\n", noting.shmid, pr->pages_img_id,
		       e->off);
		return -1;
	}

	if (e->len > (uint64_t)st.st_size || e->src_off > (uint64_t)st.st_size - e->len) {
		pr_err("Object %#x: pages-%u.img has %" PRId64 " bytes, too short for the %" PRIu64
		       " at %#" PRIx64 " which belong at offset %#" PRIx64 "; copy the images again\n",
		       noting.shmid, pr->pages_img_id, (int64_t)st.st_size, e->len, e->src_off, e->off);
		return -1;
	}
	return 0;
}

/* The pages are not here: the page server knows them by their offset in the object */
static int locate_remote(const struct page_read *pr, struct extent *e)
{
	if (opts.use_page_server) {
		e->src_fd = SEG_REMOTE;
		e->src_off = e->off;
		return 0;
	}

	if (pagemap_present(pr->pe))
		pr_err("Object %#x: no pages-%u.img for offset %#" PRIx64 "; copy it to the images directory"
		       ", or if a page server has it: criu lazy-pages needs --page-server --address --port\n",
		       noting.shmid, pr->pages_img_id, e->off);
	else
		pr_err("Object %#x: contents of offset %#" PRIx64
		       " are on the page server: criu lazy-pages needs --page-server --address --port\n",
		       noting.shmid, e->off);
	return -1;
}

/* Stands in for pr->maybe_read_page(). pr->pi_off is where the pages of the next entry that has any are. */
static int note_pages(struct page_read *pr, unsigned long vaddr, int nr, void *buf, unsigned flags)
{
	struct extent e = { .off = vaddr, .len = (uint64_t)nr * PAGE_SIZE };
	int ret;

	(void)buf;
	(void)flags;

	if (pagemap_present(pr->pe) && has_pages_image(pr))
		ret = locate_local(pr, &e);
	else
		ret = locate_remote(pr, &e);
	if (ret)
		return -1;

	ret = extents_add(noting.ex, &e, noting.limit, PAGE_SIZE);
	if (ret) {
		pr_err("Object %#x: can't note %" PRIu64 " bytes at offset %#" PRIx64 ": %s\n", noting.shmid, e.len,
		       e.off, strerror(-ret));
		return -1;
	}

	if (pagemap_present(pr->pe))
		pr->pi_off += (off_t)e.len;
	return 0;
}

/*
 * page_read trusts its pagemap: it has BUG_ON()s and ints for numbers of pages.
 * So entries are checked before it works with them. limit is in bytes; a parent
 * may have been larger.
 */
static int check_pagemap(struct page_read *pr, uint32_t shmid, uint64_t limit)
{
	uint64_t prev_end = 0;
	int i;

	for (i = 0; i < pr->nr_pmes; i++) {
		const PagemapEntry *pe = pr->pmes[i];
		uint64_t len = (uint64_t)pe->nr_pages * PAGE_SIZE;

		if (!pe->nr_pages || pe->nr_pages > INT_MAX || (pe->vaddr & (PAGE_SIZE - 1)) ||
		    pe->vaddr > (uint64_t)INT64_MAX - len) {
			pr_err("Object %#x: pagemap entry %d is damaged: %u pages at %#" PRIx64 "\n", shmid, i,
			       pe->nr_pages, pe->vaddr);
			return -1;
		}
		if (pe->vaddr < prev_end) {
			pr_err("Object %#x: pagemap entry %d at offset %#" PRIx64
			       " overlaps the one before it or is out of order\n",
			       shmid, i, pe->vaddr);
			return -1;
		}
		prev_end = pe->vaddr + len;

		if (prev_end > limit) {
			pr_err("Object %#x: pagemap entry %d ends at offset %#" PRIx64 ", beyond the object of %" PRIu64
			       " bytes\n",
			       shmid, i, prev_end, limit);
			return -1;
		}
		if (!(pe->flags & (PE_PRESENT | PE_PARENT | PE_LAZY))) {
			pr_err("Object %#x: the images have no contents for offset %#" PRIx64 "\n", shmid, pe->vaddr);
			return -1;
		}
	}

	return 0;
}

static int note_all(struct page_read *pr)
{
	int ret;

	while ((ret = pr->advance(pr)) > 0)
		if (pr->read_pages(pr, pr->pe->vaddr, (int)pr->pe->nr_pages, NULL, 0) < 0)
			return -1;

	return ret;
}

int images_open(struct images **out, struct extents *ex, uint32_t shmid, uint64_t size)
{
	uint64_t limit = (size + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
	struct page_read *pr;
	struct images *im;
	int ret;

	im = calloc(1, sizeof(*im));
	if (!im)
		return -1;

	ret = open_page_read(shmid, &im->pr, PR_SHMEM);
	if (ret <= 0) {
		pr_err("Object %#x: can't open pagemap-shmem-%u.img or its pages in the images directory\n", shmid, shmid);
		free(im);
		return -1;
	}

	noting.ex = ex;
	noting.shmid = shmid;
	noting.limit = limit;
	for (pr = &im->pr; pr; pr = pr->parent) {
		if (check_pagemap(pr, shmid, pr == &im->pr ? limit : UINT64_MAX))
			goto err;
		pr->maybe_read_page = note_pages;
	}

	if (note_all(&im->pr)) {
		pr_err("Object %#x: its images can not be used\n", shmid);
		goto err;
	}

	*out = im;
	return 0;
err:
	extents_free(ex);
	images_close(im);
	return -1;
}

int images_top_fd(const struct images *im)
{
	return has_pages_image(&im->pr) ? img_raw_fd(im->pr.pi) : -1;
}

void images_close(struct images *im)
{
	if (!im)
		return;
	im->pr.close(&im->pr);
	free(im);
}
