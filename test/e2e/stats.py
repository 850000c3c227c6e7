#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 180
"""Statistics and progress of the daemon, against what is known by other means: the
pages in the images, and the pages that were touched."""

import ctypes
import fcntl
import glob
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time

from lib import (BUILD, CRIU, Ledger, check, check_log, check_nothing_left, finish, main, managed, read, slow_disk, test,
                 wait_for)
from page_server_lib import free_port

sys.path.insert(0, os.path.join(BUILD, "criu", "lib"))
import pycriu  # noqa: E402

PAGE = os.sysconf("SC_PAGE_SIZE")
IN_PARENT, PRESENT = 1, 4


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def touch(pid, addr):
    """Reads a word of another process, which faults as if that did; how long it took, in us"""
    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_uint64()
    here = IoVec(ctypes.addressof(word), 8)
    there = IoVec(addr, 8)
    began = time.monotonic_ns()
    got = libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    check(got == 8, "can't read %#x of %d: %s" % (addr, pid, os.strerror(ctypes.get_errno())))
    return (time.monotonic_ns() - began) / 1000


def shared_mapping(pid, size):
    for line in read("/proc/%d/maps" % pid).splitlines():
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        if end - start == size and "s" in line.split()[1]:
            return start
    raise AssertionError("no shared mapping of %d bytes" % size)


def stats(led):
    with open(os.path.join(led.dir, "lazy-shmem-stats.json")) as f:
        s = json.load(f)
    check(s["version"] == 1, "version %s" % s["version"])
    check(not glob.glob(os.path.join(led.dir, "lazy-shmem-stats.json.*")), "a temporary file is left")
    check_sums(s)
    return s


def check_sums(s):
    """Totals are those of the objects, and what is of faults is that of the tasks as well"""
    total = s["totals"]
    for key in ("missing", "minor"):
        for of in ("objects", "tasks"):
            got = sum(x["faults"][key] for x in s[of])
            check(got == total["faults"][key], "%s of %s: %d, in all %d" % (key, of, got, total["faults"][key]))
    for key in ("windows", "pages_mapped", "pages_mapped_ahead"):
        for of in ("objects", "tasks"):
            check(sum(x[key] for x in s[of]) == total[key], "%s of %s are not the total" % (key, of))
    for x in s["objects"] + s["tasks"] + [total]:
        st = x["stalls"]
        check(len(st["histogram"]) == 24 and sum(st["histogram"]) == st["count"], "histogram: %s" % st)
        check(st["p50_us"] <= st["p99_us"] <= st["max_us"] <= st["total_us"] or not st["count"], "order: %s" % st)
    for x in s["objects"]:
        check(sum(x["pages_filled"].values()) <= x["pages_in_images"], "more pages than there are: %s" % x)


def pages_in_images(led):
    """What CRIU's own tool makes of the pagemaps of shared memory"""
    total = 0
    for path in glob.glob(os.path.join(led.images, "pagemap-shmem-*.img")):
        with open(path, "rb") as f:
            total += sum(e["nr_pages"] for e in pycriu.images.load(f)["entries"][1:])
    return total


@test
def known_touches(where):
    """Each page touched before it is filled is one missing fault; by the second task, a minor one"""
    size, nr = 32 << 20, 8
    led = Ledger(where, "-m", "32", "-p", "2").start().dump()
    check(pages_in_images(led) == size // PAGE, "the images have %d pages" % pages_in_images(led))
    led.lazy_restore(daemon_env=slow_disk(6))
    a, b = led.pids
    # far from each other, and from where the fill begins; backwards, so that they are no run
    offsets = [size - (1 + 400 * i) * PAGE for i in range(nr)]
    addrs = [(shared_mapping(pid, size), pid) for pid in (a, b)]
    took = [[touch(pid, base + off) for off in offsets] for base, pid in addrs]
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))

    s = stats(led)
    o, = s["objects"]
    by_pid = {t["pid"]: t for t in s["tasks"]}
    check(sorted(by_pid) == sorted(led.pids), "tasks: %s" % sorted(by_pid))
    check(o["faults"] == {"missing": nr, "minor": nr}, "faults: %s" % o["faults"])
    check(by_pid[a]["faults"] == {"missing": nr, "minor": 0}, "first task: %s" % by_pid[a]["faults"])
    check(by_pid[b]["faults"] == {"missing": 0, "minor": nr}, "second task: %s" % by_pid[b]["faults"])

    filled = o["pages_filled"]
    check(filled["fault"] == nr, "by fault: %s" % filled)
    check(filled["window"] > 0 and filled["background"] > 0, "filled: %s" % filled)
    check(sum(filled.values()) == o["pages_in_images"] == size // PAGE, "filled: %s" % filled)
    check(o["bytes"] == {"image": size, "parent": 0, "page_server": 0, "zeroed": 0}, "bytes: %s" % o["bytes"])

    check(o["windows"] >= 2 * nr and o["pages_mapped"] - o["pages_mapped_ahead"] == 2 * nr, "windows: %s" % o)
    for pid, times in zip(led.pids, took):
        st = by_pid[pid]["stalls"]
        check(st["count"] == nr, "stalls: %s" % st)
        check(st["max_us"] <= max(times) and st["total_us"] <= sum(times), "stalls: %s, measured %s" % (st, times))
    # a page at 6 MB/s; and who did not wait for the disk was faster than who did
    check(by_pid[a]["stalls"]["total_us"] > nr * PAGE / 6, "stalls: %s" % by_pid[a]["stalls"])
    check(by_pid[b]["stalls"]["p50_us"] < by_pid[a]["stalls"]["p50_us"], "stalls: %s" % s["tasks"])

    check(s["result"] == "ok" and o["state"] == "complete" and o["delivery"] == "lazy", str(o))
    check(int(o["id"], 0) in [int(re.search(r"(\d+)\.img", p).group(1))
                              for p in glob.glob(led.images + "/pagemap-shmem-*")], o["id"])
    # 32 MiB, from two threads that have 6 MB/s each
    check(o["complete_ms"] > 1500, "complete after %s ms" % o["complete_ms"])
    for t in s["tasks"]:
        check(t["state"] == "retired" and t["let_go_ms"] >= o["complete_ms"], str(t))
    check(s["resumed_ms"] + o["complete_ms"] <= s["ended_ms"] + 1, "times: %s" % s)
    check_log(led.log("lazy-pages.log"),
              r"object %s: by_fault=%d .* faults_missing=%d faults_minor=%d" % (o["id"], nr, nr, nr),
              r"task %d retired: ms=\d+ faults_missing=%d faults_minor=0" % (a, nr), r"total: by_fault=%d " % nr)
    led.walk()
    led.kill()


@test
def parents(where):
    """Bytes by source: 100 pages are in the last image, 1898 in the one before, 50 nowhere"""
    led = Ledger(where, "-m", "8", "-p", "1").start().dump()
    pagemap, = glob.glob(os.path.join(led.images, "pagemap-shmem-*.img"))
    led.images = os.path.join(where, "child")
    shutil.copytree(os.path.join(where, "images"), led.images)
    os.symlink("../images", os.path.join(led.images, "parent"))
    path = os.path.join(led.images, os.path.basename(pagemap))
    with open(path, "rb") as f:
        img = pycriu.images.load(f)
    os.truncate(os.path.join(led.images, "pages-%d.img" % img["entries"][0]["pages_id"]), 100 * PAGE)
    img["entries"][1:] = [{"vaddr": a * PAGE, "nr_pages": b - a, "flags": flags} for a, b, flags in (
        (0, 500, IN_PARENT), (500, 600, PRESENT), (650, 2048, IN_PARENT))]
    with open(path, "wb") as f:
        pycriu.images.dump(img, f)

    led.lazy_restore(daemon_env=slow_disk(2))
    base = shared_mapping(led.pids[0], 8 << 20)
    for page in (600, 625, 649):
        touch(led.pids[0], base + page * PAGE)
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    o, = stats(led)["objects"]
    check(o["pages_in_images"] == sum(o["pages_filled"].values()) == 1998, "filled: %s" % o)
    check(o["pages_zeroed"] == 3 and o["faults"]["missing"] == 3, "holes: %s" % o)
    check(o["bytes"] == {"image": 100 * PAGE, "parent": 1898 * PAGE, "page_server": 0, "zeroed": 3 * PAGE}, str(o["bytes"]))
    led.kill()


@test
def page_server(where):
    """Bytes by source: those that are not here come from the page server"""
    led = Ledger(where, "-m", "32", "-p", "2").start().dump()
    there = os.path.join(where, "server")
    shutil.copytree(led.images, there)
    os.unlink(max(glob.glob(os.path.join(led.images, "pages-*.img")), key=os.path.getsize))
    remote = ("--address", "127.0.0.1", "--port", str(free_port()))
    ready, status = os.pipe()
    server = led.criu("page-server", "--lazy-pages", "--status-fd", str(status), "-D", there, *remote,
                      log="page-server.log", pass_fds=[status])
    os.close(status)
    wait_for(lambda: select.select([ready], [], [], 0)[0], "the page server does not listen")
    os.close(ready)
    led.start_daemon(args=("--page-server",) + remote)
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("restore.log"))
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check(finish(server) == 0, "the page server failed")
    o, = stats(led)["objects"]
    check(o["bytes"] == {"image": 0, "parent": 0, "page_server": 32 << 20, "zeroed": 0}, str(o["bytes"]))
    led.kill()


@test
def forked_children(where):
    """Tasks that come and go in the window are counted, and so are their faults"""
    led = Ledger(where, "-m", "128", "-p", "2", "-c", "-x").start().dump().lazy_restore(daemon_env=slow_disk(32))
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    s = stats(led)
    forked = [t for t in s["tasks"] if t["origin"] == "forked"]
    forks = len(re.findall(r"FORK: child with ufd", led.log("lazy-pages.log")))
    check(forked and len(forked) == forks, "%d children, %d forks in the log" % (len(forked), forks))
    restored = [t for t in s["tasks"] if t["origin"] == "restored"]
    # a child may have been dumped, too; one that was dead by then has no memory
    dumped = len(glob.glob(led.images + "/core-*.img"))
    check({t["pid"] for t in restored} >= set(led.pids) and len(restored) <= dumped, "%d of %d tasks were restored" % (len(restored), dumped))
    check(s["totals"]["tasks"] == len(s["tasks"]) == s["objects"][0]["tasks"], "tasks: %s" % s["totals"])
    check(any(t["faults"]["missing"] + t["faults"]["minor"] for t in forked), "no child has had a fault")
    check(sum(s["totals"]["pages_filled"].values()) == 128 * 256, "filled: %s" % s["totals"])
    led.check_right()
    led.kill()


@test
def task_terminated(where):
    """A task that is terminated in the window is in the file, and the other's are right"""
    led = Ledger(where, "-m", "32", "-p", "2", "-s").start().dump().lazy_restore(daemon_env=slow_disk(10))
    os.kill(led.pids[1], signal.SIGTERM)
    wait_for(lambda: len(led.alive()) == 1, "the task lives")
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    s = stats(led)
    check(s["result"] == "ok" and len(s["objects"]) == 2 and len(s["tasks"]) == 2, str(s))
    check([t["state"] for t in s["tasks"] if t["pid"] == led.pids[0]] == ["retired"], str(s["tasks"]))
    check(any(o["state"] == "complete" and sum(o["pages_filled"].values()) == 32 * 256 for o in s["objects"]), str(s))
    for o in s["objects"]:
        check(o["state"] in ("complete", "abandoned") and (o["complete_ms"] is None) == (o["state"] == "abandoned"), str(o))
    led.kill()


@test
def refused_restore(where):
    """Images that can not be used: a file all the same, and not the one of an earlier daemon"""
    led = Ledger(where, "-m", "16", "-p", "2").start().dump()
    with open(os.path.join(where, "lazy-shmem-stats.json"), "w") as f:
        f.write("old")
    largest = max(glob.glob(os.path.join(led.images, "pages-*.img")), key=os.path.getsize)
    os.truncate(largest, PAGE)
    led.start_daemon()
    check(led.restore("--lazy-pages") != 0, "restore succeeded")
    check(led.finish_daemon() != 0, "the daemon succeeded")
    s = stats(led)
    check(s["result"] == "failed" and s["resumed_ms"] is None and not s["objects"], str(s))
    check_nothing_left(led)


@test
def failed_in_window(where):
    """Images that are cut off while they are used"""
    led = Ledger(where, "-m", "32", "-p", "2", "-c").start().dump()
    led.start_daemon(env=slow_disk(20))
    largest = max(glob.glob(os.path.join(led.images, "pages-*.img")), key=os.path.getsize)
    check(led.restore("--lazy-pages") == 0, "restore failed")
    os.truncate(largest, PAGE)
    check(led.finish_daemon() != 0, "the daemon succeeded")
    s = stats(led)
    o, = s["objects"]
    check(s["result"] == "failed" and o["state"] == "failed" and o["complete_ms"] is None, str(o))
    check(sum(o["pages_filled"].values()) < 32 * 256, "filled: %s" % o)
    check_nothing_left(led)


@test
def can_not_be_written(where):
    """A warning, and nothing else"""
    led = Ledger(where, "-m", "16", "-p", "1").start().dump()
    os.makedirs(os.path.join(where, "lazy-shmem-stats.json", "in-the-way"))
    led.lazy_restore()
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check_log(led.log("lazy-pages.log"), r"Warn.*Can't write lazy-shmem-stats.json in the work directory: Is a directory")
    check(not os.path.exists(os.path.join(where, "lazy-shmem-stats.json.tmp")), "a temporary file is left")
    led.kill()


@test
def full_disk(where):
    """Half a file is none"""
    led = Ledger(where, "-m", "16", "-p", "1").start().dump()
    work = os.path.join(where, "work")
    os.makedirs(work)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", work], check=True)
    with open(os.path.join(work, "ballast"), "wb", buffering=0) as f:
        try:
            while f.write(bytes(PAGE)):
                pass
        except OSError:
            pass
    led.start_daemon(args=("-W", work, "-o", os.path.join(where, "lazy-pages.log")))
    check(led.restore("--lazy-pages", "-W", work, "-o", os.path.join(where, "restore.log")) == 0, "restore failed")
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check_log(led.log("lazy-pages.log"), r"Warn.*Can't write lazy-shmem-stats.json .*: No space left on device")
    check(not glob.glob(work + "/lazy-shmem-stats*"), "left: %s" % os.listdir(work))
    led.kill()


PROGRESS = r"(\d+)% of 32 MiB, [\d.]+ [KM]iB/s, (< 1 s left|\d+ s left|nothing comes|complete), \d+ faults/s"


def in_log(where, setting, mbps=5):
    led = Ledger(where, "-m", "32", "-p", "1").start().dump()
    env = slow_disk(mbps)
    if setting:
        env["CRIU_LAZY_SHMEM_PROGRESS"] = setting
    led.lazy_restore(daemon_env=env)
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    led.kill()
    return [int(m.group(1)) for m in re.finditer(r"lazy-shmem: " + PROGRESS, led.log("lazy-pages.log"))], stats(led)


@test
def progress_in_log(where):
    """A line a second: 32 MiB at 2 * 5 MB/s"""
    shares, s = in_log(where, "1")
    seconds = s["objects"][0]["complete_ms"] // 1000
    check(seconds >= 2 and seconds - 1 <= len(shares) <= seconds + 1, "%d lines in %d s" % (len(shares), seconds))
    check(shares == sorted(set(shares)) and shares[-1] < 100, str(shares))
    # from the share one can tell the time: what is told is what has come
    check(abs(shares[0] - 100 / (s["objects"][0]["complete_ms"] / 1000)) < 10, "%s of %d ms" % (shares, s["objects"][0]["complete_ms"]))


@test
def no_progress_in_short_restores(where):
    shares, _ = in_log(where, "")
    check(not shares, str(shares))


@test
def progress_off(where):
    shares, s = in_log(where, "off")
    check(not shares and s["settings"]["progress"] == "off", str(shares))


@test
def bad_setting(where):
    led = Ledger(where, "-m", "4", "-p", "1").start().dump()
    led.start_daemon(env={"CRIU_LAZY_SHMEM_PROGRESS": "of"})
    check(led.finish_daemon() != 0, "the daemon accepts it")
    check_log(led.log("lazy-pages.log"), r"Error.*CRIU_LAZY_SHMEM_PROGRESS is 'of', but can be 'auto'")


def on_terminal(where, controlling=True, stopped=False):
    """A daemon whose standard error is a terminal: what it drew, and its ledger"""
    led = Ledger(where, "-m", "32", "-p", "1").start().dump()
    outer, inner = os.openpty()

    def take_terminal():
        fcntl.ioctl(2, termios.TIOCSCTTY, 0)

    if stopped:
        termios.tcflow(inner, termios.TCOOFF)
    env = dict(led.env, **slow_disk(8), TERM="xterm")
    led.daemon = subprocess.Popen([CRIU, "lazy-pages", "-D", led.images, "-W", where, "-o", "lazy-pages.log", "-v4"], env=env,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=inner,
                                  start_new_session=True, preexec_fn=take_terminal if controlling else None)
    managed.add(led.daemon)
    wait_for(lambda: os.path.exists(os.path.join(where, "lazy-pages.socket")), "the daemon does not listen")
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("restore.log"))
    os.set_blocking(outer, False)
    drawn = b""

    def more():
        nonlocal drawn
        try:
            drawn += os.read(outer, 65536)
        except (BlockingIOError, OSError):
            pass
        return led.daemon.poll() is not None

    wait_for(more, "the daemon does not end")
    if not stopped:
        more()
    check(finish(led.daemon) == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    os.close(outer)
    os.close(inner)
    check(not re.search(r"lazy-shmem: " + PROGRESS, led.log("lazy-pages.log")), "there is progress in the log, too")
    led.walk()
    led.kill()
    return drawn.decode(), led


@test
def progress_on_a_terminal(where):
    """One line, drawn over and over, and erased at the end"""
    for n, controlling in enumerate((True, False)):
        there = os.path.join(where, str(n))
        os.makedirs(there)
        drawn, led = on_terminal(there, controlling)
        lines = re.findall(r"\r" + PROGRESS + "\x1b\\[K\r", drawn)
        shares = [int(line[0]) for line in lines]
        seconds = stats(led)["objects"][0]["complete_ms"] / 1000
        check(5 * seconds - 4 <= len(lines) <= 5 * seconds + 1, "%d lines in %g s" % (len(lines), seconds))
        check(shares == sorted(shares) and shares[-1] > 80, str(shares))
        check(drawn.endswith("\r\x1b[K\r"), "the line was not erased: %r" % drawn[-80:])
        check("\n" not in drawn, "more than a line: %r" % drawn)


@test
def stopped_terminal(where):
    """Ctrl-S stops what is drawn, and nothing else"""
    drawn, led = on_terminal(where, stopped=True)
    check(drawn == "", "it was not stopped: %r" % drawn)
    check(stats(led)["result"] == "ok", "failed")


main()
