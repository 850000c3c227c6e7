# SPDX-License-Identifier: GPL-2.0-only
"""A service (kv.c) that answers from shared memory migrates from one machine to another
while a client goes on asking: by unpatched CRIU, which dumps all memory, copies it and
restores it, and lazily. The machines are namespaces with a veth link between them, over
which the images go as well. Prints a table, and writes build/results/migrate.json and
migrate.svg."""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time

sys.dont_write_bytecode = True
TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(TOP, "test", "lib"))
sys.path.insert(0, os.path.join(TOP, "demo"))
import machines  # noqa: E402
import lib  # noqa: E402
import picture  # noqa: E402
import service  # noqa: E402

SMALL_MB = 16
LIMIT = 1.5  # downtime of the big one, lazily, as a multiple of that of the small one
RESULTS = os.path.join(lib.BUILD, "results")


def number(name, default, least=1):
    text = os.environ.get(name, str(default))
    if not text.isdigit() or int(text) < least:
        sys.exit("demo-migrate: %s is '%s', but must be a number, at least %d" % (name, text, least))
    return int(text)


def say(text=""):
    print(text, flush=True)


def directory(mib):
    """Images in memory: a disk would make eager migration look slower than it must be."""
    where = os.environ.get("MIGRATE_DIR")
    if not where:
        free = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
        where = "/dev/shm" if free > 4 * (mib << 20) else None
    return tempfile.mkdtemp(prefix="dmig-", dir=where)


def eagerly(svc):
    svc.dump()
    svc.copy()
    svc.restore(criu=machines.PLAIN)


def lazily(svc):
    svc.lazily()
    svc.finish(120)


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))] if values else None


def migrate(kind, mib):
    where = directory(mib)
    try:
        with machines.Pair(where) as pair:
            svc = service.Service(pair, mib)
            with service.Client(svc, where) as client:
                client.wait_answers(0, 1000)
                before, start = pair.destination.counters()[0], time.monotonic()
                (lazily if kind == "lazy" else eagerly)(svc)
                complete = time.monotonic()
                sent = pair.destination.counters()[0] - before
                client.wait_answers(1, 1000)
                client.check_right(svc.pages)
                client.check_never_both()
                return measure(client, start, complete, sent, svc.pages)
    finally:
        shutil.rmtree(where, ignore_errors=True)


def measure(client, start, complete, sent, pages):
    records = client.records()
    last = max(r[4] for r in records if r[2] == 0)
    first = min(r[4] for r in records if r[2] == 1)
    # the window in which pages are missing; after an eager migration, its first second
    end = max(complete, first + 1)
    times = [r[1] - r[0] for r in records if r[2] == 1 and first <= r[0] < end]
    return {
        "downtime_ms": round((first - last) * 1000, 1),
        "bytes_sent": sent,
        "complete_ms": round((complete - start) * 1000, 1),
        "request_p50_us": round(percentile(times, 50) * 1e6),
        "request_p99_us": round(percentile(times, 99) * 1e6),
        "requests_in_window": len(times),
        "pages_looked_at": pages,
        "pages_wrong": client.summary["wrong"],
        "answers": [round((r[4] - start) * 1000, 1) for r in records if r[4] > start - 1],
    }


def medians(runs):
    return {k: statistics.median(r[k] for r in runs) for k in runs[0] if k != "answers"}


def table(results, mib):
    columns = [("eager", SMALL_MB), ("lazy", SMALL_MB), ("eager", mib), ("lazy", mib)]
    med = {c: medians(results[c]) for c in columns}
    rows = (("downtime", "downtime_ms", "ms", 1), ("until all is there", "complete_ms", "ms", 1),
            ("sent over the link", "bytes_sent", "MiB", 1 << 20),
            ("request in the window, median", "request_p50_us", "us", 1),
            ("request in the window, 99 %", "request_p99_us", "us", 1),
            ("pages looked at", "pages_looked_at", "", 1), ("pages wrong", "pages_wrong", "", 1))
    say()
    say("  %-32s" % "median of %d" % len(results[columns[0]]) + "".join("%18s" % ("%s %d MiB" % c) for c in columns))
    for name, key, unit, scale in rows:
        say("  %-32s" % name + "".join(
            "%18s" % ("%.*f %s" % (0 if scale == 1 and not key.endswith("_ms") else 1, med[c][key] / scale, unit)).strip()
            for c in columns))
    return med


def main():
    mib, count = number("MIGRATE_MB", 1024, SMALL_MB), number("MIGRATE_RUNS", 3)
    lib.become_reaper()
    say("A service with shared memory migrates, %d times each; a client asks it 2000 times a second," % count)
    say("and looks at every page at the end. Images go over the link between the two machines.")
    results = {(kind, size): [] for kind in ("eager", "lazy") for size in (SMALL_MB, mib)}
    for i in range(count):
        for kind, size in results:
            r = migrate(kind, size)
            results[kind, size].append(r)
            say("  %d/%d %5s %5d MiB: down for %7.1f ms, complete after %7.1f ms" % (
                i + 1, count, kind, size, r["downtime_ms"], r["complete_ms"]))

    med = table(results, mib)
    ratio = {k: med[k, mib]["downtime_ms"] / med[k, SMALL_MB]["downtime_ms"] for k in ("eager", "lazy")}
    wrong = sum(r["pages_wrong"] for runs in results.values() for r in runs)
    say()
    say("  downtime of %d MiB is %.2f times that of %d MiB lazily (at most %.1f), %.2f times eagerly" % (
        mib, ratio["lazy"], SMALL_MB, LIMIT, ratio["eager"]))

    shown = {k: sorted(results[k, mib], key=lambda r: r["downtime_ms"])[count // 2] for k in ("eager", "lazy")}
    say()
    for line in picture.strip({k: r["answers"] for k, r in shown.items()}):
        say("  " + line)

    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, "migrate.svg"), "w") as f:
        f.write(picture.svg({"%s, %d MiB" % (k, mib): r["answers"] for k, r in shown.items()}))
    out = {"size_mib": mib, "small_mib": SMALL_MB, "runs": count, "lazy_downtime_ratio": round(ratio["lazy"], 3),
           "eager_downtime_ratio": round(ratio["eager"], 3), "limit": LIMIT, "pages_wrong": wrong}
    for kind, size in results:
        name = kind if size == mib else kind + "_small"
        out[name] = med[kind, size]
        out[name + "_runs"] = [{k: v for k, v in r.items() if k != "answers"} for r in results[kind, size]]
    with open(os.path.join(RESULTS, "migrate.json"), "w") as f:
        json.dump(out, f, indent=2)
        f.write("\n")
    say("  written to %s and migrate.svg" % os.path.relpath(os.path.join(RESULTS, "migrate.json"), TOP))
    if ratio["lazy"] > LIMIT:
        say("demo-migrate: the downtime grows with the memory")
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lib.TestFailure as e:
        sys.exit("demo-migrate: %s" % e)
