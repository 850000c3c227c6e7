# SPDX-License-Identifier: GPL-2.0-only
"""A TCP proxy in the destination's machine, between criu lazy-pages and the page server,
that can cut, stall and slow down what goes through it."""

import select
import socket
import struct
import threading
import time

import machines


class Proxy:
    def __init__(self, pair, port, mbps=None):
        self.pair, self.target, self.mbps = pair, (machines.ADDRESSES[0], port), mbps
        self.lock = threading.Lock()
        self.passed = self.connections = self.cuts = 0
        self.cut_at = None  # as a number of bytes that have passed
        self.stalled = self.refusing = self.refusing_after_cut = self.over = False
        self.listener = pair.destination.on_net(lambda: socket.create_server(("127.0.0.1", 0)))
        self.address, self.port = "127.0.0.1", self.listener.getsockname()[1]
        self.listener.settimeout(0.05)
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over = True
        self.listener.close()

    def cut(self):
        """Resets all connections that there are; new ones can be made."""
        with self.lock:
            self.cut_at = self.passed

    def accept(self):
        while not self.over:
            try:
                near = self.listener.accept()[0]
            except socket.timeout:
                continue
            except OSError:
                return
            if self.refusing or (self.cuts and self.refusing_after_cut):
                near.close()
                continue
            try:
                far = self.pair.destination.on_net(lambda: socket.create_connection(self.target, 5))
            except OSError:
                near.close()
                continue
            self.connections += 1
            threading.Thread(target=self.pump, args=(near, far, self.cuts), daemon=True).start()

    def pump(self, near, far, born):
        """One connection. When one is cut all are that were there then."""
        for sk in (near, far):
            sk.settimeout(5)
            sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while not self.over and self.cuts == born:
                with self.lock:
                    if self.cut_at is not None and self.passed >= self.cut_at:
                        self.cut_at = None
                        self.cuts += 1
                        break
                if self.stalled:
                    time.sleep(0.01)
                    continue
                for sk in select.select([near, far], [], [], 0.02)[0]:
                    if not self.forward(sk, far if sk is near else near):
                        return
        except OSError:
            pass
        finally:
            for sk in (near, far):
                sk.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sk.close()

    def forward(self, sk, to):
        """False at the end; not a byte more than up to the cut"""
        with self.lock:
            left = 1 << 18 if self.cut_at is None else min(1 << 18, self.cut_at - self.passed)
        if left <= 0:
            return True
        data = sk.recv(left)
        if not data:
            to.shutdown(socket.SHUT_WR)
            return False
        to.sendall(data)
        with self.lock:
            self.passed += len(data)
        if self.mbps:
            time.sleep(len(data) / (self.mbps * 1e6))
        return True
