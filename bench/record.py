#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""The recorded working set: faults, and the time until a program has touched its set,
with the record, with it and PREFILL, and without.

    BENCH_MB (256)  BENCH_PERCENT (10)  BENCH_RUNS (7)

A program touches a scattered part of its memory in an order that jumps about, as soon
as it runs. The restores take turns; the images are in the page cache. Prints a table
and writes build/results/record.json."""

import json
import os
import re
import shutil
import signal
import statistics
import sys
import time

sys.dont_write_bytecode = True
TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(TOP, "test", "e2e"))
import lib  # noqa: E402
from scatter_lib import Scatter  # noqa: E402

WORK = os.path.join(lib.BUILD, "bench", "run")
MB = int(os.environ.get("BENCH_MB", "256"))
PERCENT = int(os.environ.get("BENCH_PERCENT", "10"))
RUNS = int(os.environ.get("BENCH_RUNS", "7"))

MODES = {
    "without": {"CRIU_LAZY_SHMEM_ORDER": "off"},
    "with": {},
    "with, prefilled": {"CRIU_LAZY_SHMEM_PREFILL": str(MB)},
    "without, on demand": {"CRIU_LAZY_SHMEM_ORDER": "off", "CRIU_LAZY_SHMEM_FILL": "on-demand"},
    "with, on demand": {"CRIU_LAZY_SHMEM_FILL": "on-demand"},
    "with, on demand, prefilled": {"CRIU_LAZY_SHMEM_FILL": "on-demand", "CRIU_LAZY_SHMEM_PREFILL": str(MB)},
}


def record(led):
    led.start_daemon(env={"CRIU_LAZY_SHMEM_RECORD": "3"})
    lib.check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("restore.log"))
    led.walk()
    lib.check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    led.kill()
    m = re.search(r"object \S+ recorded: pages=(\d+)", led.log("lazy-pages.log"))
    lib.check(m, "nothing was recorded")
    return int(m.group(1)), os.path.getsize(led.records()[0])


def run(led, env):
    led.start_daemon(env=env)
    start = time.monotonic()
    lib.check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("restore.log"))
    running = time.monotonic() - start
    (walk,) = led.walk()
    touched = time.monotonic() - start
    if "CRIU_LAZY_SHMEM_FILL" in env:  # the rest, so that the daemon says what it did
        led.daemon.send_signal(signal.SIGUSR1)
    lib.check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    led.kill()
    return {"faults": led.counters()[0]["faults"], "restore_ms": running * 1000, "walk_ms": int(walk["us"]) / 1000,
            "touched_ms": touched * 1000, "max_us": int(walk["max_us"])}


def main():
    lib.become_reaper()
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    led = Scatter(WORK, str(MB), str(PERCENT), "1").start().dump()
    pages, size = record(led)
    results = {name: [] for name in MODES}
    for _ in range(RUNS):
        for name, env in MODES.items():
            results[name].append(run(led, env))

    print("%d MiB, %d pages touched; the record has %d bytes; median of %d (min-max)" % (MB, pages, size, RUNS))
    print("%-28s %20s %20s %20s %20s" % ("record", "faults", "restore ms", "walk ms", "longest access us"))
    for name, rows in results.items():
        cells = []
        for key in ("faults", "restore_ms", "walk_ms", "max_us"):
            values = [r[key] for r in rows]
            cells.append("%.0f (%.0f-%.0f)" % (statistics.median(values), min(values), max(values)))
        print("%-28s %20s %20s %20s %20s" % (name, *cells))

    os.makedirs(os.path.join(lib.BUILD, "results"), exist_ok=True)
    with open(os.path.join(lib.BUILD, "results", "record.json"), "w") as f:
        json.dump({"mib": MB, "pages": pages, "record_bytes": size, "runs": results}, f, indent=1)


if __name__ == "__main__":
    try:
        main()
    finally:
        lib.cleanup(WORK)
