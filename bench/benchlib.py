# SPDX-License-Identifier: GPL-2.0-only
"""What the benches share: programs that are dumped once and restored in several ways by
turns, clocks, files in the page cache and not, tables, plots, and targets.

    BENCH_QUICK=1 (fewer sizes, 3 runs)  BENCH_RUNS (5)  BENCH_KEEP=1 (leave the work directory)

A bench is a file with "TITLE" and "main()" that ends with benchlib.run(main). It makes one
Results, which prints the tables and leaves build/results/NAME.json and NAME-*.png."""

import contextlib
import json
import mmap
import os
import platform
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(TOP, "test", "e2e"))
import lib  # noqa: E402

OURS = lib.CRIU
PLAIN = os.path.join(lib.BUILD, "criu-plain", "criu", "criu")
PLUGIN_DIR = lib.PLUGIN_DIR
BIN = os.path.join(lib.BUILD, "bench")
RESULTS = os.path.join(lib.BUILD, "results")
WORK = os.path.join(BIN, "run", os.path.splitext(os.path.basename(sys.argv[0]))[0])
NO_PLUGINS = os.path.join(WORK, "no-plugins")  # an empty directory

QUICK = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
RUNS = int(os.environ.get("BENCH_RUNS", 3 if QUICK else 5))
RESTORE_TIMEOUT = 120
VERBOSE = "-v3"  # at -v4 a line for each MiB of an object would be measured


# Memory and the page cache

kept = None


def have_memory(mib, blocks=False):
    """In a virtual machine free memory goes back to the host after two seconds or less: the first store to a
    page then takes several times as long as a copy. Only free blocks of 2 MiB do, so so much memory is
    touched and then freed but for a page in each 512 KiB; with blocks=True all of it, or no huge page
    could be made of it. To be called before each configuration."""
    global kept
    if kept:
        kept.close()
    kept = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    kept.madvise(mmap.MADV_HUGEPAGE if blocks else mmap.MADV_NOHUGEPAGE)
    kept.madvise(23)  # MADV_POPULATE_WRITE
    for off in range(0, mib << 20, 512 << 10):
        kept.madvise(mmap.MADV_DONTNEED, off, (512 if blocks else 508) << 10)


def files_in(where):
    return [os.path.join(d, f) for d, _, names in os.walk(where) for f in names]


def cached_bytes(where):
    files = files_in(where)
    out = subprocess.run(["fincore", "--bytes", "--noheadings", "--output", "RES"] + files,
                         stdout=subprocess.PIPE, check=True, text=True).stdout
    return sum(int(n) for n in out.split())


def warm(where):
    """All files there are in the page cache."""
    for path in files_in(where):
        with open(path, "rb", buffering=0) as f:
            while f.read(1 << 20):
                pass


def drop_cache(where):
    """None of the files there is in the page cache; what the disk itself remembers, it does."""
    def gone():
        for path in files_in(where):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        return cached_bytes(where) == 0

    lib.wait_for(gone, "the page cache keeps files below " + where, 10)


@contextlib.contextmanager
def setting(path, value):
    """A file of /sys or /proc says so meanwhile; run() sees to it that a signal puts it back as well."""
    old = lib.read(path).strip()
    chosen = re.search(r"\[(\S+)\]", old)
    old = chosen.group(1) if chosen else old
    try:
        write(path, value)
        yield
    finally:
        write(path, old)


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


# Processes

class Child(subprocess.Popen):
    """One whose resources are known when it has ended, with those of the children it waited for."""
    usage = None

    def poll(self):
        if self.returncode is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.usage = usage
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def cpu_s(self):
        return self.usage.ru_utime + self.usage.ru_stime


def peak_kib(pid):
    """Most memory that the process ever had resident, 0 if it has ended. Not ru_maxrss, which begins with the
    memory of who started it."""
    m = re.search(r"^VmHWM:\s+(\d+)", lib.read("/proc/%d/status" % pid), re.M)
    return int(m.group(1)) if m else 0


class Log:
    """A log of CRIU that is looked at while it grows. Its times count from a moment of its own;
    offset is what must be added to have time.monotonic()."""

    def __init__(self, path):
        self.path = path
        self.file = None
        self.part = ""
        self.lines = []  # (seconds in the log, text)
        self.offset = float("inf")

    def poll(self):
        if not self.file:
            try:
                self.file = open(self.path, errors="replace")
            except FileNotFoundError:
                return
        text = self.file.read()
        now = time.monotonic()
        whole = (self.part + text).split("\n")
        self.part = whole.pop()
        for line in whole:
            m = re.match(r"\((\d+\.\d+)\) (.*)", line)
            if m:
                self.lines.append((float(m.group(1)), m.group(2)))
        if text and self.lines:
            self.offset = min(self.offset, now - self.lines[-1][0])

    def times(self, pattern):
        """time.monotonic() of the lines that match"""
        return [at + self.offset for at, text in self.lines if re.search(pattern, text)]

    def close(self):
        if self.file:
            self.file.close()


class Restored:
    """A restore: when "criu restore" began and returned, which is when the tasks run; and
    after finish() when the last object was complete and what the daemon took.

    restore_s                  of "criu restore": tasks run after it
    fill_s                     from when the daemon has the first object to the last "object ... done"
    complete_s, lazy_s         from the start of restore, from its return, to the last "object ... done"
    end_s                      from the start of restore to the daemon's exit
    daemon_cpu_s, daemon_peak_kib"""

    def __init__(self):
        self.began = self.resumed = time.monotonic()
        self.restore_s = 0.0
        self.fill_s = self.complete_s = self.lazy_s = self.end_s = None
        self.daemon_cpu_s = self.daemon_peak_kib = None
        self.objects = []  # the counters of the daemon's "object ... done"

    def as_dict(self):
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in vars(self).items()
                if k not in ("began", "resumed", "objects")}


class Subject(lib.Ledger):
    """A program with the habit of bench/holder.c: it appends "ready pid=P" to the file REPORT, which stands
    for its path in argv, once in each of its processes; upon SIGUSR1 "checked pid=P wrong=N"."""

    def __init__(self, name, argv, processes=1, env=None):
        super().__init__(os.path.join(WORK, name), env=env)
        self.processes = processes
        self.args = [self.report_file if a == "REPORT" else str(a) for a in argv]
        self.daemon_log = None
        self.peak = 0

    def start(self, timeout=120):
        with open(os.path.join(self.dir, "program.out"), "w") as out:
            self.main = lib.popen(self.args, stdout=out, stderr=out, start_new_session=True, env=self.env)
        lib.wait_for(lambda: self.main.poll() is not None or len(self.report("ready")) == self.processes,
                     "the program is not ready", timeout)
        lib.check(self.main.poll() is None, "the program ended: " + self.log("program.out"))
        self.pids = [int(line["pid"]) for line in self.report("ready")]
        return self

    def criu(self, action, *args, log=None, env=None, criu=OURS, pass_fds=()):
        child = Child([criu, action, "-D", self.images, "-W", self.dir, "-o", log or action + ".log", VERBOSE] + list(args),
                      env=dict(self.env, **(env or {})), pass_fds=pass_fds, stdin=subprocess.DEVNULL,
                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lib.managed.add(child)
        return child

    def watch(self, child, timeout=RESTORE_TIMEOUT):
        """Waits for the child, with an eye on the daemon; returns its status."""
        end = time.monotonic() + timeout
        fd = os.pidfd_open(child.pid)
        try:
            while not select.select([fd], [], [], 0.002)[0]:
                self.look()
                lib.check(time.monotonic() < end, "%s does not end in %d s" % (child.args[:2], timeout))
        finally:
            os.close(fd)
        at = time.monotonic()
        child.poll()
        lib.managed.discard(child)
        self.look()
        return child.returncode, at

    def look(self):
        if self.daemon_log:
            self.daemon_log.poll()
        if self.daemon and self.daemon.returncode is None:
            self.peak = max(self.peak, peak_kib(self.daemon.pid))

    def restore_by(self, criu, env, daemon_env, *args):
        """Restores and returns as soon as the tasks run; finish() waits for the daemon."""
        self.daemon = self.daemon_log = None
        self.peak = 0
        if "--lazy-pages" in args:
            path = os.path.join(self.dir, "lazy-pages.log")
            if os.path.exists(path):
                os.unlink(path)
            self.start_daemon(criu=criu, env=dict(env, **daemon_env))
            self.daemon_log = Log(path)
            self.look()
        run = Restored()
        child = self.criu("restore", "-d", *args, criu=criu, env=env)
        status, run.resumed = self.watch(child)
        run.restore_s = run.resumed - run.began
        lib.check(status == 0, "restore failed: %s\n%s" % (self.errors("restore.log"), self.errors("lazy-pages.log")))
        return run

    def eager(self):
        """All contents are there when it returns: unpatched CRIU, no daemon"""
        return self.restore_by(PLAIN, {"CRIU_LIBS_DIR": NO_PLUGINS}, {})

    def ours(self, daemon_env=None, env=None):
        return self.restore_by(OURS, env or {}, daemon_env or {}, "--lazy-pages")

    def upstream(self):
        """Private memory is lazy, by unpatched CRIU; shared memory is not"""
        return self.restore_by(PLAIN, {"CRIU_LIBS_DIR": NO_PLUGINS}, {}, "--lazy-pages")

    def finish(self, run, timeout=300):
        """Waits until the daemon has ended and completes run."""
        if not self.daemon:
            run.complete_s, run.lazy_s, run.end_s = run.restore_s, 0.0, run.restore_s
            return run
        status, at = self.watch(self.daemon, timeout)
        lib.check(status == 0, "the daemon failed: " + self.errors("lazy-pages.log"))
        run.end_s = at - run.began
        run.objects = self.counters()
        # unpatched CRIU's daemon ends when all is there
        complete = max(self.daemon_log.times(r"object 0x[0-9a-f]+ done:"), default=at)
        run.complete_s, run.lazy_s = complete - run.began, complete - run.resumed
        run.fill_s = complete - min(self.daemon_log.times(r"Object 0x[0-9a-f]+: \d+ bytes"), default=run.began)
        run.daemon_cpu_s, run.daemon_peak_kib = self.daemon.cpu_s(), self.peak
        self.daemon_log.close()
        return run

    def kill(self):
        """And nobody has their pids any more: a zombie has"""
        super().kill()
        lib.wait_for(lambda: not any(os.path.exists("/proc/%d" % pid) for pid in self.pids), "pids are still taken")

    def checked(self, timeout=120):
        """Every process compares all of its memory; how many words are wrong"""
        before = len(self.report("checked"))
        for pid in self.pids:
            os.kill(pid, signal.SIGUSR1)
        lib.wait_for(lambda: len(self.report("checked")) - before >= len(self.pids) or len(self.alive()) < len(self.pids),
                     "the check does not end", timeout)
        lib.check(len(self.alive()) == len(self.pids), "a process died during the check")
        return sum(int(c["wrong"]) for c in self.report("checked")[before:])


# Runs

def by_turns(variants, runs=None):
    """variants: a dict of functions that return a value each. They take turns, runs (RUNS) times
    after a first time that does not count; a dict of lists of values."""
    values = {name: [] for name in variants}
    for i in range((runs or RUNS) + 1):
        for name, fn in variants.items():
            value = fn()
            if i:
                values[name].append(value)
    return values


median = statistics.median


def spread(values, digits=1, scale=1.0):
    """median (min - max)"""
    return "%.*f (%.*f - %.*f)" % (digits, median(values) * scale, digits, min(values) * scale, digits, max(values) * scale)


def summary(values, digits=3):
    return {"median": round(median(values), digits), "min": round(min(values), digits), "max": round(max(values), digits),
            "values": [round(v, digits) for v in values]}


class Results:
    """What a bench has to say: tables and targets on the terminal, save() in build/results/NAME.json"""

    def __init__(self, name, title):
        self.name = name
        self.title = title
        self.data = {}
        self.targets = []
        self.tables = []
        self.plots = []
        print("# %s: %s%s" % (name, title, " (quick)" if QUICK else ""), flush=True)

    def table(self, title, header, rows):
        """rows: lists of what str() makes readable; the first column is on the left"""
        cells = [[str(c) for c in row] for row in [header] + rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        print("\n" + title)
        for row in cells:
            print("  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip())
        sys.stdout.flush()
        self.tables.append({"title": title, "header": header, "rows": rows})

    def target(self, measure, value, relation, limit):
        """relation: "<=" or ">=". A target that is missed is said loudly; it is no failure."""
        met = value <= limit if relation == "<=" else value >= limit
        self.targets.append({"measure": measure, "value": round(value, 4), "relation": relation, "limit": limit, "met": met})
        print(target_line(self.targets[-1]), flush=True)
        return met

    def save(self):
        save(self.name, {"title": self.title, "quick": QUICK, "runs": RUNS, "machine": machine(), "data": self.data,
                         "tables": self.tables, "targets": self.targets, "plots": self.plots})

    def plot(self, suffix, script, blocks):
        """script: gnuplot commands, in which $NAME is the data block NAME of blocks, a dict of lists of rows.
        Writes build/results/NAME-SUFFIX.png."""
        os.makedirs(RESULTS, exist_ok=True)
        path = os.path.join(RESULTS, "%s-%s.png" % (self.name, suffix))
        text = "".join("$%s << EOD\n%sEOD\n" % (name, "".join(" ".join(quoted(c) for c in row) + "\n" for row in rows))
                       for name, rows in blocks.items())
        # no environment: gnuplot would want to know the size of a terminal
        subprocess.run(["gnuplot"], input="%sset terminal pngcairo size 960,600 font ',11'\nset output %s\nset grid\n%s\n" % (
            text, quoted(path), script), text=True, check=True)
        self.plots.append(os.path.basename(path))

    def plot_lines(self, suffix, title, xlabel, ylabel, series, options=""):
        """series: {label: [(x, median, min, max)]}, with a bar from min to max. options: "set logscale xy 2" and the like"""
        blocks = {"d%d" % i: rows for i, rows in enumerate(series.values())}
        parts = ["$d%d using 1:2:3:4 with yerrorlines linewidth 2 title %s" % (i, quoted(label)) for i, label in enumerate(series)]
        self.plot(suffix, head(title, xlabel, ylabel, options) + "plot " + ", ".join(parts), blocks)

    def plot_bands(self, suffix, title, xlabel, ylabel, series, options=""):
        """As plot_lines(), but a curve in the band from min to max"""
        blocks = {"d%d" % i: rows for i, rows in enumerate(series.values())}
        parts = []
        for i, label in enumerate(series):
            parts.append("$d%d using 1:3:4 with filledcurves linecolor %d fillstyle transparent solid 0.2 notitle" % (i, i + 1))
            parts.append("$d%d using 1:2 with lines linecolor %d linewidth 2 title %s" % (i, i + 1, quoted(label)))
        self.plot(suffix, head(title, xlabel, ylabel, options) + "plot " + ", ".join(parts), blocks)

    def plot_bars(self, suffix, title, ylabel, labels, series, options=""):
        """labels: of the groups of bars; series: {label: [(median, min, max), one for each group]}"""
        blocks = {"d%d" % i: [[label] + list(v) for label, v in zip(labels, rows)] for i, rows in enumerate(series.values())}
        parts = ["$d%d using 2:3:4:xtic(1) title %s" % (i, quoted(label)) for i, label in enumerate(series)]
        self.plot(suffix, head(title, "", ylabel, "set style data histograms\nset style histogram errorbars gap 2 linewidth 1\n"
                               "set style fill solid 0.6\nset yrange [0:*]\nset xtics rotate by -25\n" + options) +
                  "plot " + ", ".join(parts), blocks)


def quoted(value):
    return '"%s"' % value.replace("\\", "").replace('"', "") if isinstance(value, str) else str(value)


def head(title, xlabel, ylabel, options):
    return "set title %s noenhanced\nset xlabel %s noenhanced\nset ylabel %s noenhanced\nset key noenhanced\nset xtics noenhanced\n%s\n" % (
        quoted(title), quoted(xlabel), quoted(ylabel), options)


def target_line(t):
    return "%s %s: %.3f (must be %s %g)" % ("target met   " if t["met"] else "TARGET MISSED", t["measure"], t["value"],
                                           t["relation"], t["limit"])


def machine():
    total = re.search(r"^MemTotal:\s+(\d+)", lib.read("/proc/meminfo"), re.M)
    return {"kernel": platform.release(), "arch": platform.machine(), "processors": os.cpu_count(),
            "memory_mib": int(total.group(1)) >> 10 if total else 0}


def save(name, what):
    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, name + ".json"), "w") as f:
        json.dump(what, f, indent=2)
        f.write("\n")


def load(name):
    with open(os.path.join(RESULTS, name + ".json")) as f:
        return json.load(f)


def on_signal(number, _frame):
    raise SystemExit(128 + number)


def run(main):
    """A bench's main(): 0 if all was measured, whatever came out; anything else is a failure."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    lib.become_reaper()
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(NO_PLUGINS)
    try:
        sys.exit(main())
    except (lib.TestFailure, subprocess.CalledProcessError, OSError) as e:
        sys.exit("bench: %s" % e)
    finally:
        os.environ.get("BENCH_KEEP") or lib.cleanup(WORK)
