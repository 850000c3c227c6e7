#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""Containers with a user namespace, run by root: what lets their tasks have a userfaultfd."""

import os

from container_lib import Rig, unprivileged_userfaultfd
from lib import Skip, check, check_log, finish, main, read, test

DEVICE = "/dev/userfaultfd"


def check_restored_lazily(c):
    c.must_restore("--lazy-pages").walk()
    check(read("/proc/%d/uid_map" % c.pids()[0]).split() == ["0", "100000", "65536"], "it has no user namespace")
    c.must_finish_daemon()
    check(len(c.counters()) == 1 and c.counters()[0]["tasks"] == 2, str(c.counters()))


@test
def device(where):
    """/dev/userfaultfd, opened by restore before it makes the tasks"""
    if not os.path.exists(DEVICE):
        raise Skip("no %s (Linux 6.1)" % DEVICE)
    with Rig(where) as rig, unprivileged_userfaultfd("0"):
        c = rig.container("c", shared=64, user_ns=True)
        c.allow_device(DEVICE)
        c.run().must_checkpoint()
        c.start_daemon()
        check_restored_lazily(c)
        # the tasks themselves have got nothing by it
        check(not any(os.path.exists("/proc/%d/root%s" % (pid, DEVICE)) for pid in c.pids()), "they see the device")


@test
def sysctl(where):
    """vm.unprivileged_userfaultfd, without the device"""
    with Rig(where) as rig, unprivileged_userfaultfd("1"):
        c = rig.container("c", shared=64, user_ns=True).run().must_checkpoint()
        c.start_daemon()
        check_restored_lazily(c)


@test
def neither(where):
    """The error says what is missing, nothing is left, and the images are good for another try"""
    with Rig(where) as rig, unprivileged_userfaultfd("0"):
        c = rig.container("c", shared=16, user_ns=True).run().must_checkpoint()
        c.start_daemon()
        check(c.restore("--lazy-pages") != 0, "restored without a right to userfaultfd")
        check_log(c.log("restore.log"), r"Error.*userfaultfd.*Operation not permitted.*vm\.unprivileged_userfaultfd=1, "
                                        r"or /dev/userfaultfd .*device cgroup")
        check(finish(c.daemon) == 1, "the daemon says that all is well")
        c.check_gone()
        check(c.restore() == 0, "an eager restore fails: " + c.errors("runc-restore.log", "restore.log"))
        c.walk()


main()
