#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What a task loses that touches all of an object from its first instruction.

    BENCH_MB (1024, quick 256)  BENCH_COPY_MB (256, quick 64)  BENCH_WAYS ("eager ours ...": not all)
    and those of benchlib.py
    stall.py [ORDER-TASKSxTHREADS...]     some of the configurations, as random-1x4

Ways, by turns:
  ours      shared memory, lazily
  eager     the same by unpatched CRIU: all is there when the task runs
  upstream  private memory of the same size, by unpatched CRIU with --lazy-pages. Not for
            several tasks: after fork() each would have its own copy. It can take minutes: if
            its first run is that long, it is its only one
  copy      a handler that answers each fault with one UFFDIO_COPY, with no fill behind it
            (copy_handler.c): what a page costs does not depend on how many there are, so
            it gets a smaller object
  one       the same with one fault at a time and a pause before each, so that the handler
            sleeps and has nothing else to do: its p50 is "one fault round trip". In a
            virtual machine that is mostly the time to wake a processor, twice

bench/touch.c records each access. Totals are until the last access of the last thread, from
the start of "criu restore" and from resume, which is the first instruction of the first
thread. The window is what began before the daemon's "object ... done". CRIU logs as it does
by default. Stall is the time spent in accesses, for each page that was touched."""

import array
import os
import shutil
import sys
import tempfile
import time

import benchlib
from benchlib import lib, median, spread
from touched import BUCKETS, Touched

TITLE = "touching all of an object from the first instruction"
MIB = int(os.environ.get("BENCH_MB", 256 if benchlib.QUICK else 1024))
COPY_MIB = int(os.environ.get("BENCH_COPY_MB", 64 if benchlib.QUICK else 256))
SHAPES = ((1, 1), (1, 4), (4, 1))
ORDERS = ("seq", "random", "zipf")
WAYS = ("eager", "ours", "upstream", "copy", "one")
ONE_MIB, ONE_PAUSE_US = 8, 300
WANTED_WAYS = os.environ.get("BENCH_WAYS", " ".join(WAYS)).split()
TOO_LONG = 20  # seconds, for upstream to have several runs
LIMIT = 400  # for any run
TOUCH = os.path.join(benchlib.BIN, "touch")
COPY_HANDLER = os.path.join(benchlib.BIN, "copy_handler")


class Toucher(benchlib.Subject):
    def __init__(self, name, plan, order, tasks, threads, *kind):
        super().__init__(name, [TOUCH, "REPORT", plan, MIB, order, tasks, threads, *kind], processes=tasks)
        self.plan = plan
        self.log_began = 0.0

    def criu(self, action, *args, **kwargs):
        level = ["-v2"] if action != "dump" else []  # the default: a line for each fault would be measured as well
        return super().criu(action, *args, *level, **kwargs)

    def start_daemon(self, env=None, args=(), criu=benchlib.OURS):
        """Times in the log count from just before CRIU makes the file."""
        path = os.path.join(self.dir, "lazy-pages.log")
        ready, status = os.pipe()
        try:
            self.daemon = self.criu("lazy-pages", "--status-fd", str(status), *args, env=env, criu=criu, pass_fds=[status])
            while not os.path.exists(path) and self.daemon.poll() is None:
                pass
            self.log_began = time.monotonic()
        finally:
            os.close(status)
        said = os.read(ready, 1)
        os.close(ready)
        lib.check(said, "the daemon does not start: " + self.errors("lazy-pages.log"))
        return self.daemon

    def watch(self, child, timeout=benchlib.RESTORE_TIMEOUT):
        """As benchlib's, but it does not take a processor's time from what is measured"""
        end = time.monotonic() + timeout
        while True:
            try:
                lib.wait_for(lambda: child.poll() is not None, "", 0)
            except lib.TestFailure:
                lib.check(time.monotonic() < end, "%s does not end in %d s" % (child.args[:2], timeout))
            if child.returncode is not None:
                break
            self.look()
            self.sleep_until_exit(child)
        at = time.monotonic()
        lib.managed.discard(child)
        self.look()
        return child.returncode, at

    @staticmethod
    def sleep_until_exit(child, at_most=0.02):
        fd = os.pidfd_open(child.pid)
        try:
            benchlib.select.select([fd], [], [], at_most)
        finally:
            os.close(fd)

    def touched(self, restore):
        """Restores, waits for the last access, then for the daemon; the figures of the run"""
        before = len(self.report("done"))
        run = restore()
        end = time.monotonic() + LIMIT
        while len(self.report("done")) - before < len(self.pids):
            lib.check(time.monotonic() < end, "not all was touched in %d s: %s" % (LIMIT, self.errors("lazy-pages.log")))
            lib.check(len(self.alive()) == len(self.pids), "a process died: %s" % self.errors("lazy-pages.log"))
            time.sleep(0.02)
        self.finish(run)
        touched = Touched(self.plan)
        self.kill()
        figures = of_run(touched, run.began, self.window_end(run))
        figures.update(restore_ms=run.restore_s * 1e3, daemon_cpu_s=run.daemon_cpu_s, daemon_peak_kib=run.daemon_peak_kib,
                       faults=sum(o["faults"] for o in run.objects) if run.objects else None)
        return figures

    def window_end(self, run):
        if not self.daemon:
            return None
        done = [at for at, text in self.daemon_log.lines if "lazy-shmem: object" in text and " done:" in text]
        return self.log_began + max(done) if done else run.began + run.end_s


def of_run(touched, began, window_end):
    figures = {"total_ms": (touched.done - began) * 1e3, "resume_ms": (touched.resumed - began) * 1e3,
               "touch_ms": (touched.done - touched.resumed) * 1e3, "stall_us": touched.stall_us(), "wrong": touched.wrong,
               "histogram": touched.histogram(), "curve": touched.curve(began), "access": touched.figures()}
    if window_end:
        inside = touched.until(window_end)
        figures["window_ms"] = (window_end - touched.resumed) * 1e3
        figures["window_share"] = inside / len(touched.ns)
        figures["window"] = touched.figures(inside)
    return figures


def copy_handler(image, plan, order, tasks, threads, mib=COPY_MIB, pause_us=0):
    benchlib.have_memory(mib + 64)
    out = os.path.join(benchlib.WORK, "copy.out")
    with open(out, "w") as f:
        child = lib.popen([COPY_HANDLER, image, plan, str(mib), order, str(tasks), str(threads), str(pause_us)], stdout=f, stderr=f)
    end = time.monotonic() + 120
    while child.poll() is None:
        lib.check(time.monotonic() < end, "copy_handler does not end")
        Toucher.sleep_until_exit(child)
    lib.managed.discard(child)
    lib.check(child.returncode == 0, "copy_handler failed: " + lib.read(out))
    said = dict(w.split("=") for w in lib.read(out).split()[1:])
    touched = Touched(plan)
    figures = of_run(touched, touched.resumed, touched.done)
    figures.update(daemon_cpu_s=int(said["cpu_us"]) / 1e6, faults=int(said["faults"]), restore_ms=None, daemon_peak_kib=None)
    return figures


def dumped(subject):
    subject.start().dump()
    for path in benchlib.files_in(subject.images):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    benchlib.warm(subject.images)
    return subject


def image_of(subject):
    """The one with the object: its pages are all there, and in order"""
    image = max((p for p in benchlib.files_in(subject.images) if os.path.basename(p).startswith("pages-")), key=os.path.getsize)
    lib.check(os.path.getsize(image) == MIB << 20, "%s is not just the object" % image)
    return image


def measure(order, tasks, threads, where):
    """{way: [figures of a run]}"""
    name = "%s-%dx%d" % (order, tasks, threads)
    shared = dumped(Toucher(name, os.path.join(where, name), order, tasks, threads))
    private = None
    if tasks == 1 and "upstream" in WANTED_WAYS:
        private = dumped(Toucher(name + "-private", os.path.join(where, name + "-private"), order, tasks, threads, "private"))
    image = image_of(shared)

    def lazily(subject, how):
        benchlib.have_memory(MIB + 512)
        return subject.touched(how)

    def ours():
        figures = lazily(shared, shared.ours)
        lib.check(figures["faults"] is not None, "ours: nothing was lazy, or the daemon does not say so: " + shared.log("restore.log")[-500:])
        return figures

    ways = {"eager": lambda: lazily(shared, shared.eager), "ours": ours,
            "copy": lambda: copy_handler(image, os.path.join(where, "copy"), order, tasks, threads),
            "one": lambda: copy_handler(image, os.path.join(where, "copy"), "random", 1, 1, ONE_MIB, ONE_PAUSE_US)}
    if private:
        ways["upstream"] = once_if_long(lambda: lazily(private, private.upstream))
    runs = benchlib.by_turns({way: ways[way] for way in WAYS if way in ways and way in WANTED_WAYS})
    for subject in (shared, private):
        if subject:
            shutil.rmtree(subject.dir)
            os.unlink(subject.plan)
    return {way: runs[way][:1] if runs[way][0].get("only") else runs[way] for way in runs}


def once_if_long(fn):
    """What fn() returned the first time if that took too long to do it again"""
    kept = []

    def run():
        if not kept:
            figures = fn()
            if figures["total_ms"] < TOO_LONG * 1e3:
                return figures
            kept.append(dict(figures, only=True))
        return kept[0]

    return run


def column(runs, *keys, digits=1):
    values = []
    for figures in runs:
        for key in keys:
            figures = (figures or {}).get(key)
        if figures is not None:
            values.append(figures)
    return spread(values, digits) if values else "-"


def show(results, name, ways):
    header = ["", "total ms", "from resume ms", "stall us/page", "p50 us", "p99 us", "p99.9 us", "p99 in window us", "window ms",
              "faults", "daemon cpu s", "peak MiB"]
    rows = []
    for way, runs in ways.items():
        rows.append([way + (" (one run)" if runs[0].get("only") else ""), "-" if way in ("copy", "one") else column(runs, "total_ms", digits=0), column(runs, "touch_ms", digits=0),
                     column(runs, "stall_us", digits=2), column(runs, "access", "p50"), column(runs, "access", "p99"),
                     column(runs, "access", "p999"), column(runs, "window", "p99"), column(runs, "window_ms", digits=0),
                     column(runs, "faults", digits=0), column(runs, "daemon_cpu_s", digits=2),
                     column([{"m": r["daemon_peak_kib"] and r["daemon_peak_kib"] / 1024} for r in runs], "m", digits=0)])
    results.table("%s, %d MiB (copy: %d MiB, one: %d MiB); median (min - max)" % (name, MIB, COPY_MIB, ONE_MIB), header, rows)


def plots(results, name, ways):
    series = {}
    for way, runs in ((way, runs) for way, runs in ways.items() if way != "one"):
        rows = []
        for i in range(BUCKETS):
            shares = [r["histogram"][i] for r in runs]
            if median(shares):
                rows.append((2.0 ** i / 1e3, median(shares), max(min(shares), 1e-7), max(shares)))
        series[way] = rows
    results.plot_lines(name + "-histogram", "Accesses, %s" % name, "time of an access, us (from this to twice as much)",
                       "share of accesses", series, "set logscale xy\nset yrange [1e-6:1]\nset key top right")
    blocks, parts = {}, []
    for i, way in enumerate(w for w in WAYS if w in ways and w not in ("copy", "one")):
        runs = sorted(ways[way], key=lambda r: r["total_ms"])
        blocks["d%d" % i] = runs[len(runs) // 2]["curve"]
        parts.append("$d%d using 1:2 with lines linewidth 2 title '%s'" % (i, way))
    results.plot(name + "-curve", benchlib.head("Pages touched, %s" % name, "s since the start of criu restore", "share of pages",
                                                "set key bottom right") + "plot " + ", ".join(parts), blocks)


def targets(results, all_ways):
    def middle(name, way, *keys):
        values = []
        for value in all_ways[name][way]:
            for key in keys:
                value = value[key]
            values.append(value)
        return median(values)

    one, four = "random-1x1", "random-1x4"
    if set(WANTED_WAYS) < set(WAYS):
        return
    if one in all_ways:
        results.target("random touch of %d MiB, total, against eager restore and touch" % MIB,
                       middle(one, "ours", "total_ms") / middle(one, "eager", "total_ms"), "<=", 1.1)
        results.target("mean stall per page, random touch, against one UFFDIO_COPY per fault",
                       middle(one, "ours", "stall_us") / middle(one, "copy", "stall_us"), "<=", 0.1)
        results.data["fault_round_trip_us"] = round(middle(one, "one", "access", "p50"), 3)
    if four in all_ways:
        results.target("p99 of an access in the window, 4 threads, random, against a fault round trip",
                       middle(four, "ours", "window", "p99") / middle(four, "one", "access", "p50"), "<=", 3)


def configurations(wanted):
    every = [("%s-%dx%d" % (order, tasks, threads), order, tasks, threads) for order in ORDERS for tasks, threads in SHAPES]
    unknown = set(wanted) - {c[0] for c in every}
    lib.check(not unknown, "no such configuration: %s; there are %s" % (", ".join(unknown), " ".join(c[0] for c in every)))
    if benchlib.QUICK and not wanted:
        wanted = ["random-1x1", "random-1x4"]
    return [c for c in every if not wanted or c[0] in wanted]


def plain(value):
    """Without curves, and not with more digits than were measured"""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "curve"}
    if isinstance(value, (list, array.array)):
        return [plain(v) for v in value]
    return round(value, 6) if isinstance(value, float) else value


def main():
    wanted = sys.argv[1:]
    results = benchlib.Results("-".join(["stall"] + wanted), TITLE)
    # on tmpfs, so that no record waits for a disk
    where = tempfile.mkdtemp(prefix="stall-", dir="/dev/shm")
    all_ways, wrong = {}, 0
    try:
        for name, order, tasks, threads in configurations(wanted):
            all_ways[name] = measure(order, tasks, threads, where)
            show(results, name, all_ways[name])
            plots(results, name, all_ways[name])
            wrong += sum(r["wrong"] for runs in all_ways[name].values() for r in runs)
    finally:
        shutil.rmtree(where, ignore_errors=True)
    print("\nwrong words: %d" % wrong)
    targets(results, all_ways)
    results.data.update(mib=MIB, copy_mib=COPY_MIB, wrong=wrong, runs=plain(all_ways))
    results.save()
    return 1 if wrong else 0


if __name__ == "__main__":
    benchlib.run(main)
