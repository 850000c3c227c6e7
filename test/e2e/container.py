#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 600
"""Containers of runc, checkpointed and restored lazily on one machine: two processes that
share 512 MiB, in PID, mount, network and IPC namespaces and a memory cgroup of their own."""

import os
import shutil
import signal

from container_lib import MIB, Rig
from lib import check, check_log, finish, lazy_flags, main, slow_disk, test


@test
def lazy_restore(where):
    """It runs before its shared memory is there, and finds all of it"""
    with Rig(where) as rig:
        c = rig.container("c", limit=700).run()
        check(c.count() == 2, "the counter does not begin at 0")
        c.must_checkpoint()
        c.start_daemon(env=slow_disk(400))
        c.must_restore("--lazy-pages")
        check(all(lazy_flags(pid) for pid in c.pids()), "the window closed before it could be looked at")
        check(c.count() == 4, "the counter does not go on")
        c.walk()
        c.must_finish_daemon()
        objects = c.counters()
        check(len(objects) == 1 and objects[0]["size"] == 512 * MIB and objects[0]["tasks"] == 2, str(objects))
        check(objects[0]["faults"] > 0 and objects[0]["pages_continue"] > 0, "nothing was continued: %s" % objects)
        check(not any(lazy_flags(pid) for pid in c.pids()), "mappings are still registered")
        c.walk()
        check(c.count() == 6, "the counter does not go on")


@test
def checkpoint_again(where):
    """Refused in the window, and the container runs on; when the daemon has exited it works"""
    with Rig(where) as rig:
        c = rig.container("c", shared=64).run().must_checkpoint()
        daemon = c.start_daemon(env=slow_disk(50))
        c.must_restore("--lazy-pages")
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            check(lazy_flags(c.pids()[0]), "the window closed before it could be looked at")
            second = os.path.join(where, "second")
            os.makedirs(second)
            status = c.runc("checkpoint", "--image-path", second, "--work-path", second, c.name)
            check(status != 0, "a checkpoint during the lazy window succeeded")
            with open(os.path.join(second, "dump.log")) as f:
                check_log(f.read(), r"Error.*registered with userfaultfd.*retry when criu lazy-pages has finished")
            check(c.state() == "running" and len(c.pids()) == 2, "the refused checkpoint did harm")
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        c.walk()
        c.must_finish_daemon()
        c.must_checkpoint()
        c.start_daemon()
        c.must_restore("--lazy-pages").walk()
        c.must_finish_daemon()


@test
def no_daemon(where):
    """The error names the directory where the daemon must listen"""
    with Rig(where) as rig:
        c = rig.container("c", shared=16).run().must_checkpoint()
        check(c.restore("--lazy-pages") != 0, "restored without a daemon")
        check_log(c.log("restore.log"), r"Error.*No criu lazy-pages is listening in %s: start it first" % c.work)
        check_log(c.log("runc-restore.log"), r"log file: %s/restore.log" % c.work)
        c.check_gone()
        # nothing is lost by it
        c.start_daemon()
        c.must_restore("--lazy-pages").walk()
        c.must_finish_daemon()


@test
def plugin_from_the_config_file(where):
    """Without CRIU_LIBS_DIR: a file for CRIU that the container's annotation names"""
    with Rig(where) as rig:
        c = rig.container("c", shared=16).run()
        libdir = c.env.pop("CRIU_LIBS_DIR")
        c.must_checkpoint()
        c.set_config("libdir " + libdir, "lazy-pages")
        c.start_daemon("--libdir", libdir)
        c.must_restore()  # not told to be lazy by anything else
        c.must_finish_daemon().walk()
        check(len(c.counters()) == 1, "nothing was lazy")


@test
def plugin_from_runc_conf(where):
    """/etc/criu/runc.conf, which runc tells CRIU of when the container has no annotation"""
    with Rig(where) as rig:
        c = rig.container("c", shared=16).run().must_checkpoint()
        libdir = c.env.pop("CRIU_LIBS_DIR")
        etc = os.path.join(where, "etc")
        shutil.copytree("/etc", etc, symlinks=True, ignore=lambda top, names: [n for n in names if n == "criu"])
        os.makedirs(os.path.join(etc, "criu"))
        with open(os.path.join(etc, "criu", "runc.conf"), "w") as f:
            f.write("libdir %s\nlazy-pages\n" % libdir)
        c.enter = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', etc]
        c.start_daemon("--libdir", libdir)
        c.must_restore()  # not told to be lazy by anything else
        c.must_finish_daemon().walk()
        check(len(c.counters()) == 1, "nothing was lazy")


@test
def deleted_in_window(where):
    """Nobody waits for its memory any more: the daemon ends, and no process of it stays in the cgroup"""
    with Rig(where) as rig:
        c = rig.container("c", shared=512).run().must_checkpoint()
        c.start_daemon(env=slow_disk(50), cgroup=rig.cgroup("daemon"))
        c.must_restore("--lazy-pages")
        check(lazy_flags(c.pids()[0]), "the window closed before it could be looked at")
        check(c.runc("delete", "--force", c.name) == 0, "runc delete: " + c.errors("runc-delete.log"))
        c.check_gone()
        check(not os.path.exists(c.cgroup.path), "its cgroup is left, with %s" % c.cgroup.pids())
        c.must_finish_daemon()


@test
def daemon_killed(where):
    """The container dies with its daemon; it does not run on zeroes"""
    with Rig(where) as rig:
        c = rig.container("c", shared=64).run().must_checkpoint()
        daemon = c.start_daemon(env=slow_disk(20))
        c.must_restore("--lazy-pages")
        check(len(c.pids()) == 2, "not two processes")
        daemon.kill()
        check(finish(daemon) == -signal.SIGKILL, "the daemon did not die")
        c.check_gone()
        check_log(c.log("lazy-pages.log"), r"criu lazy-pages \(\d+\) died", r"Killed \d+ \(sharer\)")


main()
