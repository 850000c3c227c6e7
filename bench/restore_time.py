#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""How long "criu restore" takes until the tasks run, over the size of an object, the number
of objects and the number of tasks: unpatched CRIU, which reads all contents first, and ours.

The two take turns, the images are in the page cache. The contents are checked once in each
configuration, by the run that does not count."""

import sys

sys.dont_write_bytecode = True
import benchlib as b  # noqa: E402

TITLE = "restore to running"
MIB = 1 << 10  # KiB


class Configuration:
    def __init__(self, label, tasks=1, common=0, common_kib=0, own=0, own_kib=0):
        self.label = label
        self.tasks = tasks
        self.objects = common + own * tasks
        self.kib = common * common_kib + own * own_kib * tasks
        self.args = [tasks, common, common_kib, own, own_kib]

    def measure(self):
        """A dict of lists of milliseconds"""
        b.have_memory(2 * (self.kib >> 10) + 256)
        subject = b.Subject(self.label.replace(":", "").replace(" ", "-"), [b.BIN + "/mapper", "REPORT"] + self.args, self.tasks)
        subject.start().dump()
        b.warm(subject.images)
        unchecked = {"eager", "ours"}
        wrong = []

        def once(name, restore):
            run = subject.finish(restore())
            b.lib.check(name == "eager" or len(run.objects) == self.objects,
                        "%d objects were lazy, not %d" % (len(run.objects), self.objects))
            if name in unchecked:
                unchecked.discard(name)
                wrong.append(subject.checked())
            subject.kill()
            return run.restore_s * 1000

        values = b.by_turns({"eager": lambda: once("eager", subject.eager), "ours": lambda: once("ours", subject.ours)})
        b.lib.check(wrong == [0, 0], "%s: contents are wrong: %s words" % (self.label, wrong))
        b.shutil.rmtree(subject.images)
        return values


def sizes():
    return [(m, Configuration("%d MiB" % m, common=1, common_kib=m * MIB))
            for m in ((4, 64, 1024) if b.QUICK else (4, 16, 64, 256, 1024, 4096))]


def numbers():
    return [(n, Configuration("%d x 1 MiB" % n, common=n, common_kib=MIB))
            for n in ((1, 256) if b.QUICK else (1, 4, 16, 64, 256))]


def tasks():
    return [(n, Configuration("tasks: %d" % n, tasks=n, common=1, common_kib=MIB, own=1, own_kib=64))
            for n in ((1, 16) if b.QUICK else (1, 4, 16, 64))]


def series(results, name, title, xlabel, configurations, options=""):
    found, rows, points = {}, [], {"eager, unpatched": [], "ours": []}
    for x, c in configurations:
        values = found[x] = c.measure()
        for label, v in zip(points, (values["eager"], values["ours"])):
            points[label].append((x, b.median(v), min(v), max(v)))
        rows.append([c.label, b.spread(values["eager"]), b.spread(values["ours"]),
                     "%.2f" % (b.median(values["ours"]) / b.median(values["eager"]))])
    results.table("%s, ms, median of %d (min - max)" % (title, b.RUNS), [name, "eager, unpatched", "ours", "ratio"], rows)
    results.data[name] = {c.label: {k: b.summary(v) for k, v in found[x].items()} for x, c in configurations}
    if len(found) > 1:
        results.plot_lines(name, title, xlabel, "ms", points, "set logscale x 2\n" + options)
    return {x: b.median(values["ours"]) for x, values in found.items()}


def main():
    results = b.Results("restore_time", TITLE)
    wanted = sys.argv[1:] or ["size", "objects", "tasks"]
    if "size" in wanted:
        ours = series(results, "size", "restore to running, one object", "MiB", sizes(), "set logscale y")
        small, large = min(ours), max(ours)
        results.target("ours: %d MiB / %d MiB" % (large, small), ours[large] / ours[small], "<=", 1.1)
    if "objects" in wanted:
        ours = series(results, "objects", "restore to running, objects of 1 MiB", "objects", numbers())
        one = series(results, "same", "restore to running, the same in one object", "objects",
                     [(1, Configuration("1 x 256 MiB", common=1, common_kib=256 * MIB))])
        results.target("ours: 256 x 1 MiB / 1 x 256 MiB", ours[256] / one[1], "<=", 3)
    if "tasks" in wanted:
        series(results, "tasks", "restore to running, an object for all tasks and one for each", "tasks", tasks())
    results.save()
    return 0


if __name__ == "__main__":
    b.run(main)
