#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 400
"""The daemon dies at any moment: nobody may run on zeroes."""

import os
import signal
import time

from lib import Ledger, check, check_log, check_nothing_left, finish, guards, main, read, rng, test, wait_for

ROUNDS = int(os.environ.get("KILL_ROUNDS", "100"))


def expect_death(led):
    """All tasks die soon, none of them saw a wrong byte."""
    wait_for(lambda: not led.alive(), "tasks %s outlive the daemon: %s" % (
        led.alive(), [read("/proc/%d/wchan" % p) for p in led.alive()]), 10)
    led.check_right()
    check_nothing_left(led)


@test
def in_a_wide_open_window(where):
    """Killed while it serves nothing at all: every task waits, then dies"""
    led = Ledger(where, "-m", "64", "-p", "3", "-c").start().dump()
    daemon = led.start_daemon()
    check(led.restore("--lazy-pages") == 0, "restore failed")
    os.kill(daemon.pid, signal.SIGSTOP)
    check(guards(led), "there is no guard")
    os.kill(daemon.pid, signal.SIGKILL)
    finish(daemon)
    expect_death(led)
    check_log(led.log("lazy-pages.log"), r"Error.*criu lazy-pages \(%d\) died before" % daemon.pid,
              r"Error.*Killed %d \(ledger\)" % led.pids[0])


@test
def terminated(where):
    """SIGTERM and the like are no better"""
    led = Ledger(where, "-m", "256", "-p", "2", "-c").start().dump()
    daemon = led.start_daemon()
    check(led.restore("--lazy-pages") == 0, "restore failed")
    os.kill(daemon.pid, signal.SIGTERM)
    check(finish(daemon) != 0, "the window was over")
    expect_death(led)


@test
def after_completion(where):
    """With everything retired the daemon's end is nobody's concern"""
    led = Ledger(where, "-m", "16", "-p", "2").start().dump().lazy_restore()
    check(led.finish_daemon() == 0, "the daemon failed")
    check_nothing_left(led)
    led.walk()
    led.kill()


@test
def at_random_moments(where):
    """From its start to the end of the window, with forks and madvise going on"""
    random = rng()
    led = Ledger(where, "-m", "96", "-p", "3", "-c", "-x", "-P", "1").start().dump("--leave-running")
    led.kill()

    # how long it takes undisturbed
    start = time.monotonic()
    led.lazy_restore()
    check(led.finish_daemon() == 0, "the daemon failed")
    span = time.monotonic() - start
    led.kill()

    in_window = completed = 0
    for i in range(ROUNDS):
        daemon = led.start_daemon()
        restore = led.criu("restore", "-d", "--lazy-pages")
        time.sleep(random.uniform(0, 1.2 * span))
        daemon.kill()
        killed = finish(daemon) != 0
        restored = finish(restore) == 0
        if killed:
            try:
                expect_death(led)
            except Exception as e:
                raise type(e)("round %d: %s" % (i, e))
            in_window += restored
        else:
            completed += 1
            led.check_right()
            led.kill()
    print("%d rounds: %d killed in the window, %d before the end of restore, %d complete before" % (
        ROUNDS, in_window, ROUNDS - in_window - completed, completed), flush=True)
    check(in_window >= ROUNDS // 10, "only %d of %d kills were in the window" % (in_window, ROUNDS))


main()
