#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""Tasks in a memory cgroup of their own, the daemon in another: shared memory is charged
to the tasks', and what their limit does not allow fails loudly."""

import contextlib
import os
import re
import signal

from lib import (BUILD, CRIU, Ledger, Skip, alive, check, check_log, check_nothing_left, main, read, slow_disk, test,
                 wait_for)
from memcg_lib import MemoryGroup

LEFTOVERS = os.path.join(BUILD, "e2e", "leftovers")
NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"
MIB = 1 << 20
NOISE = 2 * MIB  # of the daemon: what it remembers of pages is in memfds


class Tree(Ledger):
    """Runs in a cgroup from its start on, and is restored into it; the daemon has another"""

    def __init__(self, where, *args, leftovers=None, program=None, processes=3, below="", limit=None):
        super().__init__(where, *args)
        if leftovers is not None:
            program = [LEFTOVERS]
        if program:
            self.args = program + [self.report_file] + (leftovers or [])
            self.processes = processes
        self.tasks, self.daemons = MemoryGroup(below + "tree"), MemoryGroup("daemon")
        if limit:
            self.tasks.limit(limit)
        self.args = ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.tasks.path] + self.args

    def start_and_dump(self):
        self.start()
        check(sorted(self.pids) == self.tasks.pids(), "not all are in the cgroup")
        return self.dump("--manage-cgroups")

    def start_daemon(self, **kwargs):
        super().start_daemon(**kwargs)
        self.daemons.add(self.daemon.pid)
        return self.daemon

    def restore(self, *args, **kwargs):
        return super().restore("--manage-cgroups", *args, **kwargs)

    def fillers(self):
        return self.tasks.processes("lazyshm-fill")


@contextlib.contextmanager
def tree_in_cgroup(where, *args, **kwargs):
    tree = Tree(where, *args, **kwargs)
    try:
        yield tree.start_and_dump()
    finally:
        if tree.daemon:
            tree.daemon.kill()
        tree.kill()
        tree.tasks.remove()
        tree.daemons.remove()


def check_success(tree):
    check(tree.finish_daemon() == 0, "the daemon failed: " + tree.errors("lazy-pages.log"))
    check_nothing_left(tree)
    check(tree.tasks.pids() == sorted(tree.pids), "in the cgroup are %s, the tasks are %s" % (tree.tasks.pids(), tree.pids))


def check_death(tree, *patterns):
    wait_for(lambda: not tree.alive(), "tasks are alive: %s" % tree.alive())
    check(tree.finish_daemon() == 1, "the daemon says all is well")
    tree.check_right()
    check_log(tree.log("lazy-pages.log"), *patterns)
    check("epoll" not in tree.errors("lazy-pages.log"), "another error: " + tree.errors("lazy-pages.log"))
    check_nothing_left(tree)
    check(not tree.tasks.pids(), "processes are left: %s" % tree.tasks.pids())


def check_refused(tree, status, *patterns):
    tree.check_failed_restore(status)
    check(tree.finish_daemon() == 1, "the daemon says all is well")
    check_log(tree.log("lazy-pages.log"), *patterns)
    check_nothing_left(tree)
    check(not tree.report("walk"), "a task ran")
    wait_for(lambda: not tree.tasks.pids(), "processes are left: %s" % tree.tasks.pids(), 5)


@test
def charged_to_the_tasks(where):
    with tree_in_cgroup(where, "-m", "64", "-p", "2", "-P", "4") as tree:
        tree.lazy_restore()
        peak = 0
        while tree.daemon.poll() is None:
            peak = max(peak, tree.daemons.shmem())
        check_success(tree)
        # before anybody has touched it
        check(tree.tasks.shmem() >= 64 * MIB, "the tasks' cgroup has %d bytes of it" % tree.tasks.shmem())
        check(peak < NOISE and tree.daemons.shmem() < NOISE, "the daemon's cgroup had %d bytes of it" % peak)
        check_log(tree.log("lazy-pages.log"), r"\(lazyshm-fill\) brings shared memory in the cgroup %s\n" % tree.tasks.path)
        tree.walk()
        check(64 * MIB <= tree.tasks.shmem() < 65 * MIB, "now it has %d" % tree.tasks.shmem())


@test
def all_kinds(where):
    """What is filled before resume as well: locked, with a descriptor, SysV; holes and private mappings"""
    with tree_in_cgroup(where, leftovers=["sysv"]) as tree:
        before = tree.daemons.shmem()
        tree.lazy_restore()
        check_success(tree)
        tree.walk()
        check(len(re.findall(r"filled before resume: size", tree.log("lazy-pages.log"))) >= 3, "nothing was filled first")
        check(len(tree.counters()) > 1, "nothing was lazy")
        check("lazyshm-fill" in tree.log("lazy-pages.log"), "nobody filled in the cgroup")
        check(tree.tasks.shmem() > 8 * MIB, "the tasks' cgroup has %d bytes of it" % tree.tasks.shmem())
        check(tree.daemons.shmem() - before < NOISE, "the daemon's has %d" % tree.daemons.shmem())


SPARSE = """
import mmap, os, signal, sys
m = mmap.mmap(-1, 64 << 20)
for off in range(0, 16 << 20, 4096):
    m[off] = 7
def say(what):
    with open(sys.argv[1], "a") as f:
        f.write("%s pid=%d\\n" % (what, os.getpid()))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
say("ready")
while signal.sigwait([signal.SIGUSR1]):
    if any(m[off] for off in range(32 << 20, 64 << 20, 4096)):
        say("wrong")
    say("walk")
"""


@test
def holes_in_the_window(where):
    """A task looks at pages that the images do not have: they are allocated for it as well"""
    with tree_in_cgroup(where, program=["/usr/bin/python3", "-c", SPARSE], processes=1) as tree:
        tree.start_daemon(env=slow_disk(1))
        check(tree.restore("--lazy-pages") == 0, "restore failed: " + tree.errors("restore.log"))
        tree.walk()
        daemon, tasks = tree.daemons.shmem(), tree.tasks.shmem()
        check(tree.daemon.poll() is None and tree.fillers(), "the window was over")
        check(tasks >= 32 * MIB, "the tasks' cgroup has %d bytes" % tasks)
        check(daemon < NOISE, "the daemon's cgroup has %d bytes" % daemon)
        tree.kill()
        check(tree.finish_daemon() == 0, "the daemon failed: " + tree.errors("lazy-pages.log"))


@contextlib.contextmanager
def huge_pages(nr):
    def more(n):
        before = int(read(NR_HUGEPAGES))
        with open(NR_HUGEPAGES, "w") as f:
            f.write(str(max(before + n, 0)))
        return int(read(NR_HUGEPAGES)) - before

    try:
        if more(nr) < nr:
            raise Skip("no huge pages to be had")
        yield
    finally:
        more(-nr)


@test
def with_huge_pages(where):
    """A process in the cgroup fills them as well"""
    with huge_pages(10), tree_in_cgroup(where, leftovers=["hugetlb"]) as tree:
        tree.start_daemon(env=slow_disk(20))
        check(tree.restore("--lazy-pages") == 0, "restore failed: " + tree.errors("restore.log"))
        check(len(tree.fillers()) == 1, "nobody in the cgroup fills: %s" % tree.tasks.pids())
        check_success(tree)
        tree.walk()
        check(any(c["pages_filled"] and c["pages_filled"] * 2 * MIB <= c["size"] for c in tree.counters()),
              "no huge page was lazy: %s" % tree.counters())


@test
def same_cgroup(where):
    """Nothing to enter, so the threads of the daemon do it"""
    with tree_in_cgroup(where, "-m", "8") as tree:
        tree.start_daemon()
        tree.tasks.add(tree.daemon.pid)
        check(tree.restore("--lazy-pages") == 0, "restore failed")
        check_success(tree)
        check("lazyshm-fill" not in tree.log("lazy-pages.log"), "there was a process to fill")
        tree.walk()


@test
def can_not_be_entered(where):
    """One line, and the daemon does it"""
    wrapper = os.path.join(where, "criu-readonly")
    with open(wrapper, "w") as f:
        f.write("#!/bin/sh\nexec unshare -m sh -c 'mount -o remount,bind,ro \"$0\" && exec \"$@\"' /sys/fs/cgroup/memory %s \"$@\"\n"
                % CRIU)
    os.chmod(wrapper, 0o755)
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        raise Skip("the memory controller is not mounted for itself here")
    with tree_in_cgroup(where, "-m", "8", "-s") as tree:
        tree.start_daemon(criu=wrapper)
        check(tree.restore("--lazy-pages") == 0, "restore failed")
        check_success(tree)
        lines = re.findall(r"Warn.*cgroup %s is charged to this daemon's: .*Read-only" % tree.tasks.path,
                           tree.log("lazy-pages.log"))
        check(len(lines) == 1, "%d lines say why" % len(lines))
        check(tree.daemons.shmem() >= 16 * MIB, "who was charged? %d" % tree.daemons.shmem())
        tree.walk()


@test
def limit_is_enough(where):
    with tree_in_cgroup(where, "-m", "64") as tree:
        tree.tasks.limit(96 * MIB)
        tree.lazy_restore()
        check_success(tree)
        tree.walk()


@test
def cgroup_and_limit_from_the_images(where):
    """Restore makes the cgroup, and sets its limit when all contents are announced"""
    with tree_in_cgroup(where, "-m", "64", limit=80 * MIB) as tree:
        tree.tasks.remove()
        tree.lazy_restore()
        check_success(tree)
        check(int(read(tree.tasks.limit_file)) == 80 * MIB, "the limit is %s" % read(tree.tasks.limit_file))
        check(tree.tasks.shmem() >= 64 * MIB, "the tasks' cgroup has %d bytes of it" % tree.tasks.shmem())
        tree.walk()


@test
def limit_too_small(where):
    """Refused at COMMIT, before any task runs; with what is needed"""
    with tree_in_cgroup(where, "-m", "64", "-s") as tree:
        tree.tasks.limit(96 * MIB)  # enough for one of two
        tree.start_daemon()
        check_refused(tree, tree.restore("--lazy-pages"),
                      r"Error.*The cgroup %s has room for \d+ bytes, and %d of shared memory are to come: its limit is %d;"
                      % (tree.tasks.path, 128 * MIB, 96 * MIB),
                      r"(?s)(Error.*Object 0x[0-9a-f]+ needs %d bytes of the cgroup.*){2}" % (64 * MIB))
        check_log(tree.log("restore.log"), r"Error.*did not take over the contents")
        # and nothing is lost
        tree.tasks.limit(192 * MIB)
        tree.lazy_restore()
        check_success(tree)
        tree.walk()


@test
def limit_of_a_parent(where):
    """What is above the tasks' cgroup counts as well"""
    above = MemoryGroup("above")
    try:
        with tree_in_cgroup(where, "-m", "64", below="above/") as tree:
            above.limit(48 * MIB)
            tree.start_daemon()
            check_refused(tree, tree.restore("--lazy-pages"),
                          r"Error.*The cgroup %s has room for \d+ bytes, and %d" % (above.path, 64 * MIB))
            check_log(tree.log("restore.log"), r"Error.*did not take over the contents")
            above.limit(96 * MIB)
            tree.lazy_restore()
            check_success(tree)
            tree.walk()
    finally:
        above.remove()


@test
def limit_too_small_before_resume(where):
    """What is filled at once is refused at once, not when somebody was killed for it"""
    with tree_in_cgroup(where, leftovers=["sysv"]) as tree:
        tree.tasks.limit(tree.tasks.usage() + 10 * MIB)
        tree.start_daemon(env=slow_disk(20))
        check_refused(tree, tree.restore("--lazy-pages"), r"Error.*The cgroup %s has room for \d+ bytes" % tree.tasks.path,
                      r"Error.*No plugin takes over the contents")


def in_window(tree):
    tree.start_daemon(env=slow_disk(20))
    check(tree.restore("--lazy-pages") == 0, "restore failed: " + tree.errors("restore.log"))
    check(len(tree.fillers()) == 1, "nobody fills: %s" % tree.tasks.pids())
    return tree.fillers()[0]


@test
def filler_killed(where):
    """The tasks can not go on, and the log says why"""
    with tree_in_cgroup(where, "-m", "64", "-c") as tree:
        filler = in_window(tree)
        # no userfaultfd is in there: nothing but socket, log and what belongs to jobs
        names = {os.readlink("/proc/%d/fd/%s" % (filler, fd)).split(":")[0] for fd in ("0", "1", "2")}
        check(names == {"/dev/null"}, "it holds %s" % names)
        os.kill(filler, signal.SIGKILL)
        check_death(tree, r"Error.*offset (0x[0-9a-f]+|0): the process that brings them was killed by signal 9 ",
                    r"Error.*Killed %d \(ledger\)" % tree.pids[0], r"Error.*object 0x[0-9a-f]+ failed")


@test
def filler_killed_before_resume(where):
    with tree_in_cgroup(where, leftovers=[]) as tree:
        tree.start_daemon(env=slow_disk(2))
        restore = tree.criu("restore", "-d", "--manage-cgroups", "--lazy-pages")
        os.kill(wait_for(tree.fillers, "nobody fills")[0], signal.SIGKILL)
        wait_for(lambda: restore.poll() is not None, "restore does not end")
        check_refused(tree, restore.returncode, r"Error.*the process that brings them was killed by signal 9")


@test
def filler_killed_before_there_is_work(where):
    """All is lazy, so nothing is filled before resume, and the daemon has no threads"""
    with tree_in_cgroup(where, "-m", "8", "-c") as tree:
        tree.start_daemon()
        script = os.path.join(where, "kill-filler")
        with open(script, "w") as f:
            f.write("""#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0
for p in $(cat %s/cgroup.procs); do
    [ "$(cat /proc/$p/comm)" = lazyshm-fill ] || continue
    kill -9 "$p"
    # until the daemon knows, or is dead
    while [ -d "/proc/$p" ] && readlink /proc/%d/exe >/dev/null; do :; done
done
""" % (tree.tasks.path, tree.daemon.pid))
        os.chmod(script, 0o755)
        tree.restore("--lazy-pages", "--action-script", script)  # may see the tasks die, or be done by then
        check_death(tree, r"Error.*the process that brings them was killed by signal 9 ",
                    r"Error.*Killed %d \(ledger\)" % tree.pids[0], r"Error.*object 0x[0-9a-f]+ failed")


@test
def limit_lowered_in_the_window(where):
    """The kernel ends who fills, and not the tasks; they die for a reason"""
    with tree_in_cgroup(where, "-m", "64") as tree:
        in_window(tree)
        tree.tasks.limit(tree.tasks.usage() + 4 * MIB)
        check_death(tree, r"Error.*the process that brings them was killed for lack of memory in the cgroup %s; raise its limit"
                    % tree.tasks.path, r"Error.*Killed %d \(ledger\)" % tree.pids[0])


@test
def daemon_killed(where):
    """Nobody fills for a daemon that is not there any more"""
    with tree_in_cgroup(where, "-m", "64", "-c") as tree:
        filler = in_window(tree)
        tree.daemon.kill()
        wait_for(lambda: not alive(filler), "the filler is alive")
        wait_for(lambda: not tree.alive(), "tasks are alive")
        tree.finish_daemon()
        check_nothing_left(tree)


main()
