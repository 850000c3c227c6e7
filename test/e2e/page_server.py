#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 300
"""The page server of a migration, version 2 and version 1 of its protocol: a peer
written here against criu dump --lazy-pages and criu page-server --lazy-pages."""

import glob
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

from lib import Ledger, check, check_log, finish, main, read, test, wait_for
from page_server_lib import (ADD_F, BY_READ, BY_REQUEST, BY_SESSION, BY_VERSION, CLOSE, GET, GET_SHMEM, HELLO,
                             IN_PARENT, IOV, LEFTOVERS, MAX_PAGES, OPEN2, PAGE, PRESENT, SHMEM, SWITCH, TASKS, Gone,
                             Peer, Source, all_private, all_shmem, check_gone, check_running, check_stopped,
                             contents_of, done, entries, first_lazy, ledger, more_huge_pages, numbers, objects,
                             only_object, present, pycriu, states)


@test
def contents(where):
    """Shared and private memory over several connections; nothing of it in the images"""
    led = ledger(where, "-m", "64", "-p", "2", "-P", "8")
    source = Source(led).dump()
    size = sum(os.path.getsize(p) for p in glob.glob(os.path.join(led.images, "pages-*.img")))
    check(size < 4 << 20, "%d bytes of pages in the images" % size)
    peer = source.tasks()
    total = all_shmem(led, [source.shmem() for _ in range(4)])
    check(total == 64 * 256, "%d pages" % total)
    private = all_private(led, peer)
    check(private >= 2 * 8 * 256, "%d private pages" % private)
    check(len(source.children()) == 5, "%d connections have %d children" % (5, len(source.children())))
    done(source, peer)
    check_log(source.log(), r"all of 16384 pages were sent", r"the destination has all it needs")


@test
def memfd(where):
    led = ledger(where, "-f", "-m", "16")
    source = Source(led).dump()
    check(all_shmem(led, [source.shmem()]) == 16 * 256, "not all pages")
    done(source, source.tasks())


@test
def all_kinds(where):
    """Memfds, anonymous memory, huge pages, a SysV segment in a namespace"""
    led = Ledger(where)
    led.args = [LEFTOVERS, led.report_file, "hugetlb", "sysv"]
    led.processes = 3
    with more_huge_pages():
        led.start()
        source = Source(led).dump()
        check(all_shmem(led, [source.shmem()]) > 1000, "only a few pages")
        huge = [s for s, p in objects(led.pids).items() if os.stat(p).st_blksize > PAGE]
        sysv = [int(s) for s in re.findall("^[0-9a-f]+-.* ([0-9]+) +/SYSV", read("/proc/%d/maps" % led.pids[0]), re.M)]
        left = numbers(led.images, "pagemap-shmem")
        check(huge and set(huge) <= set(left), "huge pages %s, left %s" % (huge, left))
        check(sysv and set(sysv) <= set(left), "SysV %s, left %s" % (sysv, left))
        done(source, source.tasks())


ODD = """
import os, sys, time
fd = os.memfd_create("odd")
os.ftruncate(fd, (3 << 20) + 777)
for off, data in (0, b"b" * 10000), (3 << 20, b"e" * 777):
    os.pwrite(fd, data, off)
pid = os.fork()
if not pid:
    os._exit(0)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
with open(sys.argv[1], "w") as f:
    f.write("ready pid=%d zombie=%d\\n" % (os.getpid(), pid))
time.sleep(1000)
"""


@test
def odd_size(where):
    """Holes are left out, the last page is filled up; and there is a task without memory"""
    led = Ledger(where)
    led.args = [sys.executable, "-c", ODD, led.report_file]
    led.processes = 1
    led.start()
    source = Source(led).dump()
    shmid = only_object(led)
    got = [(e["vaddr"] // PAGE, e["nr_pages"]) for e in entries(led.images, "pagemap-shmem", shmid)]
    check(got == [(0, 3), (768, 1)], "the pagemap is %s" % got)
    shmem = source.shmem()
    check(shmem.shmem(shmid, 0, 769) == b"b" * 10000 + bytes((3 << 20) - 10000) + b"e" * 777 + bytes(PAGE - 777),
          "the contents are wrong")
    source.check_refused(BY_REQUEST, lambda: shmem.shmem(shmid, 768 * PAGE, 2), "which ends at 0x301000")
    zombie = int(led.report("ready")[0]["zombie"])
    peer = source.tasks()
    source.check_refused(BY_REQUEST, lambda: peer.private(zombie, 0x10000, 1), "memory of task %d, of which" % zombie)
    done(source, source.tasks())


@test
def pipelined(where):
    """Answers come in the order of the questions"""
    led = ledger(where)
    source = Source(led).dump()
    shmid = only_object(led)
    peer = source.shmem()
    offsets = [i * 7919 % 2000 * PAGE for i in range(300)]
    for off in offsets:
        peer.send(GET_SHMEM, 3, off, shmid)
    path = objects(led.pids)[shmid]
    for off in offsets:
        check(peer.answer() == (ADD_F | PRESENT << 16, 3, off, shmid), "out of order")
        check(peer.recv(3 * PAGE) == contents_of(path, off, 3 * PAGE), "wrong at %#x" % off)
    done(source, source.tasks())


BAD_SHMEM = {
    "unknown": lambda shmid, end: (1, 0, shmid + 1),
    "unknown, high bits": lambda shmid, end: (1, 0, shmid | 1 << 32),
    "none": lambda shmid, end: (0, 0, shmid),
    "too many": lambda shmid, end: (MAX_PAGES + 1, 0, shmid),
    "huge": lambda shmid, end: (0xffffffff, 0, shmid),
    "unaligned": lambda shmid, end: (1, 1, shmid),
    "the end": lambda shmid, end: (1, end, shmid),
    "beyond": lambda shmid, end: (2, end - PAGE, shmid),
    "wraps": lambda shmid, end: (MAX_PAGES, (1 << 64) - PAGE, shmid),
}
BAD_PRIVATE = {
    "unknown": lambda pid, vaddr: (1, vaddr, 2),
    "no pid": lambda pid, vaddr: (1, vaddr, 0),
    "high bits": lambda pid, vaddr: (1, vaddr, pid | 1 << 32),
    "negative": lambda pid, vaddr: (1, vaddr, (1 << 64) - 1),
    "none": lambda pid, vaddr: (0, vaddr, pid),
    "huge": lambda pid, vaddr: (0xffffffff, vaddr, pid),
    "unaligned": lambda pid, vaddr: (1, vaddr + 8, pid),
    "no memory": lambda pid, vaddr: (1, 0, pid),
    "wraps": lambda pid, vaddr: (1, (1 << 64) - PAGE, pid),
}


@test
def bad_requests(where):
    """Each ends its connection with an error that says why, and nothing else"""
    led = ledger(where)
    source = Source(led, ["--lazy-retries", "100"]).dump()
    shmid = only_object(led)
    for ask in BAD_SHMEM.values():
        nr, vaddr, dst = ask(shmid, 8 << 20)
        peer = source.shmem()
        source.check_refused(BY_REQUEST, lambda: peer.pages(GET_SHMEM, dst, vaddr, nr),
                             r"Error.*The peer asks for.*shared memory %#x" % dst)
        peer.ended()
    pid = led.pids[0]
    vaddr = first_lazy(led, pid)["vaddr"]
    for name, ask in BAD_PRIVATE.items():
        nr, at, dst = ask(pid, vaddr)
        peer = source.tasks()
        before = len(re.findall("Error.*The peer asks for", source.log()))
        source.check_refused(BY_REQUEST, lambda: peer.pages(GET, dst, at, nr))
        peer.ended()
        check(len(re.findall("Error.*The peer asks for", source.log())) == before + 1, "no error for '%s'" % name)
    # what the other role, or a server of images, may be asked
    for role, cmd in ((TASKS, GET_SHMEM), (SHMEM, GET), (SHMEM, SWITCH), (TASKS, OPEN2), (SHMEM, OPEN2), (TASKS, 0),
                      (TASKS, HELLO), (TASKS, 0xffffffff)):
        peer = source.peer().hello(1, role)
        source.check_refused(BY_REQUEST, lambda: peer.pages(cmd, shmid, 0, 1), r"Command %u is not for" % cmd)
    all_shmem(led, [source.shmem()])
    done(source, source.tasks())


@test
def bad_greetings(where):
    led = ledger(where)
    source = Source(led).dump()
    for version in (0, 1, 3, 0xffffffff):
        source.check_refused(BY_VERSION, lambda: source.peer().hello(1, TASKS, version),
                             r"Error.*speaks version %u.*this is version 2" % version)
    for session, role in ((0, TASKS), (1, 0), (1, 3), (1, 1 << 32 | TASKS)):
        source.check_refused(BY_REQUEST, lambda: source.peer().hello(session, role), r"session is .*role %u" % role)
    # version 1 does not greet, and would take an answer for pages
    for cmd, dst in ((GET, led.pids[0]), (CLOSE, 0), (GET_SHMEM, only_object(led))):
        peer = source.peer()
        peer.send(cmd, 1, 0, dst)
        check(peer.sk.recv(1) == b"", "it is answered")
    source.lines(r"Error.*speaks version 1.*left to version 2: use the same CRIU")
    check(source.criu.poll() is None and states(led.pids).strip("t") == "", "the tasks are not held any more")
    all_shmem(led, [source.shmem()])
    done(source, source.tasks())


@test
def half_messages(where):
    """A message that does not go on ends its connection in time; a silent peer may be silent"""
    led = ledger(where)
    source = Source(led).dump()
    peer, quiet, stalled = source.tasks(), source.shmem(), source.shmem()
    half, silent = source.peer(), source.peer()
    shmid = only_object(led)
    stalled.sk.sendall(IOV.pack(GET_SHMEM, 1, 0, shmid)[:10])
    half.sk.sendall(b"\0\1")
    began = time.monotonic()
    stalled.ended()
    half.ended()
    took = time.monotonic() - began
    check(1 < took < 8, "it took %.1f s" % took)
    source.lines(r"Error.*Can't receive a message, got 10 of 24 bytes", r"Error.*got 2 of 24 bytes")
    cut = source.shmem()
    cut.sk.sendall(IOV.pack(GET_SHMEM, 1, 0, shmid)[:23])
    cut.cut()
    source.lines(r"Error.*has gone within a message, after 23 of 24 bytes")
    # these were silent for longer
    check(len(quiet.shmem(shmid, 0, 1)) == PAGE, "no answer")
    silent.hello(1, SHMEM)
    done(source, peer)


@test
def reader_stalls(where):
    """A peer that asks and does not read is lost; others are served meanwhile"""
    led = ledger(where, "-m", "64", "-p", "1")
    source = Source(led).dump()
    shmid = only_object(led)
    peer, stalled = source.tasks(), source.shmem()
    for i in range(16):
        stalled.send(GET_SHMEM, 1024, i * 1024 * PAGE, shmid)
    all_shmem(led, [source.shmem()])
    source.lines(r"Error.*Can't send shared memory.*does not read it", r"connection for shared memory is lost")
    done(source, peer)


def lost(where, how, switched, *expect, args=()):
    led = ledger(where)
    source = Source(led, ["--lazy-lost", how, "--lazy-retries", "3"] + list(args)).dump()
    shmid = only_object(led)
    peer = source.tasks()
    source.shmem().shmem(shmid, 0, 16)
    if switched:
        peer.switch()
    peer.cut()
    source.lines(r"The destination was lost \(1 of 3 times\), it has 2 seconds to come back, the tasks stay stopped",
                 r"Shared memory %#x: 2032 of 2048 pages were not sent, the first is at 0x10000" % shmid)
    check(source.criu.poll() is None and "R" not in states(led.pids) + "S", "the tasks run")
    source.finish(1, r"Error.*given up: it did not come back in time", *expect)
    return led


@test
def lost_before_switch(where):
    check_running(lost(where, "resume", False, "the tasks can't have run there: they go on"))


@test
def lost_before_switch_stop(where):
    check_stopped(lost(where, "stop", False, "they stay stopped"))


@test
def lost_before_switch_kill(where):
    check_gone(lost(where, "kill", False, "they are killed"))


@test
def lost_after_switch(where):
    check_stopped(lost(where, "resume", True, "the tasks may have run there: they stay stopped"))


@test
def lost_after_switch_kill(where):
    check_gone(lost(where, "kill", True, "they are killed"))


@test
def stopped_tasks_can_go_on(where):
    """What --lazy-lost=stop leaves is whole"""
    led = lost(where, "stop", False, "they stay stopped")
    wait_for(lambda: set(states(led.pids)) == {"T"}, "the tasks are not stopped", 5)
    for pid in led.pids:
        os.kill(pid, signal.SIGCONT)
    check_running(led)


@test
def killed_server(where):
    """Whatever becomes of the server, tasks that were switched over don't run"""
    led = ledger(where)
    source = Source(led).dump()
    source.tasks().switch()
    children = source.children()
    source.criu.kill()
    finish(source.criu)
    wait_for(lambda: not any(read("/proc/%d/comm" % p) for p in children), "children are left", 5)
    check_stopped(led)


@test
def comes_back(where):
    """A new connection carries on with what is missing, before and after SWITCH"""
    led = ledger(where)
    source = Source(led, ["--lazy-retries", "3"]).dump()
    peer, shmem = source.tasks(), source.shmem()
    shmid = only_object(led)
    shmem.shmem(shmid, 0, 1024)
    peer.cut()
    source.lines(r"1 of 3 times")
    peer = source.tasks()
    peer.switch()
    peer.cut()
    shmem.cut()
    source.lines(r"2 of 3 times", r"1024 of 2048 pages were not sent")
    peer = source.tasks()
    peer.switch()
    # a connection which the server does not know to be lost is replaced
    again = source.tasks()
    peer.ended()
    source.lines(r"is replaced", r"3 of 3 times")
    all_shmem(led, [source.shmem()])
    all_private(led, again)
    done(source, again)


@test
def shmem_before_tasks(where):
    """What is lost before the destination has come for tasks, and is back, is not waited for any more"""
    for sessions in ((1, 1), (1, 2)):
        here = os.path.join(where, "%d%d" % sessions)
        os.mkdir(here)
        led = ledger(here)
        source = Source(led).dump()
        source.shmem(sessions[0]).cut()
        source.lines("1 of 5 times")
        peer = source.shmem(sessions[1])
        gone = time.monotonic() + 3  # longer than --lazy-timeout
        while time.monotonic() < gone:
            all_shmem(led, [peer])
        done(source, source.tasks(sessions[1]))


@test
def version_1_is_not_left_for_version_2(where):
    """It never says that the tasks run there"""
    led = ledger(where)
    led.dump()
    source = Source(led).page_server()
    source.tasks().cut()
    source.lines("1 of 5 times")
    pid = led.pids[0]
    e = first_lazy(led, pid)
    old = source.peer()
    check(len(old.private(pid, e["vaddr"], 1)) == PAGE, "no answer")
    source.check_refused(BY_SESSION, source.tasks, r"another destination has taken the tasks")
    old.close()
    source.finish(0)


@test
def never_tells_how_things_stand(where):
    """Connections for shared memory alone are no destination, when they have ended"""
    led = ledger(where)
    source = Source(led).dump()
    peer = source.shmem()
    all_shmem(led, [peer])
    peer.cut()
    source.finish(1, r"Error.*given up: it did not come back in time", "they go on")
    check_running(led)


@test
def comes_back_too_often(where):
    led = ledger(where)
    source = Source(led, ["--lazy-retries", "2"]).dump()
    for i in range(3):
        source.tasks().cut()
        source.lines(r"the connection for tasks is lost(.|\n)*" * (i + 1))
    source.finish(1, r"Error.*lost too often", "they go on")
    check_running(led)


@test
def other_sessions(where):
    """A second destination is refused while there is one, and for ever after SWITCH"""
    led = ledger(where)
    source = Source(led).dump()
    first = source.tasks(1)
    for role in (TASKS, SHMEM):
        source.check_refused(BY_SESSION, lambda: source.peer().hello(2, role), r"another destination is connected")
    first.cut()
    source.lines(r"1 of 5 times")
    second = source.tasks(2)
    second.switch()
    second.cut()
    source.lines(r"tasks is lost(.|\n)*tasks is lost")
    source.check_refused(BY_SESSION, lambda: source.peer().hello(1, TASKS), r"another destination has taken the tasks")
    second = source.tasks(2)
    done(source, second)


@test
def many_connections(where):
    """At most 256; those that have said nothing give way"""
    led = ledger(where)
    source = Source(led).dump()
    silent = [source.peer() for _ in range(256)]
    wait_for(lambda: len(source.children()) == 256, "not all are served")
    peer = source.tasks()
    silent[0].ended()
    others = []
    for _ in range(255):
        others.append(source.shmem())
    source.peer().ended()
    source.lines(r"there are 256 connections, that is all that can be")
    check(len(others[-1].shmem(only_object(led), 0, 1)) == PAGE, "no answer")
    done(source, peer)


@test
def version_1(where):
    """Without the plugin: as ever, but what was not closed is lost"""
    led = ledger(where)
    source = Source(led, env={"CRIU_LAZY_SHMEM": "off"}).dump()
    check(present(entries(led.images, "pagemap-shmem", only_object(led))[0]), "shared memory is not in the images")
    peer = source.peer()
    check(all_private(led, peer) > 0, "no pages")
    peer.close()
    source.finish(0)
    check_gone(led)


@test
def version_1_lost(where):
    """Without the plugin the end of a connection is the end, as with unpatched CRIU"""
    led = ledger(where)
    source = Source(led, env={"CRIU_LAZY_SHMEM": "off"}).dump()
    all_private(led, source.peer())
    source.peers[-1].cut()
    source.finish(0)
    check_gone(led)


@test
def version_1_bad_requests(where):
    """The old server checks what it is asked, too"""
    for i, ask in enumerate(BAD_PRIVATE.values()):
        here = os.path.join(where, str(i))
        os.mkdir(here)
        led = ledger(here, "-m", "1", "-p", "1")
        source = Source(led, env={"CRIU_LAZY_SHMEM": "off"}).dump()
        vaddr = first_lazy(led, led.pids[0])["vaddr"]
        nr, at, dst = ask(led.pids[0], vaddr)
        peer = source.peer()
        peer.send(GET, nr, at, dst)
        peer.ended()
        source.finish(1, r"Error.*The peer asks for")
        led.kill()


@test
def restore_without_plugin(where):
    """Contents that are not there are never taken for zeroes"""
    led = ledger(where)
    source = Source(led).dump()
    done(source, source.tasks())
    empty = os.path.join(where, "none")
    os.mkdir(empty)
    led.start_daemon(env={"CRIU_LIBS_DIR": empty})
    status = led.restore("--lazy-pages", env={"CRIU_LIBS_DIR": empty})
    led.check_failed_restore(status, r"Error.*contents of shared memory .* are on the page server")


@test
def from_images(where):
    """criu page-server --lazy-pages serves shared memory, too, to any number of versions"""
    led = ledger(where)
    before = {shmid: contents_of(path, 0, 8 << 20) for shmid, path in objects(led.pids).items()}
    led.dump()
    shmid = only_object(led)
    source = Source(led).page_server()
    peer, shmem = source.tasks(), source.shmem()
    got = b"".join(shmem.shmem(shmid, off, 512) for off in range(0, 8 << 20, 512 * PAGE))
    check(got == before[shmid], "the contents are wrong")
    for nr, vaddr, dst in (ask(shmid, 8 << 20) for ask in BAD_SHMEM.values()):
        source.check_refused(BY_REQUEST, lambda: source.shmem().pages(GET_SHMEM, dst, vaddr, nr), "The peer asks for")
    pid = led.pids[0]
    e = first_lazy(led, pid)
    check(len(peer.private(pid, e["vaddr"], 1)) == PAGE, "no answer")
    peer.close()
    source.finish(0)

    source = Source(led).page_server()
    old = source.peer()
    check(len(old.private(pid, e["vaddr"], 1)) == PAGE, "no answer")
    old.close()
    source.finish(0)


@test
def from_images_with_parents(where):
    """Each page from the images that have it"""
    led = ledger(where)
    before = {shmid: contents_of(path, 0, 8 << 20) for shmid, path in objects(led.pids).items()}
    led.dump()
    shmid = only_object(led)
    parent = led.images
    led.images = os.path.join(where, "child")
    shutil.copytree(parent, led.images)
    os.symlink("../images", os.path.join(led.images, "parent"))

    # 100 pages are its own, with other contents, and 50 are in none
    path = os.path.join(led.images, "pagemap-shmem-%d.img" % shmid)
    with open(path, "rb") as f:
        img = pycriu.images.load(f)
    with open(os.path.join(led.images, "pages-%d.img" % img["entries"][0]["pages_id"]), "wb") as f:
        f.write(b"own!" * (100 * PAGE // 4))
    img["entries"][1:] = [{"vaddr": a * PAGE, "nr_pages": b - a, "flags": flags} for a, b, flags in (
        (0, 500, IN_PARENT), (500, 600, PRESENT), (650, 2048, IN_PARENT))]
    with open(path, "wb") as f:
        pycriu.images.dump(img, f)
    want = before[shmid][:500 * PAGE] + b"own!" * (100 * PAGE // 4) + bytes(50 * PAGE) + before[shmid][650 * PAGE:]

    source = Source(led).page_server()
    peer, shmem = source.tasks(), source.shmem()
    for off in list(range(0, 2048, 128)) + [1900, 640, 3]:
        check(shmem.shmem(shmid, off * PAGE, 128) == want[off * PAGE:(off + 128) * PAGE], "wrong at page %d" % off)
    peer.close()
    source.finish(0)


@test
def from_images_that_were_left(where):
    """Contents that are with another page server"""
    led = ledger(where)
    source = Source(led).dump()
    done(source, source.tasks())
    # private memory was left, too: the server has to say no more than that
    for number in numbers(led.images, "pagemap"):
        path = os.path.join(led.images, "pagemap-%d.img" % number)
        with open(path, "rb") as f:
            img = pycriu.images.load(f)
        img["entries"] = [img["entries"][0]] + [e for e in img["entries"][1:] if present(e)]
        with open(path, "wb") as f:
            pycriu.images.dump(img, f)
    source = Source(led).page_server()
    peer = source.tasks()
    source.check_refused(BY_READ, lambda: source.shmem().shmem(only_object(led), 0, 1),
                         r"Error.*is not in the images, but with the page server of their dump")
    peer.close()
    source.finish(0)


def certificates(where):
    """A CA, and one certificate for both ends"""
    def openssl(*args):
        subprocess.run(["openssl"] + list(args), cwd=where, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key",
            "-out", "ca.pem")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", "key.pem", "-out", "req.pem")
    openssl("x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-out", "cert.pem")
    return [os.path.join(where, n) for n in ("ca.pem", "cert.pem", "key.pem")]


@test
def tls(where):
    """The same over TLS; a peer without a certificate, or one that says nothing, gets nothing"""
    ca, cert, key = certificates(where)
    led = ledger(where, "-m", "16")
    source = Source(led, tls=["--tls", "--tls-cacert", ca, "--tls-cert", cert, "--tls-key", key,
                              "--tls-no-cn-verify"]).dump()
    silent = Peer(source.port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)
    source.tls = context
    try:
        source.tasks()
        check(False, "it is served without a certificate")
    except (Gone, ssl.SSLError, ConnectionError):
        pass
    source.lines(r"Error.*(TLS handshake failed|Unable to verify TLS peer)")
    context.load_cert_chain(cert, key)
    peer = source.tasks()
    check(all_shmem(led, [source.shmem() for _ in range(3)]) == 16 * 256, "not all pages")
    all_private(led, peer)
    source.shmem().cut()
    source.lines("connection for shared memory is lost")
    silent.ended()
    done(source, peer)


@test
def tls_silent_server(where):
    """The daemon does not wait for ever for a server that does not shake hands"""
    ca, cert, key = certificates(where)
    led = ledger(where)
    led.dump()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        led.start_daemon(args=["--page-server", "--address", "127.0.0.1", "--port", str(silent.getsockname()[1]),
                               "--lazy-timeout", "2", "--tls", "--tls-cacert", ca, "--tls-cert", cert, "--tls-key",
                               key, "--tls-no-cn-verify"])
        status = led.restore("--lazy-pages")
        check(led.finish_daemon(20) != 0, "the daemon is content")
    led.check_failed_restore(status, r"Error.*TLS handshake timed out", log="lazy-pages.log")


main()
