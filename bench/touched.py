# SPDX-License-Identifier: GPL-2.0-only
"""Reads what bench/touch and bench/copy_handler record (bench/touching.h)."""

import array
import bisect
import struct
import time

MAGIC, LANES = 0x31686375, 64
HEADER, LANE, ACCESS = struct.Struct("4Q"), struct.Struct("5Q"), struct.Struct("QII")
BUCKETS = 32  # of the histogram: powers of two of a nanosecond


class Touched:
    """One run: accesses in the order in which they began. The cost of measuring is subtracted. Times are made
    those of time.monotonic(), which the tasks could not read: theirs goes on from the dump."""

    def __init__(self, path):
        with open(path, "rb") as f:
            data = f.read()
        magic, accesses, lanes, clock = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise ValueError("%s is no record of bench/touch" % path)
        self.lanes = [LANE.unpack_from(data, HEADER.size + i * LANE.size) for i in range(lanes)]
        records = memoryview(data)[HEADER.size + LANES * LANE.size:]
        found = sorted(ACCESS.iter_unpack(records[:accesses * ACCESS.size]))
        self.offset = time.time_ns() - time.monotonic_ns()
        self.begin = array.array("q", (a[0] - self.offset for a in found))
        self.ns = array.array("L", (max(0, a[1] - clock) for a in found))
        self.page = array.array("L", (a[2] for a in found))
        self.resumed = (min(lane[0] for lane in self.lanes) - self.offset) / 1e9
        self.done = (max(lane[1] for lane in self.lanes) - self.offset) / 1e9
        self.wrong = sum(lane[2] for lane in self.lanes)
        self.pages = len(set(self.page))
        if not found or not found[0][0]:
            raise ValueError("%s: there are accesses that were never made" % path)

    def until(self, when):
        """How many accesses began before that"""
        return bisect.bisect_left(self.begin, int(when * 1e9))

    def figures(self, count=None):
        """Of the first count accesses, in microseconds"""
        ns = sorted(self.ns[:count])
        if not ns:
            return {"mean": 0.0, "p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}
        at = lambda share: ns[min(len(ns) - 1, int(len(ns) * share))] / 1e3  # noqa: E731
        return {"mean": sum(ns) / len(ns) / 1e3, "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": ns[-1] / 1e3}

    def stall_us(self):
        """What was spent in accesses, for each page that was touched"""
        return sum(self.ns) / self.pages / 1e3

    def histogram(self):
        """The share of accesses that took 2^i to 2^(i+1) ns"""
        count = [0] * BUCKETS
        for ns in self.ns:
            count[min(BUCKETS - 1, max(0, ns.bit_length() - 1))] += 1
        return [c / len(self.ns) for c in count]

    def curve(self, since, points=200):
        """(seconds since that moment, share of the pages that will be touched)"""
        seen, shares = set(), array.array("d")
        for page in self.page:
            seen.add(page)
            shares.append(len(seen) / self.pages)
        step = max(1, len(shares) // points)
        rows = [(self.begin[i] / 1e9 - since, shares[i]) for i in range(0, len(shares), step)]
        return [(0.0, 0.0), (rows[0][0], 0.0)] + rows + [(self.done - since, 1.0)]
