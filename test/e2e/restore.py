#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""Lazy restore as it should go, and the ways to do without it."""

import os
import select
import signal
import socket
import stat

from lib import (CRIU, PLUGIN_DIR, Ledger, check, check_log, check_nothing_left, finish, lazy_flags, main, slow_disk,
                 test, wait_for)


@test
def contents_and_counters(where):
    """CONTINUE does the work, and shows what was dumped"""
    led = Ledger(where, "-m", "128", "-p", "3").start().dump().lazy_restore(daemon_env=slow_disk(200))
    walks = led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check(sum(int(w["pages"]) for w in walks) == 3 * 128 * 256, "not all pages were checked")
    objects = led.counters()
    check(len(objects) == 1, "%d objects" % len(objects))
    o = objects[0]
    check(o["pages_filled"] == 128 * 256 and o["size"] == 128 << 20 and o["tasks"] == 3, str(o))
    check(o["faults"] > 0 and o["pages_continue"] > 0, "nothing was continued: %s" % o)
    check_nothing_left(led)
    led.kill()


@test
def private_memory_too(where):
    """UFFDIO_COPY for private memory and CONTINUE for shared, in one task"""
    led = Ledger(where, "-m", "64", "-p", "2", "-P", "64").start().dump().lazy_restore(daemon_env=slow_disk(200))
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed")
    check_log(led.log("lazy-pages.log"), r"uffd_copy", r"object 0x[0-9a-f]+ done")
    led.kill()


@test
def dump_in_window_refused(where):
    """While the window is open dump says no; afterwards dump and restore work"""
    led = Ledger(where, "-m", "64", "-p", "2").start().dump()
    daemon = led.start_daemon(env=slow_disk(50))
    check(led.restore("--lazy-pages") == 0, "restore failed")
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        check(lazy_flags(led.pids[0]), "the window closed before it could be looked at")
        os.makedirs(os.path.join(where, "second"))
        dump = led.criu("dump", "-t", str(led.main.pid), "-D", os.path.join(where, "second"), log="second.log")
        check(finish(dump) != 0, "a dump during the lazy window succeeded")
        check_log(led.log("second.log"), r"Error.*registered with userfaultfd.*retry when criu lazy-pages has finished")
        check(len(led.alive()) == 2, "the refused dump killed somebody")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    # the daemon survives being stopped and continued, too
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check(not lazy_flags(led.pids[0]), "mappings are still registered")
    led.dump()
    led.lazy_restore()
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed")
    led.kill()


@test
def switched_off(where):
    """CRIU_LAZY_SHMEM=off is as without the plugin, and one line says so"""
    led = Ledger(where, "-m", "16", env={"CRIU_LAZY_SHMEM": "off"}).start().dump().lazy_restore()
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed")
    check_log(led.log("restore.log"), r"lazy-shmem: shared memory is restored before resume: CRIU_LAZY_SHMEM=off")
    check(not led.counters(), "objects were lazy")
    led.kill()


@test
def bad_setting(where):
    """A misspelt setting is an error, not a guess"""
    led = Ledger(where, "-m", "16").start().dump()
    led.start_daemon()
    status = led.restore("--lazy-pages", env={"CRIU_LAZY_SHMEM": "of"})
    led.check_failed_restore(status, r"Error.*CRIU_LAZY_SHMEM is 'of'")


@test
def plugin_missing_in_daemon(where):
    """Restore has the plugin and the daemon has not: eager, and one line"""
    empty = os.path.join(where, "no-plugins")
    os.makedirs(empty)
    led = Ledger(where, "-m", "16").start().dump().lazy_restore(daemon_env={"CRIU_LIBS_DIR": empty})
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed")
    check_log(led.log("restore.log"), r"criu lazy-pages runs without a plugin for shared memory")
    led.kill()


@test
def plugin_missing_in_restore(where):
    """The daemon has the plugin and restore has not: eager"""
    empty = os.path.join(where, "no-plugins")
    os.makedirs(empty)
    led = Ledger(where, "-m", "16").start().dump().lazy_restore(env={"CRIU_LIBS_DIR": empty})
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed")
    check(not led.counters(), "objects were lazy")
    led.kill()


@test
def kernel_without_minor_faults(where):
    """The old-kernel path, forced by a shim that hides the feature bits"""
    led = Ledger(where, "-m", "16").start().dump()
    run = os.path.join(where, "run")
    os.makedirs(run)
    # the kernel's features are cached below /run: these two get one of their own
    wrapper = os.path.join(where, "criu-old-kernel")
    with open(wrapper, "w") as f:
        f.write("#!/bin/sh\nexec unshare -m --propagation private sh -c '"
                "mount -t tmpfs none /run && LD_PRELOAD=%s exec %s \"$@\"' criu \"$@\"\n"
                % (os.path.join(os.path.dirname(PLUGIN_DIR), "e2e", "no_minor.so"), CRIU))
    os.chmod(wrapper, os.stat(wrapper).st_mode | stat.S_IXUSR)
    daemon = led.start_daemon(criu=wrapper)
    status = led.restore("--lazy-pages", criu=wrapper)
    check(status == 0, "restore: status %d: %s" % (status, led.errors("restore.log")))
    led.walk()
    check(finish(daemon) == 0, "the daemon failed")
    check_log(led.log("restore.log"), r"restored before resume: this kernel has no minor faults for shmem")
    check(not led.counters(), "objects were lazy")
    led.kill()


@test
def check_feature(where):
    """criu check --feature knows the new features"""
    led = Ledger(where)
    for feature in ("uffd-minor-shmem", "uffd-minor-hugetlbfs"):
        check(finish(led.criu("check", "--feature", feature, log="check.log")) == 0, "%s not found" % feature)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@test
def source_outlives_early_failure(where):
    """A post-copy migration whose restore fails before it has any task: the source keeps its tasks"""
    led = Ledger(where, "-m", "4", "-p", "1").start()
    remote = ("--lazy-pages", "--address", "127.0.0.1", "--port", free_port())
    ready, status = os.pipe()
    dump = led.criu("dump", "-t", str(led.main.pid), "--status-fd", str(status), *remote, pass_fds=[status])
    os.close(status)
    wait_for(lambda: select.select([ready], [], [], 0)[0], "the page server does not listen")
    os.close(ready)

    led.start_daemon(args=("--page-server",) + remote[1:])
    with socket.socket(socket.AF_UNIX) as sk:
        sk.connect(os.path.join(where, "lazy-pages.socket"))
    check(led.finish_daemon() == 1, "the daemon says all is well")
    check_log(led.log("lazy-pages.log"), r"Error.*short read")

    # what would let the tasks go is a word that comes before its connection ends
    check(dump.poll() is None, "the dump has ended: " + led.log("dump.log")[-500:])
    check("Disconnect from the page server" not in led.log("lazy-pages.log"), "the page server was told to end")
    check(led.alive() == led.pids, "the source's task is gone")
    led.kill()
    dump.kill()
    finish(dump)


main()
