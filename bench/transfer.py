#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Background transfer of shared memory to another machine, by turns with a plain pair of
processes, send() here and recv() and pwrite() there (transfer.c), over the same link.

    BENCH_MB (1024)  BENCH_RUNS (5)

Ours is timed from the first MiB that is seen on the link to the line of the daemon that
says that the object is complete; the tasks do nothing meanwhile. Prints a table and
writes build/results/transfer.json."""

import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(TOP, "test", "lib"))
import machines  # noqa: E402
import lib  # noqa: E402

TRANSFER = os.path.join(lib.BUILD, "bench", "transfer")
MIGRANT = os.path.join(lib.BUILD, "e2e", "migrant")
LIMIT = 0.8
PORT = machines.PORT + 50


def have_memory(mib):
    """In a virtual machine memory that was free for some seconds may have gone back to the host: the
    first store to a page then takes several times as long as a copy. So what will be needed is touched and freed."""
    code = "import mmap, sys; mmap.mmap(-1, int(sys.argv[1]) << 20, flags=%d)" % (
        mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    subprocess.run([sys.executable, "-c", code, str(mib)], check=True)


def plain(pair, mib, where):
    have_memory(3 * mib)
    out = os.path.join(where, "received")
    if os.path.exists(out):
        os.unlink(out)
    receiver = pair.destination.popen(TRANSFER, "receive", str(PORT), str(mib), out=out)
    lib.wait_for(lambda: "listening" in lib.read(out), "the receiver does not listen")
    pair.source.run(TRANSFER, "send", machines.ADDRESSES[1], str(PORT), str(mib))
    lib.check(lib.finish(receiver) == 0, "the receiver failed: " + lib.read(out))
    return float(lib.read(out).split()[1])


def ours(mib, where):
    """A pair of machines for each run: the destination must be as it was"""
    with machines.Pair(where) as pair:
        report = os.path.join(pair.here, "report")
        m = machines.Migration(pair, MIGRANT, "anon", report, str(mib))
        lib.wait_for(lambda: lib.read(os.path.join(pair.source.own, "report")).count("ready") == 2, "no task", 60)
        have_memory(2 * mib)
        m.dump_lazy()
        m.copy()
        m.start_daemon()
        base = pair.destination.counters()[0]
        restore = m.start_restore("--lazy-pages")
        log = os.path.join(pair.destination.dir, "lazy-pages.log")
        begun, end, text = None, None, ""
        with open(log, errors="replace") as f:
            while end is None:
                now = time.monotonic()
                if begun is None and pair.destination.counters()[0] - base > 1 << 20:
                    begun = now
                text = text[-64:] + f.read()
                if " done: size=" in text:
                    end = now
                lib.check(m.daemon.poll() is None or end, "the daemon failed: " + pair.destination.errors("lazy-pages.log"))
                time.sleep(0.001)
        lib.check(begun, "nothing was seen on the link")
        lib.check(lib.finish(restore) == 0, "restore failed: " + pair.destination.errors("restore.log"))
        m.finish()
    return end - begun


def rate(mib, seconds):
    return mib / seconds


def column(values):
    return "%8.0f (%.0f - %.0f)" % (statistics.median(values), min(values), max(values))


def main():
    mib, runs = int(os.environ.get("BENCH_MB", 1024)), int(os.environ.get("BENCH_RUNS", 5))
    lib.become_reaper()
    top = tempfile.mkdtemp(prefix="dmig-")
    results = {"plain": [], "ours": []}
    try:
        with machines.Pair(os.path.join(top, "plain")) as pair:
            for i in range(runs + 1):  # the first of each warms up
                values = plain(pair, mib, top), ours(mib, os.path.join(top, "ours-%d" % i))
                if i:
                    for name, seconds in zip(("plain", "ours"), values):
                        results[name].append(round(rate(mib, seconds), 1))
    finally:
        shutil.rmtree(top, ignore_errors=True)

    ratio = statistics.median(results["ours"]) / statistics.median(results["plain"])
    print("%d MiB over a veth link, MiB/s, median of %d (min - max)" % (mib, runs))
    print("  send(), recv() and pwrite()    %s" % column(results["plain"]))
    print("  background transfer            %s" % column(results["ours"]))
    print("  ratio                          %8.2f (at least %.1f)" % (ratio, LIMIT))
    os.makedirs(os.path.join(lib.BUILD, "results"), exist_ok=True)
    with open(os.path.join(lib.BUILD, "results", "transfer.json"), "w") as f:
        json.dump({"mib": mib, "runs": runs, "plain_mib_s": results["plain"], "ours_mib_s": results["ours"],
                   "ratio": round(ratio, 3), "limit": LIMIT}, f, indent=2)
        f.write("\n")
    return 0 if ratio >= LIMIT else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lib.TestFailure as e:
        sys.exit("bench-transfer: %s" % e)
