#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""Images that are incomplete, damaged, or lie."""

import glob
import os
import re
import sys

from lib import BUILD, Ledger, check, check_log, check_nothing_left, main, slow_disk, test, wait_for

sys.path.insert(0, os.path.join(BUILD, "criu", "lib"))
import pycriu  # noqa: E402

PAGE = os.sysconf("SC_PAGE_SIZE")


def dumped(where, *args):
    return Ledger(where, *(args or ("-m", "16", "-p", "2"))).start().dump()


def pagemap_path(led):
    paths = glob.glob(os.path.join(led.images, "pagemap-shmem-*.img"))
    return max(paths, key=lambda p: os.path.getsize(pages_path(led, p)))


def load(path):
    with open(path, "rb") as f:
        return pycriu.images.load(f)


def store(path, img):
    with open(path, "wb") as f:
        pycriu.images.dump(img, f)


def pages_path(led, pagemap):
    return os.path.join(led.images, "pages-%d.img" % load(pagemap)["entries"][0]["pages_id"])


def rewrite_pagemap(led, change):
    path = pagemap_path(led)
    img = load(path)
    change(img["entries"])
    store(path, img)


def entry(vaddr, nr_pages, flags="PE_PRESENT"):
    return {"vaddr": vaddr, "nr_pages": nr_pages, "flags": flags}


def refused(led, *patterns):
    """The daemon gives the reason, restore fails, nobody runs."""
    led.start_daemon()
    status = led.restore("--lazy-pages")
    check(status != 0, "restore succeeded")
    check(led.finish_daemon() != 0, "the daemon succeeded")
    check_log(led.log("lazy-pages.log"), r"Error.*[Oo]bject 0x[0-9a-f]+", *patterns)
    check_log(led.log("restore.log"), r"Error.*(see its log|its log tells why)")
    wait_for(lambda: not led.alive(), "processes are left", 5)
    led.check_right()
    check_nothing_left(led)


@test
def pages_missing(where):
    led = dumped(where)
    os.unlink(pages_path(led, pagemap_path(led)))
    refused(led, r"Error.*Object 0x[0-9a-f]+: (no pages-|can't open)")


@test
def pagemap_missing(where):
    led = dumped(where)
    os.unlink(pagemap_path(led))
    refused(led, r"Error.*Object 0x[0-9a-f]+: can't open pagemap-shmem-[0-9]+.img")


@test
def pages_short(where):
    led = dumped(where)
    path = pages_path(led, pagemap_path(led))
    os.truncate(path, os.path.getsize(path) - PAGE)
    refused(led, r"Error.*too short for the \d+ at 0x[0-9a-f]+ which belong at offset 0x[0-9a-f]+")


@test
def pagemap_cut_off(where):
    """The file ends in the middle of an entry"""
    led = dumped(where)
    path = pagemap_path(led)
    os.truncate(path, os.path.getsize(path) - 3)
    refused(led, r"Error")


@test
def pagemap_garbage(where):
    led = dumped(where)
    with open(pagemap_path(led), "r+b") as f:
        f.seek(20)
        f.write(b"\xff" * 40)
    refused(led, r"Error")


@test
def entry_beyond_object(where):
    led = dumped(where)
    rewrite_pagemap(led, lambda e: e[-1].update(vaddr=e[-1]["vaddr"] + 16 * PAGE))
    refused(led, r"Error.*ends at offset 0x[0-9a-f]+, beyond the object of \d+ bytes")


@test
def entry_huge(where):
    led = dumped(where)
    rewrite_pagemap(led, lambda e: e[-1].update(nr_pages=0xffffffff))
    refused(led, r"Error.*pagemap entry \d+ is damaged")


@test
def entry_unaligned(where):
    led = dumped(where)
    rewrite_pagemap(led, lambda e: e[1].update(vaddr=e[1]["vaddr"] + 8))
    refused(led, r"Error.*pagemap entry \d+ is damaged")


@test
def entries_overlap(where):
    led = dumped(where)

    def change(entries):
        entries[1:] = [entry(0, 8), entry(4 * PAGE, 8)]

    rewrite_pagemap(led, change)
    refused(led, r"Error.*pagemap entry 1 at offset 0x4000 overlaps the one before it or is out of order")


@test
def entries_unsorted(where):
    led = dumped(where)

    def change(entries):
        entries[1:] = [entry(16 * PAGE, 8), entry(0, 8)]

    rewrite_pagemap(led, change)
    refused(led, r"Error.*pagemap entry 1 at offset 0 overlaps the one before it or is out of order")


@test
def entry_without_contents(where):
    led = dumped(where)
    rewrite_pagemap(led, lambda e: e[1].update(flags="0x0"))
    refused(led, r"Error.*the images have no contents for offset 0")


@test
def contents_on_a_page_server(where):
    """And the daemon has not been told of one"""
    led = dumped(where)
    rewrite_pagemap(led, lambda e: e[1].update(flags="PE_LAZY"))
    refused(led, r"Error.*contents of offset 0 are on the page server: criu lazy-pages needs --page-server")


@test
def parent_missing(where):
    led = dumped(where)
    rewrite_pagemap(led, lambda e: e[1].update(flags="PE_PARENT"))
    refused(led, r"Error")


@test
def object_larger_than_images_say(where):
    """memfd.img and the pagemap disagree"""
    led = dumped(where)
    path = os.path.join(led.images, "memfd.img")
    img = load(path)
    big = max(img["entries"], key=lambda e: e["size"])
    big["size"] = 8 << 20
    store(path, img)
    refused(led, r"Error.*beyond the object of 8388608 bytes")


@test
def pages_cut_off_in_window(where):
    """The images shrink while they are used: the tasks are killed, loudly"""
    led = dumped(where, "-m", "64", "-p", "2", "-c")
    led.start_daemon(env=slow_disk(50))
    path = pages_path(led, pagemap_path(led))
    check(led.restore("--lazy-pages") == 0, "restore failed")
    os.truncate(path, PAGE)
    check(led.finish_daemon() != 0, "the daemon succeeded")
    check_log(led.log("lazy-pages.log"),
              r"Error.*Object 0x[0-9a-f]+: the images end before the contents of offset (0x)?[0-9a-f]+",
              r"Error.*Killed \d+ \(ledger\)")
    wait_for(lambda: not led.alive(), "tasks outlive their memory", 5)
    led.check_right()
    check_nothing_left(led)


def full(where, errno_name, number):
    led = dumped(where, "-m", "64", "-p", "2", "-c")
    shim = os.path.join(BUILD, "e2e", "no_space.so")
    led.start_daemon(env={"LD_PRELOAD": shim, "NO_SPACE_AFTER": str(20 << 20), "NO_SPACE_ERRNO": str(number)})
    led.restore("--lazy-pages")  # may see its tasks die before it is through with them
    check(led.finish_daemon() != 0, "the daemon succeeded")
    check_log(led.log("lazy-pages.log"),
              r"Error.*Object 0x[0-9a-f]+: can't store the contents of offset (0x)?[0-9a-f]+: %s" % errno_name,
              r"Error.*Killed \d+ \(ledger\)")
    wait_for(lambda: not led.alive(), "tasks outlive their memory", 5)
    led.check_right()
    check_nothing_left(led)


@test
def no_space(where):
    full(where, "No space left on device", 28)


@test
def no_memory(where):
    full(where, "Cannot allocate memory", 12)


@test
def other_objects_go_on(where):
    """What fails is one object and its task; the other's memory comes as it should"""
    led = dumped(where, "-m", "32", "-p", "2", "-s")
    victim = pagemap_path(led)
    shmid = int(re.search(r"pagemap-shmem-(\d+)", victim).group(1))
    led.start_daemon(env=slow_disk(50))
    path = pages_path(led, victim)
    check(led.restore("--lazy-pages") == 0, "restore failed")
    os.truncate(path, PAGE)
    check(led.finish_daemon() == 1, "the daemon's status is not 1")
    check_log(led.log("lazy-pages.log"), r"object %#x failed" % shmid)
    check(len(led.counters()) == 1, "the other object is not complete")
    left = wait_for(lambda: len(led.alive()) == 1 and led.alive(), "not exactly one task is left: %s" % led.alive(), 5)
    led.pids = left
    led.walk()
    check_nothing_left(led)
    led.kill()


main()
