# SPDX-License-Identifier: GPL-2.0-only
"""Runs a program: dumps it once, goes on with it after an eager restore and after a
lazy one, and compares what its actors saw. The caller is process 1 of a PID
namespace, so the pids of the dumped tasks are free to be restored, and whatever is
left can be seen and killed."""

import os
import re
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))

import lib  # noqa: E402

ORACLE = os.path.join(lib.BUILD, "oracle", "oracle")
TIMEOUT = 20.0
# ORACLE_ON_DEMAND=1: what nobody asks for is not filled, before the end
MODE = {"CRIU_LAZY_SHMEM_FILL": "on-demand"} if os.environ.get("ORACLE_ON_DEMAND") else {}
TASKS = 40  # that a program has at most, threads included


class Difference(Exception):
    """The lazy restore did not show what the eager one had shown; or has failed, and kind tells in what"""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class Undefined(Exception):
    """Two eager restores do not show the same: the program is wrong"""


def others():
    """All processes of this namespace but us"""
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()]


def pid_is_known(pid):
    try:
        os.close(os.pidfd_open(pid))
    except ProcessLookupError:
        return False
    except OSError:
        pass  # of a thread
    return True


def kill_others():
    for pid in others():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    lib.wait_for(lambda: not others(), "processes do not die of SIGKILL: %s" % others())
    lib.managed.clear()


class Run(lib.Ledger):
    def __init__(self, where, program):
        super().__init__(where)
        self.file = os.path.join(where, "program")
        self.go = os.path.join(where, "go")
        self.restored = os.path.join(where, "restored")
        self.ready = os.path.join(where, "ready")
        self.no_plugins = os.path.join(where, "none")
        self.args = [ORACLE, self.file, self.report_file, self.go, self.restored, self.ready]
        self.program = program
        self.faults = self.early = self.objects = 0
        os.makedirs(self.no_plugins, exist_ok=True)
        with open(self.file, "w") as f:
            f.write(program.text())

    def said(self, word):
        """Whether that is the last line: it is looked for often"""
        try:
            with open(self.report_file, "rb") as f:
                f.seek(0, os.SEEK_END)
                f.seek(max(0, f.tell() - 64))
                return f.read().rstrip(b"\n").split(b" ")[-1] == word.encode()
        except FileNotFoundError:
            return False

    def start(self):
        with open(os.path.join(self.dir, "ledger.out"), "w") as out:
            self.main = lib.popen(self.args, stdout=out, stderr=out, start_new_session=True)
        lib.wait_for(lambda: os.path.exists(self.ready) or self.main.poll() is not None, "the program is not ready")
        lib.check(os.path.exists(self.ready), "the program does not start: %s%s" % (
            lib.read(self.report_file), lib.read(os.path.join(self.dir, "ledger.out"))))
        self.pids = [self.main.pid]
        return self

    def dump(self, *args, **kwargs):
        super().dump(*args, **kwargs)
        lib.wait_for(lambda: self.pids_are_free(), "dumped processes are still there")
        return self

    def pids_are_free(self):
        """Processes that are gone are not all: the kernel frees the pid of a thread a little
        later, and restore needs it"""
        return not others() and not any(pid_is_known(self.main.pid + i) for i in range(TASKS))

    def observations(self):
        """By actor, in the order they were made in; and when each step began"""
        result, steps = {}, []
        for line in lib.read(self.report_file).splitlines():
            step, actor, text = line.split(" ", 2)
            if actor == "-2":
                steps.append((int(step), float(text)))
            else:
                result.setdefault(int(actor), []).append("%s %s" % (step, text))
        return result, steps

    def go_on(self, restore):
        """Restores, lets it act to its end, and returns what was seen"""
        if os.path.exists(self.report_file):
            os.unlink(self.report_file)
        open(self.go, "w").close()
        try:
            restore()
            open(self.restored, "w").close()
            lib.wait_for(lambda: self.looked(), "the program does not come to its end; it was at:\n%s" %
                         lib.read(self.report_file)[-300:], TIMEOUT)
            self.before_end()
        finally:
            os.unlink(self.go)
            if os.path.exists(self.restored):
                os.unlink(self.restored)
        lib.wait_for(lambda: self.pids_are_free(), "processes are left: %s" % [
            (p, lib.read("/proc/%d/comm" % p).strip()) for p in others()], TIMEOUT)
        return self.observations()

    def looked(self):
        return self.said("looked") or self.said("end") or not self.alive()

    def before_end(self):
        if self.daemon:
            if MODE:  # it stays as long as the tasks
                self.daemon.send_signal(signal.SIGUSR1)
            status = self.finish_daemon(TIMEOUT)
            if status:
                raise Difference("daemon", "the daemon's status is %d: %s" % (
                    status, self.errors("lazy-pages.log")[-400:]))

    def keep_report(self):
        os.rename(self.report_file, self.report_file + ".lazy")

    def eager(self):
        def restore():
            status = lib.Ledger.restore(self, env={"CRIU_LIBS_DIR": self.no_plugins})
            lib.check(status == 0, "eager restore: status %d: %s" % (status, self.errors("restore.log")))
        self.daemon = None
        return self.go_on(restore)[0]

    def lazy(self):
        def restore():
            workers = str(1 + self.program.seed % 3)
            self.daemon_start = time.monotonic()
            self.start_daemon(env=dict(lib.slow_disk(self.program.disk), CRIU_LAZY_SHMEM_WORKERS=workers, **MODE))
            status = lib.Ledger.restore(self, "--lazy-pages")
            if status:
                raise Difference("restore", "lazy restore: status %d: %s %s" % (
                    status, self.errors("restore.log"), self.errors("lazy-pages.log")))
        result, steps = self.go_on(restore)
        self.count(steps)
        return result

    def count(self, steps):
        """How lazy it was"""
        log = self.log("lazy-pages.log")
        counters = self.counters()
        self.objects = self.log("restore.log").count(" is restored lazily")
        self.faults = sum(c["faults"] for c in counters)
        # its log counts from a little after its start: rather too few than too many
        done = [float(s) for s in re.findall(r"^\((\d+\.\d+)\).* object 0x[0-9a-f]+ done:", log, re.M)]
        closed = self.daemon_start + max(done, default=0)
        self.early = sum(len(self.program.steps[step]) for step, t in steps if t < closed)

    def lazy_objects(self):
        """How many objects must be lazy: mapped, and nobody has a descriptor"""
        mapped = {m.obj for m in self.program.maps if m.proc in self.program.procs}
        return sum(1 for o in self.program.objs if o.kind != "fd" and o.id in mapped)


def first_difference(a, b):
    """Of what was seen after the eager and after the lazy restore"""
    firsts = []
    for actor in sorted(set(a) | set(b)):
        x, y = a.get(actor, []), b.get(actor, [])
        for i in range(max(len(x), len(y))):
            p, q = x[i] if i < len(x) else "nothing more", y[i] if i < len(y) else "nothing more"
            if p != q:
                step = [int(s.split()[0]) for s in (p, q) if s != "nothing more"]
                firsts.append((min(step), actor, p, q))
                break
    if not firsts:
        return None
    step, actor, p, q = min(firsts)
    return "step %d actor %d\n    eager: %s\n    lazy:  %s" % (step, actor, p, q)


def run_program(where, program, repeat=1):
    """Returns the Run, or raises what is wrong with it"""
    run = Run(where, program)
    try:
        run.start().dump()
        expected = run.eager()
        for _ in range(repeat):
            try:
                seen = run.lazy()
            except lib.TestFailure as e:
                raise Difference("test", str(e))
            different = first_difference(expected, seen)
            if different:
                run.keep_report()
                again = first_difference(expected, run.eager())
                if again:
                    raise Undefined(again)
                raise Difference("seen", different)
            lib.check(run.objects == run.lazy_objects(), "%d objects were lazy, and not %d" % (
                run.objects, run.lazy_objects()))
        return run
    finally:
        kill_others()
