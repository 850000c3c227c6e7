#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 600
"""Post-copy migration of a container of runc from one network namespace to another: its
memory stays at the source until the destination asks for it."""

import os
import shutil

from container_lib import MIB, Rig
from lib import check, check_log, finish, main, test, wait_for

SHARED, PRIVATE = 512, 16


def copy_images(source, destination):
    """All of them; their size in bytes"""
    shutil.copytree(source.images, destination.images, dirs_exist_ok=True)
    return sum(os.path.getsize(os.path.join(source.images, name)) for name in os.listdir(source.images))


def from_source(network):
    return ("--page-server", "--address", network.source_address, "--port", str(network.port))


@test
def migrate(where):
    """No contents in the images; it runs at the destination before they are there, then they are"""
    with Rig(where) as rig:
        network = rig.network()
        source = rig.container("source", SHARED, PRIVATE, limit=700, netns=network.source).run()
        destination = rig.container("destination", SHARED, PRIVATE, limit=700, netns=network.destination)
        check(source.count() == 2, "the counter does not begin at 0")

        source.start_lazy_checkpoint(network.source_address, network.port)
        size = copy_images(source, destination)
        check(size < MIB, "the images have %d bytes" % size)
        destination.start_daemon(*from_source(network))
        destination.must_restore("--lazy-pages")
        check(destination.count() == 4, "the counter does not go on")
        destination.walk()
        destination.must_finish_daemon()
        objects = destination.counters()
        check(len(objects) == 1 and objects[0]["size"] == SHARED * MIB, str(objects))

        status = source.finish_checkpoint()
        check(status == 0, "runc checkpoint: status %d: %s" % (status, source.errors("dump.log")))
        check(source.state() is None and not source.pids(), "the container is still at the source")
        least, received = (SHARED + 2 * PRIVATE) * MIB, network.received()
        check(least < received < 1.1 * least, "%d bytes came for %d" % (received, least))
        check(destination.count() == 6, "the counter does not go on")
        # it is a container like any other
        destination.must_checkpoint()
        destination.start_daemon()
        destination.must_restore("--lazy-pages").walk()
        destination.must_finish_daemon()


@test
def private_memory_only(where):
    """CRIU_LAZY_SHMEM=off: shared memory comes with the images, the rest over the network"""
    with Rig(where) as rig:
        network = rig.network()
        source = rig.container("source", 64, 64, netns=network.source)
        destination = rig.container("destination", 64, 64, netns=network.destination)
        for c in (source, destination):
            c.env["CRIU_LAZY_SHMEM"] = "off"
        source.run().start_lazy_checkpoint(network.source_address, network.port)
        size = copy_images(source, destination)
        check(64 * MIB < size < 65 * MIB, "the images have %d bytes" % size)
        destination.start_daemon(*from_source(network))
        destination.must_restore("--lazy-pages").walk()
        destination.must_finish_daemon()
        check(source.finish_checkpoint() == 0, "runc checkpoint: " + source.errors("dump.log"))
        check(source.state() is None and not source.pids(), "the container is still at the source")
        check(128 * MIB < network.received() < 140 * MIB, "%d bytes came" % network.received())


main()
