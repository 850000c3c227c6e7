# SPDX-License-Identifier: GPL-2.0-only
"""Memory cgroups for tests"""

import os

from lib import Skip, alive, read, wait_for


class MemoryGroup:
    """A memory cgroup, of either version, below the one we are in"""

    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}

    def __init__(self, name):
        own = dict(line.split(":", 2)[1:] for line in read("/proc/self/cgroup").split())
        for version, top, path in (1, "/sys/fs/cgroup/memory", own.get("memory")), (2, "/sys/fs/cgroup", own.get("")):
            self.path = os.path.join(top + (path or ""), "lshm-%d-%s" % (os.getpid(), name))
            self.procs = os.path.join(self.path, "cgroup.procs")
            self.limit_file, self.usage_file = (os.path.join(self.path, n) for n in self.names[version])
            if path is not None and self.make():
                return
        raise Skip("no memory cgroup can be made here")

    def make(self):
        try:
            os.mkdir(self.path)
        except OSError:
            return False
        if "shmem" in self.stat() and all(os.access(f, os.W_OK) for f in (self.limit_file, self.procs)):
            return True
        os.rmdir(self.path)
        return False

    def stat(self):
        lines = read(os.path.join(self.path, "memory.stat")).splitlines()
        return {k: int(v) for k, v in (line.split() for line in lines)}

    def shmem(self):
        return self.stat()["shmem"]

    def usage(self):
        return int(read(self.usage_file))

    def limit(self, size):
        with open(self.limit_file, "w") as f:
            f.write(str(size))

    def add(self, pid):
        with open(self.procs, "w") as f:
            f.write(str(pid))

    def pids(self):
        return sorted(int(p) for p in read(self.procs).split())

    def processes(self, name):
        return [p for p in self.pids() if read("/proc/%d/comm" % p).strip() == name and alive(p)]

    def wrap(self, where, criu):
        """A criu that runs in the cgroup, as does all that it makes"""
        path = os.path.join(where, "criu-%s" % os.path.basename(self.path))
        with open(path, "w") as f:
            f.write("#!/bin/sh\necho $$ >%s && exec %s \"$@\"\n" % (self.procs, criu))
        os.chmod(path, 0o755)
        return path

    def remove(self):
        def gone():
            try:
                os.rmdir(self.path)
                return True
            except OSError:
                return False
        wait_for(gone, "somebody is left in the cgroup: %s" % self.pids(), 5)
