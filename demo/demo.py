# SPDX-License-Identifier: GPL-2.0-only
"""Two processes share a ledger of DEMO_MB MiB (see ledger.c). They are dumped,
and restored by turns as CRIU does it, unpatched and eager, and lazily. Right
after each restore both walk the whole ledger in a random order and check every
word. Prints a table, and writes build/results/demo.json."""

import json
import os
import shutil
import signal
import statistics
import sys
import time

sys.dont_write_bytecode = True
TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(TOP, "test", "e2e"))
import lib  # noqa: E402

PLAIN = os.path.join(lib.BUILD, "criu-plain", "criu", "criu")
WORK = os.path.join(lib.BUILD, "demo", "run")
SMALL_MB = 4


def number(name, default):
    text = os.environ.get(name, str(default))
    if not text.isdigit() or not int(text):
        sys.exit("demo: %s is '%s', but must be a positive number" % (name, text))
    return int(text)


def say(text):
    print(text, flush=True)


def progress(done, total, what):
    if sys.stdout.isatty():
        width = 30 * done // total
        print("\r  [%s%s] %-40s" % ("#" * width, "." * (30 - width), what), end="" if done < total else "\n", flush=True)
    else:
        say("  %d/%d %s" % (done, total, what))


def dump(name, mib):
    where = os.path.join(WORK, name)
    led = lib.Ledger(where, "-m", str(mib), "-p", "2").start()
    return led.dump()


def ms_since(start):
    return (time.monotonic() - start) * 1000


def wrong_lines(led):
    return sum(line.startswith("wrong ") for line in lib.read(led.report_file).splitlines())


def verify(led, result):
    try:
        walks = led.walk(timeout=120)
    except lib.TestFailure as e:
        say("\n  %s" % e)
        walks = []
    result["verified"] = sum(int(w["pages"]) for w in walks)
    result["wrong"] = wrong_lines(led) + (0 if walks else 1)
    result["first_us"] = max([int(w["first_us"]) for w in walks] or [0])


def eager(led, check):
    """Unpatched CRIU, no plugin: how long until the tasks run."""
    start = time.monotonic()
    status = led.restore(env={"CRIU_LIBS_DIR": os.path.join(WORK, "none")}, criu=PLAIN)
    result = {"restore_ms": ms_since(start)}
    lib.check(status == 0, "eager restore failed: " + led.errors("restore.log"))
    if check:
        verify(led, result)
    led.kill()
    return result


def lazy(led):
    led.start_daemon()
    start = time.monotonic()
    status = led.restore("--lazy-pages")
    result = {"restore_ms": ms_since(start)}
    lib.check(status == 0, "lazy restore failed: " + led.errors("restore.log"))
    # the walks begin at once, the daemon is waited for afterwards
    before = len(led.report("walk"))
    for pid in led.pids:
        os.kill(pid, signal.SIGUSR1)
    status = led.finish_daemon(120)
    result["complete_ms"] = ms_since(start)
    lib.check(status == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    finish_walks(led, before, result)
    for key in ("faults", "pages_continue", "pages_filled"):
        result[key] = sum(o[key] for o in led.counters())
    led.kill()
    return result


def finish_walks(led, before, result):
    lib.wait_for(lambda: len(led.report("walk")) - before >= 2 or len(led.alive()) < 2, "walks do not end", 120)
    walks = led.report("walk")[before:]
    result["verified"] = sum(int(w["pages"]) for w in walks)
    result["wrong"] = wrong_lines(led) + (2 - len(walks))
    result["first_us"] = max([int(w["first_us"]) for w in walks] or [0])


def row(name, unit, values):
    return "  %-34s %10.1f %-3s (%.1f - %.1f)" % (name, statistics.median(values), unit, min(values), max(values))


def main():
    mib, runs = number("DEMO_MB", 1024), number("DEMO_RUNS", 3)
    lib.become_reaper()
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(os.path.join(WORK, "none"))

    say("Two processes share %d MiB; dumping them, and two with %d MiB to compare with." % (mib, SMALL_MB))
    big, small = dump("big", mib), dump("small", SMALL_MB)

    say("Restoring %d times each: eagerly by unpatched CRIU, lazily by ours; every page is verified." % runs)
    results = {"eager": [], "lazy": [], "eager_small": [], "lazy_small": []}
    eager(big, False)  # brings the images into the page cache
    for i in range(runs):
        results["eager_small"].append(eager(small, False))
        results["lazy_small"].append(lazy(small))
        results["eager"].append(eager(big, i == 0))
        results["lazy"].append(lazy(big))
        progress(i + 1, runs, "eager %d ms, lazy %d ms" % (results["eager"][-1]["restore_ms"],
                                                           results["lazy"][-1]["restore_ms"]))

    def column(kind, key):
        return [r[key] for r in results[kind]]

    every = results["eager"][:1] + results["lazy"] + results["lazy_small"]
    wrong = max(r.get("wrong", 0) for r in every)
    med = statistics.median
    out = {
        "size_mib": mib,
        "runs": runs,
        "eager_restore_ms": round(med(column("eager", "restore_ms")), 1),
        "lazy_restore_ms": round(med(column("lazy", "restore_ms")), 1),
        "first_access_us": med(column("lazy", "first_us")),
        "complete_ms": round(med(column("lazy", "complete_ms")), 1),
        "faults": med(column("lazy", "faults")),
        "pages_continue": med(column("lazy", "pages_continue")),
        "pages_filled": med(column("lazy", "pages_filled")),
        "pages_verified": sum(r.get("verified", 0) for r in every),
        "pages_wrong": wrong,
        "small_mib": SMALL_MB,
        "eager_restore_small_ms": round(med(column("eager_small", "restore_ms")), 1),
        "lazy_restore_small_ms": round(med(column("lazy_small", "restore_ms")), 1),
        "all_runs": results,
    }

    say("")
    say("  %-34s %10s     (min - max)" % ("%d MiB shared by 2 processes" % mib, "median"))
    say(row("eager restore, until the tasks run", "ms", column("eager", "restore_ms")))
    say(row("lazy restore, until the tasks run", "ms", column("lazy", "restore_ms")))
    say(row("lazy restore of %d MiB" % SMALL_MB, "ms", column("lazy_small", "restore_ms")))
    say(row("first access after lazy restore", "us", column("lazy", "first_us")))
    say(row("everything restored after", "ms", column("lazy", "complete_ms")))
    say(row("faults", "", column("lazy", "faults")))
    say(row("pages mapped by UFFDIO_CONTINUE", "", column("lazy", "pages_continue")))
    say(row("pages filled from the images", "", column("lazy", "pages_filled")))
    say("  %-34s %10d" % ("pages verified, all runs", out["pages_verified"]))
    say("  %-34s %10d" % ("pages wrong", wrong))
    say("")
    say("  lazy is %.1f times faster than eager at %d MiB; %d MiB take %.2f times as long as %d MiB" % (
        out["eager_restore_ms"] / out["lazy_restore_ms"], mib, mib,
        out["lazy_restore_ms"] / out["lazy_restore_small_ms"], SMALL_MB))

    os.makedirs(os.path.join(lib.BUILD, "results"), exist_ok=True)
    path = os.path.join(lib.BUILD, "results", "demo.json")
    with open(path, "w") as f:
        json.dump(out, f, indent=2)
        f.write("\n")
    say("  written to %s" % os.path.relpath(path, TOP))
    return 1 if wrong or not all(r["faults"] and r["pages_continue"] for r in results["lazy"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lib.TestFailure as e:
        sys.exit("demo: %s" % e)
    finally:
        lib.cleanup(WORK)
