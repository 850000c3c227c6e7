#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 200
"""The recipes of docs/containers.md for runc, as they are printed there."""

import os
import re
import shlex

from container_lib import MIB, Rig
from lib import TOP, check, finish, main, popen, read, test, wait_for


def recipe(name):
    blocks = re.findall(r"^<!-- recipe: %s -->\n```sh\n(.*?)^```$" % name, read(os.path.join(TOP, "docs", "containers.md")),
                        re.M | re.S)
    check(len(blocks) == 1, "%d recipes '%s' in the docs" % (len(blocks), name))
    return blocks[0]


def shims(c, other=None):
    """What the recipes call: runc with a state directory of its own, and scp, which is cp here"""
    path = os.path.join(c.bundle, "bin")
    os.makedirs(path)
    runc = "#!/bin/sh\nexec runc --root %s \"$@\"\n" % shlex.quote(c.root)
    scp = "#!/bin/sh\n[ \"$1 $3\" = '-rp destination:/bundles/c1' ] && exec cp -rp \"$2\" %s\n" % other
    for name, text in (("runc", runc), ("scp", scp)):
        with open(os.path.join(path, name), "w") as f:
            f.write(text.replace("exec runc", "PATH=%s exec runc" % shlex.quote(c.env["PATH"])))
        os.chmod(os.path.join(path, name), 0o755)
    return dict(c.env, PATH=path + ":" + c.env["PATH"])


def shell(c, env, text, log):
    with open(os.path.join(c.dir, log), "w") as out:
        return popen(c.enter + ["bash", "-mexc", text], cwd=c.bundle, env=env, stdout=out, stderr=out)


def run(c, env, text, log):
    status = finish(shell(c, env, text, log), 60)
    check(status == 0, "status %d: %s" % (status, read(os.path.join(c.dir, log))[-1000:]))


def named(c, cgroup):
    """The recipes call it c1; so it is, in a state directory of its own"""
    c.name = "c1"
    os.rmdir(c.images)
    os.rmdir(c.work)
    c.spec["linux"]["cgroupsPath"] = "/" + cgroup
    c.write_spec()
    return c


def wait_for_end(c):
    """Of the daemon, which is in the background"""
    wait_for(lambda: "lazy-shmem: object" in c.log("lazy-pages.log"), "the daemon does not finish", 60)
    check("Error" not in c.log("lazy-pages.log"), c.errors("lazy-pages.log"))


@test
def local(where):
    """On one machine"""
    with Rig(where) as rig:
        c = rig.container("source", shared=512)
        env = shims(named(c, c.name))
        run(c, env, recipe("start"), "start.log")
        wait_for(lambda: len(c.report("ready")) == 2, "the container is not ready", 60)
        check(c.count() == 2, "the counter does not begin at 0")
        run(c, env, recipe("local"), "local.log")
        check(c.count() == 4, "the counter does not go on")
        c.walk()
        wait_for_end(c)


@test
def migration(where):
    """Two machines, which are network namespaces"""
    with Rig(where) as rig:
        network = rig.network()
        source = rig.container("source", shared=512, netns=network.source)
        destination = rig.container("destination", shared=512, netns=network.destination)
        env = shims(named(source, source.name), destination.bundle)
        run(source, env, recipe("start"), "start.log")
        wait_for(lambda: len(source.report("ready")) == 2, "the container is not ready", 60)
        check(source.count() == 2, "the counter does not begin at 0")
        there = shims(named(destination, destination.name))
        # one shell at the source, which waits for the word that the destination has all
        going = shell(source, env, recipe("source") + "touch copied\n" + recipe("wait"), "source.log")
        source.checkpointing = going
        wait_for(lambda: os.path.exists(os.path.join(source.bundle, "copied")) or going.poll() is not None,
                 "no page server", 60)
        check(going.poll() is None, read(os.path.join(where, "source.log")))
        images = os.path.join(destination.bundle, "images")
        size = sum(os.path.getsize(os.path.join(images, name)) for name in os.listdir(images))
        check(size < MIB, "the images have %d bytes" % size)
        run(destination, there, recipe("destination"), "destination.log")
        check(destination.count() == 4, "the counter does not go on")
        destination.walk()
        check(finish(going, 60) == 0, "the source: " + read(os.path.join(where, "source.log"))[-1000:])
        check(source.state() is None and not source.pids(), "the container is still at the source")
        wait_for_end(destination)


main()
