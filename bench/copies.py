#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""The ways to copy a file into a memfd (copy.c), by method, chunk and number of threads,
from the page cache and from disk, with large folios and without. What the daemon does
was chosen by this.

    BENCH_MB (1024)  copies.py [GROUP...]: only these of the groups below"""

import os
import re
import subprocess
import sys

sys.dont_write_bytecode = True
import benchlib as b  # noqa: E402

TITLE = "ways to copy a file into a memfd"
COPY = os.path.join(b.BIN, "copy")
MIB = int(os.environ.get("BENCH_MB", 256 if b.QUICK else 1024))
THP = "/sys/kernel/mm/transparent_hugepage"

CHUNKS = "256,512" if b.QUICK else "64,128,256,512,1024,2048"
FEW = "512" if b.QUICK else "128,512,2048"
OTHERS = "mmap+pwrite,splice,sendfile,io_uring,pread-into-mapping,populate+pread,populate+memcpy,mixed,mixed-populate"
COLD = "pread+pwrite,readahead+pwrite,direct+pwrite,io_uring,direct-io_uring,populate+direct"
FOLIOS = "pread+pwrite,populate+pread,pread-into-mapping"

# name: what, arguments of copy, shmem_enabled
GROUPS = {
    "chunks": ("pread+pwrite, from the page cache", ["-m", "pread+pwrite", "-c", CHUNKS, "-t", "1,2,4"], None),
    "methods": ("the other ways, from the page cache", ["-m", OTHERS, "-c", FEW, "-t", "1,2"], None),
    "cold": ("from disk, the page cache dropped", ["-d", "-m", COLD, "-c", "512,2048", "-t", "1,2,4"], None),
    "folios-never": ("from the page cache, shmem_enabled=never", ["-b", "-m", FOLIOS, "-c", FEW, "-t", "1,2"], "never"),
    "folios-within_size": ("from the page cache, shmem_enabled=within_size", ["-b", "-m", FOLIOS, "-c", FEW, "-t", "1,2"], "within_size"),
    "folios-always": ("from the page cache, shmem_enabled=always", ["-b", "-m", FOLIOS, "-c", FEW, "-t", "1,2"], "always"),
    "folios-advise": ("from the page cache, shmem_enabled=advise, mappings with MADV_HUGEPAGE",
                      ["-b", "-H", "-m", FOLIOS, "-c", FEW, "-t", "1,2"], "advise"),
}


def make_file(path, mib):
    """Random: nothing below may make it shorter."""
    with open(path, "wb") as f:
        for _ in range(mib):
            f.write(os.urandom(1 << 20))
        os.fsync(f.fileno())


def copy(path, args):
    out = subprocess.run([COPY, "-r", str(b.RUNS)] + args + [path], stdout=subprocess.PIPE, check=True, text=True).stdout
    return [{k: v if k == "method" else int(v) for k, v in re.findall(r"(\w+)=(\S+)", line)} for line in out.splitlines()]


def group(path, args, thp):
    if not thp:
        return copy(path, args)
    with b.setting(os.path.join(THP, "shmem_enabled"), thp):
        return copy(path, args)


def show(results, title, found):
    rows = [[r["method"], r["chunk_kib"], r["threads"], "%d (%d - %d)" % (r["mib_s"], r["min"], r["max"]), r["cpu_ms"],
             r["huge_mib"], r["large"]] for r in found]
    results.table("%s: %d MiB, median of %d (min - max)" % (title, MIB, b.RUNS),
                  ["method", "chunk KiB", "threads", "MiB/s", "CPU ms", "MiB in 2 MiB folios", "large folios"], rows)


def plot(results, name, title, found):
    series = {}
    for r in found:
        series.setdefault("%s, threads: %d" % (r["method"], r["threads"]), []).append(
            (r["chunk_kib"], r["mib_s"], r["min"], r["max"]))
    results.plot_lines(name, title, "chunk, KiB", "MiB/s", series,
                       "set logscale x 2\nset yrange [0:*]\nset key outside below maxcols 2")


def main():
    wanted = sys.argv[1:] or (["chunks"] if b.QUICK else list(GROUPS))
    results = b.Results("copies", TITLE)
    path = os.path.join(b.WORK, "file")
    make_file(path, MIB)
    for name in wanted:
        title, args, thp = GROUPS[name]
        found = group(path, args, thp)
        results.data[name] = found
        show(results, title, found)
        plot(results, name, title, found)
    results.save()
    return 0


if __name__ == "__main__":
    b.run(main)
