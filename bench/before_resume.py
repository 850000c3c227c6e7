#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Objects that can not be lazy: how long restore takes, by unpatched CRIU, which
reads them one after the other in each task, and by ours, where the daemon fills
them all at once before resume.

    BENCH_OBJECTS (4)  BENCH_MB (2048, all together)  BENCH_RUNS (7)

The two restores take turns; the images are in the page cache. Prints a table and
writes build/results/before_resume.json."""

import json
import os
import shutil
import signal
import statistics
import sys
import time

sys.dont_write_bytecode = True
TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(TOP, "test", "e2e"))
import lib  # noqa: E402

PLAIN = os.path.join(lib.BUILD, "criu-plain", "criu", "criu")
HOLDER = os.path.join(lib.BUILD, "bench", "holder")
WORK = os.path.join(lib.BUILD, "bench", "run")


class Holder(lib.Ledger):
    """A tree of holders; dumped and restored as a ledger is."""

    def __init__(self, where, objects, mib, tasks):
        super().__init__(where, "-p", str(tasks))
        self.args = [HOLDER, self.report_file, str(objects), str(mib), str(tasks)]

    def check(self):
        before = len(self.report("checked"))
        for pid in self.pids:
            os.kill(pid, signal.SIGUSR1)
        lib.wait_for(lambda: len(self.report("checked")) - before >= len(self.pids), "the check does not end", 120)
        return sum(int(c["wrong"]) for c in self.report("checked")[before:])


def eager(holder):
    start = time.monotonic()
    status = holder.restore(env={"CRIU_LIBS_DIR": os.path.join(WORK, "none")}, criu=PLAIN)
    ms = (time.monotonic() - start) * 1000
    lib.check(status == 0, "eager restore failed: " + holder.errors("restore.log"))
    return ms


def ours(holder):
    holder.start_daemon()
    start = time.monotonic()
    status = holder.restore("--lazy-pages")
    ms = (time.monotonic() - start) * 1000
    lib.check(status == 0, "restore failed: " + holder.errors("restore.log"))
    lib.check(holder.finish_daemon(120) == 0, "the daemon failed: " + holder.errors("lazy-pages.log"))
    filled = holder.log("lazy-pages.log").count(" filled before resume: ")
    lib.check(filled, "the daemon filled nothing before resume")
    return ms


def measure(objects, mib, tasks, runs):
    holder = Holder(os.path.join(WORK, "tasks-%d" % tasks), objects, mib // objects, tasks)
    holder.start().dump()
    result = {"objects": objects, "mib": mib, "tasks": tasks, "eager_ms": [], "ours_ms": [], "wrong": 0}

    for i in range(runs + 1):
        for name, restore in (("eager_ms", eager), ("ours_ms", ours)):
            ms = restore(holder)
            if i == 0:
                result["wrong"] += holder.check()  # and the images are in the page cache now
            else:
                result[name].append(round(ms, 1))
            holder.kill()
    result["ratio"] = round(statistics.median(result["ours_ms"]) / statistics.median(result["eager_ms"]), 3)
    return result


def column(values):
    return "%8.1f (%.1f - %.1f)" % (statistics.median(values), min(values), max(values))


def main():
    objects, mib = int(os.environ.get("BENCH_OBJECTS", 4)), int(os.environ.get("BENCH_MB", 2048))
    runs = int(os.environ.get("BENCH_RUNS", 7))
    lib.become_reaper()
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(os.path.join(WORK, "none"))

    print("%d MiB in %d memfds with open descriptors, restore in ms, median of %d (min - max)" % (mib, objects, runs))
    print("%6s  %-28s %-28s %s" % ("tasks", "eager, unpatched", "filled by the daemon", "ratio"), flush=True)
    results = []
    for tasks in (1, objects):
        results.append(measure(objects, mib, tasks, runs))
        r = results[-1]
        print("%6d  %-28s %-28s %.2f" % (tasks, column(r["eager_ms"]), column(r["ours_ms"]), r["ratio"]), flush=True)

    os.makedirs(os.path.join(lib.BUILD, "results"), exist_ok=True)
    with open(os.path.join(lib.BUILD, "results", "before_resume.json"), "w") as f:
        json.dump(results, f, indent=2)
        f.write("\n")
    wrong = sum(r["wrong"] for r in results)
    print("wrong words: %d" % wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lib.TestFailure as e:
        sys.exit("bench: %s" % e)
    finally:
        os.environ.get("BENCH_KEEP") or lib.cleanup(WORK)
