#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""The lazy-pages socket: a restore that talks nonsense to the daemon, a daemon
that talks nonsense to restore, and nobody there at all."""

import array
import os
import socket
import struct
import tempfile
import threading

from lib import BUILD, Ledger, TestFailure, check, check_log, check_nothing_left, main, slow_disk, test

MAGIC, VERSION = 0x4D48534C, 1
HELLO, OBJECT, VMAS, COMMIT, HELLO_REPLY, COMMIT_REPLY = 1, 2, 3, 4, 16, 17
FIN = 0x52535446
FD_OPEN, INHERITED, HUGETLB, FILL_FIRST = 1 << 0, 1 << 1, 1 << 5, 1 << 7  # CR_SHMEM_*
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def msg(kind, body=b"", magic=MAGIC, version=VERSION, length=None, reserved=0):
    return struct.pack("=IHHII", magic, version, kind, len(body) if length is None else length, reserved) + body


def hello(page_size=PAGE):
    return msg(HELLO, struct.pack("=II", page_size, 0))


def obj(shmid, size, flags=0, page_size=PAGE):
    return msg(OBJECT, struct.pack("=QQII", size, page_size, shmid, flags))


def vmas(pid, *maps, nr=None):
    body = struct.pack("=II", pid, len(maps) if nr is None else nr)
    return msg(VMAS, body + b"".join(struct.pack("=QQQII", *m) for m in maps))


class Peer:
    """One end of the socket."""

    def __init__(self, sk):
        self.sk = sk
        sk.settimeout(20)

    def send(self, data, fd=None):
        try:
            if fd is not None:
                # the descriptor travels with the header, the body follows
                self.sk.sendmsg([data[:16]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
                data = data[16:]
            self.sk.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
        return self

    def receive(self):
        """A message as (type, body), or None at the end."""
        try:
            hdr = self.sk.recv(16, socket.MSG_WAITALL)
            if len(hdr) < 16:
                return None
            _, _, kind, length, _ = struct.unpack("=IHHII", hdr)
            return kind, self.sk.recv(length, socket.MSG_WAITALL)
        except ConnectionResetError:
            return None

    def status(self):
        kind, body = self.receive() or (None, None)
        return kind, body and struct.unpack("=II", body)[0]


def to_daemon(where, env=None):
    """A daemon that waits for restore, and a restore that is us."""
    led = Ledger(where, "-m", "4", "-p", "1").start().dump()
    led.start_daemon(env=env)
    sk = socket.socket(socket.AF_UNIX)
    sk.connect(os.path.join(where, "lazy-pages.socket"))
    return led, Peer(sk)


def daemon_says_no(led, peer, *patterns):
    check(led.finish_daemon() == 1, "the daemon's status is not 1")
    check_log(led.log("lazy-pages.log"), *patterns)
    check_nothing_left(led)
    peer.sk.close()


def greeted(where, env=None):
    led, peer = to_daemon(where, env)
    check(peer.send(hello()).status() == (HELLO_REPLY, 0), "HELLO is not answered")
    return led, peer


def memfd(size):
    fd = os.memfd_create("test")
    os.ftruncate(fd, size)
    return fd


def shmid_of(led):
    return max(int(f.split("-")[2].split(".")[0]) for f in os.listdir(led.images) if f.startswith("pagemap-shmem-"))


@test
def no_daemon(where):
    """The error says how to start it, and where it was looked for"""
    led = Ledger(where, "-m", "4").start().dump()
    status = led.restore("--lazy-pages")
    led.check_failed_restore(status, r"Error.*No criu lazy-pages is listening in %s: start it first" % where)


@test
def closed_at_once(where):
    led, peer = to_daemon(where)
    peer.sk.close()
    daemon_says_no(led, peer, r"Error.*short read")


@test
def closed_in_header(where):
    led, peer = to_daemon(where)
    peer.send(hello()[:10])
    peer.sk.close()
    daemon_says_no(led, peer, r"Error.*closed the lazy-pages socket")


@test
def closed_after_hello(where):
    led, peer = greeted(where)
    peer.sk.close()
    daemon_says_no(led, peer, r"Error.*short read")


@test
def garbage(where):
    led, peer = to_daemon(where)
    peer.send(os.urandom(4096))
    daemon_says_no(led, peer, r"Error")


@test
def unknown_version(where):
    led, peer = to_daemon(where)
    peer.send(msg(HELLO, struct.pack("=II", PAGE, 0), version=99))
    daemon_says_no(led, peer, r"Error.*speaks version 99, this is version 1")


@test
def unknown_message(where):
    led, peer = greeted(where)
    peer.send(msg(77))
    daemon_says_no(led, peer, r"Error.*Message 77 on the lazy-pages socket is unknown")


@test
def unknown_field(where):
    led, peer = to_daemon(where)
    peer.send(msg(HELLO, struct.pack("=II", PAGE, 0), reserved=5))
    daemon_says_no(led, peer, r"Error.*unknown field 0x5")


@test
def wrong_page_size(where):
    led, peer = to_daemon(where)
    peer.send(hello(page_size=65536))
    daemon_says_no(led, peer, r"Error.*pages of 65536 bytes")


@test
def wrong_length(where):
    led, peer = greeted(where)
    peer.send(msg(OBJECT, b"\0" * 8))
    daemon_says_no(led, peer, r"Error.*Message 2 .*has 8 bytes, not 24")


@test
def out_of_order(where):
    led, peer = to_daemon(where)
    peer.send(obj(1, MIB), memfd(MIB))
    daemon_says_no(led, peer, r"Error.*Message 2 .*out of order")


@test
def twice_hello(where):
    led, peer = greeted(where)
    peer.send(hello())
    daemon_says_no(led, peer, r"Error.*Message 1 .*out of order")


@test
def object_without_descriptor(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 4 * MIB))
    daemon_says_no(led, peer, r"Error.*came without a descriptor")


@test
def object_with_two_descriptors(where):
    led, peer = greeted(where)
    data, fds = obj(shmid_of(led), 4 * MIB), array.array("i", [memfd(4 * MIB), memfd(4 * MIB)])
    peer.sk.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    daemon_says_no(led, peer, r"Error.*has more than one descriptor")


@test
def unknown_property(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 4 * MIB, flags=1 << 30), memfd(4 * MIB))
    daemon_says_no(led, peer, r"Error.*has a property that this plugin does not know")


@test
def object_is_no_memfd(where):
    led, peer = greeted(where)
    with tempfile.TemporaryFile(dir=where) as f:
        f.truncate(4 * MIB)
        peer.send(obj(shmid_of(led), 4 * MIB), f.fileno())
        daemon_says_no(led, peer, r"Error.*is not a writable memfd")


@test
def object_of_other_size(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 4 * MIB), memfd(5 * MIB))
    daemon_says_no(led, peer, r"Error.*has 4194304 bytes in the images, but its memfd has 5242880")


@test
def object_without_size(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 0), memfd(0))
    daemon_says_no(led, peer, r"Error.*has 0 bytes")


@test
def object_of_huge_size(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), (1 << 64) - 1), memfd(4 * MIB))
    daemon_says_no(led, peer, r"Error.*has 18446744073709551615 bytes in the images")


@test
def object_that_must_not_be_lazy(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 4 * MIB, flags=1), memfd(4 * MIB))
    daemon_says_no(led, peer, r"Error.*wants object 0x[0-9a-f]+ to be lazy, but that can't be: a descriptor of it is open")


# Objects that are to be filled before COMMIT is answered


def contents_of(led):
    """What is in the images for the ledger's memory, all of which has contents"""
    for name in os.listdir(led.images):
        path = os.path.join(led.images, name)
        if name.startswith("pages-") and os.path.getsize(path) == 4 * MIB:
            with open(path, "rb") as f:
                return f.read()
    raise TestFailure("no pages image has 4 MiB")


def commit(nr_objects):
    return msg(COMMIT, struct.pack("=II", nr_objects, 0))


@test
def filled_when_commit_is_answered(where):
    led, peer = greeted(where, env=slow_disk(20))
    fd = memfd(4 * MIB)
    peer.send(obj(shmid_of(led), 4 * MIB, flags=FD_OPEN | FILL_FIRST), fd)
    peer.send(commit(1))
    check(peer.status() == (COMMIT_REPLY, 0), "COMMIT is refused")
    check(os.pread(fd, 4 * MIB, 0) == contents_of(led), "the object is not what is in the images")
    check_log(led.log("lazy-pages.log"), r"object 0x[0-9a-f]+ filled before resume: size=4194304 pages_filled=1024")
    peer.sk.close()
    check(led.finish_daemon() == 1, "restore has gone, but the daemon says all is well")
    check_nothing_left(led)


@test
def can_not_be_filled_before_resume(where):
    shim = os.path.join(BUILD, "e2e", "no_space.so")
    led, peer = greeted(where, env={"LD_PRELOAD": shim, "NO_SPACE_AFTER": str(MIB), "NO_SPACE_ERRNO": "28"})
    peer.send(obj(shmid_of(led), 4 * MIB, flags=FD_OPEN | FILL_FIRST), memfd(4 * MIB))
    peer.send(commit(1))
    check(peer.status() == (COMMIT_REPLY, 2), "COMMIT is not refused")
    daemon_says_no(led, peer, r"Error.*can't store the contents of offset 0x[0-9a-f]+: No space left on device",
                   r"Error.*object 0x[0-9a-f]+ failed: \d+ of 1024 pages were not filled, so restore can not go on")


@test
def leaves_before_commit_is_answered(where):
    led, peer = greeted(where, env=slow_disk(1))
    peer.send(obj(shmid_of(led), 4 * MIB, flags=FD_OPEN | FILL_FIRST), memfd(4 * MIB))
    peer.send(commit(1))
    peer.sk.close()
    daemon_says_no(led, peer, r"Error")


@test
def commit_twice(where):
    led, peer = greeted(where, env=slow_disk(1))
    peer.send(obj(shmid_of(led), 4 * MIB, flags=FD_OPEN | FILL_FIRST), memfd(4 * MIB))
    peer.send(commit(1)).send(commit(1))
    daemon_says_no(led, peer, r"Error.*Message 4 .*out of order")


@test
def inherited_is_not_for_the_daemon(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 4 * MIB, flags=INHERITED | FILL_FIRST), memfd(4 * MIB))
    daemon_says_no(led, peer, r"Error.*filled before resume, but that is not for us: it is inherited")


@test
def lazy_object_to_be_filled_first(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 4 * MIB, flags=FILL_FIRST), memfd(4 * MIB))
    daemon_says_no(led, peer, r"Error.*filled before resume, but that is not for us")


@test
def pages_of_another_size(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 4 * MIB, flags=HUGETLB, page_size=2 * MIB), memfd(4 * MIB))
    daemon_says_no(led, peer, r"Error.*has pages of 4096 bytes, restore told of 2097152")


@test
def huge_pages_without_the_flag(where):
    led, peer = greeted(where)
    peer.send(obj(shmid_of(led), 4 * MIB, flags=HUGETLB), memfd(4 * MIB))
    daemon_says_no(led, peer, r"Error.*has pages of 4096 bytes, restore told of 4096 \(flags 0x20\)")


@test
def object_without_images(where):
    led, peer = greeted(where)
    peer.send(obj(0xABCDEF, 4 * MIB), memfd(4 * MIB))
    daemon_says_no(led, peer, r"Error.*Object 0xabcdef: can't open pagemap-shmem-11259375.img")


@test
def object_twice(where):
    led, peer = greeted(where)
    fd, shmid = memfd(4 * MIB), shmid_of(led)
    peer.send(obj(shmid, 4 * MIB), fd).send(obj(shmid, 4 * MIB), fd)
    daemon_says_no(led, peer, r"Error.*announced twice")


@test
def mappings_of_unknown_task(where):
    led, peer = greeted(where)
    peer.send(vmas(4242, (0x10000, 0x20000, 0, 1, 0)))
    daemon_says_no(led, peer, r"Error.*Mappings came for task 4242, which is not known")


@test
def mappings_longer_than_said(where):
    led, peer = greeted(where)
    peer.send(vmas(1, (0x10000, 0x20000, 0, 1, 0), nr=1000))
    daemon_says_no(led, peer, r"Error.*A list of 1000 mappings has 40 bytes")


@test
def commit_of_what_was_not_sent(where):
    led, peer = greeted(where)
    peer.send(msg(COMMIT, struct.pack("=II", 7, 3)))
    daemon_says_no(led, peer, r"Error.*Restore told of 7 objects in 3 tasks, but 0 in 0 came")


@test
def silent_in_a_message(where):
    """A peer that stops talking does not hold the daemon for ever; it hangs up here"""
    led, peer = greeted(where)
    peer.send(msg(OBJECT, b"", length=24))
    peer.sk.shutdown(socket.SHUT_WR)
    daemon_says_no(led, peer, r"Error.*closed the lazy-pages socket")


# and the other way round


class FakeDaemon(threading.Thread):
    """Listens where restore looks, and answers with what serve(peer) does."""

    def __init__(self, where, serve):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        path = os.path.join(where, "lazy-pages.socket")
        if os.path.exists(path):
            os.unlink(path)
        self.listener.bind(path)
        self.listener.listen(1)
        self.serve = serve
        self.start()

    def run(self):
        sk, _ = self.listener.accept()
        peer = Peer(sk)
        self.serve(peer)
        sk.close()


def restore_says_no(where, serve, *patterns):
    led = Ledger(where, "-m", "4", "-p", "2").start().dump()
    FakeDaemon(where, serve)
    status = led.restore("--lazy-pages")
    led.check_failed_restore(status, *patterns)
    led.check_right()


@test
def daemon_closes(where):
    """As one without our patches does: it takes the message for a pid, and fails"""
    restore_says_no(where, lambda peer: None, r"Error.*closed the lazy-pages socket, see its log|Error.*Can't (receive|send)")


@test
def daemon_of_other_version(where):
    def serve(peer):
        peer.receive()
        peer.send(msg(HELLO_REPLY, struct.pack("=II", 0, 0), version=2))

    restore_says_no(where, serve, r"Error.*speaks version 2, this is version 1")


@test
def daemon_answers_garbage(where):
    def serve(peer):
        peer.receive()
        peer.send(b"x" * 64)

    restore_says_no(where, serve, r"Error.*Garbage on the lazy-pages socket: 0x78787878")


@test
def daemon_answers_something_else(where):
    def serve(peer):
        peer.receive()
        peer.send(msg(COMMIT_REPLY, struct.pack("=II", 0, 0)))

    restore_says_no(where, serve, r"Error.*answered with message 17, not 16")


@test
def daemon_leaves_before_commit(where):
    def serve(peer):
        peer.receive()
        peer.send(msg(HELLO_REPLY, struct.pack("=II", 0, 0)))

    restore_says_no(where, serve, r"Error.*lazy-pages")


@test
def daemon_refuses_commit(where):
    def serve(peer):
        peer.receive()
        peer.send(msg(HELLO_REPLY, struct.pack("=II", 0, 0)))
        # read all that comes, and when COMMIT is in it, with its body (they are two sends), refuse
        start = struct.pack("=IHH", MAGIC, VERSION, COMMIT)
        data = b""
        while start not in data or len(data) < data.index(start) + len(msg(COMMIT, bytes(8))):
            data += peer.sk.recv(65536)
        peer.send(msg(COMMIT_REPLY, struct.pack("=II", 2, 0)))

    restore_says_no(where, serve, r"Error.*did not take over the contents of shared memory, its log tells why")


main()
