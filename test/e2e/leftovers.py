#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 120
"""After a lazy restore nothing tells that it was one: tasks, memory and files are
as an eager restore by unpatched CRIU leaves them. The tree is test/lib/leftovers.c."""

import contextlib
import os
import re
import signal

from lib import (BUILD, CRIU, Ledger, Skip, check, check_nothing_left, lazy_flags, main, read, slow_disk, test,
                 wait_for)
from memcg_lib import MemoryGroup

LEFTOVERS = os.path.join(BUILD, "e2e", "leftovers")
PLAIN = os.path.join(BUILD, "criu-plain", "criu", "criu")
NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages"
HUGE_PAGES = 6  # two in use, two for the dump, two in case

# Fields of smaps that say how much of a mapping is there, and whose it is. Which
# pages of shared memory a task has in its page table is a matter of what it has
# touched, so they are compared when everything has been.
AMOUNTS = ("Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Anonymous",
           "KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb",
           "Swap", "SwapPss", "Locked")
# Depends on what was looked at, and when
VOLATILE = ("Referenced",)
# Memory that CRIU restores lazily is not shared between a task and the child
# that it made in the window: each of them gets its own copy. That is so without us.
OWNERSHIP = ("Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty")
# How much of a program or library is in memory is the page cache's business.
STATUS = ("Name", "Umask", "State", "Uid", "Gid", "Groups", "VmSize", "VmLck", "VmPin", "VmData", "VmStk",
          "VmExe", "VmLib", "VmSwap", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn",
          "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")


class Tree(Ledger):
    """A tree of leftovers; roles tell its tasks apart"""

    def __init__(self, where, *kinds, env=None):
        super().__init__(where, env=env)
        self.args = [LEFTOVERS, self.report_file] + list(kinds)
        self.processes = 3
        no_plugins = os.path.join(where, "no-plugins")  # ours needs hooks that unpatched CRIU lacks
        os.makedirs(no_plugins)
        self.plain_env = {"CRIU_LIBS_DIR": no_plugins}

    def start(self):
        super().start()
        self.first_pids = list(self.pids)
        self.roles = {int(line["pid"]): line["role"] for line in self.report("ready")}
        return self

    def fork(self):
        """Every task makes a child, which belongs to the tree from then on."""
        before = len(self.report("forked"))
        for pid in self.first_pids:
            os.kill(pid, signal.SIGUSR2)
        wait_for(lambda: len(self.report("forked")) - before == len(self.first_pids), "the tasks do not fork")
        self.check_right()
        for line in self.report("forked")[before:]:
            self.pids.append(int(line["pid"]))
            self.roles[int(line["pid"])] = line["role"]

    def kill(self):
        super().kill()
        self.pids = list(self.first_pids)

    def view(self, look):
        """What look() says of each task, by its role"""
        return {self.roles[pid]: look(pid) for pid in self.pids}


def fields(text):
    return dict(re.findall(r"^(\w+):[ \t]*(.*?)[ \t]*$", text, re.M))


def object_of(pid, span):
    """The file behind a mapping. Inode numbers differ in each restore."""
    try:
        st = os.stat("/proc/%d/map_files/%s" % (pid, span))
    except FileNotFoundError:
        return None
    return {"size": st.st_size, "allocated": st.st_blocks * 512, "mode": st.st_mode, "uid": st.st_uid}


def mappings(pid):
    """{addresses: what smaps and map_files say}. The kernel puts the vdso where it
    likes."""
    result = {}
    head = r"^([0-9a-f]+-[0-9a-f]+) (\S+) (\S+) (\S+) (\d+) *(.*)$"
    parts = re.split(head, read("/proc/%d/smaps" % pid), flags=re.M)[1:]
    for i in range(0, len(parts), 7):
        span, perms, offset, _, inode, name, body = parts[i:i + 7]
        if name.startswith("[v"):
            continue
        entry = {"perms": perms, "offset": offset, "name": name}
        entry.update((k, v) for k, v in fields(body).items() if k not in VOLATILE)
        if inode != "0":
            entry["object"] = object_of(pid, span)
        result[span] = entry
    check(len(result) > 10, "no mappings in smaps of %d" % pid)
    return result


def anonymous_file(name):
    return name.startswith("/memfd:") or name.startswith("/SYSV") or name.startswith("/dev/zero")


def structure(pid):
    """Of mappings, all but how much of them is in the page table"""
    return {span: {k: v for k, v in entry.items() if k not in AMOUNTS} for span, entry in mappings(pid).items()}


def amounts(pid):
    """How much is there of memory whose contents come from the images"""
    result = {}
    for span, entry in mappings(pid).items():
        if entry["name"] and not anonymous_file(entry["name"]):
            continue  # a program, a library, heap and stack: not touched in full
        a = {k: v for k, v in entry.items() if k in AMOUNTS}
        if not anonymous_file(entry["name"]) or "p" in entry["perms"]:
            a["own and shared"] = sum(kilobytes(a.pop(k)) for k in OWNERSHIP if k in a and not k.startswith("Pss"))
            a = {k: v for k, v in a.items() if k not in OWNERSHIP}
        result[entry["name"] + " " + span] = a
    return result


def kilobytes(value):
    return int(value.split()[0])


def descriptors(pid):
    result = {}
    for fd in os.listdir("/proc/%d/fd" % pid):
        info = fields(read("/proc/%d/fdinfo/%s" % (pid, fd)))
        link = re.sub(r"\[\d+\]", "[]", os.readlink("/proc/%d/fd/%s" % (pid, fd)))
        result[fd] = (link, info.get("pos"), info.get("flags"))
    return result


def threads(pid):
    return sorted(read("/proc/%d/task/%s/comm" % (pid, tid)) for tid in os.listdir("/proc/%d/task" % pid))


def status(pid):
    return {k: v for k, v in fields(read("/proc/%d/status" % pid)).items() if k in STATUS}


def outside(pid):
    """What is to be the same as soon as a task is retired"""
    return {"mappings": structure(pid), "fds": descriptors(pid), "threads": threads(pid), "status": status(pid)}


def differences(a, b, where=""):
    """The paths at which two views differ"""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted(set(a) | set(b)) for d in differences(a.get(k), b.get(k), "%s/%s" % (where, k))]
    return [] if a == b else ["%s: %s instead of %s" % (where, b, a)]


def same(eager, lazy, what):
    found = differences(eager, lazy)
    check(not found, "%s: %d differences: %s" % (what, len(found), "; ".join(found[:6])))


def restore_plainly(tree, *args, criu=PLAIN):
    status = tree.restore(*args, criu=criu, env=tree.plain_env)
    check(status == 0, "restore by unpatched CRIU failed: " + tree.errors("restore.log"))


def compare(where, *kinds):
    """Restores one dump eagerly and lazily, has the tasks fork, and looks at them"""
    tree = Tree(where, *kinds).start().dump()
    restore_plainly(tree)
    tree.fork()
    eager = tree.view(outside)
    tree.walk()
    touched = tree.view(outside)
    eager_amounts = tree.view(amounts)
    tree.kill()

    tree.lazy_restore(daemon_env=slow_disk(40))
    check(all(lazy_flags(pid) for pid in tree.pids), "the window closed before the tasks could fork")
    tree.fork()
    check(all(lazy_flags(pid) for pid in tree.pids), "the window closed while the tasks forked")
    # the comparison is worth something: it sees what a window leaves
    check(differences(eager, tree.view(outside)), "in the window the tasks look as after an eager restore")
    check(tree.finish_daemon() == 0, "the daemon failed: " + tree.errors("lazy-pages.log"))
    same(eager, tree.view(outside), "tasks")
    tree.walk()
    same(eager_amounts, tree.view(amounts), "memory")
    same(touched, tree.view(outside), "tasks that have touched everything")
    check_nothing_left(tree)
    tree.kill()


def needs_plain():
    if not os.access(PLAIN, os.X_OK):
        raise Skip("there is no unpatched CRIU to compare with: make criu-plain")


@test
def tasks_and_memory(where):
    """Mappings, descriptors, threads, page tables, allocated memory of each object"""
    needs_plain()
    compare(where)


@test
def with_sysv(where):
    """The same with a SysV segment, in an IPC namespace"""
    needs_plain()
    compare(where, "sysv")


@contextlib.contextmanager
def huge_pages():
    before = int(read(NR_HUGEPAGES))
    try:
        with open(NR_HUGEPAGES, "w") as f:
            f.write(str(before + HUGE_PAGES))
        if int(read(NR_HUGEPAGES)) < before + HUGE_PAGES:
            raise Skip("no huge pages to be had")
        yield
    finally:
        lowered = max(int(read(NR_HUGEPAGES)) - HUGE_PAGES, 0)
        with open(NR_HUGEPAGES, "w") as f:
            f.write(str(lowered))


@test
def with_huge_pages(where):
    """The same with huge pages"""
    needs_plain()
    with huge_pages():
        compare(where, "hugetlb")


def unix_sockets(where):
    return [line for line in read("/proc/net/unix").splitlines() if where in line]


def files_in(where):
    return sorted(os.path.relpath(os.path.join(top, f), where) for top, _, files in os.walk(where) for f in files)


@test
def files_and_processes(where):
    """Files, sockets and processes are those that unpatched lazy-pages leaves"""
    needs_plain()
    tree = Tree(where).start().dump()
    tree.start_daemon(criu=PLAIN, env=tree.plain_env)
    restore_plainly(tree, "--lazy-pages")
    check(tree.finish_daemon() == 0, "unpatched lazy-pages failed")
    tree.walk()
    upstream = {"files": files_in(where), "sockets": unix_sockets(where)}
    tree.kill()
    tree.lazy_restore()
    check(tree.finish_daemon() == 0, "the daemon failed")
    check(len(tree.counters()) > 1, "nothing was lazy")
    check_nothing_left(tree)
    upstream["files"] = sorted(upstream["files"] + ["lazy-shmem-stats.json"])
    same(upstream, {"files": sorted(files_in(where)), "sockets": unix_sockets(where)}, "files and sockets")
    strangers = [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in tree.pids + [os.getpid()]
                 and where in read("/proc/%s/cmdline" % p)]
    check(not strangers, "processes are left: %s" % strangers)
    tree.walk()
    tree.kill()


def charged(tree, where, group, criu, lazy, env):
    """Bytes of memory that a cgroup has, of each kind, when a tree was restored in it
    and has touched everything"""
    criu = group.wrap(where, criu)
    if lazy:
        tree.start_daemon(criu=criu, env=env)
    status = tree.restore(*["--lazy-pages"] if lazy else [], criu=criu, env=env)
    check(status == 0, "restore failed: " + tree.errors("restore.log"))
    check(not lazy or tree.finish_daemon() == 0, "the daemon failed: " + tree.errors("lazy-pages.log"))
    check_nothing_left(tree)
    tree.walk()
    stat = group.stat()
    tree.kill()
    return {"shmem": stat["shmem"], "anon": stat.get("anon", stat.get("rss"))}


@test
def memory_is_not_doubled(where):
    """A cgroup with daemon, restore and tasks has as much shared memory as after an
    eager restore. Of private memory it has what unpatched lazy-pages makes of it: that
    copies what an eager restore shares between a task and its children."""
    needs_plain()
    tree = Tree(where).start().dump()
    groups = [MemoryGroup(name) for name in ("eager", "plain", "lazy")]
    try:
        eager = charged(tree, where, groups[0], PLAIN, False, tree.plain_env)
        plain = charged(tree, where, groups[1], PLAIN, True, tree.plain_env)
        lazy = charged(tree, where, groups[2], CRIU, True, None)
        check(len(tree.counters()) > 1, "nothing was lazy")
        check(eager["shmem"] > 16 << 20, "the cgroup does not count: %s" % eager)
        same(eager["shmem"], lazy["shmem"], "shared memory of the cgroup")
        same(plain["anon"], lazy["anon"], "private memory of the cgroup")
    finally:
        tree.kill()
        for group in groups:
            group.remove()


main()
