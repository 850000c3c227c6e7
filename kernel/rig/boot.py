#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel on the host's root, run tests in it, say what came of them.

    boot.py [OPTION...] --run DIR BZIMAGE TEST...

A TEST is an executable file. It prints, for each of its tests, one of "ok
NAME", "not ok NAME: reason", "skip NAME: reason", and may print "1..N"; a
line "# timeout: SECONDS" in it limits its time (default 300). What it prints
else is its log, DIR/TEST.log; what it leaves in the directory $RIG_KEEP comes
out to DIR/TEST/. The kernel's log is DIR/console.log.

The results are printed, and added to DIR/results. It counts as a failure when
a test dies or times out, prints no result or not as many as it said; when the
kernel's log has a bug, a warning or a hung task in it; when the guest panics,
ends without a status, or is not done in time.
"""

import argparse
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time

REPO = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
INIT = os.path.join(REPO, "kernel/rig/init.sh")
QEMU = "qemu-system-x86_64"

RESULT = re.compile(r"(ok|not ok|skip) (\S.*)")
MARKER = re.compile(r"rig: (begin|end) (\S+)")
SPLAT = re.compile(
    r"BUG: |BUG \S+ \(|kernel BUG at|WARNING: |Oops: |Kernel panic|KASAN: |UBSAN: |"
    r"general protection|double fault|INFO: task .* blocked|rcu: INFO|"
    r"INFO: (rcu|possible|inconsistent|trying|lockdep) |corruption|pagealloc: |refcount_t: |"
    r"Bad (page|swap) |Unused swap |Busy inodes")


PR_SET_PDEATHSIG = 1


def die_with_parent():
    """For QEMU, before it starts: nothing may be left behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Guest:
    """QEMU with one kernel, and the lines it sends by its status port."""

    def __init__(self, image, run, accel, memory, extra, shell=False):
        self.console = os.path.join(run, "console.log")
        self.status, theirs = socket.socketpair()
        cmdline = ["root=/dev/root", "rootfstype=9p", "ro",
                   "rootflags=trans=virtio,version=9p2000.L,cache=loose,msize=512000",
                   "console=ttyS0", "loglevel=7", "printk.devkmsg=on", "panic=-1", "oops=panic",
                   # Two slow processors that others use too are no bug.
                   "watchdog_thresh=60", "no_timer_check", "rcupdate.rcu_cpu_stall_timeout=120",
                   "transparent_hugepage=madvise", "cryptomgr.notests", "net.ifnames=0",
                   f"init={INIT}", f"rig.repo={REPO}", f"rig.run={run}",
                   *(["rig.shell=1", "quiet"] if shell else []), *extra]
        swap = os.path.join(run, "swap.img")
        with open(swap, "wb") as file:
            file.truncate(1 << 30)
        command = [QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                   "-machine", "q35", "-accel", accel, "-cpu", "host" if accel == "kvm" else "max",
                   "-smp", "2", "-m", memory,
                   "-kernel", image, "-append", " ".join(cmdline),
                   "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
                   "-device", "virtio-9p-pci,fsdev=root,mount_tag=/dev/root",
                   "-drive", f"file={swap},format=raw,if=none,id=swap,cache=unsafe",
                   "-device", "virtio-blk-pci,drive=swap",
                   "-device", "virtio-serial-pci",
                   "-chardev", f"socket,id=status,fd={theirs.fileno()}",
                   "-device", "virtserialport,chardev=status,name=rig.status",
                   "-chardev", f"file,id=files,path={run}/files.tar",
                   "-device", "virtserialport,chardev=files,name=rig.files"]
        if shell:
            command += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
        else:
            command += ["-serial", f"file:{self.console}"]
        self.stderr = os.path.join(run, "qemu.log")
        with open(self.stderr, "wb") as log:
            self.qemu = subprocess.Popen(command, pass_fds=[theirs.fileno()],
                                         stdin=None if shell else subprocess.DEVNULL, stderr=log,
                                         preexec_fn=die_with_parent)
        theirs.close()
        self.swap = swap
        self.timed_out = False

    def lines(self, deadline):
        """What the guest says, until it ends or its time is up."""
        rest = b""
        while True:
            left = deadline() - time.monotonic()
            if left <= 0 or not select.select([self.status], [], [], left)[0]:
                self.timed_out = True
                return
            data = self.status.recv(65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace").rstrip("\r")

    def end(self, patience):
        """QEMU's exit status: that of its own end, or none if it is killed."""
        try:
            status = self.qemu.wait(patience)
        except subprocess.TimeoutExpired:
            self.qemu.kill()
            self.qemu.wait()
            status = None
        self.status.close()
        os.unlink(self.swap)
        return status


class Report:
    """Results as they come: printed, and kept in DIR/results with the log."""

    def __init__(self, run, label):
        self.file = open(os.path.join(run, "results"), "w", encoding="utf-8")
        self.label = label
        self.failed = 0
        self.last = time.monotonic()

    def add(self, line, log, timed=True):
        verdict, rest = RESULT.fullmatch(line).groups()
        line = f"{verdict} {self.label}{rest}"
        now = time.monotonic()
        seconds = f"{now - self.last:5.1f} s" if timed else " " * 7
        self.last = now
        print(f"{seconds}  {line}", flush=True)
        print(f"{line}\t{log}", file=self.file, flush=True)
        self.failed += verdict == "not ok"


class Test:
    """One test's script while it runs in the guest."""

    def __init__(self, name, run):
        self.name = name
        self.path = os.path.join(run, name + ".log")
        self.log = open(self.path, "w", encoding="utf-8")
        self.results = self.failed = 0
        self.plan = None

    def output(self, line, report):
        if RESULT.fullmatch(line):
            self.results += 1
            self.failed += line.startswith("not ok")
            report.add(line, self.path)
            return
        if re.fullmatch(r"1\.\.\d+", line):
            self.plan = int(line[3:])
        print(line, file=self.log, flush=True)

    def end(self, status, limit, report):
        self.log.close()
        why = None
        if status in (124, 137):
            why = f"timed out after {limit} s"
        elif status and not self.failed:
            why = f"exited with status {status} and named no failed test"
        elif not self.results:
            why = "printed no result"
        elif self.plan not in (None, self.results):
            why = f"{self.results} results of {self.plan}"
        if why:
            report.add(f"not ok {self.name}: {why}", self.path)


def limit_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        found = re.search(r"^# timeout: *(\d+)$", file.read(), re.M)
    return int(found.group(1)) if found else 300


def name_of(path):
    return os.path.splitext(os.path.basename(path))[0]


def prepare(args):
    """What init.sh reads."""
    limits = {}
    with open(os.path.join(args.run, "list"), "w", encoding="utf-8") as file:
        for path in map(os.path.realpath, args.tests):
            limits[name_of(path)] = limit_of(path) * args.scale
            print(name_of(path), limits[name_of(path)], path, file=file)
    with open(os.path.join(args.run, "env"), "w", encoding="utf-8") as file:
        for assignment in args.env:
            name, value = assignment.split("=", 1)
            print(f"{name}='{value}'", file=file)
    return limits


def splats(console, report):
    """The first complaint in the kernel's log in each test, and after it."""
    test, when, seen = "boot", "", set()
    if not os.path.exists(console):
        return
    with open(console, encoding="utf-8", errors="replace") as file:
        log = file.read().splitlines()
    for line in log:
        marker = MARKER.search(line)
        if marker:
            when, test = "" if marker.group(1) == "begin" else " after it", marker.group(2)
        elif SPLAT.search(line) and (test, when) not in seen:
            seen.add((test, when))
            text = re.sub(r"^\[ *[\d.]+\] ?", "", line)
            report.add(f"not ok {test}: the kernel logged{when} \"{text}\"", console, timed=False)


def unpack(run):
    """The archives of kept files, one after the other."""
    path = os.path.join(run, "files.tar")
    if os.path.exists(path) and os.path.getsize(path):
        try:
            with tarfile.open(path, "r:", ignore_zeros=True) as archive:
                archive.extractall(run)
        except tarfile.TarError as why:
            print(f"what the tests kept is damaged ({why}): {path}")
            return
        os.unlink(path)


def watch(guest, limits, report, run, grace):
    """Follow the tests; true if the guest came to its end."""
    # The guest sees to the limits of tests: this is for a guest that hangs.
    end = [time.monotonic() + grace]
    test, done = None, False
    missing = dict(limits)
    for line in guest.lines(lambda: end[0]):
        word, _, rest = line.partition(" ")
        if word == "begin":
            test = Test(rest, run)
            end[0] = time.monotonic() + limits[rest] + grace
        elif word == ">" and test:
            test.output(rest, report)
        elif word == "end" and test:
            name, status = rest.split()
            test.end(int(status), limits[name], report)
            test = None
            missing.pop(name, None)
            end[0] = time.monotonic() + grace
        elif word == "status":
            done = rest == "0"
    if not done:
        where = f"in {test.name}" if test else "outside of the tests"
        why = "hangs" if guest.timed_out else "ended without a status"
        report.add(f"not ok {test.name if test else 'boot'}: the guest {why}, {where}",
                   guest.console)
    elif missing:
        # It came to its end, but did not have the whole list.
        for name in missing:
            report.add(f"not ok {name}: it was not run", guest.console)
    return done


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="directory for what comes of it; emptied")
    parser.add_argument("--label", default="", help="put before the tests' names")
    parser.add_argument("--accel", default="tcg", choices=["tcg", "kvm"])
    parser.add_argument("--memory", default="3G")
    parser.add_argument("--scale", type=int, default=1, help="multiply the tests' limits")
    parser.add_argument("--grace", type=int, default=120,
                        help="seconds that booting, and what is between tests, may take")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--append", default="", help="more of the kernel's command line")
    parser.add_argument("--shell", action="store_true", help="a shell instead of tests")
    parser.add_argument("image")
    parser.add_argument("tests", nargs="*")
    return parser.parse_args()


def main():
    args = options()
    args.run = os.path.realpath(args.run)
    for path in (REPO, args.run, *map(os.path.realpath, args.tests)):
        if re.search(r"\s", path):
            sys.exit(f"boot: white space in {path}: it can not be put on a kernel's command line")
        if path.startswith(("/tmp/", "/run/", "/dev/")) and not (path + "/").startswith(REPO + "/"):
            sys.exit(f"boot: {path}: the guest has a /tmp, /run and /dev of its own")
    shutil.rmtree(args.run, ignore_errors=True)
    os.makedirs(args.run)
    limits = prepare(args)
    guest = Guest(args.image, args.run, args.accel, args.memory, args.append.split(), args.shell)
    if args.shell:
        sys.exit(guest.end(None))
    report = Report(args.run, args.label)
    patience = 0
    try:
        watch(guest, limits, report, args.run, args.grace)
        # A reset is all that is left to do, or a panic.
        patience = 0 if guest.timed_out else 60
    finally:
        status = guest.end(patience)
    if status:
        with open(guest.stderr, encoding="utf-8", errors="replace") as file:
            last = (file.read().strip().splitlines() or ["no message"])[-1]
        report.add(f"not ok boot: QEMU ended with status {status}: {last}", guest.stderr)
    elif status is None and not guest.timed_out:
        report.add("not ok boot: the guest does not end", guest.console)
    splats(guest.console, report)
    unpack(args.run)
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
