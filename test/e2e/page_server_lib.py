# SPDX-License-Identifier: GPL-2.0-only
"""A peer of a page server, and the dump that it is the server of."""

import contextlib
import os
import re
import select
import socket
import ssl
import struct
import sys

from lib import BUILD, TestFailure, Ledger, Skip, check, check_log, finish, read, wait_for

sys.path.insert(0, os.path.join(BUILD, "criu", "lib"))
import pycriu  # noqa: E402

LEFTOVERS = os.path.join(BUILD, "e2e", "leftovers")
WRITER = os.path.join(BUILD, "e2e", "writer")
PAGE = os.sysconf("SC_PAGE_SIZE")
ADD_F, GET, HELLO, GET_SHMEM, SWITCH, REFUSED, CLOSE = 6, 7, 8, 9, 10, 11, 0x1023
OPEN2 = 4
TASKS, SHMEM = 1, 2
BY_VERSION, BY_SESSION, BY_REQUEST, BY_READ = 1, 2, 3, 4
IN_PARENT, LAZY, PRESENT = 1, 2, 4
MAX_PAGES = 1024
IOV = struct.Struct("=IIQQ")


class Gone(Exception):
    """The server has ended the connection"""


class Refused(Exception):
    def __init__(self, version, why):
        super().__init__("refused: %d, version %d" % (why, version))
        self.version, self.why = version, why


class Peer:
    def __init__(self, port, tls=None):
        self.sk = socket.create_connection(("127.0.0.1", port), timeout=20)
        if tls:
            self.sk = tls.wrap_socket(self.sk)

    def send(self, cmd, nr=0, vaddr=0, dst=0):
        try:
            self.sk.sendall(IOV.pack(cmd, nr, vaddr, dst))
        except OSError as e:
            raise Gone() from e

    def recv(self, length):
        data = bytearray()
        while len(data) < length:
            try:
                part = self.sk.recv(length - len(data))
            except (ConnectionResetError, ssl.SSLError) as e:
                raise Gone() from e
            if not part:
                raise Gone()
            data += part
        return bytes(data)

    def answer(self):
        cmd, nr, vaddr, dst = IOV.unpack(self.recv(IOV.size))
        if cmd == REFUSED:
            raise Refused(nr, dst)
        return cmd, nr, vaddr, dst

    def hello(self, session, role, version=2):
        self.send(HELLO, version, session, role)
        got = self.answer()
        check(got == (HELLO, 2, session, role), "HELLO is answered with %s" % (got,))
        return self

    def pages(self, cmd, dst, vaddr, nr):
        self.send(cmd, nr, vaddr, dst)
        got, got_nr, got_vaddr, got_dst = self.answer()
        check((got, got_vaddr, got_dst) == (ADD_F | PRESENT << 16, vaddr, dst), "pages are answered with %x" % got)
        check(got_nr == nr if cmd == GET_SHMEM else 0 < got_nr <= nr, "%d pages for %d" % (got_nr, nr))
        return self.recv(got_nr * PAGE)

    def shmem(self, shmid, off, nr):
        return self.pages(GET_SHMEM, shmid, off, nr)

    def private(self, pid, vaddr, nr):
        return self.pages(GET, pid, vaddr, nr)

    def switch(self):
        self.send(SWITCH)
        check(self.answer()[0] == SWITCH, "SWITCH is not answered")

    def close(self):
        self.send(CLOSE)
        check(self.recv(4) == b"\0\0\0\0", "CLOSE is not answered with 0")
        self.sk.close()

    def cut(self):
        self.sk.close()

    def ended(self):
        """Reads till the server ends the connection, within the socket's timeout"""
        try:
            self.recv(1 << 30)
        except Gone:
            return
        check(False, "the server goes on")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def entries(images, kind, number):
    with open(os.path.join(images, "%s-%s.img" % (kind, number)), "rb") as f:
        return pycriu.images.load(f)["entries"][1:]


def first_lazy(led, pid):
    """The first pagemap entry of private memory that can be fetched"""
    found = entries(led.images, "pagemap", pid)
    for entry in found:
        if lazy(entry):
            return entry
    raise TestFailure("nothing of the memory of %d is lazy: %s; pids %s" % (pid, found, led.pids))


def numbers(images, kind):
    found = (re.fullmatch(kind + r"-(\d+)\.img", name) for name in os.listdir(images))
    return [int(m.group(1)) for m in found if m]


def lazy(entry):
    return bool(entry["flags"] & LAZY)


def present(entry):
    return bool(entry["flags"] & PRESENT)


def memory(pid, start, length):
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as f:
        f.seek(start)
        return f.read(length)


SHARED = re.compile(r"^(\w+-\w+) \S+ \w+ \S+ (\d+) +(/memfd:|/dev/zero|/SYSV|/anon_hugepage)", re.M)


def objects(pids):
    """Where to read shared memory: {shmid: a path below /proc}"""
    result = {}
    for pid in pids:
        for m in SHARED.finditer(read("/proc/%d/maps" % pid)):
            result[int(m.group(2))] = "/proc/%d/map_files/%s" % (pid, m.group(1))
        for fd in os.listdir("/proc/%d/fd" % pid):
            path = "/proc/%d/fd/%s" % (pid, fd)
            if os.readlink(path).startswith("/memfd:"):
                result[os.stat(path).st_ino] = path
    return result


def contents_of(path, off, length):
    """With zeroes beyond the end"""
    with open(path, "rb", buffering=0) as f:
        data = bytearray()
        while len(data) < length:
            part = os.pread(f.fileno(), length - len(data), off + len(data))
            if not part:
                break
            data += part
        return bytes(data).ljust(length, b"\0")


class Source:
    """A server, with the tasks it was dumped from still there, stopped"""

    def __init__(self, led, args=(), env=None, tls=()):
        self.led = led
        self.port = free_port()
        self.args = ["--lazy-pages", "--address", "127.0.0.1", "--port", str(self.port), "--lazy-timeout", "2"]
        self.args += list(args) + list(tls)
        self.tls = None
        self.env = env
        self.peers = []

    def listen(self, action, *args):
        ready, status = os.pipe()
        self.log_name = action + ".log"
        self.criu = self.led.criu(action, "--status-fd", str(status), *args, *self.args, env=self.env,
                                  pass_fds=[status])
        os.close(status)
        wait_for(lambda: select.select([ready], [], [], 0)[0], "the page server does not listen")
        os.close(ready)
        check(self.criu.poll() is None, "it has failed: " + self.led.errors(self.log_name))
        return self

    def dump(self):
        return self.listen("dump", "-t", str(self.led.main.pid))

    def page_server(self):
        return self.listen("page-server")

    def peer(self):
        self.peers.append(Peer(self.port, self.tls))
        return self.peers[-1]

    def tasks(self, session=1):
        return self.peer().hello(session, TASKS)

    def shmem(self, session=1):
        return self.peer().hello(session, SHMEM)

    def log(self):
        return self.led.log(self.log_name)

    def children(self):
        return [int(p) for p in read("/proc/%d/task/%d/children" % (self.criu.pid, self.criu.pid)).split()]

    def lines(self, *patterns):
        for p in patterns:
            wait_for(lambda p=p: re.search(p, self.log()), "no /%s/ in the log:\n%s" % (p, self.log()[-2000:]), 10)

    def finish(self, status, *patterns):
        """It ends so, and leaves no child"""
        children = self.children()
        got = finish(self.criu)
        check((got == 0) == (status == 0), "status %d: %s" % (got, self.led.errors(self.log_name)))
        check_log(self.log(), *patterns)
        for pid in children:
            check(not read("/proc/%d/comm" % pid), "child %d is left" % pid)

    def check_refused(self, why, call, *pattern):
        try:
            call()
        except Refused as e:
            check((e.why, e.version) == (why, 2), "refused for %d by version %d" % (e.why, e.version))
        else:
            check(False, "it is not refused")
        self.lines(*pattern)


NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"
HUGEPAGES = 8


@contextlib.contextmanager
def more_huge_pages(nr=HUGEPAGES):
    def change(by):
        before = int(read(NR_HUGEPAGES))
        with open(NR_HUGEPAGES, "w") as f:
            f.write(str(before + by))
        return int(read(NR_HUGEPAGES)) - before

    got = change(nr)
    try:
        if got < nr:
            raise Skip("no huge pages to be had")
        yield
    finally:
        change(-got)


def states(pids):
    return "".join(read("/proc/%d/stat" % pid).rpartition(")")[2].split()[0] for pid in pids)


def check_gone(led):
    wait_for(lambda: not led.alive(), "the tasks are still there", 5)


def check_running(led):
    led.walk()


def check_stopped(led):
    wait_for(lambda: set(states(led.pids)) == {"T"}, "the tasks are not stopped: " + states(led.pids), 5)
    led.kill()


def ledger(where, *args):
    return Ledger(where, *(args or ("-m", "8", "-p", "2", "-P", "2"))).start()


def only_object(led):
    (shmid,) = numbers(led.images, "pagemap-shmem")
    return shmid


def all_private(led, peer, skip=()):
    """Everything that was left, page by page as it is in the tasks"""
    total = 0
    for number in numbers(led.images, "pagemap"):
        for e in entries(led.images, "pagemap", number):
            if not lazy(e) or present(e):
                continue
            at, end = e["vaddr"], e["vaddr"] + e["nr_pages"] * PAGE
            while at < end:
                data = peer.private(number, at, min((end - at) // PAGE, 64))
                check(data == memory(number, at, len(data)), "task %d at %x is wrong" % (number, at))
                at += len(data)
                total += len(data) // PAGE
    return total


def all_shmem(led, peers):
    """The same for shared memory, over several connections; returns pages"""
    total, turn = 0, 0
    paths = objects(led.pids)
    shmids = numbers(led.images, "pagemap-shmem")
    check(shmids and set(shmids) <= set(paths), "objects %s, the tasks have %s" % (shmids, list(paths)))
    for shmid in shmids:
        for e in entries(led.images, "pagemap-shmem", shmid):
            check(lazy(e) and not present(e), "object %#x has contents in the images" % shmid)
            for off in range(e["vaddr"], e["vaddr"] + e["nr_pages"] * PAGE, 256 * PAGE):
                nr = min(256, (e["vaddr"] + e["nr_pages"] * PAGE - off) // PAGE)
                data = peers[turn % len(peers)].shmem(shmid, off, nr)
                check(data == contents_of(paths[shmid], off, nr * PAGE), "object %#x at %#x is wrong" % (shmid, off))
                turn += 1
                total += nr
    return total


def done(source, peer):
    peer.switch()
    peer.close()
    source.finish(0)
    check_gone(source.led)
