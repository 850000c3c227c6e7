#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""Mappings that change in the window, in ways of which events tell little or
nothing. What happens is in test/lib/mapper.c; the images are on a slow disk."""

import os
import resource

from lib import (BUILD, Ledger, TestFailure, alive, check, check_nothing_left, finish, main, read, slow_disk, test,
                 wait_for)

MAPPER = os.path.join(BUILD, "e2e", "mapper")


class Mapper(Ledger):
    """A mapper, dumped and with all of its processes gone"""

    def __init__(self, where, scenario, children=0):
        super().__init__(where)
        self.processes = 1
        self.go = os.path.join(where, "go")
        self.args = [MAPPER, scenario, self.report_file, self.go, str(children)]
        self.start().dump()
        wait_for(lambda: not self.tasks(), "dumped processes are still there")

    def tasks(self):
        """All processes: children do not tell their pids"""
        return [int(p) for p in os.listdir("/proc") if p.isdigit() and alive(int(p))
                and self.report_file in read("/proc/%s/cmdline" % p).split("\0")]

    def said(self, word):
        return word in read(self.report_file).splitlines()

    def wait_said(self, word):
        wait_for(lambda: self.said(word) or not self.alive() or self.daemon.poll(), "mapper: no '%s'" % word)
        self.check_right()
        check(self.said(word), "mapper: no '%s'; %s: %s" % (
            word, "it lives" if self.alive() else "it was killed", self.errors("lazy-pages.log")))

    def act(self, there=True):
        """Acts at once when it is restored, if it is not yet"""
        if there:
            open(self.go, "w").close()
        else:
            os.unlink(self.go)

    def restore_lazily(self, mbps):
        self.start_daemon(env=slow_disk(mbps))
        status = finish(self.criu("restore", "-d", "--lazy-pages"), 20)
        check(status == 0, "restore: status %d: %s" % (status, self.errors("restore.log")))

    def check_window(self, objects):
        self.wait_said("acted")
        done = len(self.counters())
        check(done < objects, "the window closed before it acted: %d of %d objects were complete" % (done, objects))

    def finish_right(self, objects):
        """What it sees is right while the window is open and when it is closed"""
        self.wait_said("checked")
        status = self.finish_daemon()
        check(status == 0, "the daemon's status is %d: %s" % (status, self.errors("lazy-pages.log")))
        check(len(self.counters()) == objects, "%d objects are complete and not %d" % (len(self.counters()), objects))
        self.act(False)
        self.wait_said("done")
        check_nothing_left(self)
        self.kill()


def scenario(where, name, objects=1, children=0, mbps=25):
    led = Mapper(where, name, children)
    led.act()
    led.restore_lazily(mbps)
    led.check_window(objects)
    led.finish_right(objects)


@test
def merge(where):
    """Two mappings become one, and all of it is removed at once"""
    scenario(where, "merge")


@test
def remove_half(where):
    scenario(where, "remove_half")


@test
def dup_dontneed(where):
    """MADV_DONTNEED on a mapping added by mremap()"""
    scenario(where, "dup_dontneed")


@test
def dup_unmap(where):
    """What is left is not where it is known that there is something"""
    scenario(where, "dup_unmap")


@test
def grow(where):
    """More of the object is mapped, and what was mapped is unmapped"""
    scenario(where, "grow")


@test
def grow_dontneed(where):
    scenario(where, "grow_dontneed")


@test
def grow_unmap_dontneed(where):
    scenario(where, "grow_unmap_dontneed")


@test
def cow_grow(where):
    """Behind the old end there are pages that a private mapping has copied"""
    scenario(where, "cow_grow")


@test
def move_swap(where):
    """One moves away, another in its place: the events may come in any order"""
    scenario(where, "move_swap", objects=16)


@test
def move_swap_dontneed(where):
    scenario(where, "move_swap_dontneed", objects=16)


@test
def race(where):
    """MADV_REMOVE and MADV_DONTNEED of the same pages by two processes"""
    scenario(where, "race", objects=2)


@test
def many_mappers(where):
    """The two of 80 children who call madvise() are the last"""
    scenario(where, "many_mappers", objects=2, children=80, mbps=12)


@test
def contenders(where):
    """MADV_REMOVE by one of 70 restored processes, while 8 go on with MADV_DONTNEED"""
    scenario(where, "contenders", objects=2, children=69)


@test
def many_objects(where):
    """70 objects, with MADV_DONTNEED on each of them"""
    scenario(where, "many_objects", objects=70)


def grown_when_complete(where, name):
    led = Mapper(where, name)
    led.restore_lazily(25)
    wait_for(led.counters, "the small object does not become complete")
    led.act()
    led.check_window(2)
    led.finish_right(2)


@test
def complete_grow(where):
    """A complete object has more mapped, while the task waits for another one"""
    grown_when_complete(where, "complete_grow")


@test
def complete_grow_dontneed(where):
    grown_when_complete(where, "complete_grow_dontneed")


@test
def thread_stack(where):
    """A thread needs shared memory before it can be resumed"""
    scenario(where, "thread_stack")


@test
def max_map_count(where):
    """MADV_DONTNEED on private memory, when no mapping can be split"""
    scenario(where, "max_map_count")


def storm(where, nofile):
    """All is right, or the daemon says what failed and all are killed; returns which."""
    led = Mapper(where, "fork_storm", 100)
    led.restore_lazily(25)
    resource.prlimit(led.daemon.pid, resource.RLIMIT_NOFILE, (nofile, nofile))
    led.act()
    try:
        led.finish_right(2)
        check(max(o["tasks"] for o in led.counters()) > 20, "few children came in the window")
        return True
    except TestFailure as e:
        led.check_right()
        check(led.finish_daemon() != 0, "the daemon succeeded, the mapper did not: %s" % e)
        check(led.errors("lazy-pages.log"), "no reason in the daemon's log")
        wait_for(lambda: not led.tasks(), "processes are left: %s" % led.tasks(), 5)
        led.check_right()
        check_nothing_left(led)
        return False


@test
def fork_storm(where):
    """A daemon with enough descriptors for 100 children"""
    check(storm(where, 1024), "not all is right with enough descriptors")


@test
def fork_storm_nofile(where):
    """A daemon that has not"""
    check(not storm(where, 64), "64 descriptors were enough")


@test
def stale_remove(where):
    """A MADV_REMOVE of what had come, by a thread that is awake ever since; then others' MADV_DONTNEED there"""
    scenario(where, "stale", mbps=5)


main()
