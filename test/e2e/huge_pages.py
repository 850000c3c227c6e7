#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 120
"""Fewer huge pages than an object has: a restore fails before any task runs, as an
eager one does. It is too late afterwards: the tasks would have to be killed."""

import contextlib
import mmap
import os
import re

from lib import BUILD, Ledger, Skip, check, check_nothing_left, main, read, slow_disk, test

LEFTOVERS = os.path.join(BUILD, "e2e", "leftovers")
NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"
HUGE = 2 << 20
MAP_HUGE_2MB = 0x40000 | 21 << 26  # with MAP_HUGETLB
IN_USE = 2  # by the tree, and as many by the dump
NEEDED = 6


def available():
    info = read("/proc/meminfo")
    free, reserved = (int(re.search(r"HugePages_%s:\s*(\d+)" % what, info).group(1)) for what in ("Free", "Rsvd"))
    return free - reserved


def set_nr(nr):
    with open(NR_HUGEPAGES, "w") as f:
        f.write(str(max(nr, 0)))


@contextlib.contextmanager
def more_huge_pages():
    before = int(read(NR_HUGEPAGES))
    try:
        set_nr(before + NEEDED)
        if available() < NEEDED:
            raise Skip("no huge pages to be had")
        yield
    finally:
        set_nr(int(read(NR_HUGEPAGES)) - NEEDED)


@contextlib.contextmanager
def all_but(nr):
    """A mapping reserves its pages; so many are left"""
    with mmap.mmap(-1, (available() - nr) * HUGE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_HUGE_2MB):
        yield


def check_too_few(where, *kinds):
    tree = Ledger(where)
    tree.args = [LEFTOVERS, tree.report_file, "hugetlb"] + list(kinds)
    tree.processes = 3
    with more_huge_pages():
        tree.start().dump()
        with all_but(IN_USE - 1):
            check(tree.restore() != 0, "an eager restore does without the pages that it needs")
            tree.start_daemon(env=slow_disk(5))
            tree.check_failed_restore(tree.restore("--lazy-pages"))
            check(tree.finish_daemon() == 1, "the daemon says all is well")
            check_nothing_left(tree)
        # nothing is lost
        tree.lazy_restore()
        tree.walk()
        check(tree.finish_daemon() == 0, "the daemon failed: " + tree.errors("lazy-pages.log"))
        tree.kill()


@test
def too_few(where):
    check_too_few(where)


@test
def too_few_for_a_mapping_without_reservation(where):
    check_too_few(where, "noreserve")


main()
