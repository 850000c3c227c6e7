#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 120
"""Where the page cache may use large folios (transparent_hugepage/shmem_enabled), fill has
them made, and a page that is there but not filled yet is shown to nobody."""

import contextlib
import os
import re

from lib import Ledger, Skip, check, main, read, slow_disk, test

SETTING = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
MIB = 64


@contextlib.contextmanager
def shmem_enabled(value):
    if not os.access(SETTING, os.W_OK):
        raise Skip("this kernel has no transparent huge pages, or the setting can not be changed")
    before = re.search(r"\[(\w+)\]", read(SETTING)).group(1)
    try:
        with open(SETTING, "w") as f:
            f.write(value)
        yield
    finally:
        with open(SETTING, "w") as f:
            f.write(before)


def large_kib():
    return int(re.search(r"ShmemHugePages:\s*(\d+)", read("/proc/meminfo")).group(1))


def restored(where, value, *args, daemon_env=None):
    """The ledger was dumped with small ones. How many KiB more are in large folios when all is complete"""
    led = Ledger(where, "-m", str(MIB), *args).start().dump()
    with shmem_enabled(value):
        before = large_kib()
        led.lazy_restore(daemon_env=daemon_env)
        check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
        grown = large_kib() - before
        led.check_right()
    led.kill()
    return grown


@test
def form(where):
    """Nearly all of an object that is filled in the background is in large folios"""
    grown = restored(where, "within_size")
    check(grown >= MIB * 1024 * 3 // 4, "%d KiB of %d MiB are in large folios" % (grown, MIB))


@test
def not_where_they_are_off(where):
    grown = restored(where, "never")
    check(grown < 1024, "%d KiB in large folios" % grown)


@test
def forked_children(where):
    """Each child starts with mappings that the daemon does not know yet; pages all around are there, but empty"""
    restored(where, "always", "-p", "2", "-c", daemon_env=slow_disk(64))


@test
def advised_only(where):
    """That is for mappings: the fill has none, and all is as ever"""
    restored(where, "advise", "-p", "2", "-c", daemon_env=slow_disk(64))


main()
