# SPDX-License-Identifier: GPL-2.0-only
"""What the tests with containers share: a bundle made of one static program, runc,
and memory cgroups."""

import contextlib
import glob
import json
import os
import re
import select
import shutil
import signal
import subprocess

from lib import (BUILD, CRIU, PLUGIN_DIR, Skip, alive, check, finish, popen, read, reap,
                 unmount_below, wait_for)

SHARER = os.path.join(BUILD, "e2e", "sharer")
MIB = 1 << 20
UNPRIVILEGED = "/proc/sys/vm/unprivileged_userfaultfd"
# runc's processes must find the patched CRIU
PATH = os.path.dirname(CRIU) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MemoryCgroup:
    """One below the root of the memory controller; runc makes those of containers itself."""

    def __init__(self, name):
        self.v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        self.name = name
        self.path = os.path.join("/sys/fs/cgroup" if self.v2 else "/sys/fs/cgroup/memory", name)

    def create(self):
        if self.v2:
            with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as f:
                f.write("+memory")
        os.makedirs(self.path)
        return self

    def remove(self):
        """What is charged to it goes to its parent"""
        wait_for(lambda: not self.pids(), "processes are left in %s: %s" % (self.path, self.pids()))
        if os.path.exists(self.path):
            os.rmdir(self.path)

    def pids(self):
        return [int(pid) for pid in read(os.path.join(self.path, "cgroup.procs")).split()]

    def usage(self):
        return int(read(os.path.join(self.path, "memory.current" if self.v2 else "memory.usage_in_bytes")))

    def shmem(self):
        """Bytes of shared memory and tmpfs that are charged to it"""
        return int(re.search(r"^shmem (\d+)$", read(os.path.join(self.path, "memory.stat")), re.M).group(1))

    def command(self, *args):
        """A command that runs in it"""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', os.path.join(self.path, "cgroup.procs")] + list(args)


def kill_tree(pid):
    """A process and what it has started; runc's criu outlives runc"""
    for child in read("/proc/%d/task/%d/children" % (pid, pid)).split():
        kill_tree(int(child))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Container:
    """A container of two processes that share memory, running or in images.

    config: lines of a file for CRIU that is this container's only"""

    def __init__(self, where, name, shared=512, private=16, limit=None, user_ns=False, netns=None, config=()):
        self.dir = where
        self.name = "lshm-%d-%s" % (os.getpid(), name)
        self.bundle = os.path.join(where, name)
        self.images = os.path.join(self.bundle, "images")
        self.work = os.path.join(self.bundle, "work")
        self.root = os.path.join(where, "runc-" + name)
        self.rootfs = os.path.join(self.bundle, "rootfs")
        self.config_file = os.path.join(self.bundle, "criu.conf")
        # not "ip netns exec": that hides the cgroups
        self.enter = ["nsenter", "--net=/run/netns/" + netns] if netns else []
        self.cgroup = MemoryCgroup(self.name)
        self.pages = (shared + private) * MIB // 4096 - 1  # the first has the counter
        self.daemon = None
        self.checkpointing = None
        self.commands = []
        self.env = dict(os.environ, PATH=PATH, CRIU_LIBS_DIR=PLUGIN_DIR)
        for d in (self.rootfs, self.images, self.work):
            os.makedirs(d, exist_ok=True)
        for d in (where, self.bundle, self.rootfs):  # the root of a user namespace is an ordinary user here
            os.chmod(d, 0o777)
        shutil.copy(SHARER, self.rootfs)
        self.spec = self.make_spec(shared, private)
        if user_ns:
            self.spec["linux"]["namespaces"].append({"type": "user"})
            mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
            self.spec["linux"].update(uidMappings=mapping, gidMappings=mapping)
        if config:
            self.set_config(*config)
        self.set_limit(limit)

    def make_spec(self, shared, private):
        subprocess.run(["runc", "spec"], cwd=self.bundle, check=True)
        with open(os.path.join(self.bundle, "config.json")) as f:
            spec = json.load(f)
        spec["process"].update(terminal=False, args=["/sharer", str(shared), str(private)])
        spec["root"]["readonly"] = False
        spec["linux"]["cgroupsPath"] = "/" + self.name
        return spec

    def set_limit(self, limit):
        """of the memory cgroup, in MiB, for the next run or restore"""
        self.spec["linux"]["resources"]["memory"] = {"limit": limit * MIB} if limit else {}
        self.write_spec()

    def set_config(self, *lines):
        """What CRIU is told besides what runc tells it, from the next command on"""
        with open(self.config_file, "w") as f:
            f.write("".join(line + "\n" for line in lines))
        self.spec["annotations"] = {"org.criu.config": self.config_file}
        self.write_spec()

    def allow_device(self, path):
        """runc has criu restore run in the container's cgroups: its device rules hold for it"""
        rdev = os.stat(path).st_rdev
        self.spec["linux"]["resources"]["devices"].append(
            {"allow": True, "type": "c", "major": os.major(rdev), "minor": os.minor(rdev), "access": "rw"})
        self.write_spec()

    def write_spec(self):
        with open(os.path.join(self.bundle, "config.json"), "w") as f:
            json.dump(self.spec, f, indent=1)

    # runc; what goes wrong is in files named as the command

    def command(self, *args):
        return self.enter + ["runc", "--root", self.root] + list(args)

    def start_runc(self, action, *args, env=None, pass_fds=()):
        # a container keeps what it gets for stdout and stderr
        log = os.path.join(self.work, "runc-" + action + ".log")
        p = popen(self.command("--log", log, action, *args), env=env or self.env, stdout=subprocess.DEVNULL,
                  stderr=subprocess.DEVNULL, pass_fds=pass_fds)
        self.commands.append(p)
        return p

    def runc(self, action, *args, env=None):
        """Returns the status of a command of runc."""
        return finish(self.start_runc(action, *args, env=env), 120)

    def state(self):
        out = subprocess.run(self.command("list", "-f", "json"), env=self.env, stdout=subprocess.PIPE, check=True).stdout
        found = [c for c in json.loads(out) or [] if c["id"] == self.name]
        return found[0]["status"] if found else None

    def log(self, name):
        return read(os.path.join(self.work, name))

    def errors(self, *names):
        lines = [line for name in names for line in self.log(name).splitlines()]
        return "\n".join(line for line in lines if re.search("Error|level=error", line))

    # its life

    def run(self):
        status = self.runc("run", "-d", "--bundle", self.bundle, self.name)
        check(status == 0, "runc run: status %d: %s" % (status, self.errors("runc-run.log")))
        wait_for(lambda: len(self.report("ready")) == 2, "the container is not ready", 60)
        return self

    def checkpoint(self, *args, env=None):
        """Returns the status of runc checkpoint."""
        return self.runc("checkpoint", "--image-path", self.images, "--work-path", self.work, *args, self.name, env=env)

    def must_checkpoint(self, *args):
        status = self.checkpoint(*args)
        check(status == 0, "runc checkpoint: status %d: %s" % (status, self.errors("runc-checkpoint.log", "dump.log")))
        check(self.state() is None and not self.pids(), "the container outlives its checkpoint")
        return self

    def start_lazy_checkpoint(self, address, port, *args):
        """Returns when the tasks are dumped and their memory is served there; that it must be."""
        ready, status = os.pipe()
        try:
            self.checkpointing = self.start_runc(
                "checkpoint", "--image-path", self.images, "--work-path", self.work, "--lazy-pages", "--page-server",
                "%s:%d" % (address, port), "--status-fd", str(status), *args, self.name, pass_fds=[status])
        finally:
            os.close(status)
        try:
            wait_for(lambda: select.select([ready], [], [], 0)[0], "no page server")
            check(os.read(ready, 1) == b"\0", "runc checkpoint: " + self.errors("runc-checkpoint.log", "dump.log"))
        finally:
            os.close(ready)
        return self.checkpointing

    def finish_checkpoint(self):
        """Returns its status."""
        return finish(self.checkpointing, 60)

    def start_daemon(self, *args, env=None, cgroup=None):
        """Returns when it listens, or has failed."""
        ready, status = os.pipe()
        command = [CRIU, "lazy-pages", "-D", self.images, "-W", self.work, "-o", "lazy-pages.log", "-v4",
                   "--status-fd", str(status)] + list(args)
        if cgroup:
            command = cgroup.command(*command)
        try:
            self.daemon = popen(self.enter + command, env=dict(self.env, **(env or {})), pass_fds=[status])
        finally:
            os.close(status)
        wait_for(lambda: select.select([ready], [], [], 0)[0], "the daemon does not listen")
        os.close(ready)
        return self.daemon

    def restore(self, *args, env=None):
        """Returns the status of runc restore."""
        return self.runc("restore", "-d", "--bundle", self.bundle, "--image-path", self.images, "--work-path", self.work,
                         *args, self.name, env=env)

    def must_restore(self, *args, env=None):
        status = self.restore(*args, env=env)
        check(status == 0, "runc restore: status %d: %s" % (status, self.errors("runc-restore.log", "restore.log",
                                                                                 "lazy-pages.log")))
        state = self.state()
        check(state == "running", "runc says that the container is " + str(state))
        return self

    def must_finish_daemon(self, timeout=60):
        status = finish(self.daemon, timeout)
        check(status == 0, "the daemon: status %d: %s" % (status, self.errors("lazy-pages.log")))
        return self

    def pids(self):
        reap()
        return [pid for pid in self.cgroup.pids() if alive(pid) and read("/proc/%d/comm" % pid).strip() == "sharer"]

    # what its processes say; they append to a file in their root

    def report(self, kind):
        result = []
        for line in read(os.path.join(self.rootfs, "report")).splitlines():
            words = line.split()
            check(words[0] != "wrong", line)
            if words[0] == kind:
                result.append(dict(w.split("=", 1) for w in words[1:]))
        return result

    def ask(self, sig, kind, timeout=60):
        """Sends both processes a signal; the lines that they answer."""
        before = len(self.report(kind))
        pids = self.pids()
        check(len(pids) == 2, "%d processes are in the container" % len(pids))
        for pid in pids:
            os.kill(pid, sig)
        wait_for(lambda: len(self.report(kind)) == before + 2 or len(self.pids()) < 2, "no answer", timeout)
        check(len(self.pids()) == 2, "a process of the container died")
        return self.report(kind)[before:]

    def walk(self):
        """Every word of shared and private memory is right, for both processes"""
        walks = self.ask(signal.SIGUSR1, "walk")
        check(sorted(w["who"] for w in walks) == ["0", "1"], "not both processes answered: %s" % walks)
        check(all(int(w["pages"]) == self.pages for w in walks), "not all pages were checked: %s" % walks)

    def count(self):
        """Both add one to the counter in shared memory; what it is then"""
        return max(int(c["value"]) for c in self.ask(signal.SIGUSR2, "count"))

    def counters(self):
        """The summary lines of the daemon, a dict for each object."""
        found = re.findall(r"lazy-shmem: object 0x[0-9a-f]+ done: (.*)$", self.log("lazy-pages.log"), re.M)
        return [{k: int(v) for k, v in (w.split("=") for w in line.split())} for line in found]

    def check_gone(self):
        """Not one process is left, and runc does not say that it runs"""
        wait_for(lambda: not self.pids(), "processes are left: %s" % self.pids(), 10)
        wait_for(lambda: self.state() in (None, "stopped"), "runc does not say that the container has stopped", 10)

    def end(self):
        """Whatever its state; a test that failed leaves its logs beside its directory's other files"""
        for p in [self.daemon, self.checkpointing] + self.commands:
            if p and p.poll() is None:
                kill_tree(p.pid)
                finish(p)
        self.runc("delete", "--force", self.name)
        for name in os.listdir(self.work) if os.path.isdir(self.work) else ():
            if name.endswith(".log"):
                shutil.copy(os.path.join(self.work, name), os.path.join(self.dir, os.path.basename(self.bundle) + "-" + name))
        wait_for(lambda: not self.pids(), "the container can not be killed")
        for path in glob.glob("/sys/fs/cgroup/*/" + self.cgroup.name) + ["/sys/fs/cgroup/" + self.cgroup.name]:
            with contextlib.suppress(OSError):  # runc has removed it, unless it was killed
                os.rmdir(path)


class Network:
    """Two network namespaces with a cable between them."""

    source_address, port = "192.0.2.1", 27000

    def __init__(self):
        self.source, self.destination = ("c%ds" % os.getpid(), "c%dd" % os.getpid())

    def create(self):
        for netns in (self.source, self.destination):
            ip("netns", "add", netns)
            ip("-n", netns, "link", "set", "lo", "up")  # criu binds to it when it looks what the kernel can do
        ip("-n", self.source, "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", self.destination)
        ip("-n", self.source, "address", "add", self.source_address + "/24", "dev", "v0")
        ip("-n", self.destination, "address", "add", "192.0.2.2/24", "dev", "v0")
        for netns in (self.source, self.destination):
            ip("-n", netns, "link", "set", "v0", "up")
        return self

    def remove(self):
        for netns in (self.source, self.destination):
            subprocess.run(["ip", "netns", "delete", netns], check=False)

    def listening(self):
        """Addresses with ports, at the source"""
        out = subprocess.run(["ip", "netns", "exec", self.source, "ss", "-tnlH"], stdout=subprocess.PIPE, check=True).stdout
        return [line.split()[3] for line in out.decode().splitlines()]

    def received(self):
        """Bytes that have come to the destination"""
        out = subprocess.run(["ip", "-n", self.destination, "-j", "-s", "link", "show", "v0"], stdout=subprocess.PIPE,
                             check=True).stdout
        return json.loads(out)[0]["stats64"]["rx"]["bytes"]


def ip(*args):
    subprocess.run(["ip"] + list(args), check=True)


@contextlib.contextmanager
def unprivileged_userfaultfd(value):
    """What the tasks of a user namespace may do, for the time of a test"""
    before = read(UNPRIVILEGED)
    with open(UNPRIVILEGED, "w") as f:
        f.write(value)
    try:
        yield
    finally:
        with open(UNPRIVILEGED, "w") as f:
            f.write(before)


def must_unmount_below(where):
    """Who removes a directory with cgroups mounted in it removes all cgroups that have no process"""
    if not unmount_below(where):
        print("not ok: still mounted below %s, so nothing is removed" % where, flush=True)
        os._exit(1)


class Rig:
    """Ends what a test has made, in reverse order, however the test ends."""

    def __init__(self, where):
        if not shutil.which("runc"):
            raise Skip("no runc")
        self.where = where
        self.made = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.ExitStack() as stack:  # the others too if one fails
            stack.callback(must_unmount_below, self.where)
            for end in self.made:
                stack.callback(end)

    def container(self, name, *args, **kwargs):
        c = Container(self.where, name, *args, **kwargs)
        self.made.append(c.end)
        return c

    def network(self):
        network = Network()
        self.made.append(network.remove)
        return network.create()

    def cgroup(self, name):
        cg = MemoryCgroup("lshm-%d-%s" % (os.getpid(), name)).create()
        self.made.append(cg.remove)
        return cg
