#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""How long it takes until all contents are there: an idle task with one object, and with
four, restored by ours, eagerly by unpatched CRIU, and the best plain copy loops (copy.c) on
the same images with as many threads as the daemon has. From the page cache, from disk, and
with large folios.

    BENCH_MB (2048)  fill.py [GROUP...]: one, four, cold, folios"""

import os
import re
import sys

sys.dont_write_bytecode = True
import benchlib as b  # noqa: E402
import copies  # noqa: E402

TITLE = "fill"
MIB = int(os.environ.get("BENCH_MB", 512 if b.QUICK else 2048))
THREADS = max(2, min(os.cpu_count(), 64))  # as default_workers() of the plugin
# what was best in copies.py, on several machines
WARM = [["-m", "pread+pwrite", "-c", "256"], ["-m", "pread+pwrite", "-c", "512"], ["-m", "sendfile", "-c", "512"],
        ["-m", "mixed", "-c", "2048"]]
COLD = [["-d", "-m", "pread+pwrite", "-c", "512"], ["-d", "-m", "direct+pwrite", "-c", "512"],
        ["-d", "-m", "readahead+pwrite", "-c", "512"], ["-d", "-m", "direct-io_uring", "-c", "512"]]


class Idle:
    """A task that does nothing, restored in all ways. A value of a way is a dict of numbers, the
    first of which is MiB/s; "" is what copy and restore have in common."""

    def __init__(self, objects, blocks=False):
        self.objects = objects
        self.blocks = blocks
        self.subject = b.Subject("%d-objects" % objects, [b.BIN + "/mapper", "REPORT", 1, objects, (MIB // objects) << 10, 0, 0])
        b.have_memory(2 * MIB + 256)
        self.subject.start().dump()
        self.unchecked = {"eager", "ours"}
        self.cold = False

    def prepare(self):
        b.have_memory(MIB + 256, self.blocks)
        if self.cold:
            b.drop_cache(self.subject.images)
        else:
            b.warm(self.subject.images)

    def restored(self, name, restore):
        self.prepare()
        run = self.subject.finish(restore())
        b.lib.check(name == "eager" or len(run.objects) == self.objects, "%d objects were lazy" % len(run.objects))
        huge = int(re.search(r"^ShmemHugePages:\s+(\d+)", b.lib.read("/proc/meminfo"), re.M).group(1)) >> 10
        if name in self.unchecked:
            self.unchecked.discard(name)
            b.lib.check(self.subject.checked() == 0, "contents are wrong")
        self.subject.kill()
        result = run.as_dict()
        result.update(mib_s=MIB / (run.fill_s or run.restore_s), huge_mib=huge)
        return result

    def eager(self):
        return self.restored("eager", self.subject.eager)

    def ours(self):
        return self.restored("ours", self.subject.ours)

    def copied(self, args):
        """The largest file has most of the contents, all of them if it is one object"""
        pages = [f for f in b.files_in(self.subject.images) if re.search(r"/pages-\d+\.img$", f)]
        found = copies.copy(max(pages, key=os.path.getsize), args + ["-r", "0", "-t", str(THREADS)])[0]
        return {"mib_s": found["mib_s"], "cpu_s": found["cpu_ms"] / 1000, "huge_mib": found["huge_mib"]}

    def measure(self, loops):
        """{name: list of dicts}, by turns"""
        variants = {"eager": self.eager, "ours": self.ours}
        for args in loops:
            words = [a for a in args if not a.startswith("-")]
            variants["copy %s %s KiB" % tuple(words[:2])] = lambda args=args: self.copied(args)
        return b.by_turns(variants)

    def close(self):
        b.shutil.rmtree(self.subject.images)


def values(found, name, key):
    return [v[key] for v in found[name]]


def show(results, key, title, found):
    rows = []
    for name, runs in found.items():
        timed = "complete_s" in runs[0]
        rows.append([name, b.spread(values(found, name, "mib_s"), 0)] +
                    [b.spread(values(found, name, k), 0, 1000) if timed else "" for k in ("restore_s", "complete_s")] +
                    [b.spread(values(found, name, "lazy_s"), 0, 1000) if name == "ours" else "",
                     "%.2f" % b.median(values(found, name, "daemon_cpu_s")) if name == "ours" else
                     "%.2f" % b.median(values(found, name, "cpu_s")) if not timed else "",
                     "%.1f" % (max(values(found, name, "daemon_peak_kib")) / 1024) if name == "ours" else "",
                     b.median(values(found, name, "huge_mib"))])
    results.table("%s: %d MiB, ms, median of %d (min - max)" % (title, MIB, b.RUNS),
                  ["", "MiB/s", "criu restore", "start to complete", "resume to complete", "CPU s", "daemon's peak MiB",
                   "MiB in 2 MiB folios"], rows)
    results.data[key] = found
    results.plot_bars(key, title, "MiB/s", list(found), {"median, min, max": [
        (b.median(v), min(v), max(v)) for v in (values(found, name, "mib_s") for name in found)]})


def best_copy(found):
    return max(b.median(values(found, name, "mib_s")) for name in found if name.startswith("copy"))


def targets(results, what, found):
    ours, eager = (b.median(values(found, name, "complete_s")) for name in ("ours", "eager"))
    results.target("fill, %s: ours (start of restore to complete) / eager" % what, ours / eager, "<=", 0.6)
    if what == "one object":  # the loops copy one file into one memfd
        results.target("fill, %s: ours / best plain copy loop, throughput" % what,
                       b.median(values(found, "ours", "mib_s")) / best_copy(found), ">=", 0.9)


def cached(results, key, nr, what):
    idle = Idle(nr)
    found = idle.measure(WARM)
    show(results, key, what + ", from the page cache", found)
    targets(results, what, found)
    idle.close()


def group_one(results):
    cached(results, "one", 1, "one object")


def group_four(results):
    cached(results, "four", 4, "four objects")


def group_cold(results):
    idle = Idle(1)
    idle.cold = True
    found = idle.measure(COLD)
    show(results, "cold", "one object, from disk", found)
    idle.close()


def group_folios(results):
    idle = Idle(1, blocks=True)
    for value in ("never", "within_size", "always"):
        with b.setting(os.path.join(copies.THP, "shmem_enabled"), value):
            found = idle.measure([["-b", "-m", "pread+pwrite", "-c", "512"], ["-b", "-m", "populate+pread", "-c", "2048"]])
        show(results, "folios-" + value, "one object, from the page cache, shmem_enabled=" + value, found)
    idle.close()


GROUPS = {"one": group_one, "four": group_four, "cold": group_cold, "folios": group_folios}


def main():
    results = b.Results("fill", TITLE)
    for name in sys.argv[1:] or (["one"] if b.QUICK else list(GROUPS)):
        GROUPS[name](results)
    results.save()
    return 0


if __name__ == "__main__":
    b.run(main)
