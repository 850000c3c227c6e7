#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
# timeout: 120
"""Lazy restore where the contents of shared memory are not here, but with a page
server that has the images."""

import os

from lib import (TIMEOUT, Ledger, check, check_log, check_nothing_left, finish, main, test, wait_for)
from remote_lib import free_port, from_server, start_server, take_contents_away


def dumped(where):
    led = Ledger(where, "-m", "32", "-p", "2", "-P", "8").start().dump()
    return led, take_contents_away(led)


@test
def contents(where):
    """What is not here is fetched, and is what was dumped"""
    led, images = dumped(where)
    port = free_port()
    server = start_server(led, images, port)
    led.start_daemon(args=from_server(port))
    status = led.restore("--lazy-pages")
    check(status == 0, "restore: status %d: %s" % (status, led.errors("lazy-pages.log")))
    walks = led.walk()
    check(sum(int(w["pages"]) for w in walks) >= 2 * 32 * 256, "not all pages were checked")
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check(finish(server, TIMEOUT) == 0, "the page server failed: " + led.errors("page-server.log"))
    check([o["pages_filled"] for o in led.counters()] == [32 * 256], str(led.counters()))
    check_nothing_left(led)
    led.kill()


@test
def server_comes_back(where):
    """Another server with the same images carries on where the first was lost"""
    led, images = dumped(where)
    port = free_port()
    server = start_server(led, images, port)
    # little at a time, so that the window is long
    led.start_daemon(args=from_server(port, "--lazy-timeout", "10"), env={"CRIU_LAZY_SHMEM_INFLIGHT": "4"})
    check(led.restore("--lazy-pages") == 0, "restore failed: " + led.errors("lazy-pages.log"))
    server.kill()
    finish(server)
    check(not led.counters(), "the window was over before the server was lost")
    server = start_server(led, images, port, log="second.log")
    led.walk()
    check(led.finish_daemon() == 0, "the daemon failed: " + led.errors("lazy-pages.log"))
    check(finish(server, TIMEOUT) == 0, "the second page server failed: " + led.errors("second.log"))
    check_log(led.log("lazy-pages.log"), r"[Ll]ost the page server|page server is lost", r"page server is back")
    led.kill()


@test
def server_gone(where):
    """Without one nobody goes on with zeroes"""
    led, images = dumped(where)
    port = free_port()
    server = start_server(led, images, port)
    # one question at a time, so that not all is here before the server is gone
    led.start_daemon(args=from_server(port, "--lazy-timeout", "1"), env={"CRIU_LAZY_SHMEM_INFLIGHT": "4"})
    os.kill(server.pid, 19)
    restore = led.criu("restore", "-d", "--lazy-pages")
    server.kill()
    finish(server)
    check(finish(restore, TIMEOUT) != 0 or led.finish_daemon() != 0, "nobody noticed")
    wait_for(lambda: not led.alive(), "tasks go on without their memory")
    led.check_right()
    check_log(led.log("lazy-pages.log"), r"Error.*(page server|There is no page server)")


@test
def needs_the_option(where):
    """Without --page-server it is an error that says what is missing"""
    led, _ = dumped(where)
    led.start_daemon()
    check(led.restore("--lazy-pages") != 0, "restored without contents")
    check(led.finish_daemon() != 0, "the daemon says that all is well")
    check_log(led.log("lazy-pages.log"), r"Error.*Object 0x[0-9a-f]+: .*--page-server")
    check(not led.alive(), "a task runs")


if __name__ == "__main__":
    main()
