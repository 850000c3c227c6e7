#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""PostgreSQL with 1 GiB of warm shared buffers, restored eagerly by unpatched CRIU and lazily by ours.

    BENCH_PG_MB (1024, quick 256)  and those of benchlib.py

It does not run as root, and root without CAP_SYS_RESOURCE can not dump tasks of another user.
So the server is the first process of a container with a user namespace, of runc, and both
restores are "runc restore". Its /usr is the machine's. The tables fill most of the shared
buffers and were read into them; the clients only read. fsync, autovacuum, huge pages and
parallel queries are off.

A client asks from the start of restore on until it has its first answer; then pgbench -S has
four clients. Times count from the start of runc restore. After each run a query over all
rows must give what it gave before the dump, and the daemon must have ended with 0."""

import glob
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

import benchlib
from benchlib import lib, median, spread
from container_lib import Container, Rig, kill_tree

TITLE = "PostgreSQL in a container, warm shared buffers"
MIB = int(os.environ.get("BENCH_PG_MB", 256 if benchlib.QUICK else 1024))
SCALE = MIB * 7 // 8 // 15  # a unit of pgbench is 15 MiB of table and index
SECONDS = 2 if benchlib.QUICK else 3  # of pgbench
BIN_MS = 100
CLIENTS = 4
USER_ID, HOST_ID = 26, 100000  # the server's in its namespace, and what the namespace's root is outside
DEVICE = "/dev/userfaultfd"
SETTINGS = {
    "shared_buffers": "%dMB" % MIB, "shared_memory_type": "mmap", "dynamic_shared_memory_type": "mmap", "huge_pages": "off",
    "unix_socket_directories": "/pg", "listen_addresses": "", "max_connections": 20, "fsync": "off", "autovacuum": "off",
    "max_wal_size": "8GB", "checkpoint_timeout": "1d", "bgwriter_lru_maxpages": 0, "jit": "off",
    "max_parallel_workers_per_gather": 0, "max_parallel_maintenance_workers": 0,
}
CHECKSUM = "select count(*), sum(hashint4(aid)), sum(hashint4(abalance)), sum(hashbpchar(filler)) from pgbench_accounts"


def binaries():
    """The directory with Debian's programs of the newest version"""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda p: int(p.split("/")[4]))
    lib.check(found, "no PostgreSQL; apt-get install $(scripts/deps.sh list bench)")
    return os.path.dirname(found[-1])


class Client:
    """As much of the protocol as one query takes, so that the first answer is not that of a program that has to start"""

    def __init__(self, path, timeout=60):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(path)
            words = b"user\0postgres\0database\0postgres\0\0"
            self.sock.sendall(struct.pack("!II", len(words) + 8, 3 << 16) + words)
            self.answer()
        except BaseException:
            self.sock.close()
            raise

    def take(self, n):
        data = b""
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise ConnectionError("the server closed the connection")
            data += more
        return data

    def answer(self):
        """The columns of all rows, until the server is ready for another query"""
        columns = []
        while True:
            kind, length = struct.unpack("!cI", self.take(5))
            body = self.take(length - 4)
            if kind == b"E":
                raise ConnectionError(body.decode(errors="replace").replace("\0", " "))
            if kind == b"D":
                at = 2
                for _ in range(struct.unpack_from("!H", body)[0]):
                    size = struct.unpack_from("!i", body, at)[0]
                    columns.append(body[at + 4:at + 4 + max(size, 0)].decode())
                    at += 4 + max(size, 0)
            if kind == b"Z":
                return columns

    def query(self, text):
        text = text.encode() + b"\0"
        self.sock.sendall(b"Q" + struct.pack("!I", len(text) + 4) + text)
        return self.answer()

    def close(self):
        self.sock.close()


class Server(Container):
    """The container. /pg in it, with the data and the socket, is self.data outside."""

    def __init__(self, where):
        self.data = os.path.join(where, "pg")
        self.programs = binaries()
        super().__init__(where, "postgres", user_ns=True)
        if os.path.exists(DEVICE):
            self.allow_device(DEVICE)

    def make_spec(self, shared, private):
        spec = super().make_spec(shared, private)
        for name in ("bin", "sbin", "lib", "lib64"):
            os.symlink("usr/" + name, os.path.join(self.rootfs, name))
        for name in ("usr", "etc", "pg", "tmp"):
            os.mkdir(os.path.join(self.rootfs, name))
        with open(os.path.join(self.rootfs, "etc", "passwd"), "w") as f:
            f.write("postgres:x:%d:%d::/pg:/bin/sh\n" % (USER_ID, USER_ID))
        settings = " ".join("-c %s='%s'" % s for s in SETTINGS.items())
        spec["process"].update(args=["sh", "-c", "exec %s/postgres -D /pg/data %s >>/pg/log 2>&1" % (self.programs, settings)],
                               user={"uid": USER_ID, "gid": USER_ID}, cwd="/pg", env=["PATH=/usr/bin", "LC_ALL=C"])
        spec["mounts"] += [{"destination": "/usr", "source": "/usr", "type": "bind", "options": ["rbind", "ro"]},
                           {"destination": "/pg", "source": self.data, "type": "bind", "options": ["rbind", "rw"]}]
        return spec

    def make_data(self):
        """initdb wants a user with a name, so it runs as the one of Debian's package"""
        os.mkdir(self.data)
        shutil.chown(self.data, "postgres")
        out = os.path.join(self.dir, "initdb.log")
        with open(out, "w") as f:
            status = subprocess.run(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", self.programs + "/initdb",
                                     "-D", self.data + "/data", "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8",
                                     "--no-sync"], stdin=subprocess.DEVNULL, stdout=f, stderr=f, check=False).returncode
        lib.check(status == 0, "initdb: " + lib.read(out))
        for path in [self.data] + [os.path.join(d, n) for d, dirs, files in os.walk(self.data) for n in dirs + files]:
            os.chown(path, HOST_ID + USER_ID, HOST_ID + USER_ID)

    def pids(self):
        lib.reap()
        return [pid for pid in self.cgroup.pids() if lib.alive(pid)]

    def said(self):
        return lib.read(os.path.join(self.data, "log"))[-2000:]

    def connect(self):
        return Client(os.path.join(self.data, ".s.PGSQL.5432"))

    def first_answer(self, sql, timeout=60):
        end = time.monotonic() + timeout
        while True:
            try:
                client = self.connect()
                columns = client.query(sql)
                client.close()
                return columns
            except OSError as e:  # not there yet
                lib.check(time.monotonic() < end, "no answer in %d s: %s\n%s\n%s" % (
                    timeout, e, self.said(), self.errors("runc-restore.log", "restore.log", "lazy-pages.log")))
                time.sleep(0.002)

    def query(self, sql):
        client = self.connect()
        try:
            return client.query(sql)
        finally:
            client.close()

    def run(self):
        status = self.runc("run", "-d", "--bundle", self.bundle, self.name)
        lib.check(status == 0, "runc run: %s" % self.errors("runc-run.log"))
        self.first_answer("select 1")
        return self

    def start_pgbench(self, *args):
        self.out = open(os.path.join(self.dir, "pgbench.out"), "w")
        return lib.popen([self.programs + "/pgbench", "-h", self.data, "-U", "postgres"] + [str(a) for a in args] + ["postgres"],
                         stdout=self.out, stderr=self.out, cwd=self.dir)

    def finish_pgbench(self, child):
        status = lib.finish(child, 300)
        self.out.close()
        lib.check(status == 0, "pgbench: " + lib.read(os.path.join(self.dir, "pgbench.out"))[-2000:] + self.said())

    def fill(self):
        """Tables, all of them in the shared buffers, and nothing to write"""
        self.finish_pgbench(self.start_pgbench("-i", "-q", "-s", SCALE))
        self.query("create extension pg_prewarm")
        for name in ("pgbench_accounts", "pgbench_accounts_pkey"):
            self.query("select pg_prewarm('%s')" % name)
        self.query("checkpoint")
        self.query("create extension pg_buffercache")
        return int(self.query("select count(*) from pg_buffercache where relfilenode is not null")[0]) // 128

    def dump(self):
        self.must_checkpoint()
        self.log_size = os.path.getsize(os.path.join(self.data, "log"))
        for path in benchlib.files_in(self.images):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        benchlib.warm(self.images)

    def start_lazy_daemon(self):
        """With the log of default length"""
        ready, status = os.pipe()
        self.daemon = benchlib.Child([benchlib.OURS, "lazy-pages", "-D", self.images, "-W", self.work, "-o", "lazy-pages.log", "-v2",
                                      "--status-fd", str(status)], env=self.env, pass_fds=[status], stdin=subprocess.DEVNULL)
        lib.managed.add(self.daemon)
        os.close(status)
        said = os.read(ready, 1)
        os.close(ready)
        lib.check(said, "the daemon does not start: " + self.errors("lazy-pages.log"))

    def stop(self):
        for pid in self.pids():
            kill_tree(pid)
        lib.wait_for(lambda: not self.pids(), "the server can not be killed")
        self.runc("delete", "--force", self.name)
        os.truncate(os.path.join(self.data, "log"), self.log_size)  # an open file must be as it was


def transactions(where, began):
    """Seconds from then to the end of each transaction that pgbench logged"""
    result = []
    for path in glob.glob(os.path.join(where, "transactions.*")):
        with open(path) as f:
            for line in f:
                words = line.split()
                result.append(int(words[4]) + int(words[5]) / 1e6 - began)
        os.unlink(path)
    return sorted(result)


def measure(server, lazily, expected):
    benchlib.have_memory(MIB * 3 // 2 + 512)
    server.daemon = None
    # runc finds CRIU in PATH; unpatched CRIU finds no plugin
    env = dict(server.env) if lazily else dict(os.environ, CRIU_LIBS_DIR=benchlib.NO_PLUGINS,
                                                PATH=os.path.dirname(benchlib.PLAIN) + ":" + os.environ["PATH"])
    if lazily:
        server.start_lazy_daemon()
    offset = time.time() - time.monotonic()
    began = time.monotonic()
    restore = server.start_runc("restore", "-d", "--bundle", server.bundle, "--image-path", server.images, "--work-path", server.work,
                                *(["--lazy-pages"] if lazily else []), server.name, env=env)
    server.first_answer("select abalance from pgbench_accounts where aid = %d" % (SCALE * 50000))
    first = time.monotonic() - began
    server.finish_pgbench(server.start_pgbench("-n", "-S", "-c", CLIENTS, "-j", 1, "-T", SECONDS, "-l", "--log-prefix=transactions"))
    status = lib.finish(restore, 60)
    lib.check(status == 0, "runc restore: " + server.errors("runc-restore.log", "restore.log", "lazy-pages.log"))
    ends = transactions(server.dir, began + offset)
    lib.check(ends, "pgbench logged no transactions")
    result = {"first_query_ms": first * 1e3, "first_transaction_ms": ends[0] * 1e3, "daemon_cpu_s": None, "complete_ms": None}
    result["per_bin"] = [0] * ((int(first * 1000) + SECONDS * 1000) // BIN_MS)
    for end in ends:
        if int(end * 1000) // BIN_MS < len(result["per_bin"]):
            result["per_bin"][int(end * 1000) // BIN_MS] += 1
    for seconds in (1, SECONDS):
        result["in_%d_s" % seconds] = sum(end < seconds for end in ends)
    if lazily:
        server.must_finish_daemon(60)
        lib.check(server.counters(), "no object was lazy")
        result["complete_ms"] = max(c["ms"] for c in server.counters())
        result["faults"] = sum(c["faults"] for c in server.counters())
        result["lazy_mib"] = sum(c["size"] for c in server.counters()) >> 20
        result["daemon_cpu_s"] = server.daemon.cpu_s()
    result["wrong"] = int(server.query(CHECKSUM) != expected)
    server.stop()
    return result


def column(runs, key, digits=0):
    values = [r[key] for r in runs if r.get(key) is not None]
    return spread(values, digits) if values else "-"


def show(results, runs, buffers):
    rows = [[way] + [column(r, key, digits) for key, digits in (
        ("first_query_ms", 0), ("first_transaction_ms", 0), ("in_1_s", 0), ("in_%d_s" % SECONDS, 0), ("complete_ms", 0),
        ("faults", 0), ("daemon_cpu_s", 2))] for way, r in runs.items()]
    results.table("%d MiB of shared buffers, %d of them in use; median (min - max)" % (MIB, buffers),
                  ["", "first query ms", "first of pgbench ms", "transactions in 1 s", "in %d s" % SECONDS, "object complete ms",
                   "faults", "daemon cpu s"], rows)
    series = {}
    for way, r in runs.items():
        bins = zip(*(x["per_bin"] for x in r))  # as long as the shortest
        series[way] = [((i + 0.5) * BIN_MS / 1e3, median(b), min(b), max(b)) for i, b in enumerate(bins)]
    results.plot_bands("transactions", "pgbench -S, %d clients, %d MiB of shared buffers" % (CLIENTS, MIB),
                       "s since the start of runc restore", "transactions per %d ms" % BIN_MS, series, "set key bottom right")
    results.plot_bars("first-query", "Time to the first query", "ms since the start of runc restore", list(runs),
                      {"first query": [(median(v), min(v), max(v)) for v in ([x["first_query_ms"] for x in r] for r in runs.values())]})


def main():
    results = benchlib.Results("postgres", TITLE)
    where = tempfile.mkdtemp(prefix="lshm-pg-")
    try:
        with Rig(where) as rig:
            server = Server(where)
            rig.made.append(server.end)
            server.make_data()
            server.run()
            buffers = server.fill()
            lib.check(buffers * 4 > MIB * 3, "only %d MiB of the shared buffers are in use" % buffers)
            expected = server.query(CHECKSUM)
            server.dump()
            runs = benchlib.by_turns({"eager": lambda: measure(server, False, expected), "ours": lambda: measure(server, True, expected)})
    finally:
        os.environ.get("BENCH_KEEP") or shutil.rmtree(where, ignore_errors=True)
    show(results, runs, buffers)
    wrong = sum(r["wrong"] for way in runs.values() for r in way)
    print("\nwrong checksums: %d" % wrong)
    results.data.update(mib=MIB, scale=SCALE, buffers_mib=buffers, wrong=wrong, runs=runs)
    results.save()
    return 1 if wrong else 0


if __name__ == "__main__":
    benchlib.run(main)
