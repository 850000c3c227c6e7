# SPDX-License-Identifier: GPL-2.0-only
"""What the end-to-end tests share: a ledger (demo/ledger.c) that is dumped,
and restored with or without the plugin, and checks on what became of it."""

import ctypes
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("BUILD_DIR", os.path.join(TOP, "build"))
CRIU = os.environ.get("CRIU", os.path.join(BUILD, "criu", "criu", "criu"))
PLUGIN_DIR = os.environ.get("PLUGIN_DIR", os.path.join(BUILD, "plugin"))
LEDGER = os.path.join(BUILD, "demo", "ledger")

PR_SET_CHILD_SUBREAPER = 36
# Processors may be emulated: how many times longer things may take
SLOW = float(os.environ.get("LSHM_SLOW", "1"))
TIMEOUT = 30.0

managed = set()  # pids that a Popen object waits for


class TestFailure(Exception):
    pass


class Skip(Exception):
    pass


def check(condition, message):
    if not condition:
        raise TestFailure(message)


def become_reaper():
    """Restored tasks lose their parent: somebody must reap them, or their pids
    can not be restored a second time."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def reap():
    """Reaps all dead children but those that a Popen object waits for; a dead
    Popen child hides the ones behind it, so it is polled first."""
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if info is None:
            return
        for popen in [p for p in managed if p.pid == info.si_pid]:
            popen.poll()
            managed.discard(popen)
            break
        else:
            os.waitpid(info.si_pid, 0)


def wait_for(condition, what, timeout=TIMEOUT):
    """Returns the first true value of condition(); fails after timeout seconds."""
    end = time.monotonic() + timeout * SLOW
    while True:
        reap()
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TestFailure("timed out after %g s: %s" % (timeout, what))
        time.sleep(0.002)


def popen(args, **kwargs):
    p = subprocess.Popen(args, stdin=subprocess.DEVNULL, **kwargs)
    managed.add(p)
    return p


def finish(p, timeout=TIMEOUT):
    """Waits for a Popen child and returns its status."""
    wait_for(lambda: p.poll() is not None, "%s does not exit" % p.args[:3], timeout)
    managed.discard(p)
    return p.returncode


def read(path):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError):  # a process in /proc may end between open and read
        return ""


def alive(pid):
    stat = read("/proc/%d/stat" % pid)
    return bool(stat) and stat.rpartition(")")[2].split()[0] not in "ZX"


def smaps_flags(pid):
    return re.findall(r"^VmFlags: (.*)$", read("/proc/%d/smaps" % pid), re.M)


def lazy_flags(pid):
    """VmFlags of mappings registered with a userfaultfd"""
    return [f for f in smaps_flags(pid) if "ui" in f.split() or "um" in f.split()]


def slow_disk(mbps):
    """Environment of a daemon whose threads read images no faster than that, so
    that the window is still open when a test has a look at it"""
    return {"LD_PRELOAD": os.path.join(BUILD, "e2e", "slow_disk.so"), "LSHM_DISK_MBPS": str(mbps)}


class Ledger:
    """A tree of ledger processes, running or in images."""

    def __init__(self, where, *args, env=None):
        self.dir = where
        self.images = os.path.join(where, "images")
        self.report_file = os.path.join(where, "report")
        self.env = dict(os.environ, CRIU_LIBS_DIR=PLUGIN_DIR)
        self.env.update(env or {})
        self.processes = int(args[args.index("-p") + 1]) if "-p" in args else 2
        self.args = [LEDGER, "-o", self.report_file] + list(args)
        self.pids = []
        self.runs = 0
        self.daemon = None
        os.makedirs(self.images, exist_ok=True)

    # the life of the processes

    def start(self):
        with open(os.path.join(self.dir, "ledger.out"), "w") as out:
            self.main = popen(self.args, stdout=out, stderr=out, start_new_session=True)
        wait_for(lambda: len(self.report("ready")) == self.processes, "ledger is not ready")
        self.pids = [int(line["pid"]) for line in self.report("ready")]
        return self

    def report(self, kind):
        """Lines of that kind as dicts; the processes append them."""
        result = []
        for line in read(self.report_file).splitlines():
            words = line.split()
            if words and words[0] == kind:
                result.append(dict(w.split("=", 1) for w in words[1:] if "=" in w))
        return result

    def alive(self):
        reap()
        return [pid for pid in self.pids if alive(pid)]

    def kill(self):
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.alive(), "ledger does not die of SIGKILL")

    def walk(self, timeout=TIMEOUT):
        """Has every process walk its memory; their reports."""
        before = len(self.report("walk"))
        for pid in self.pids:
            os.kill(pid, signal.SIGUSR1)
        wait_for(lambda: len(self.report("walk")) - before >= len(self.pids) or len(self.alive()) < len(self.pids),
                 "walk does not end", timeout)
        self.check_right()
        check(len(self.alive()) == len(self.pids), "a process died during the walk")
        return self.report("walk")[before:]

    def check_right(self):
        wrong = re.search(r"^wrong .*$", read(self.report_file), re.M)
        check(not wrong, wrong and wrong.group(0))

    # criu

    def criu(self, action, *args, log=None, env=None, criu=CRIU, pass_fds=()):
        log = log or action + ".log"
        return popen([criu, action, "-D", self.images, "-W", self.dir, "-o", log, "-v4"] + list(args),
                     env=dict(self.env, **(env or {})), pass_fds=pass_fds, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)

    def log(self, name):
        return read(os.path.join(self.dir, name))

    def errors(self, name):
        return "\n".join(line for line in self.log(name).splitlines() if "Error" in line)

    def dump(self, *args, criu=CRIU):
        status = finish(self.criu("dump", "-t", str(self.main.pid), *args, criu=criu), 120)
        check(status == 0, "dump: status %d: %s" % (status, self.errors("dump.log")))
        if "--leave-running" not in args:
            wait_for(lambda: not self.alive(), "dumped processes are still there")
        return self

    def start_daemon(self, env=None, args=(), criu=CRIU):
        """Returns when it listens, or has failed."""
        ready, status = os.pipe()
        try:
            self.daemon = self.criu("lazy-pages", "--status-fd", str(status), *args, env=env, criu=criu,
                                    pass_fds=[status])
        finally:
            os.close(status)
        wait_for(lambda: select.select([ready], [], [], 0)[0], "the daemon does not listen")
        os.close(ready)
        return self.daemon

    def restore(self, *args, env=None, criu=CRIU):
        """Returns the status of criu restore."""
        return finish(self.criu("restore", "-d", *args, env=env, criu=criu), 120)

    def lazy_restore(self, daemon_env=None, env=None):
        self.start_daemon(env=daemon_env)
        status = self.restore("--lazy-pages", env=env)
        check(status == 0, "restore: status %d: %s" % (status, self.errors("restore.log")))
        return self

    def finish_daemon(self, timeout=TIMEOUT):
        return finish(self.daemon, timeout)

    def counters(self):
        """The summary lines of the daemon, a dict for each object."""
        result = []
        for line in self.log("lazy-pages.log").splitlines():
            m = re.search(r"lazy-shmem: object (0x[0-9a-f]+) done: (.*)$", line)
            if m:
                result.append({k: int(v) for k, v in (w.split("=") for w in m.group(2).split())})
        return result

    def check_failed_restore(self, status, *patterns, log="restore.log"):
        """restore said no, with a reason in the log, and left nothing running"""
        check(status != 0, "restore succeeded")
        check_log(self.log(log), *patterns)
        wait_for(lambda: not self.alive(), "processes are left: %s" % self.alive(), 5)


def check_log(text, *patterns):
    for p in patterns:
        check(re.search(p, text), "no /%s/ in the log; errors there:\n%s" % (
            p, "\n".join(line for line in text.splitlines() if "Error" in line)[-1500:]))


def holds_file_below(pid, where):
    try:
        return any(os.readlink("/proc/%s/fd/%s" % (pid, fd)).startswith(where) for fd in os.listdir("/proc/%s/fd" % pid))
    except OSError:
        return False


def guards(led):
    """Pids of guard processes of led's daemons: they write to the same log."""
    result = []
    for name in os.listdir("/proc"):
        if (name.isdigit() and read("/proc/%s/comm" % name).strip() == "lazyshm-guard" and alive(int(name))
                and holds_file_below(name, led.dir)):
            result.append(int(name))
    return result


def check_nothing_left(led):
    wait_for(lambda: not guards(led), "guards are left: %s" % guards(led), 5)


TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


def main(above="e2e"):
    """above: what the tests' names begin with"""
    become_reaper()
    group = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    wanted = sys.argv[1:]
    tests = [t for t in TESTS if not wanted or t.__name__ in wanted]
    logs = os.path.join(BUILD, "test-logs", above)
    failed = False
    print("1..%d" % len(tests), flush=True)
    for fn in tests:
        name = "%s/%s/%s" % (above, group, fn.__name__)
        where = tempfile.mkdtemp(prefix="lshm-")
        try:
            fn(where)
            print("ok %s" % name, flush=True)
        except Skip as e:
            print("skip %s: %s" % (name, e), flush=True)
        except Exception as e:  # whatever it is, it is a verdict on this test only
            failed = True
            keep = os.path.join(logs, group, fn.__name__)
            shutil.rmtree(keep, ignore_errors=True)
            os.makedirs(keep)
            for f in os.listdir(where):
                if os.path.isfile(os.path.join(where, f)):
                    shutil.copy(os.path.join(where, f), keep)
            traceback.print_exc()
            print("not ok %s: %s" % (name, str(e).replace("\n", " | ") or type(e).__name__), flush=True)
        finally:
            cleanup(where)
    sys.exit(1 if failed else 0)


def cleanup(where):
    """Kills what a test left running and removes its directory."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        cmdline = read("/proc/%s/cmdline" % name)
        if where in cmdline:
            try:
                os.kill(int(name), signal.SIGKILL)
            except ProcessLookupError:
                pass
    time.sleep(0.01)
    reap()
    # a restore that was killed leaves cgroups mounted: what is removed there is gone for all
    if unmount_below(where):
        shutil.rmtree(where, ignore_errors=True)


def unmount_below(where):
    """Whether nothing is mounted there any more"""
    def mounts():
        return [line.split()[1] for line in read("/proc/self/mounts").splitlines()
                if line.split()[1].startswith(where + "/")]

    for path in reversed(mounts()):
        subprocess.run(["umount", "--lazy", path], check=False)
    return not mounts()


def rng():
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print("seed %d" % seed, flush=True)
    return random.Random(seed)
