#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs benches one after the other and sums up their targets.

    run.py [-q] [NAME...]     -q: fewer sizes and 3 runs, as BENCH_QUICK=1; -l: lists them

All is written to build/results/summary.json. Fails if a bench fails or can not be run; that
a target is missed is said loudly, but is no failure."""

import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import benchlib as b  # noqa: E402

# name: the most seconds it may take, quick and not. Those that are not there (yet) are said to be missing.
BENCHES = {
    "restore_time": (120, 900),
    "fill": (120, 1200),
    "stall": (120, 2400),
    "record": (60, 300),
    "postgres": (0, 1200),
    "before_resume": (60, 300),
    "copies": (60, 1800),
}


def run(name, limit):
    """0, or what went wrong"""
    script = os.path.join(b.TOP, "bench", name + ".py")
    if not os.access(script, os.X_OK):
        return "there is no bench/%s.py" % name
    result = os.path.join(b.RESULTS, name + ".json")
    if os.path.exists(result):
        os.unlink(result)  # or that of an earlier run would be taken for this one's
    child = subprocess.Popen([script], cwd=b.TOP)
    try:
        status = child.wait(limit)
    except subprocess.TimeoutExpired:
        child.terminate()  # it cleans up
        child.wait(60)
        return "not done in %d s" % limit
    finally:
        if child.poll() is None:
            child.kill()
    if status:
        return "status %d" % status
    return 0 if os.path.exists(result) else "left no build/results/%s.json" % name


def show(done):
    targets = [dict(t, bench=d["name"]) for d in done for t in d["targets"]]
    print("\n" + "=" * 100)
    for t in targets:
        print("%-14s %s" % (t["bench"], b.target_line(t)))
    for d in done:
        if d["error"]:
            print("%-14s FAILED: %s" % (d["name"], d["error"]))
    missed, failed = sum(not t["met"] for t in targets), sum(bool(d["error"]) for d in done)
    print("%d benches in %.0f s, %d failed; %d targets met, %d MISSED; see build/results" % (
        len(done), sum(d["seconds"] for d in done), failed, len(targets) - missed, missed))
    return 1 if failed or not done else 0


def main():
    args = sys.argv[1:]
    if "-l" in args:
        print("\n".join(BENCHES))
        return 0
    if "-q" in args:
        args.remove("-q")
        os.environ["BENCH_QUICK"] = "1"
    quick = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
    unknown = [a for a in args if a not in BENCHES]
    if unknown:
        sys.exit("run.py: no bench has the name %s; there are: %s" % (unknown[0], " ".join(BENCHES)))

    done = []
    for name in args or [n for n, limits in BENCHES.items() if limits[0] or not quick]:
        began = time.monotonic()
        print("\n== %s" % name, flush=True)
        error = run(name, BENCHES[name][0 if quick else 1] or BENCHES[name][1])
        found = {} if error else b.load(name)
        done.append({"name": name, "error": error, "seconds": round(time.monotonic() - began, 1),
                     "targets": found.get("targets", [])})
    b.save("summary", {"quick": quick, "machine": b.machine(), "benches": done})
    return show(done)


if __name__ == "__main__":
    sys.exit(main())
