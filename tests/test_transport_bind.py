"""
Opening the sockets: bound before the node counts as started, and errors that name the cure.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipdmq.errors import UnreachableError
from sipdmq.records import Listener, Protocol
from sipdmq.transport import bind
from sipdmq.transport.bind import advertised, bind_listener, family_of


def local(protocol: Protocol, host: str = "127.0.0.1", port: int = 0) -> Listener:
    return Listener(protocol, host, port, host, port)


class BindTests(SynchronousTestCase):
    """
    Real sockets on loopback, that send nothing.
    """

    def bind(self, listener: Listener) -> socket.socket:
        opened = bind_listener(listener)
        self.addCleanup(opened.close)
        return opened

    def taken(self, protocol: Protocol) -> Listener:
        """
        A listener whose port somebody has.
        """
        return local(protocol, port=self.bind(local(protocol)).getsockname()[1])

    def test_udp(self) -> None:
        opened = self.bind(local(Protocol.UDP))
        self.assertEqual((opened.type, opened.getblocking()), (socket.SOCK_DGRAM, False))
        self.assertEqual(opened.getsockname()[0], "127.0.0.1")

    def test_tcp_listens(self) -> None:
        opened = self.bind(local(Protocol.TCP))
        self.assertEqual((opened.type, opened.getblocking()), (socket.SOCK_STREAM, False))
        self.assertTrue(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    def test_one_port_for_both(self) -> None:
        for _ in range(20):  # some other program may have this very number for TCP
            listener = self.taken(Protocol.UDP)._replace(protocol=Protocol.TCP)
            try:
                self.bind(listener)
            except UnreachableError:
                continue
            return
        self.fail("twenty free UDP ports, and none of them free for TCP")

    def test_ipv6_is_for_ipv6_alone(self) -> None:
        try:
            opened = self.bind(local(Protocol.UDP, "::1"))
        except UnreachableError as error:
            raise SkipTest(f"no IPv6 here: {error.reason}") from None
        self.assertEqual(opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 1)

    def test_an_address_in_use_names_who_and_the_cure(self) -> None:
        for protocol in Protocol:
            listener = self.taken(protocol)
            error = self.assertRaises(UnreachableError, bind_listener, listener)
            self.assertTrue(error.reason.startswith(f"{listener}: Address already in use; "), error.reason)
            self.assertIn("another port", error.reason)

    def test_udp_shares_its_port_with_nobody(self) -> None:
        """
        Two programs that share it get each a part of the datagrams: with SO_REUSEADDR it would be no error.
        """
        opened = self.bind(local(Protocol.UDP))
        self.assertEqual(opened.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR), 0)
        self.assertEqual(opened.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT), 0)

    def test_an_address_that_is_not_ours_names_the_cure(self) -> None:
        error = self.assertRaises(UnreachableError, bind_listener, local(Protocol.UDP, "192.0.2.77"))
        self.assertIn("Cannot assign requested address; this machine has no such address", error.reason)
        self.assertIn("0.0.0.0", error.reason)

    def test_a_privileged_port_names_the_cure(self) -> None:
        """
        Not tried for real: the tests may run as root.
        """
        reason = bind._cure(PermissionError(errno.EACCES, "x"))
        self.assertEqual(reason, f"{os.strerror(errno.EACCES)}; ports below 1024 need privileges; choose another port")

    def test_another_error_says_what_it_is(self) -> None:
        self.assertEqual(bind._cure(OSError(errno.ENOBUFS, "x")), os.strerror(errno.ENOBUFS))

    def test_a_failure_leaves_no_socket_open(self) -> None:
        made: list[socket.socket] = []
        real = socket.socket

        def make(*arguments: int) -> socket.socket:
            made.append(real(*arguments))
            return made[-1]

        self.patch(socket, "socket", make)
        self.assertRaises(UnreachableError, bind_listener, local(Protocol.UDP, "192.0.2.77"))
        self.assertEqual([opened.fileno() for opened in made], [-1])


    def test_udp_has_more_room_for_what_leaves_than_by_default(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            by_default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        opened = bind_listener(local(Protocol.UDP))
        self.addCleanup(opened.close)
        self.assertGreater(opened.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), by_default)


class FamilyTests(SynchronousTestCase):
    """
    A colon is IPv6.
    """

    def test_families(self) -> None:
        self.assertEqual(family_of("192.0.2.1"), socket.AF_INET)
        self.assertEqual(family_of("::"), socket.AF_INET6)


class FakeProbe:
    """
    A datagram socket of a machine with one address, or with none.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> FakeProbe:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self, address: tuple[str, int]) -> None:
        if not self._address:
            raise OSError(errno.ENETUNREACH, "x")

    def getsockname(self) -> tuple[str, int]:
        return (self._address, 50000)


class AdvertisedTests(SynchronousTestCase):
    """
    Bound to all addresses, a listener says the one from which this machine reaches the world, unless it was told.
    """

    def probe(self, address: str) -> None:
        self.patch(socket, "socket", lambda *_: FakeProbe(address))

    def test_a_wildcard_takes_the_address_of_the_way_out(self) -> None:
        for host, address in (("0.0.0.0", "198.51.100.1"), ("::", "2001:db8::5")):
            self.probe(address)
            listener = advertised(Listener(Protocol.UDP, host, 5060, host, 5060))
            self.assertEqual(listener, Listener(Protocol.UDP, host, 5060, address, 5060))

    def test_what_the_operator_said_stays(self) -> None:
        self.probe("198.51.100.1")
        for host in ("0.0.0.0", "192.0.2.1"):
            listener = Listener(Protocol.UDP, host, 5060, "sip.example.org", 15060)
            self.assertEqual(advertised(listener), listener)

    def test_without_a_way_out_the_error_names_the_cure(self) -> None:
        self.probe("")
        error = self.assertRaises(
            UnreachableError, advertised, Listener(Protocol.TCP, "0.0.0.0", 5060, "0.0.0.0", 5060)
        )
        self.assertIn("name one: tcp:0.0.0.0:5060 advertise HOST:PORT", error.reason)
