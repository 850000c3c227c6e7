# SPDX-License-Identifier: GPL-2.0-only
"""A tree that uses a scattered part of its shared memory (test/lib/scatter.c)."""

import os
import re
import signal

from lib import BUILD, TIMEOUT, Ledger, check, wait_for

SCATTER = os.path.join(BUILD, "e2e", "scatter")


class Scatter(Ledger):
    """Arguments: MiB, per cent, processes[, "huge"]"""

    def __init__(self, where, *args):
        super().__init__(where, "-p", args[2])
        self.args = [SCATTER, self.report_file] + list(args)

    def walk_children(self, timeout=TIMEOUT):
        """Has every process fork a child that walks"""
        for pid in self.pids:
            os.kill(pid, signal.SIGUSR2)
        wait_for(lambda: len(self.report("child")) == len(self.pids) or len(self.alive()) < len(self.pids),
                 "the children do not end their walk", timeout)
        self.check_right()
        check(len(self.alive()) == len(self.pids), "a process died")

    def records(self):
        return sorted(e.path for e in os.scandir(self.images) if e.name.startswith("lazy-shmem-order-"))

    def abandoned(self):
        """Pages that were not filled, of the object that nobody maps any more"""
        found = re.findall(r"object \S+ abandoned: no task maps it any more, (\d+) pages", self.log("lazy-pages.log"))
        check(len(found) == 1, "%d objects were abandoned" % len(found))
        return int(found[0])


def faults(counters):
    return counters["faults"]
