#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""A kernel without minor faults for shmem: with the plugin or without it, patched
CRIU restores as unpatched CRIU does, and says so in one line."""

import os
import re
import sys

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
sys.path.insert(0, os.path.join(TOP, "test", "e2e"))
import lib  # noqa: E402
from lib import BUILD, Ledger, check, check_nothing_left, finish, test  # noqa: E402

PLAIN = os.path.join(BUILD, "criu-plain", "criu", "criu")
LINE = r"lazy-shmem: shared memory is restored before resume: this kernel has no minor faults for shmem"
MIB, PRIVATE_MIB, PROCESSES = 8, 1, 2
WALK = MIB * 256


def ledger(where, *args):
    return Ledger(where, "-m", str(MIB), "-p", str(PROCESSES), "-P", str(PRIVATE_MIB), *args).start()


def check_walk(led):
    walks = led.walk()
    check([int(w["pages"]) for w in walks] == [WALK] * PROCESSES, "not all pages were checked: %s" % walks)


def without_plugin(where):
    path = os.path.join(where, "no-plugins")
    os.makedirs(path)
    return {"CRIU_LIBS_DIR": path}


def check_feature(where, criu, feature):
    return finish(Ledger(where).criu("check", "--feature", feature, log="check.log", criu=criu))


@test
def check_works(where):
    """criu check finds nothing missing that this kernel must have"""
    for criu in (PLAIN, lib.CRIU):
        check(finish(Ledger(where).criu("check", log="check.log", criu=criu)) == 0, "criu check: %s" % criu)


@test
def feature_is_missing(where):
    for feature in ("uffd-minor-shmem", "uffd-minor-hugetlbfs"):
        check(check_feature(where, lib.CRIU, feature) != 0, "%s found" % feature)
        check("UFFD minor faults are not supported" in lib.read(os.path.join(where, "check.log")), "no reason given")
    check(check_feature(where, lib.CRIU, "uffd-noncoop") == 0, "uffd-noncoop not found")


@test
def unpatched_eager(where):
    """A control: what CRIU itself can do here"""
    led = ledger(where)
    led.env.update(without_plugin(where))
    led.dump(criu=PLAIN)
    check(led.restore(criu=PLAIN) == 0, "restore: " + led.errors("restore.log"))
    check_walk(led)
    led.kill()


@test
def unpatched_lazy(where):
    led = ledger(where)
    led.env.update(without_plugin(where))
    led.dump(criu=PLAIN)
    led.start_daemon(criu=PLAIN)
    check(led.restore("--lazy-pages", criu=PLAIN) == 0, "restore: " + led.errors("restore.log"))
    check_walk(led)
    check(led.finish_daemon() == 0, "the daemon failed")
    led.kill()


def fall_back(where, *args):
    """Everything of it, private memory lazily as ever"""
    led = ledger(where, *args).dump().lazy_restore()
    check_walk(led)
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    for name in ("restore.log", "lazy-pages.log"):
        said = re.findall(r"lazy-shmem: .*", led.log(name))
        check(len(said) == 1 and re.match(LINE, said[0]), "in %s, not one line: %s" % (name, said))
    check(not led.counters(), "objects were lazy")
    check("uffd_copy" in led.log("lazy-pages.log"), "private memory was not restored lazily")
    check(not any(lib.lazy_flags(pid) for pid in led.pids), "mappings are still registered")
    check_nothing_left(led)
    # and again: nothing of the first restore is in the way
    led.dump().lazy_restore()
    check_walk(led)
    check(led.finish_daemon() == 0, "the daemon failed the second time")
    led.kill()


@test
def falls_back(where):
    fall_back(where)


@test
def falls_back_with_memfds(where):
    fall_back(where, "-f", "-s")


lib.main("guest")
