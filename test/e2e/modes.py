#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 240
"""How much is filled that nobody waits for: on demand, with a limit, with a low
priority; and that the daemon knows its end."""

import ctypes
import os
import signal
import time

from lib import (CRIU, TOP, Ledger, alive, check, check_log, check_nothing_left, finish, lazy_flags, main, popen, read, test,
                 wait_for)
from memcg_lib import MemoryGroup
from remote_lib import free_port, from_server, start_server, take_contents_away
from scatter_lib import Scatter

ON_DEMAND = {"CRIU_LAZY_SHMEM_FILL": "on-demand"}


def restored(led, env=None, args=(), criu=None):
    led.start_daemon(env=env, args=args)
    kwargs = {"criu": criu} if criu else {}
    check(led.restore("--lazy-pages", **kwargs) == 0, "restore failed: " + led.errors("lazy-pages.log"))
    return led


def check_waits(led, what):
    """The daemon is there, and does nothing: not in 1.5 of its seconds"""
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        check(led.daemon.poll() is None, "the daemon has gone %s: %s" % (what, led.errors("lazy-pages.log")))
        time.sleep(0.05)


@test
def only_what_is_touched(where):
    """On demand: no page is filled but in the windows of those touched; the daemon ends with the tasks"""
    led = restored(Scatter(where, "256", "1", "2").start().dump(), ON_DEMAND)
    check_waits(led, "before anything is touched")
    led.walk()
    check_waits(led, "after the walk")
    check(lazy_flags(led.pids[0]), "the mappings are not registered any more")
    led.kill()
    check(led.finish_daemon(5) == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    # 655 pages, in windows of 64 at most
    left = led.abandoned()
    check(65536 - 655 * 64 <= left <= 65536 - 655, "%d pages of 65536 were not filled" % left)
    check_nothing_left(led)


@test
def nothing_is_touched(where):
    """No page was filled when the tasks exit: the daemon notices all the same"""
    led = restored(Scatter(where, "16", "1", "2").start().dump(), ON_DEMAND)
    led.kill()
    check(led.finish_daemon(5) == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check(led.abandoned() == 16 * 256, "pages were filled")
    check_nothing_left(led)


@test
def one_of_two_exits(where):
    """The other one is served as before"""
    led = restored(Scatter(where, "16", "50", "2").start().dump(), ON_DEMAND)
    other = next(pid for pid in led.pids if pid != led.main.pid)
    os.kill(other, signal.SIGKILL)
    wait_for(lambda: not alive(other), "it does not die")
    check_waits(led, "with one of the tasks")
    led.pids.remove(other)
    led.walk()
    led.kill()
    check(led.finish_daemon(5) == 0, "the daemon failed")


@test
def all_is_touched(where):
    """On demand an object may become complete: then it is retired"""
    led = restored(Ledger(where, "-m", "16", "-p", "2").start().dump(), ON_DEMAND)
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed")
    check(led.counters()[0]["pages_filled"] == 16 * 256, str(led.counters()))
    check(not lazy_flags(led.pids[0]), "mappings are still registered")
    led.kill()


@test
def before_resume_is_not_on_demand(where):
    """What must be complete before resume is, and does not hold the daemon"""
    led = restored(Scatter(where, "16", "25", "2", "open").start().dump(), ON_DEMAND)
    check(led.finish_daemon() == 0, "the daemon failed")
    check_log(led.log("lazy-pages.log"), r"filled before resume: .*pages_filled=4096 ")
    led.walk()
    led.kill()


@test
def the_rest_on_request(where):
    """SIGUSR1: the rest is filled, the daemon ends, the tasks can be dumped again"""
    led = restored(Ledger(where, "-m", "64", "-p", "2").start().dump(), ON_DEMAND)
    check_waits(led, "before the signal")
    os.makedirs(os.path.join(where, "second"))
    dump = led.criu("dump", "-t", str(led.main.pid), "-D", os.path.join(where, "second"), log="second.log")
    check(finish(dump) != 0, "a dump during the lazy window succeeded")
    os.kill(led.daemon.pid, signal.SIGUSR1)
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check_log(led.log("lazy-pages.log"), r"process %d asks for the rest of shared memory" % os.getpid())
    check(led.counters()[0]["pages_filled"] == 64 * 256, str(led.counters()))
    check(not lazy_flags(led.pids[0]), "mappings are still registered")
    led.dump().lazy_restore()
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed")
    led.kill()


@test
def signal_before_there_is_anything(where):
    """SIGUSR1 does not end a daemon that has nothing to do yet, and counts"""
    led = Ledger(where, "-m", "16", "-p", "2").start().dump()
    led.start_daemon(env=ON_DEMAND)
    os.kill(led.daemon.pid, signal.SIGUSR1)
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("restore.log") + led.errors("lazy-pages.log"))
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    led.walk()
    led.kill()


@test
def killed(where):
    """The tasks do not run on without the daemon, however long they have not needed it"""
    led = restored(Scatter(where, "64", "10", "2").start().dump(), ON_DEMAND)
    led.walk()
    led.daemon.kill()
    wait_for(lambda: not led.alive(), "the tasks run on")
    check_log(led.log("lazy-pages.log"), r"criu lazy-pages \(\d+\) died before the contents")
    check_nothing_left(led)


@test
def thread_that_waits_for_all(where):
    """A fault whose mapping is not known for certain waits until the task is retired: on demand, too,
    that must come. A program of the oracle has one."""
    oracle = os.path.join(TOP, "test", "oracle", "oracle.py")
    with open(os.path.join(where, "oracle.log"), "w+") as log:
        status = finish(popen([oracle, "--seed", "515178", "--repeat", "3", "--no-shrink"], stdout=log, stderr=log,
                              env=dict(os.environ, ORACLE_ON_DEMAND="1")), 60)
        log.seek(0)
        check(status == 0, log.read()[-500:])


@test
def page_server_on_demand(where):
    """Connections that are idle for longer than --lazy-timeout are none that are lost"""
    led = Scatter(where, "64", "1", "2").start().dump()
    images = take_contents_away(led)
    port = free_port()
    server = start_server(led, images, port, args=("--lazy-timeout", "1"))
    restored(led, ON_DEMAND, from_server(port, "--lazy-timeout", "1"))
    end = time.monotonic() + 3.5
    while time.monotonic() < end:
        check(led.daemon.poll() is None, "the daemon has gone: " + led.errors("lazy-pages.log"))
        check(server.poll() is None, "the page server has gone: " + led.errors("page-server.log"))
        time.sleep(0.05)
    check("lost" not in led.log("lazy-pages.log"), "a connection was lost")
    led.walk()
    led.kill()
    check(led.finish_daemon(5) == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    left = led.abandoned()
    check(16384 - 163 * 64 <= left <= 16384 - 163, "%d pages of 16384 were not filled" % left)
    check(finish(server) == 0, "the page server failed: " + led.errors("page-server.log"))


def timed(led, daemon_env, args=(), criu=None):
    """Seconds from the end of restore until the daemon has ended"""
    restored(led, daemon_env, args, criu)
    began = time.monotonic()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    return time.monotonic() - began


def check_rate(seconds):
    check(1.8 <= seconds <= 3, "64 MiB at 32 MiB/s took %.2f s" % seconds)


LIMITED = {"CRIU_LAZY_SHMEM_BANDWIDTH": "32"}


@test
def bandwidth(where):
    """64 MiB at 32 MiB/s, and a fault meanwhile does not wait for its turn"""
    led = restored(Scatter(where, "64", "1", "1").start().dump(), LIMITED)
    began = time.monotonic()
    (walk,) = led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check_rate(time.monotonic() - began)
    check(int(walk["max_us"]) < 200000, "a fault took %s us" % walk["max_us"])
    (o,) = led.counters()
    check(o["faults"] > 10 and o["pages_filled"] == 64 * 256, "the walk had hardly any faults: %s" % o)
    led.kill()


def dumped_to_server(where):
    led = Scatter(where, "64", "1", "1").start().dump()
    images = take_contents_away(led)
    port = free_port()
    server = start_server(led, images, port)
    return led, port, server


@test
def bandwidth_of_a_page_server(where):
    led, port, server = dumped_to_server(where)
    check_rate(timed(led, LIMITED, from_server(port)))
    led.walk()
    check(finish(server) == 0, "the page server failed")
    led.kill()


@test
def bandwidth_in_a_cgroup(where):
    """A process in the cgroup of the tasks fills, and is held back as well"""
    group = MemoryGroup("modes")
    led = Scatter(where, "64", "1", "1").start()
    try:
        group.add(led.main.pid)
        led.dump("--manage-cgroups=ignore")
        restored(led, LIMITED, criu=group.wrap(where, CRIU))
        began = time.monotonic()
        check(group.processes("lazyshm-fill"), "no process fills in the cgroup")
        check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
        check_rate(time.monotonic() - began)
        led.walk()
    finally:
        led.kill()
        group.remove()


def priorities(pid):
    """Nice values of its threads"""
    return {int(t): int(read("/proc/%d/task/%s/stat" % (pid, t)).rpartition(")")[2].split()[16])
            for t in os.listdir("/proc/%d/task" % pid)}


@test
def priority(where):
    """Threads that fill are nice; the one that answers faults is not"""
    led = restored(Scatter(where, "64", "1", "1").start().dump(),
                   dict(ON_DEMAND, CRIU_LAZY_SHMEM_NICE="7", CRIU_LAZY_SHMEM_IOPRIO="idle",
                        CRIU_LAZY_SHMEM_WORKERS="2"))
    pid = led.daemon.pid
    wait_for(lambda: list(priorities(pid).values()).count(7) >= 2, "threads: %s" % priorities(pid), 5)
    check(priorities(pid)[pid] == 0, "the event loop: %s" % priorities(pid))
    for thread, nice in priorities(pid).items():
        check(io_class(thread) == (3 if nice == 7 else 0), "thread %d is of class %d" % (thread, io_class(thread)))
    led.kill()
    check(led.finish_daemon(5) == 0, "the daemon failed")


@test
def priority_of_pullers(where):
    """Of the two connections to a page server only the one of the background gives way"""
    led, port, server = dumped_to_server(where)
    restored(led, dict(ON_DEMAND, CRIU_LAZY_SHMEM_NICE="7", CRIU_LAZY_SHMEM_IOPRIO="3"), from_server(port))
    pid = led.daemon.pid
    children = [int(c) for c in read("/proc/%d/task/%d/children" % (pid, pid)).split()]
    found = {read("/proc/%d/comm" % c).strip(): (priorities(c)[c], io_class(c)) for c in children}
    check(found.get("lazyshm-bulk") == (7, 2) and found.get("lazyshm-urgent") == (0, 0), str(found))
    led.kill()
    check(led.finish_daemon(5) == 0, "the daemon failed")
    check(finish(server) == 0, "the page server failed")


def io_class(thread):
    libc = ctypes.CDLL(None, use_errno=True)
    value = libc.syscall(252, 1, thread)  # ioprio_get
    check(value >= 0, "ioprio_get")
    return value >> 13


@test
def bad_values(where):
    """Misspelt: an error, and the daemon does not start"""
    led = Scatter(where, "16", "25", "1").start().dump()
    for name, value in (("FILL", "demand"), ("BANDWIDTH", "fast"), ("BANDWIDTH", "-1"), ("NICE", "20"), ("NICE", "-1"),
                        ("IOPRIO", "8"), ("IOPRIO", "rt")):
        daemon = led.start_daemon(env={"CRIU_LAZY_SHMEM_" + name: value})
        check(finish(daemon, 10) != 0, "%s=%s: the daemon stays" % (name, value))
        check_log(led.log("lazy-pages.log"), r"Error.*CRIU_LAZY_SHMEM_%s is '%s'" % (name, value))


if __name__ == "__main__":
    main()
