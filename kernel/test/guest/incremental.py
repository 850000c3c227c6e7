#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Dumps that take from their parents what was not written since (soft-dirty), and
lazy restores from such chains; also of tasks that have been restored lazily."""

import os
import signal
import sys

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
sys.path.insert(0, os.path.join(TOP, "test", "e2e"))
import lib  # noqa: E402
from lib import Ledger, check, check_nothing_left, finish, lazy_flags, slow_disk, test, wait_for  # noqa: E402

sys.path.insert(0, os.path.join(lib.BUILD, "criu", "lib"))
import pycriu  # noqa: E402

PAGE = os.sysconf("SC_PAGE_SIZE")
PE_PARENT, PE_PRESENT = 1, 4  # CRIU's pagemap.proto
SHARED, PRIVATE = 1024, 256  # pages; those of test/lib/writer.c
GROUPS = 8
TURN = PRIVATE // GROUPS


class Writer(Ledger):
    def __init__(self, where):
        super().__init__(where)
        self.args = [os.path.join(lib.BUILD, "e2e", "writer"), self.report_file, str(SHARED), str(PRIVATE)]
        self.layers = 0

    def write(self):
        """One step"""
        before = len(self.report("wrote"))
        for pid in self.pids:
            os.kill(pid, signal.SIGUSR2)
        wait_for(lambda: len(self.report("wrote")) == before + len(self.pids), "the step does not end")
        for line in self.report("wrote")[before:]:
            check(int(line["private"]) == TURN, "a step wrote %s pages" % line["private"])

    def check_all(self, step):
        for line in self.walk():
            check(int(line["step"]) == step, "it is in step %s and not %d" % (line["step"], step))
            check((int(line["pages"]), int(line["private"])) == (SHARED, PRIVATE), "not all pages were checked")

    def layer(self, action, *args):
        """Another dump on top of those that there are"""
        parent = self.images
        self.layers += 1
        self.images = os.path.join(self.dir, "layer%d" % self.layers)
        os.makedirs(self.images)
        chain = ["--track-mem"]
        if self.layers > 1:
            chain += ["--prev-images-dir", os.path.relpath(parent, self.images)]
        log = "%s%d.log" % (action, self.layers)
        status = finish(self.criu(action, "-t", str(self.main.pid), *chain, *args, log=log), 60)
        check(status == 0, "%s: status %d: %s" % (action, status, self.errors(log)))
        if action == "dump":
            wait_for(lambda: not self.alive(), "dumped processes are still there")

    def pages(self, pid, address):
        """How many pages of a writer's private memory are in a layer below, and in the last one"""
        with open(os.path.join(self.images, "pagemap-%d.img" % pid), "rb") as f:
            entries = pycriu.images.load(f)["entries"][1:]
        below = here = 0
        for e in entries:
            start = max(e["vaddr"], address)
            end = min(e["vaddr"] + e["nr_pages"] * PAGE, address + PRIVATE * PAGE)
            nr = max(0, end - start) // PAGE
            below += nr if e["flags"] & PE_PARENT else 0
            here += nr if e["flags"] & PE_PRESENT else 0
        return below, here

    def check_layer(self, written):
        """So many pages are in this layer, the others in those below"""
        for line in self.report("ready"):
            n = self.pages(int(line["pid"]), int(line["at"], 16))
            want = PRIVATE - written, written
            check(n == want, "pages of %s below and in this layer: %d and %d, not %d and %d" % (line["pid"], *n, *want))

    def check_shared_is_lazy(self):
        objects = [o for o in self.counters() if o["size"] == SHARED * PAGE]
        check(len(objects) == 1, "%d objects were lazy" % len(objects))
        check(all(o["pages_filled"] == SHARED for o in objects), "not all pages were filled: %s" % objects)

    def retire(self):
        check(self.finish_daemon() == 0, "the daemon failed: " + self.errors("lazy-pages.log"))
        check(not any(lazy_flags(pid) for pid in self.pids), "mappings are still registered")
        check_nothing_left(self)


def restore(w, step):
    """Lazily, with a look at everything while the window is open, and when it is closed"""
    w.lazy_restore(daemon_env=slow_disk(20))
    w.check_all(step)
    w.retire()
    w.check_shared_is_lazy()
    w.check_all(step)


@test
def parents(where):
    """Two pre-dumps and a dump, restored lazily"""
    w = Writer(where).start()
    w.layer("pre-dump")
    w.check_layer(PRIVATE)
    w.write()
    w.layer("pre-dump")
    w.check_layer(TURN)
    w.write()
    w.layer("dump")
    w.check_layer(TURN)
    restore(w, 2)
    w.kill()


@test
def restored_lazily_before(where):
    """The same with tasks that have been restored lazily, and once more with those"""
    w = Writer(where).start().dump()
    restore(w, 0)
    for turn in (1, 2):
        w.layers = 0
        w.dir = os.path.join(where, str(turn))
        os.makedirs(w.dir)
        w.layer("pre-dump")
        w.check_layer(PRIVATE)
        w.write()
        w.layer("dump")
        w.check_layer(TURN)
        restore(w, turn)
    w.kill()


lib.main("guest")
