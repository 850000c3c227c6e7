#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 240
"""The recorded working set: what a restore notes with CRIU_LAZY_SHMEM_RECORD, and
what a later one of the same images makes of it."""

import os

from lib import check, check_log, check_nothing_left, finish, main, slow_disk, test, wait_for
from page_server_lib import more_huge_pages
from remote_lib import free_port, from_server, start_server, take_contents_away
from scatter_lib import Scatter, faults

RATE = 100  # MB/s of each worker: the window is open for longer than a walk takes


def recorded(where, *args, seconds=1):
    """Images with a record; what the recording restore said of its object"""
    led = Scatter(where, *args).start().dump()
    led.start_daemon(env={"CRIU_LAZY_SHMEM_RECORD": str(seconds)})
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("lazy-pages.log"))
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check(len(led.records()) == 1, "records: %s" % led.records())
    led.kill()
    return led


def restored(led, env=None, args=(), wait=True):
    """Restores and walks while the window is open; the object's counters"""
    led.start_daemon(env=env, args=args)
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("lazy-pages.log"))
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    (counters,) = led.counters()
    if wait:
        led.kill()
    return counters


@test
def fewer_faults(where):
    """A scattered tenth of 256 MiB, touched at once: with the record hardly any fault"""
    led = recorded(where, "256", "10", "1")
    check_log(led.log("lazy-pages.log"), r"object \S+ recorded: pages=6553 ")
    without = faults(restored(led, dict(slow_disk(RATE), CRIU_LAZY_SHMEM_ORDER="off")))
    check(without > 500, "only %d faults without the record: the test proves nothing" % without)
    slow = dict(slow_disk(RATE), CRIU_LAZY_SHMEM_PREFILL="1000")
    prefilled = faults(restored(led, slow))
    check(prefilled <= without / 100, "%d faults with PREFILL, %d without the record" % (prefilled, without))
    # it races with the tasks then: how far it gets before they run is not ours
    ahead = faults(restored(led))
    check(ahead <= without / 2, "%d faults with the record, %d without" % (ahead, without))


@test
def each_page_once(where):
    """Recording maps one page for a fault, so each of the set is seen; both tasks' accesses are one order"""
    led = recorded(where, "64", "25", "2")
    check_log(led.log("lazy-pages.log"), r"object \S+ recorded: pages=4096 ")
    (o,) = led.counters()
    check(o["pages_continue"] <= o["faults"], "a fault mapped more than its page: %s" % o)


@test
def longer_than_the_fill(where):
    """Accesses after all has come are recorded too, until the time is over"""
    led = Scatter(where, "64", "25", "1").start().dump()
    daemon = led.start_daemon(env={"CRIU_LAZY_SHMEM_RECORD": "3"})
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("lazy-pages.log"))
    wait_for(led.counters, "the object is not complete")
    check(daemon.poll() is None, "the daemon has not stayed")
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check_log(led.log("lazy-pages.log"), r"object \S+ recorded: pages=4096 ")
    check_nothing_left(led)
    led.kill()


@test
def tasks_exit_early(where):
    """What was accessed until then is written, and the daemon does not wait for the time to be over"""
    led = Scatter(where, "64", "25", "1").start().dump()
    led.start_daemon(env={"CRIU_LAZY_SHMEM_RECORD": "1000"})
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("lazy-pages.log"))
    led.walk()
    led.kill()
    check(led.finish_daemon(10) == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check_log(led.log("lazy-pages.log"), r"object \S+ recorded: pages=4096 ")


@test
def until_complete(where):
    """0 seconds: as long as there is something to fill"""
    led = Scatter(where, "64", "25", "1").start().dump()
    led.start_daemon(env=dict(slow_disk(20), CRIU_LAZY_SHMEM_RECORD="0"))
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("lazy-pages.log"))
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check_log(led.log("lazy-pages.log"), r"object \S+ recorded: pages=[1-9]")
    check(len(led.records()) == 1, "records: %s" % led.records())
    led.kill()


@test
def replaced(where):
    """A recording does not use an old record, and replaces it"""
    led = recorded(where, "64", "25", "1")
    old = led.records()[0]
    with open(old, "rb") as f:
        before = f.read()
    led.start_daemon(env={"CRIU_LAZY_SHMEM_RECORD": "1"})
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("lazy-pages.log"))
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check_log(led.log("lazy-pages.log"), r"object \S+ recorded: pages=0 ")
    check("says what to fill first" not in led.log("lazy-pages.log"), "the old record was used")
    with open(old, "rb") as f:
        check(f.read() != before, "the old record is still there")
    check(not [n for n in os.listdir(led.images) if n.endswith(".tmp")], "a temporary file is left")
    led.kill()


@test
def damaged(where):
    """A damaged record costs a warning, and nothing else"""
    led = recorded(where, "64", "25", "1")
    (name,) = led.records()
    with open(name, "r+b") as f:
        f.truncate(os.path.getsize(name) - 3)
    o = restored(led)
    check(o["pages_filled"] == 64 * 256, str(o))
    check_log(led.log("lazy-pages.log"), r"Warn.*lazy-shmem-order-\d+\.img in the images directory is ignored: it is damaged")


@test
def no_place_for_it(where):
    """Not in the end, but at the start: the daemon says that there is no place for the record"""
    led = Scatter(where, "16", "25", "1").start().dump()
    os.mkdir(os.path.join(led.images, "lazy-shmem-order.img.tmp"))
    daemon = led.start_daemon(env={"CRIU_LAZY_SHMEM_RECORD": "1"})
    check(finish(daemon, 10) != 0, "the daemon stays")
    check_log(led.log("lazy-pages.log"), r"Error.*CRIU_LAZY_SHMEM_RECORD is set, but no file can be made in the images directory")


@test
def bad_values(where):
    led = Scatter(where, "16", "25", "1").start().dump()
    for name, value in (("RECORD", "-1"), ("RECORD", "soon"), ("ORDER", "yes"), ("PREFILL", "1G")):
        daemon = led.start_daemon(env={"CRIU_LAZY_SHMEM_" + name: value})
        check(finish(daemon, 10) != 0, "%s=%s: the daemon stays" % (name, value))
        check_log(led.log("lazy-pages.log"), r"Error.*CRIU_LAZY_SHMEM_%s is '%s'" % (name, value))


@test
def several_tasks_and_children(where):
    """Each task has the pages; a child that one forks later learns its mappings as ever"""
    led = recorded(where, "64", "25", "3")
    o = restored(led, dict(slow_disk(20), CRIU_LAZY_SHMEM_PREFILL="1000"), wait=False)
    check(o["faults"] <= 50 and o["pages_continue"] >= 3 * 4096, str(o))
    led.kill()

    led.start_daemon(env=dict(slow_disk(20), CRIU_LAZY_SHMEM_PREFILL="1000"))
    check(led.restore("--lazy-pages") == 0, "restore failed")
    led.walk_children()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    (o,) = led.counters()
    check(o["tasks"] == 6, str(o))
    led.kill()


@test
def huge_pages(where):
    """The same with huge pages, each of which is filled and mapped as a whole"""
    with more_huge_pages(2 * 16):
        led = recorded(where, "32", "50", "2", "huge")
        check_log(led.log("lazy-pages.log"), r"object \S+ recorded: pages=8 ")
        o = restored(led, {"CRIU_LAZY_SHMEM_PREFILL": "1000", "CRIU_LAZY_SHMEM_BANDWIDTH": "100"})
        check(o["faults"] == 0 and o["pages_filled"] == 16 and o["pages_continue"] >= 2 * 8, str(o))


@test
def images_end(where):
    """Contents that can not be had are found before resume, and nothing is lost"""
    led = recorded(where, "64", "25", "1")
    # filling begins when the object is announced; what it reads then must be an error of the restore
    led.start_daemon(env=dict(slow_disk(2), CRIU_LAZY_SHMEM_PREFILL="1000"))
    restore = led.criu("restore", "-d", "--lazy-pages")
    wait_for(lambda: "says what to fill first" in led.log("lazy-pages.log"), "the record is not used")
    largest = max((e for e in os.scandir(led.images) if e.name.startswith("pages-")), key=lambda e: e.stat().st_size)
    with open(largest.path, "rb") as f:
        saved = f.read()
    os.truncate(largest.path, 1 << 20)
    status = finish(restore, 60)
    led.check_failed_restore(status)
    check(led.finish_daemon() != 0, "the daemon says that all is well")
    check_log(led.log("lazy-pages.log"), r"the images end before the contents of offset")
    with open(largest.path, "wb") as f:
        f.write(saved)
    restored(led)


@test
def page_server(where):
    """Contents of a page server: nothing before resume, then the record first"""
    led = Scatter(where, "64", "25", "1").start().dump()
    images = take_contents_away(led)
    port = free_port()

    def go(env):
        server = start_server(led, images, port)
        o = restored(led, env, from_server(port))
        check(finish(server) == 0, "the page server failed")
        return o

    go({"CRIU_LAZY_SHMEM_RECORD": "1"})
    check_log(led.log("lazy-pages.log"), r"object \S+ recorded: pages=4096 ")
    o = go({"CRIU_LAZY_SHMEM_PREFILL": "1000"})
    check(o["pages_filled"] == 64 * 256, str(o))
    check_log(led.log("lazy-pages.log"), r"says what to fill first")

    # the tasks run long before 16 MiB have come at 1 MiB/s
    server = start_server(led, images, port)
    led.start_daemon(env={"CRIU_LAZY_SHMEM_PREFILL": "1000", "CRIU_LAZY_SHMEM_BANDWIDTH": "1"}, args=from_server(port))
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("lazy-pages.log"))
    led.kill()
    check(led.finish_daemon(5) == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check(led.abandoned() > 64 * 256 - 2048, "restore has waited for a page server")
    check(finish(server) == 0, "the page server failed")


if __name__ == "__main__":
    main()
