# SPDX-License-Identifier: GPL-2.0-only
"""The service of demo/kv.c in the source's machine, and its client outside of both."""

import os
import re
import signal
import struct

import lib
import machines

KV = os.path.join(lib.BUILD, "demo", "kv")
RECORD = struct.Struct("=QQQII")
PAGES = 256  # in a MiB


class Service(machines.Migration):
    def __init__(self, pair, mib, env=None):
        ready = os.path.join(pair.here, "ready")
        self.socket = os.path.join(pair.here, "kv.sock")
        super().__init__(pair, KV, "serve", self.socket, str(mib), ready, env=env)
        self.pages = mib * PAGES
        lib.wait_for(lambda: os.path.exists(os.path.join(self.source.own, "ready")), "the service is not ready", 60)

    def sockets(self):
        return [os.path.join(m.own, "kv.sock") for m in self.pair.machines]

    def tasks(self, machine):
        return machine.named("kv")


class Client:
    """Asks both machines, and knows what the answer must be."""

    def __init__(self, service, where):
        self.records_file = os.path.join(where, "records")
        self.out = os.path.join(where, "client.out")
        with open(self.out, "w") as out:
            self.process = lib.popen([KV, "ask"] + service.sockets() + [os.path.join(where, "client"),
                                                                       str(service.pages), self.records_file]
                                     + [str(p) for p in service.tasks(service.source)],
                                     stdout=out, stderr=out)
        self.summary, self.seen = {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            lib.finish(self.process)

    def records(self):
        """Tuples of when a request was sent and answered, in seconds, by whom, its kind, and
        when the service gave the answer"""
        if os.path.exists(self.records_file):
            with open(self.records_file, "rb") as f:
                f.seek(len(self.seen) * RECORD.size)
                data = f.read()
            data = data[:len(data) - len(data) % RECORD.size]
            self.seen += [(a / 1e9, b / 1e9, side, op, at / 1e9) for a, b, at, side, op in RECORD.iter_unpack(data)]
        return self.seen

    def answered(self, side):
        return sum(r[2] == side for r in self.records())

    def wait_answers(self, side, more, timeout=lib.TIMEOUT):
        """Until that machine has given so many answers more"""
        before = self.answered(side)
        lib.wait_for(lambda: self.answered(side) >= before + more or self.process.poll() is not None,
                     "no answers from the %s" % ("source", "destination")[side], timeout)
        lib.check(self.process.poll() is None, "the client has ended: " + lib.read(self.out)[-500:])

    def wrong(self):
        return len(re.findall(r"^wrong ", lib.read(self.out), re.M))

    def finish(self):
        """Has it look at every page; what it says of all of it, as numbers."""
        self.process.send_signal(signal.SIGTERM)
        lib.finish(self.process, 120)
        self.summary = {k: int(v) for k, v in re.findall(r"\b([a-z_]+)=(\d+)(?=\s)", "\n".join(
            line for line in lib.read(self.out).splitlines(True) if re.match(r"lost=|looked=", line)))}
        return self.summary

    def check_right(self, pages):
        """Every page was looked at and right, and none was served twice"""
        s = self.finish()
        lib.check(s.get("wrong") == 0 and self.wrong() == 0, "wrong pages: " + lib.read(self.out)[-500:])
        lib.check(s.get("lost") == 0 and s.get("looked") == pages, "not all pages were looked at: %s" % s)

    def check_never_both(self):
        """No answer of the source after the first of the destination"""
        first = min((r[4] for r in self.records() if r[2] == 1), default=None)
        last = max((r[4] for r in self.records() if r[2] == 0), default=None)
        lib.check(first is None or last is None or last < first, "the source answered after the destination did")
