#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""The recorded working set: faults, and the time until a program has touched its set,
with the record, with it and PREFILL, and without.

    BENCH_MB (256)  BENCH_PERCENT (10)  and those of benchlib.py

A program touches a scattered part of its memory in an order that jumps about, as soon
as it runs. The restores take turns; the images are in the page cache."""

import os
import re
import shutil
import signal
import sys
import time

import benchlib
from benchlib import lib, median, spread
from scatter_lib import Scatter

WORK = os.path.join(lib.BUILD, "bench", "record")
MB = int(os.environ.get("BENCH_MB", "256"))
PERCENT = int(os.environ.get("BENCH_PERCENT", "10"))
RUNS = benchlib.RUNS

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
    results = benchlib.Results("record", "a recorded working set")
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    try:
        led = Scatter(WORK, str(MB), str(PERCENT), "1").start().dump()
        pages, size = record(led)
        runs = benchlib.by_turns({name: lambda env=env: run(led, env) for name, env in MODES.items()})
    finally:
        lib.cleanup(WORK)

    keys = ("faults", "restore_ms", "walk_ms", "touched_ms", "max_us")
    results.table("%d MiB, %d pages touched, a record of %d bytes; median of %d (min - max)" % (MB, pages, size, RUNS),
                  ["record", "faults", "restore ms", "walk ms", "restore and walk ms", "longest access us"],
                  [[name] + [spread([r[key] for r in rows], 0) for key in keys] for name, rows in runs.items()])
    faults = {name: median([r["faults"] for r in rows]) for name, rows in runs.items()}
    results.target("faults with a recorded working set / without", faults["with"] / faults["without"], "<=", 0.1)
    results.target("the same, prefilled", faults["with, prefilled"] / faults["without"], "<=", 0.1)
    results.target("the same, on demand", faults["with, on demand"] / faults["without, on demand"], "<=", 0.1)
    results.data.update(mib=MB, pages=pages, record_bytes=size, runs=runs)
    results.save()


if __name__ == "__main__":
    benchlib.run(main)
