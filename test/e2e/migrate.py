#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 900
"""Post-copy migration between two machines (test/lib/machines.py): what arrives, and what
becomes of the tasks when an end or the connection is lost."""

import contextlib
import mmap
import os
import re
import signal
import sys
import time

from lib import (BUILD, TOP, Skip, TestFailure, check, check_log, finish, main, read, rng, test,
                 wait_for)

sys.path.insert(0, os.path.join(TOP, "test", "lib"))
from machines import PLAIN, Migration, Pair  # noqa: E402
from proxy import Proxy  # noqa: E402
from service import Client, Service  # noqa: E402

MIGRANT = os.path.join(BUILD, "e2e", "migrant")
MIGRATIONS = int(os.environ.get("MIGRATIONS", "4"))
SHORT = ("--lazy-timeout", "2", "--lazy-retries", "2")
MIB = 64


# contents

class Migrant(Migration):
    def __init__(self, pair, kind, mib):
        before = ["unshare", "-i"] if kind == "sysv" else []  # CRIU dumps SysV memory with its namespace only
        super().__init__(pair, *before, MIGRANT, kind, os.path.join(pair.here, "report"), str(mib))
        wait_for(lambda: len(self.lines(self.source, "ready")) == 2, "migrant is not ready: " + read(
            os.path.join(self.source.own, "out")))

    def lines(self, machine, word):
        return [s for s in read(os.path.join(machine.own, "report")).splitlines() if s.split()[:1] == [word]]

    def tasks(self, machine):
        return machine.named("migrant")

    def look(self):
        """Both processes look at all of their memory, at the destination."""
        tasks = self.tasks(self.destination)
        check(len(tasks) == 2, "%d tasks are at the destination" % len(tasks))
        for pid in tasks:
            os.kill(pid, signal.SIGUSR1)
        wait_for(lambda: len(self.lines(self.destination, "checked")) == 2 or len(self.tasks(self.destination)) < 2,
                 "they do not look")
        said = self.lines(self.destination, "checked")
        check(len(said) == 2 and all(s.endswith(" wrong=0") for s in said), str(said))


def migrant(where, kind, lazy, early=0, mib=MIB):
    """lazy, early: the objects that are complete after resume, and before"""
    with Pair(where) as pair:
        m = Migrant(pair, kind, mib)
        m.lazily()
        m.look()
        m.finish()
        log = pair.destination.log("lazy-pages.log")
        for what, want in ((r"object \S+ done: ", lazy), (r"object \S+ filled before resume: ", early)):
            check(len(re.findall(what, log)) == want, "not %d times /%s/ in lazy-pages.log" % (want, what))
        images = sum(os.path.getsize(os.path.join(pair.source.images, f)) for f in os.listdir(pair.source.images))
        check(images < 4 << 20, "the images of the source have %d bytes: memory is in them" % images)
        check(not m.tasks(pair.source), "the source still has the tasks")
        check(len(m.tasks(pair.destination)) == 2, "a task died when all had arrived")


@test
def anonymous(where):
    migrant(where, "anon", lazy=1)


@test
def memfd(where):
    migrant(where, "memfd", lazy=1)


@test
def two_objects(where):
    migrant(where, "two", lazy=2)


@test
def holes(where):
    """They are not sent, and read as zeroes"""
    migrant(where, "holes", lazy=1)


@test
def open_memfd(where):
    """Must be complete before resume: what is not lazy comes over the network too"""
    migrant(where, "open", lazy=0, early=1)


@test
def sysv(where):
    migrant(where, "sysv", lazy=0, early=1)


@contextlib.contextmanager
def huge_pages(nr):
    path = "/proc/sys/vm/nr_hugepages"
    before = read(path).strip()
    try:
        with open(path, "w") as f:
            f.write(str(int(before) + nr))
        try:
            mmap.mmap(-1, nr * (2 << 20), flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x40000).close()
        except OSError:
            raise Skip("no huge pages to be had")
        yield
    finally:
        with open(path, "w") as f:
            f.write(before)


@test
def huge(where):
    """16 MiB at each end"""
    with huge_pages(16):
        migrant(where, "huge", lazy=1, mib=16)


@test
def under_load(where):
    """Private memory too: the service's own pages are asked for first"""
    with Pair(where) as pair:
        svc = Service(pair, MIB)
        with Client(svc, where) as client:
            client.wait_answers(0, 200)
            svc.lazily()
            client.wait_answers(1, 200)
            svc.finish()
            client.check_right(svc.pages)
            client.check_never_both()
        check(not svc.tasks(pair.source), "the source still has the tasks")
        check_log(pair.destination.log("lazy-pages.log"), r"object 0x[0-9a-f]+ done: .*faults=[1-9]")


# failures

class Run:
    """A service with a client, whose daemon reaches the source through a proxy"""

    def __init__(self, where, mbps=None, mib=MIB):
        self.where, self.mbps, self.mib = where, mbps, mib
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with self.stack as stack:
            self.pair = stack.enter_context(Pair(self.where))
            self.svc = Service(self.pair, self.mib)
            self.proxy = stack.enter_context(Proxy(self.pair, self.svc.port, self.mbps))
            self.client = stack.enter_context(Client(self.svc, self.where))
            self.client.wait_answers(0, 100)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc):
        return self.stack.__exit__(*exc)

    def dump(self, *args):
        self.svc.dump_lazy(*SHORT, *args)
        self.svc.copy()

    def daemon(self, **kwargs):
        return self.svc.start_daemon(*SHORT, address=self.proxy.address, port=self.proxy.port, **kwargs)

    def start(self, *args):
        """Until the tasks run at the destination"""
        self.dump(*args)
        self.daemon()
        self.svc.restore("--lazy-pages")

    def source_log(self):
        return self.pair.source.log("dump.log")

    def daemon_log(self):
        return self.pair.destination.log("lazy-pages.log")

    def tasks(self, side):
        return self.svc.tasks(self.pair.machines[side])

    def over(self):
        """Both ends have said what they have to say; their statuses"""
        return finish(self.svc.server, 60), finish(self.svc.daemon, 60)

    def check_destination_died(self):
        wait_for(lambda: not self.tasks(1), "tasks are left at the destination", 10)
        check(self.client.wrong() == 0, "a wrong page was seen: " + read(self.client.out)[-300:])
        self.client.check_never_both()

    def check_stopped_at_source(self):
        """They are there, and do nothing"""
        pids = self.tasks(0)
        check(len(pids) == 2, "%d tasks are at the source" % len(pids))
        for pid in pids:
            state = read("/proc/%d/stat" % pid).rpartition(")")[2].split()[0]
            check(state in "Tt", "task %d at the source is in state %s" % (pid, state))

    def check_goes_on_at_source(self):
        self.client.wait_answers(0, 200)
        self.client.check_right(self.svc.pages)
        check(not any(r[2] == 1 for r in self.client.records()), "the destination has answered too")

    def check_arrived(self):
        status = self.over()
        check(status == (0, 0), "statuses %s: %s %s" % (status, self.pair.source.errors("dump.log"),
                                                        self.pair.destination.errors("lazy-pages.log")))
        self.client.wait_answers(1, 200)
        self.client.check_right(self.svc.pages)
        self.client.check_never_both()
        check(not self.tasks(0), "the source still has the tasks")

    def wait_passed(self, mib):
        wait_for(lambda: self.proxy.passed > mib << 20, "only %d bytes have passed" % self.proxy.passed)


SAID_WHERE = r"[Oo]bject 0x[0-9a-f]+.*offset"


@test
def cut_once(where):
    """In the middle; what is missing comes over a new connection"""
    with Run(where, mbps=80) as run:
        run.start()
        run.wait_passed(8)
        before = run.proxy.connections
        run.proxy.cut()
        run.check_arrived()
        check(run.proxy.cuts == 1 and run.proxy.connections > before, "nothing was cut")
        check_log(run.daemon_log(), r"(?i)reconnect|connect.* again")


@test
def cut_for_good(where):
    """Nobody answers any more: loud at both ends, and the tasks stay stopped at the source"""
    with Run(where, mbps=40) as run:
        run.start()
        run.client.wait_answers(1, 20)
        run.wait_passed(4)
        run.proxy.refusing = True
        run.proxy.cut()
        source, daemon = run.over()
        check(source != 0 and daemon != 0, "statuses %d, %d" % (source, daemon))
        run.check_destination_died()
        run.check_stopped_at_source()
        check_log(run.daemon_log(), r"Error.*" + SAID_WHERE, r"Killed \d+ \(kv\)")
        check_log(run.source_log(), r"(?i)shared memory.*(not|missing|held|left)|(not|missing|held|left).*shared memory")


@test
def stalled(where):
    """The connection is there, but nothing comes"""
    with Run(where, mbps=40) as run:
        run.start()
        run.wait_passed(4)
        run.proxy.stalled = True
        start = time.monotonic()
        check(finish(run.svc.daemon, 60) != 0, "the daemon is content")
        check(time.monotonic() - start > 1.5, "it gave up before --lazy-timeout")
        run.check_destination_died()
        check_log(run.daemon_log(), r"Error.*" + SAID_WHERE)
        run.proxy.stalled = False  # now the source can see that the daemon is gone
        check(finish(run.svc.server, 60) != 0, "the source is content")
        run.check_stopped_at_source()


@test
def stalled_for_a_moment(where):
    """Less than --lazy-timeout: as if nothing had been"""
    with Run(where, mbps=80) as run:
        run.start()
        run.wait_passed(8)
        run.proxy.stalled = True
        time.sleep(0.5)  # this is the test and not a wait
        run.proxy.stalled = False
        run.check_arrived()


def source_pids(run):
    """criu at the source, and the processes that serve for it"""
    return [p for p in run.pair.source.named("criu")]


@test
def source_stopped(where):
    """SIGSTOP: as a stalled connection; when it goes on, nobody runs there"""
    with Run(where, mbps=40) as run:
        run.start()
        run.wait_passed(4)
        pids = source_pids(run)
        check(pids, "there is no criu at the source")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            check(finish(run.svc.daemon, 60) != 0, "the daemon is content")
            run.check_destination_died()
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        check(finish(run.svc.server, 60) != 0, "the source is content")
        run.check_stopped_at_source()


@test
def source_killed(where):
    """With all that serves: the pages are lost, and the tasks at the destination die"""
    with Run(where, mbps=40) as run:
        run.start()
        run.wait_passed(4)
        for pid in source_pids(run):
            with contextlib.suppress(ProcessLookupError):  # its children die with it
                os.kill(pid, signal.SIGKILL)
        source, daemon = run.over()
        check(source != 0 and daemon != 0, "statuses %d, %d" % (source, daemon))
        run.check_destination_died()
        check_log(run.daemon_log(), r"Error.*" + SAID_WHERE)


@test
def daemon_killed(where):
    """After the switch: the tasks never run at the source again"""
    with Run(where, mbps=40) as run:
        run.start()
        run.client.wait_answers(1, 20)
        os.kill(run.svc.daemon.real, signal.SIGKILL)
        source, _ = run.over()
        check(source != 0, "the source is content")
        run.check_destination_died()
        run.check_stopped_at_source()


@test
def daemon_killed_and_lost_kill(where):
    """--lazy-lost kill: nothing is left at either end"""
    with Run(where, mbps=40) as run:
        run.start("--lazy-lost", "kill")
        os.kill(run.svc.daemon.real, signal.SIGKILL)
        source, _ = run.over()
        check(source != 0, "the source is content")
        run.check_destination_died()
        wait_for(lambda: not run.tasks(0), "tasks are left at the source", 10)


def lost_before_switch(run, *args):
    """The daemon has a connection, but what it says of the switch does not arrive."""
    run.dump(*args)
    run.daemon()
    run.proxy.cut_at = 1 << 10  # the first words at most: no switch is among them
    run.proxy.refusing_after_cut = True
    restore = run.svc.start_restore("--lazy-pages")
    source, daemon = run.over()
    check(source != 0 and daemon != 0, "statuses %d, %d" % (source, daemon))
    check(finish(restore, 60) != 0, "restored all the same")
    check(run.proxy.cuts == 1, "nothing was cut")


@test
def lost_before_the_switch(where):
    """Nobody has run at the destination: the service goes on where it was"""
    with Run(where) as run:
        lost_before_switch(run)
        run.check_goes_on_at_source()


@test
def lost_before_the_switch_and_lost_stop(where):
    with Run(where) as run:
        lost_before_switch(run, "--lazy-lost", "stop")
        run.check_stopped_at_source()


@test
def old_source(where):
    """criu lazy-pages names both versions and ends; nobody runs"""
    with Run(where) as run:
        run.svc.server = run.pair.source.criu_ready("dump", "-t", str(run.svc.root), "--lazy-pages", "--port",
                                                    str(run.svc.port), criu=PLAIN)
        check(run.svc.server.ready, "unpatched dump: " + run.pair.source.errors("dump.log"))
        run.svc.copy()
        daemon = run.daemon()
        restore = run.svc.start_restore("--lazy-pages")
        check(finish(daemon, 60) != 0, "the daemon is content")
        check(finish(restore, 60) != 0, "restored all the same")
        check_log(run.daemon_log(), r"Error.*version 1.*version 2|Error.*version 2.*version 1")
        finish(run.svc.server, 60)
        run.check_destination_died()


@test
def old_destination(where):
    """Unpatched CRIU has no use for such images; the source waits for one that has"""
    with Run(where) as run:
        run.dump()
        daemon = run.daemon(criu=PLAIN, log="old.log")
        restore = run.svc.start_restore("--lazy-pages", criu=PLAIN, log="old-restore.log")
        check(finish(restore, 60) != 0, "restored all the same")
        finish(daemon, 60)
        check(not run.tasks(1), "tasks are left at the destination")
        run.daemon()
        run.svc.restore("--lazy-pages")
        run.check_arrived()


# at random

def one_cut(where, at):
    """True if all has arrived, False if it stopped loudly; fails otherwise"""
    with Run(where) as run:
        run.dump()
        run.proxy.cut_at = at
        run.daemon()
        restore = run.svc.start_restore("--lazy-pages")
        status = finish(restore, 60)
        source, daemon = run.over()
        if (status, source, daemon) == (0, 0, 0):
            run.client.wait_answers(1, 100)
            run.client.check_right(run.svc.pages)
            run.client.check_never_both()
            check(run.proxy.cuts == 1, "nothing was cut at %d of %d" % (at, run.proxy.passed))
            return True
        check(daemon != 0 and source != 0, "one end is content: restore %d, source %d, daemon %d" % (
            status, source, daemon))
        check_log(run.daemon_log(), "Error")
        check_log(run.source_log(), "Error")
        run.check_destination_died()
        return False


def all_bytes(where):
    """How many pass if nothing is cut"""
    with Run(where) as run:
        run.start()
        run.check_arrived()
        return run.proxy.passed


@test
def cut_at_random_moments(where):
    """A byte more or less: in headers, in pages, before and after the switch"""
    random = rng()
    total = all_bytes(os.path.join(where, "whole"))
    recovered = 0
    for i in range(MIGRATIONS):
        at = random.randrange(random.choice((total // 100, total * 9 // 10)))
        try:
            recovered += one_cut(os.path.join(where, str(i)), at)
        except TestFailure as e:
            raise TestFailure("migration %d, cut after %d of %d bytes: %s" % (i, at, total, e))
    print("%d migrations were cut: %d recovered, %d stopped loudly, 0 pages wrong" % (
        MIGRATIONS, recovered, MIGRATIONS - recovered), flush=True)


main()
