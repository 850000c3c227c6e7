#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""Whose memory it is: shared memory of a container is charged to its memory cgroup, also
where criu lazy-pages brings it, which runs in another one."""

import os

from container_lib import MIB, Rig
from lib import check, check_log, finish, main, slow_disk, test, wait_for

SHARED = 512


@test
def charged_to_the_container(where):
    """All of the object to the container's cgroup, none of it to the daemon's"""
    with Rig(where) as rig:
        c = rig.container("c", shared=SHARED, limit=700).run().must_checkpoint()
        ours = rig.cgroup("daemon")
        c.start_daemon(cgroup=ours)
        check(c.daemon.pid in ours.pids(), "the daemon is not in its cgroup")
        c.must_restore("--lazy-pages")
        c.must_finish_daemon()
        check(len(c.counters()) == 1, "nothing was lazy: " + c.log("restore.log")[-500:])
        charged, not_charged = c.cgroup.shmem(), ours.shmem()
        check(charged >= SHARED * MIB - 4096, "%d bytes are charged to the container" % charged)
        check(c.cgroup.usage() >= charged, "%d bytes are the container's usage" % c.cgroup.usage())
        check(not_charged < MIB, "%d bytes are charged to the daemon" % not_charged)
        c.walk()
        check(c.cgroup.shmem() - charged <= 4096, "pages were allocated by the walk: they had not been filled")


@test
def charged_while_it_runs(where):
    """Also what is filled because a task waits for it, in the lazy window"""
    with Rig(where) as rig:
        c = rig.container("c", shared=64, limit=200).run().must_checkpoint()
        ours = rig.cgroup("daemon")
        c.start_daemon(cgroup=ours, env=slow_disk(50))
        c.must_restore("--lazy-pages").walk()
        c.must_finish_daemon()
        check(c.counters()[0]["faults"] > 0, "nobody waited for a page")
        check(c.cgroup.shmem() >= 64 * MIB - 4096, "%d bytes are charged to the container" % c.cgroup.shmem())
        check(ours.shmem() < MIB, "%d bytes are charged to the daemon" % ours.shmem())


@test
def limit_below_contents(where):
    """The container does not fit its limit: it ends, whoever notices first, and a log says why"""
    with Rig(where) as rig:
        c = rig.container("c", shared=SHARED, limit=700).run().must_checkpoint()
        c.set_limit(SHARED // 2)
        ours = rig.cgroup("daemon")
        c.start_daemon(cgroup=ours)
        restored = c.restore("--lazy-pages")
        daemon = finish(c.daemon, 60)
        check(daemon == 1, "restore: status %d, daemon: status %d" % (restored, daemon))
        check_log(c.log("lazy-pages.log"), r"Error.*lazy-shmem: .*[Oo]bject 0x[0-9a-f]+.*cgroup")
        if restored:
            check_log(c.log("restore.log"), r"Error.*see its log|Error.*its log tells why|Error.*killed by signal")
        c.check_gone()
        check(ours.shmem() < MIB, "%d bytes are charged to the daemon" % ours.shmem())
        # the images are as they were
        c.set_limit(700)
        c.runc("delete", "--force", c.name)
        wait_for(lambda: not os.path.exists(c.cgroup.path), "the cgroup of the container is left")
        c.start_daemon()
        c.must_restore("--lazy-pages").walk()
        c.must_finish_daemon()


main()
