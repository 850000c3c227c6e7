# SPDX-License-Identifier: GPL-2.0-only
"""A page server that has images, and images that lack the contents of shared memory."""

import os
import select
import shutil
import socket

from lib import check, wait_for

MIB = 1 << 20


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return str(s.getsockname()[1])


def take_contents_away(led):
    """The server's images are complete; the others lack what is of shared memory: the largest"""
    there = os.path.join(led.dir, "server")
    shutil.copytree(led.images, there)
    largest = max((e for e in os.scandir(led.images) if e.name.startswith("pages-")), key=lambda e: e.stat().st_size)
    check(largest.stat().st_size >= 32 * MIB, "no image has the contents of the shared memory")
    os.unlink(largest.path)
    return there


def start_server(led, images, port, log="page-server.log", args=()):
    ready, status = os.pipe()
    try:
        server = led.criu("page-server", "--lazy-pages", "--address", "127.0.0.1", "--port", port,
                          "--status-fd", str(status), "-D", images, *args, log=log, pass_fds=[status])
    finally:
        os.close(status)
    wait_for(lambda: select.select([ready], [], [], 0)[0], "the page server does not listen")
    os.close(ready)
    return server


def from_server(port, *args):
    return ("--page-server", "--address", "127.0.0.1", "--port", port, *args)
