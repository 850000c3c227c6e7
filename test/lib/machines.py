# SPDX-License-Identifier: GPL-2.0-only
"""Two machines on this one, joined by a network link, and a migration from the one
to the other. A machine is a set of namespaces (machine.c); both see the files of this
one, and each has a directory of its own under the same name, `here`."""

import ctypes
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import lib  # noqa: E402

MACHINE = os.path.join(lib.BUILD, "e2e", "machine")
PLAIN = os.path.join(lib.BUILD, "criu-plain", "criu", "criu")
CLONE_NEWNET = 0x40000000
PORT = 25000
ADDRESSES = ("10.25.0.1", "10.25.0.2")


def in_thread(fn):
    """Starts fn(); returns a function that waits for it and hands over what came of it."""
    out = {}

    def body():
        try:
            out["value"] = fn()
        except BaseException as e:  # raised again where it is waited for
            out["error"] = e

    def join(timeout=120):
        thread.join(timeout * lib.SLOW)
        lib.check(not thread.is_alive(), "%s does not end" % fn)
        if "error" in out:
            raise out["error"]
        return out["value"]

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return join


class Machine:
    def __init__(self, where, name, here):
        self.name = name
        self.dir = os.path.join(where, name)
        self.own = os.path.join(self.dir, "here")
        self.here = here
        self.images = os.path.join(self.dir, "images")
        self.none = os.path.join(self.dir, "none")  # where unpatched CRIU finds no plugins
        for d in (self.own, self.images, self.none, here):
            os.makedirs(d, exist_ok=True)
        self.holder = subprocess.Popen([MACHINE, "init", self.own, here], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, text=True)
        lib.managed.add(self.holder)
        line = self.holder.stdout.readline()
        lib.check(line, "%s: no namespaces can be made for it, see above" % name)
        self.init = int(line)
        self.run("ip", "link", "set", "lo", "up")

    # processes

    def popen(self, *args, out=None, env=None, pass_fds=()):
        """The Popen object is that of a process which waits for the one that is wanted:
        its pid is .real; out is a file, as the machine sees it."""
        ours, theirs = os.pipe()
        try:
            p = lib.popen([MACHINE, "run", "-p", str(theirs)] + (["-o", out] if out else []) + [str(self.init)]
                          + list(args), env=env, pass_fds=[theirs] + list(pass_fds))
        finally:
            os.close(theirs)
        with os.fdopen(ours) as f:
            line = f.readline()
        lib.check(line, "%s: can't run %s" % (self.name, args[0]))
        p.real = int(line)
        return p

    def run(self, *args):
        out = os.path.join(self.dir, "commands.out")
        status = lib.finish(self.popen(*args, out=out))
        lib.check(status == 0, "%s: %s: status %d: %s" % (self.name, " ".join(args), status, lib.read(out)[-500:]))

    def pids(self):
        """All that run here, as we see them, but the init process"""
        mine = os.readlink("/proc/%d/ns/pid" % self.init)
        result = []
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and int(name) != self.init and os.readlink("/proc/%s/ns/pid" % name) == mine:
                    result.append(int(name))
            except OSError:
                pass
        return result

    def named(self, comm):
        return [p for p in self.pids() if lib.read("/proc/%d/comm" % p).strip() == comm and lib.alive(p)]

    def inner(self, pid):
        """The machine's own number of a pid of ours"""
        return int(re.search(r"^NSpid:.*\s(\d+)$", lib.read("/proc/%d/status" % pid), re.M).group(1))

    def outer(self, inner):
        """Our number of a pid of the machine, or None"""
        for pid in self.pids():
            m = re.search(r"^NSpid:.*\s(\d+)$", lib.read("/proc/%d/status" % pid), re.M)
            if m and int(m.group(1)) == inner and lib.alive(pid):
                return pid
        return None

    # network

    def on_net(self, fn):
        """What fn() returns, in the network of this machine"""
        def inside():
            fd = os.open("/proc/%d/ns/net" % self.init, os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(fd, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
                return fn()
            finally:
                os.close(fd)

        return in_thread(inside)()

    def counters(self):
        """Bytes received and sent over the link"""
        m = re.search(r"^\s*wire:\s*(\d+)(?:\s+\d+){7}\s+(\d+)", lib.read("/proc/%d/net/dev" % self.init), re.M)
        return int(m.group(1)), int(m.group(2))

    # criu

    def criu(self, action, *args, log=None, env=None, criu=lib.CRIU, pass_fds=(), level="-v4"):
        libs = self.none if criu == PLAIN else lib.PLUGIN_DIR
        env = {**os.environ, "CRIU_LIBS_DIR": libs, **(env or {})}
        return self.popen(criu, action, "-D", self.images, "-W", self.dir, "-o", log or action + ".log", level,
                          *args, env=env, pass_fds=pass_fds, out=os.path.join(self.dir, action + ".out"))

    def criu_ready(self, action, *args, **kwargs):
        """The same, when it has told that it listens, or has failed"""
        ours, theirs = os.pipe()
        try:
            p = self.criu(action, "--status-fd", str(theirs), *args, pass_fds=[theirs], **kwargs)
        finally:
            os.close(theirs)
        try:
            lib.wait_for(lambda: select.select([ours], [], [], 0)[0], "criu %s is not ready" % action, 60)
            p.ready = os.read(ours, 1) != b""
        finally:
            os.close(ours)
        return p

    def log(self, name):
        return lib.read(os.path.join(self.dir, name))

    def errors(self, name):
        return "\n".join(line for line in self.log(name).splitlines() if "Error" in line)

    def stop(self):
        """All that runs here dies with the init process."""
        if lib.alive(self.init):
            os.kill(self.init, signal.SIGKILL)
        lib.finish(self.holder)
        self.holder.stdout.close()


class Pair:
    """Two machines and the link between them; `with` sees to it that nothing is left."""

    def __init__(self, where):
        self.where = where
        self.here = os.path.join(where, "here")
        self.machines = []

    def __enter__(self):
        try:
            for name in ("source", "destination"):
                self.machines.append(Machine(self.where, name, self.here))
            self.source, self.destination = self.machines
            self.join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for m in self.machines:
            m.stop()

    def join(self):
        """The ends are made where they belong; with the namespaces the link goes."""
        self.make_link()
        # what was queued in the source must find room: there the queue may be one over its limit
        self.machines[1].run("sh", "-c", "echo 64 >/proc/sys/net/unix/max_dgram_qlen")
        for m, address in zip(self.machines, ADDRESSES):
            m.run("ip", "addr", "add", address + "/24", "dev", "wire")
            m.run("ip", "link", "set", "wire", "up")

    def make_link(self):
        s, d = self.machines
        tmp = "d%d" % s.init
        status = lib.finish(lib.popen(["ip", "link", "add", "name", tmp + "a", "netns", str(s.init), "type", "veth",
                                       "peer", "name", tmp + "b", "netns", str(d.init)]))
        lib.check(status == 0, "no veth link can be made")
        s.run("ip", "link", "set", tmp + "a", "name", "wire")
        d.run("ip", "link", "set", tmp + "b", "name", "wire")

    def copy(self, *names):
        """Copies directories of the source over the link, by sendfile() and splice().
        Returns the number of bytes."""
        files = []
        for name in names:
            top = os.path.join(self.source.dir, name)
            files += [(f, os.path.getsize(os.path.join(self.source.dir, f))) for f in
                      sorted(os.path.join(name, x) for x in os.listdir(top)) if
                      os.path.isfile(os.path.join(self.source.dir, f))]
        listener = self.destination.on_net(lambda: socket.create_server((ADDRESSES[1], PORT + 99)))
        sending = self.source.on_net(lambda: socket.create_connection((ADDRESSES[1], PORT + 99)))
        receiving = listener.accept()[0]
        listener.close()
        with sending, receiving:
            done = in_thread(lambda: self.receive(receiving))
            for f, size in files:
                name = f.encode()
                with open(os.path.join(self.source.dir, f), "rb") as src:
                    mode = os.fstat(src.fileno()).st_mode & 0o777  # restore compares it
                    sending.sendall(struct.pack("<IIQ", len(name), mode, size) + name)
                    at = 0
                    while at < size:
                        at += os.sendfile(sending.fileno(), src.fileno(), at, size - at)
            sending.shutdown(socket.SHUT_WR)
            done()
        return sum(size for _, size in files)

    def receive(self, sk):
        def exactly(n):
            data = b""
            while len(data) < n:
                more = sk.recv(n - len(data))
                if not more:
                    return data
                data += more
            return data

        r, w = os.pipe()
        try:
            while True:
                head = exactly(16)
                if not head:
                    return
                length, mode, size = struct.unpack("<IIQ", head)
                with open(os.path.join(self.destination.dir, exactly(length).decode()), "wb") as f:
                    os.fchmod(f.fileno(), mode)
                    while size:
                        n = os.splice(sk.fileno(), w, min(size, 65536))
                        lib.check(n, "the copy of the images is short")
                        size -= n
                        while n:
                            n -= os.splice(r, f.fileno(), n)
        finally:
            os.close(r)
            os.close(w)


class Migration:
    """A tree of tasks in the source's machine, and its way to the other."""

    def __init__(self, pair, *command, env=None):
        self.pair, self.source, self.destination = pair, pair.source, pair.destination
        self.server = self.daemon = None
        self.port = PORT
        out = os.path.join(pair.here, "out")  # on each side its own
        # pids that no command in the destination has by chance
        self.source.run("sh", "-c", "echo 2000 >/proc/sys/kernel/ns_last_pid")
        self.process = self.source.popen(*command, out=out, env=env)
        self.root = self.source.inner(self.process.real)

    # eagerly, by CRIU as it is

    def dump(self, criu=PLAIN):
        status = lib.finish(self.source.criu("dump", "-t", str(self.root), criu=criu), 120)
        lib.check(status == 0, "dump: status %d: %s" % (status, self.source.errors("dump.log")))

    # lazily

    def dump_lazy(self, *args, **kwargs):
        """Returns when the server listens."""
        self.server = self.source.criu_ready("dump", "-t", str(self.root), "--lazy-pages", "--port", str(self.port),
                                             *args, **kwargs)
        lib.check(self.server.ready, "dump --lazy-pages: " + self.source.errors("dump.log"))
        return self.server

    def start_daemon(self, *args, address=ADDRESSES[0], port=None, **kwargs):
        self.daemon = self.destination.criu_ready("lazy-pages", "--page-server", "--address", address, "--port",
                                                  str(port or self.port), *args, **kwargs)
        return self.daemon

    def start_restore(self, *args, **kwargs):
        return self.destination.criu("restore", "-d", *args, **kwargs)

    def restore(self, *args, **kwargs):
        status = lib.finish(self.start_restore(*args, **kwargs), 120)
        lib.check(status == 0, "restore: status %d: %s; daemon: %s" % (
            status, self.destination.errors("restore.log"), self.destination.errors("lazy-pages.log")))

    def copy(self):
        return self.pair.copy("images", "here")

    def lazily(self, *daemon_args):
        self.dump_lazy()
        self.copy()
        self.start_daemon(*daemon_args)
        self.restore("--lazy-pages")

    def finish(self, timeout=60):
        """Both ends say that all has arrived."""
        for p, machine, log in ((self.daemon, self.destination, "lazy-pages.log"),
                                (self.server, self.source, "dump.log")):
            status = lib.finish(p, timeout)
            lib.check(status == 0, "%s: status %d: %s" % (log, status, machine.errors(log)))


def clear(machine):
    shutil.rmtree(machine.images)
    os.makedirs(machine.images)
