#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 400
"""The daemon dies at any moment: nobody may run on zeroes."""

import os
import signal
import time

from lib import Ledger, check, check_log, check_nothing_left, finish, guards, lazy_flags, main, rng, slow_disk, test, wait_for

ROUNDS = int(os.environ.get("KILL_ROUNDS", "100"))


def expect_death(led):
    """All tasks die soon, none of them saw a wrong byte."""
    wait_for(lambda: not led.alive(), "tasks outlive the daemon", 10)
    led.check_right()
    check_nothing_left(led)


def expect_death_or_retirement(led):
    """False if the daemon was killed on its way out, with nothing left to bring."""
    def over():
        pids = led.alive()
        return not pids or (not guards(led) and not any(lazy_flags(pid) for pid in pids))

    wait_for(over, "tasks with registered mappings outlive the daemon", 10)
    led.check_right()
    check_nothing_left(led)
    died = not led.alive()
    led.kill()
    return died


@test
def in_a_wide_open_window(where):
    """Killed while it serves nothing at all: every task waits, then dies"""
    led = Ledger(where, "-m", "64", "-p", "3", "-c").start().dump()
    daemon = led.start_daemon(env=slow_disk(50))
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
    led = Ledger(where, "-m", "64", "-p", "2", "-c").start().dump()
    daemon = led.start_daemon(env=slow_disk(50))
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


def churning(where):
    """A dumped ledger with forks, madvise and private memory; kept in images"""
    led = Ledger(where, "-m", "192", "-p", "3", "-c", "-x", "-P", "4").start().dump("--leave-running")
    led.kill()
    return led


def kill_rounds(led, rounds, moment):
    """Restores again and again; moment(led) returns the daemon when it is to be
    killed, and the restore that may be still running."""
    in_window = tries = 0
    while in_window < rounds:
        tries += 1
        check(tries <= 5 * rounds, "only %d of %d kills were in the window" % (in_window, tries))
        daemon = led.start_daemon()
        restore = moment()
        daemon.kill()
        killed = finish(daemon) != 0
        restored = finish(restore) == 0
        if killed:
            try:
                in_window += expect_death_or_retirement(led) and restored
            except Exception as e:
                raise type(e)("round %d: %s" % (tries, e))
        else:
            led.check_right()
            led.kill()
    print("%d of %d kills were in the window" % (in_window, tries), flush=True)


@test
def at_random_moments_of_the_window(where):
    """After resume, with forks and madvise going on"""
    random = rng()
    led = churning(where)

    led.lazy_restore()
    start = time.monotonic()
    check(led.finish_daemon() == 0, "the daemon failed")
    span = time.monotonic() - start
    led.kill()

    def moment():
        restore = led.criu("restore", "-d", "--lazy-pages")
        check(finish(restore) == 0, "restore failed")
        time.sleep(random.uniform(0, span))
        return restore

    kill_rounds(led, ROUNDS, moment)


@test
def at_random_moments_of_the_restore(where):
    """From the daemon's start on, before there is a guard, and before resume"""
    random = rng()
    led = churning(where)

    start = time.monotonic()
    led.lazy_restore()
    span = time.monotonic() - start
    check(led.finish_daemon() == 0, "the daemon failed")
    led.kill()

    def moment():
        restore = led.criu("restore", "-d", "--lazy-pages")
        time.sleep(random.uniform(0, span))
        return restore

    kill_rounds(led, max(ROUNDS // 20, 1), moment)


main()
