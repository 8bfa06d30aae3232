"""
The network between machines apart: as good or as bad as was said.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.forwarder import Faults
from tests.interop.namespaces import Network, require_namespaces


class NetworkTests(SynchronousTestCase):
    """
    Two machines.
    """

    def setUp(self) -> None:
        require_namespaces()
        self.network = Network({"one": "198.18.1.1/24", "two": "198.18.1.2/24"}, seed=1)
        self.addCleanup(self.network.close)
        self.sockets = ExitStack()
        self.addCleanup(self.sockets.close)
        self.one, self.two = self.open("one", "198.18.1.1"), self.open("two", "198.18.1.2")
        self.arriving(1)  # now each knows where the other is

    def open(self, name: str, host: str) -> socket.socket:
        """
        A socket on a machine.
        """
        with self.network.namespaces[name].entered():
            opened = self.sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        opened.bind((host, 5060))
        opened.settimeout(0.5)
        return opened

    def arriving(self, count: int) -> list[int]:
        """
        Send so many numbered datagrams, one after the other.

        @return: the numbers of those that arrived, in that order.
        """
        for number in range(count):
            self.one.sendto(b"%d" % number, self.two.getsockname())
        found = []
        while True:
            try:
                found.append(int(self.two.recv(100)))
            except TimeoutError:
                return found

    def test_a_good_network(self) -> None:
        self.assertEqual(self.arriving(100), list(range(100)))
        for size in (1, 1472, 1473, 60_000):  # the last two in fragments
            self.one.sendto(b"x" * size, self.two.getsockname())
            self.assertEqual(self.two.recvfrom(65535), (b"x" * size, self.one.getsockname()))

    def test_tcp(self) -> None:
        with self.network.namespaces["two"].entered():
            server = self.sockets.enter_context(socket.create_server(("198.18.1.2", 5061)))
        with self.network.namespaces["one"].entered():
            client = self.sockets.enter_context(socket.create_connection(("198.18.1.2", 5061), 5.0))
        accepted = self.sockets.enter_context(server.accept()[0])
        client.sendall(b"y" * 100_000)
        client.close()
        with accepted.makefile("rb") as stream:
            self.assertEqual(len(stream.read()), 100_000)

    def test_a_bad_network(self) -> None:
        self.network.set(Faults(loss=0.2, double=0.1, reorder=0.1, delay=0.001))
        found = self.arriving(200)
        self.assertTrue(120 < len(set(found)) < 190, len(set(found)))
        self.assertTrue(len(found) > len(set(found)))
        self.assertNotEqual(found, sorted(found))
        counts = self.network.set()
        self.assertTrue(counts["lost"] > 10 and counts["doubled"] > 4 and counts["reordered"] > 4, counts)
        self.assertEqual(self.arriving(20), list(range(20)))

    def test_an_interface_that_is_off(self) -> None:
        self.network.switch_off("one")
        self.assertRaises(OSError, self.one.sendto, b"0", self.two.getsockname())
        self.network.switch_on("one")
        self.assertEqual(self.arriving(3), [0, 1, 2])

    def test_a_cable_that_is_pulled(self) -> None:
        self.network.pull("two")
        self.assertEqual(self.arriving(3), [])
        self.network.plug("two")
        self.assertEqual(self.arriving(3), [0, 1, 2])
