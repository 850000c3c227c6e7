#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Objects that can not be lazy: how long restore takes, by unpatched CRIU, which
reads them one after the other in each task, and by ours, where the daemon fills
them all at once before resume.

    BENCH_OBJECTS (4)  BENCH_MB (2048, all together)  BENCH_RUNS (5)

The two restores take turns; the images are in the page cache. Writes
build/results/before_resume.json."""

import os
import sys

sys.dont_write_bytecode = True
import benchlib as b  # noqa: E402

TITLE = "filled before resume"


def measure(objects, mib, tasks):
    b.have_memory(2 * mib + 256)
    subject = b.Subject("%d-tasks" % tasks, [b.BIN + "/holder", "REPORT", objects, mib // objects, tasks], tasks)
    subject.start().dump()
    b.warm(subject.images)
    unchecked = {"eager", "ours"}

    def once(name, restore):
        run = subject.finish(restore())
        b.lib.check(name == "eager" or " filled before resume: " in subject.log("lazy-pages.log"),
                    "the daemon filled nothing before resume")
        if name in unchecked:
            unchecked.discard(name)
            b.lib.check(subject.checked() == 0, "contents are wrong")
        subject.kill()
        return run.restore_s * 1000

    values = b.by_turns({"eager": lambda: once("eager", subject.eager), "ours": lambda: once("ours", subject.ours)})
    b.shutil.rmtree(subject.images)
    return values


def main():
    objects = int(os.environ.get("BENCH_OBJECTS", 4))
    mib = int(os.environ.get("BENCH_MB", 512 if b.QUICK else 2048))
    results = b.Results("before_resume", TITLE)
    rows = []
    for tasks in (1, objects):
        values = measure(objects, mib, tasks)
        rows.append([tasks, b.spread(values["eager"]), b.spread(values["ours"]),
                     "%.2f" % (b.median(values["ours"]) / b.median(values["eager"]))])
        results.data["%d tasks" % tasks] = {k: b.summary(v) for k, v in values.items()}
    results.table("%d MiB in %d memfds with open descriptors, restore in ms, median of %d (min - max)" % (mib, objects, b.RUNS),
                  ["tasks", "eager, unpatched", "filled by the daemon", "ratio"], rows)
    results.save()
    return 0


if __name__ == "__main__":
    b.run(main)
