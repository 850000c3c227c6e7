#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 600
"""Post-copy migration of a container of runc from one network namespace to another: its
memory stays at the source until the destination asks for it."""

import os
import shutil
import subprocess

from container_lib import MIB, Rig, unprivileged_userfaultfd
from lib import Skip, check, check_log, finish, main, read, test

SHARED, PRIVATE = 512, 16
DEVICE = "/dev/userfaultfd"


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
        ours = rig.cgroup("daemon")
        destination.start_daemon(*from_source(network), cgroup=ours)
        destination.must_restore("--lazy-pages")
        check(destination.count() == 4, "the counter does not go on")
        destination.walk()
        destination.must_finish_daemon()
        objects = destination.counters()
        check(len(objects) == 1 and objects[0]["size"] == SHARED * MIB, str(objects))

        charged, not_charged = destination.cgroup.shmem(), ours.shmem()
        check(charged >= SHARED * MIB - 4096, "%d bytes are charged to the container" % charged)
        check(not_charged < MIB, "%d bytes are charged to the daemon" % not_charged)

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


@test
def user_namespace(where):
    """Its tasks have their userfaultfd from /dev/userfaultfd, its pages from the network"""
    if not os.path.exists(DEVICE):
        raise Skip("no %s (Linux 6.1)" % DEVICE)
    with Rig(where) as rig:
        network = rig.network()
        source = rig.container("source", 64, 16, netns=network.source, user_ns=True)
        destination = rig.container("destination", 64, 16, netns=network.destination, user_ns=True)
        destination.allow_device(DEVICE)
        source.run().start_lazy_checkpoint(network.source_address, network.port)
        copy_images(source, destination)
        destination.start_daemon(*from_source(network))
        destination.must_restore("--lazy-pages").walk()
        destination.must_finish_daemon()
        check(source.finish_checkpoint() == 0, "runc checkpoint: " + source.errors("dump.log"))


@test
def one_address(where):
    """The page server listens on all addresses, whatever runc is told; CRIU's file has another"""
    with Rig(where) as rig:
        network = rig.network()
        source = rig.container("source", 16, 16, netns=network.source)
        source.run().start_lazy_checkpoint(network.source_address, network.port)
        check(network.listening() == ["0.0.0.0:%d" % network.port], "it listens at %s" % network.listening())
        source.end()
        source = rig.container("other", 16, 16, netns=network.source, config=["address " + network.source_address])
        source.run().start_lazy_checkpoint(network.source_address, network.port)
        check(network.listening() == ["%s:%d" % (network.source_address, network.port)],
              "it listens at %s" % network.listening())


def gives_up_soon(how):
    return ["lazy-timeout 1", "lazy-retries 0", "lazy-lost " + how]


@test
def restore_fails(where):
    """The destination can't restore it: it goes on at the source, as if nothing had been"""
    with Rig(where) as rig, unprivileged_userfaultfd("0"):
        network = rig.network()
        source = rig.container("source", 64, 16, netns=network.source, user_ns=True, config=gives_up_soon("resume")).run()
        destination = rig.container("destination", 64, 16, netns=network.destination, user_ns=True)
        check(source.count() == 2, "the counter does not begin at 0")
        source.start_lazy_checkpoint(network.source_address, network.port)
        copy_images(source, destination)
        destination.start_daemon(*from_source(network))
        check(destination.restore("--lazy-pages") != 0, "restored without a right to userfaultfd")
        check(finish(destination.daemon) != 0, "the daemon says that all is well")
        destination.check_gone()

        check(source.finish_checkpoint() != 0, "runc checkpoint says that all is well")
        check(source.state() == "running", "runc says that the container is " + str(source.state()))
        check(source.count() == 4, "the counter does not go on")
        source.walk()
        # and can be checkpointed another time
        source.must_checkpoint()
        check(source.restore() == 0, "runc restore: " + source.errors("restore.log"))
        source.walk()


@test
def limit_below_contents(where):
    """It does not fit the limit at the destination: nobody was told that it runs there, it goes on at the source"""
    with Rig(where) as rig:
        network = rig.network()
        source = rig.container("source", 64, 16, netns=network.source, config=gives_up_soon("resume")).run()
        destination = rig.container("destination", 64, 16, limit=60, netns=network.destination)
        source.start_lazy_checkpoint(network.source_address, network.port)
        copy_images(source, destination)
        destination.start_daemon(*from_source(network))
        check(destination.restore("--lazy-pages") != 0, "restored beyond its limit")
        check(finish(destination.daemon) == 1, "the daemon says that all is well")
        check_log(destination.log("lazy-pages.log"), r"Error.*lazy-shmem: .*[Oo]bject 0x[0-9a-f]+.*cgroup")
        destination.check_gone()
        check(source.finish_checkpoint() != 0, "runc checkpoint says that all is well")
        check(source.state() == "running", "runc says that the container is " + str(source.state()))
        source.walk()


@test
def tls(where):
    """With certificates for both ends, from CRIU's configuration file at the source"""
    with Rig(where) as rig:
        network = rig.network()
        certificate, key = make_certificate(where, network.source_address)
        options = ["tls", "tls-cacert " + certificate, "tls-cert " + certificate, "tls-key " + key]
        source = rig.container("source", 64, 16, netns=network.source, config=options).run()
        destination = rig.container("destination", 64, 16, netns=network.destination)
        source.start_lazy_checkpoint(network.source_address, network.port)
        copy_images(source, destination)
        words = [word for option in options for word in ("--" + option).split()]
        destination.start_daemon(*from_source(network), *words)
        destination.must_restore("--lazy-pages").walk()
        destination.must_finish_daemon()
        check(source.finish_checkpoint() == 0, "runc checkpoint: " + source.errors("dump.log"))


def make_certificate(where, address):
    """One that is its own authority"""
    certificate, key = os.path.join(where, "cert.pem"), os.path.join(where, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                    "-subj", "/CN=" + address, "-addext", "subjectAltName=IP:" + address, "-keyout", key,
                    "-out", certificate], check=True, stderr=subprocess.DEVNULL)
    return certificate, key


def lose_destination(rig, how):
    """The source of a container whose daemon is killed when it runs at the destination"""
    network = rig.network()
    source = rig.container("source", SHARED, PRIVATE, netns=network.source, config=gives_up_soon(how)).run()
    destination = rig.container("destination", SHARED, PRIVATE, netns=network.destination)
    source.start_lazy_checkpoint(network.source_address, network.port)
    copy_images(source, destination)
    destination.start_daemon(*from_source(network))
    check(destination.restore("--lazy-pages") == 0, "runc restore: " + destination.errors("restore.log"))
    check(destination.daemon.poll() is None, "the daemon has finished before it could be killed")
    destination.daemon.kill()
    finish(destination.daemon)
    check(source.finish_checkpoint() != 0, "runc checkpoint says that all is well")
    destination.check_gone()
    return source


@test
def lost_after_it_ran(where):
    """It has run at the destination, so it never runs at the source again; there it stays, stopped"""
    with Rig(where) as rig:
        source = lose_destination(rig, "resume")
        check_log(source.log("dump.log"), r"Error.*The destination is lost, the tasks may have run there: they stay stopped")
        pids = source.pids()
        check(len(pids) == 2 and all(stopped(pid) for pid in pids), "not two stopped processes: %s" % pids)
        check(source.runc("delete", "--force", source.name) == 0, "runc delete: " + source.errors("runc-delete.log"))
        source.check_gone()


@test
def lost_and_killed(where):
    """--lazy-lost kill"""
    with Rig(where) as rig:
        source = lose_destination(rig, "kill")
        check_log(source.log("dump.log"), r"Error.*The destination is lost, the tasks may have run there: they are killed")
        source.check_gone()


def stopped(pid):
    return read("/proc/%d/stat" % pid).rpartition(")")[2].split()[0] == "T"


main()
