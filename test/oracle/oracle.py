#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""Random programs over shared memory must see the same after a lazy restore as after
an eager one.

  oracle.py                      the stored programs, and a hundred seeds
  oracle.py --seeds N [--first-seed S] [--jobs J]
  oracle.py --seconds T [--first-seed S]
  oracle.py --seed S [-v]        one, as often as --repeat says
  oracle.py --program FILE       one that is stored, or several

A seed that shows a difference is shrunk to a short program (--no-shrink: not).
"""

import argparse
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback

from generate import generate
from program import Program
from run import HERE, Difference, Undefined, lib, run_program
from shrink import shrink

CLONE_NEWNS, CLONE_NEWPID, MS_REC, MS_PRIVATE = 0x20000, 0x20000000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
CHUNK = 25
LOGS = os.path.join(lib.BUILD, "test-logs", "oracle")
BASE = None  # directory of this run
PROGRAMS = os.path.join(HERE, "programs")


def libc_call(name, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args):
        raise OSError(ctypes.get_errno(), name)


def in_namespace(fn):
    """Forks a process that runs fn() as process 1 of a PID namespace with its own /proc"""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        libc_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc_call("unshare", CLONE_NEWPID | CLONE_NEWNS)
        first = os.fork()
        if first:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 255)
        libc_call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc_call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        libc_call("mount", b"proc", b"/proc", b"proc", 0, None)
        fn()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def keep_logs(where, keep):
    shutil.rmtree(keep, ignore_errors=True)
    os.makedirs(keep)
    for name in os.listdir(where):
        if os.path.isfile(os.path.join(where, name)):
            shutil.copy(os.path.join(where, name), keep)


def try_program(program, repeat=1, keep=None):
    """None and the run, or what is wrong"""
    where = tempfile.mkdtemp(dir=BASE)
    try:
        return None, run_program(where, program, repeat)
    except (Difference, Undefined, lib.TestFailure) as e:
        if keep:
            keep_logs(where, keep)
        return e, None
    finally:
        shutil.rmtree(where, ignore_errors=True)


class Worker:
    """Runs programs and tells of each in a line of JSON"""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.reader, self.writer = os.pipe()
        self.rest = b""
        self.pid = in_namespace(self.main)
        os.close(self.writer)

    def tell(self, **what):
        os.write(self.writer, json.dumps(what).encode() + b"\n")

    def main(self):
        os.nice(5)
        for name, program in self.work:
            began = time.monotonic()
            wrong, run = try_program(program, self.args.repeat, os.path.join(LOGS, name))
            if not wrong:
                self.tell(name=name, ops=program.nr_ops(), faults=run.faults, early=run.early, objects=run.objects,
                          seconds=time.monotonic() - began)
                continue
            short = None
            if self.args.shrink and isinstance(wrong, Difference):
                short, wrong = shrink(program, wrong, lambda p, n: try_program(p, n)[0], self.args.shrink_seconds)
            self.tell(name=name, wrong=type(wrong).__name__, text=str(wrong)[:3000], ops=program.nr_ops(),
                      short=short.text() if short else None)

    def results(self):
        """What has come, or None at the end"""
        data = os.read(self.reader, 65536)
        if not data:
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            if status:
                raise RuntimeError("a worker died, status %d" % status)
            return None
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        return [json.loads(line) for line in lines]


class Total:
    def __init__(self):
        self.began = time.monotonic()
        self.runs = self.ops = self.early = self.faults = self.objects = 0
        self.seconds = 0
        self.wrong = []

    def add(self, result):
        self.seconds = time.monotonic() - self.began
        self.runs += 1
        self.ops += result["ops"]
        if "wrong" in result:
            self.wrong.append(result)
            report_wrong(result)
            return
        self.early += result["early"]
        self.faults += result["faults"]
        self.objects += result["objects"]

    def summary(self):
        return ("%d programs in %.0f s: %d different, %d operations, %d of them before all objects were "
                "complete, %d lazy objects, %d faults" % (
                    self.runs, self.seconds, len(self.wrong), self.ops, self.early, self.objects, self.faults))


def report_wrong(result):
    print("%s: %s\n    %s" % (result["name"], result["wrong"], result["text"]))
    if result["name"].isdigit():
        print("    again: test/oracle/oracle.py --seed %s --repeat 20" % result["name"])
    if result["short"]:
        os.makedirs(LOGS, exist_ok=True)
        path = os.path.join(LOGS, "%s.prog" % result["name"])
        with open(path, "w") as f:
            f.write(result["short"])
        print("%s    again: test/oracle/oracle.py --repeat 20 --program %s" % (result["short"], path))
    sys.stdout.flush()


def run_all(work, args, done=lambda result: None):
    """work: a function that makes the iterator of a worker, by its number"""
    total = Total()
    workers = [Worker(args, work(i)) for i in range(args.jobs)]
    while workers:
        ready = select.select([w.reader for w in workers], [], [])[0]
        for w in [w for w in workers if w.reader in ready]:
            results = w.results()
            if results is None:
                workers.remove(w)
                continue
            for result in results:
                total.add(result)
                done(result)
                if not total.runs % 500:
                    print("# %s" % total.summary(), flush=True)
            if total.wrong and not args.go_on:
                stop(workers)
                return total
    return total


def stop(workers):
    """Process 1 of a namespace takes all others of it along"""
    for w in workers:
        children = lib.read("/proc/%d/task/%d/children" % (w.pid, w.pid)).split()
        for child in children:
            os.kill(int(child), 9)
        os.waitpid(w.pid, 0)


def seeds_of(worker, args, end):
    seed = args.first_seed + worker
    while (not args.seeds or seed < args.first_seed + args.seeds) and (not end or time.monotonic() < end):
        yield str(seed), generate(seed)
        seed += args.jobs


def as_tests(args):
    """The stored programs, then chunks of seeds; one result for each"""
    args.go_on = True
    names = sorted(n for n in os.listdir(PROGRAMS) if n.endswith(".prog"))
    chunks = range(args.first_seed, args.first_seed + args.seeds, CHUNK)
    print("1..%d" % (len(names) + len(chunks)), flush=True)
    stored = [(n, Program.parse(lib.read(os.path.join(PROGRAMS, n)))) for n in names]
    failed = 0

    def verdict(name, wrong):
        text = wrong and wrong["text"].replace("\n", " | ")
        print("not ok %s: %s" % (name, text) if wrong else "ok %s" % name, flush=True)
        return bool(wrong)

    def one_done(result):
        nonlocal failed
        failed += verdict("oracle/%s" % result["name"][:-5], result if "wrong" in result else None)

    args.repeat = 3
    total = run_all(lambda i: stored[i::args.jobs], args, one_done)
    args.repeat = 1
    waiting = {c: min(CHUNK, args.first_seed + args.seeds - c) for c in chunks}
    bad = {}

    def seed_done(result):
        nonlocal failed
        seed = int(result["name"])
        chunk = seed - (seed - args.first_seed) % CHUNK
        waiting[chunk] -= 1
        if "wrong" in result:
            bad.setdefault(chunk, result)
        if not waiting[chunk]:
            failed += verdict("oracle/seeds-%d-%d" % (chunk, min(chunk + CHUNK, args.first_seed + args.seeds) - 1),
                              bad.get(chunk))

    seeds = run_all(lambda i: seeds_of(i, args, None), args, seed_done)
    print("stored: %s\nseeds: %s" % (total.summary(), seeds.summary()))
    if not seeds.faults or not seeds.early:
        print("not ok oracle/lazy: nothing was lazy")
        failed += 1
    return failed


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seeds", type=int)
    ap.add_argument("--first-seed", type=int, default=1)
    ap.add_argument("--seconds", type=float)
    ap.add_argument("--seed", type=int)
    ap.add_argument("--program", dest="programs", action="append", default=[])
    ap.add_argument("--repeat", type=int, default=1)
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--go-on", action="store_true", help="after a difference")
    ap.add_argument("--no-shrink", dest="shrink", action="store_false")
    ap.add_argument("--shrink-seconds", type=float, default=120)
    ap.add_argument("-v", action="store_true", help="print the program")
    args = ap.parse_args()

    global BASE
    BASE = tempfile.mkdtemp(prefix="lshm-oracle-")
    try:
        sys.exit(run_what(args))
    finally:
        shutil.rmtree(BASE, ignore_errors=True)


def run_what(args):
    """The exit status"""
    if args.seed is not None or args.programs:
        if args.programs:
            work = [(os.path.basename(f), Program.parse(lib.read(f))) for f in args.programs]
        else:
            work = [(str(args.seed), generate(args.seed))]
        args.jobs = 1
        if args.v:
            print("".join(p.text() for _, p in work))
        total = run_all(lambda i: work, args)
    elif args.seeds or args.seconds:
        end = time.monotonic() + args.seconds if args.seconds else None
        print("seeds from %d" % args.first_seed, flush=True)
        total = run_all(lambda i: seeds_of(i, args, end), args)
    else:
        args.seeds = 100
        return 1 if as_tests(args) else 0
    print(total.summary())
    return 1 if total.wrong else 0


if __name__ == "__main__":
    main()
