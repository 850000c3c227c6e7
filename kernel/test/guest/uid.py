#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Tasks of an ordinary user, restored lazily: root's daemon serves them."""

import os
import sys

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
sys.path.insert(0, os.path.join(TOP, "test", "e2e"))
import lib  # noqa: E402
from lib import Ledger, check, check_nothing_left, read, slow_disk, test, wait_for  # noqa: E402

UID, GID = 18943, 18944  # the first as zdtm.py has it
SETTING = "/proc/sys/vm/unprivileged_userfaultfd"
MIB = 16


def ledger(where, *args):
    led = Ledger(where, "-m", str(MIB), "-P", "1", *args)
    os.chmod(where, 0o777)
    led.args = ["setpriv", "--reuid=%d" % UID, "--regid=%d" % GID, "--clear-groups"] + led.args
    return led.start()


def check_ids(led):
    """No more rights than it had"""
    check(len(led.alive()) == 2, "a process is gone")
    for pid in led.pids:
        status = read("/proc/%d/status" % pid)
        check("Uid:" + 4 * ("\t%d" % UID) in status and "Gid:" + 4 * ("\t%d" % GID) in status, status)
        check("CapPrm:\t0000000000000000" in status and "CapEff:\t0000000000000000" in status, status)


def check_end(led, objects=1):
    status = led.finish_daemon()
    check(status == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    done = [o for o in led.counters() if o["size"] == MIB << 20]
    check(len(done) == objects, "%d objects were lazy and not %d" % (len(done), objects))
    check(all(o["pages_filled"] == MIB * 256 for o in done), "not all was filled: %s" % done)
    check(any(o["pages_continue"] for o in done), "nothing was continued: %s" % done)
    check(not any(lib.lazy_flags(pid) for pid in led.pids), "mappings are still registered")
    check_nothing_left(led)
    check_ids(led)
    led.kill()


def dump_and_restore(where, *args):
    led = ledger(where, *args)
    check_ids(led)
    led.dump().lazy_restore(daemon_env=slow_disk(10))
    check_ids(led)
    return led


@test
def contents(where):
    led = dump_and_restore(where)
    walks = led.walk()
    check([int(w["pages"]) for w in walks] == 2 * [MIB * 256], "not all pages were checked: %s" % walks)
    check_end(led)


@test
def memfd_of_each(where):
    led = dump_and_restore(where, "-f", "-s")
    led.walk()
    check_end(led, objects=2)


@test
def events(where):
    """fork(), madvise(), mprotect() in the window"""
    led = dump_and_restore(where, "-c", "-x")
    wait_for(lambda: led.daemon.poll() is not None or led.check_right(), "the window does not close", 60)
    led.check_right()
    check_end(led)


@test
def userfaultfd_is_for_root_only(where):
    """CRIU makes it before it gives up its rights"""
    old = read(SETTING)
    with open(SETTING, "w") as f:
        f.write("0")
    try:
        led = dump_and_restore(where)
        led.walk()
        check_end(led)
    finally:
        with open(SETTING, "w") as f:
            f.write(old)


@test
def killed_with_its_daemon(where):
    """What can not be delivered kills tasks of other users, too"""
    led = dump_and_restore(where, "-c")
    led.daemon.kill()
    wait_for(lambda: not led.alive(), "tasks live without their memory: %s" % led.alive())
    led.check_right()
    wait_for(lambda: "it maps shared memory whose contents can not come" in led.log("lazy-pages.log"), "no reason is given")


lib.main("guest")
