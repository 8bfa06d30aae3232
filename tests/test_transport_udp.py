"""
One UDP listener: datagrams in and out, and what may go wrong with either.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.records import Protocol, Source
from sipdmq.transport.udp import SipDatagrams
from tests.fakes import UDP


class FakePort:
    """
    A UDP port whose socket does as it is told.

    @ivar error: raised by the next C{sendto}.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.error: Exception | None = None

    def getHandle(self) -> FakePort:
        return self

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((data, address))


class DatagramTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.received: list[tuple[bytes, Source]] = []
        self.port = FakePort()
        self.datagrams = SipDatagrams(UDP, self.receive)
        self.datagrams.makeConnection(self.port)  # type: ignore[arg-type]

    def receive(self, data: bytes, source: Source) -> None:
        self.received.append((data, source))
        if data == b"break":
            raise ZeroDivisionError


class InTests(DatagramTestCase):
    """
    A datagram from anywhere raises nothing past the transport.
    """

    def test_it_comes_with_its_source(self) -> None:
        self.datagrams.datagramReceived(b"data", ("198.51.100.7", 5062))
        self.assertEqual(self.received, [(b"data", Source(Protocol.UDP, "198.51.100.7", 5062, UDP))])
        self.assertEqual(self.received[0][1].flow, "")

    def test_what_is_raised_above_is_logged_and_ends_here(self) -> None:
        self.datagrams.datagramReceived(b"break", ("198.51.100.7", 5062))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.datagrams.datagramReceived(b"next", ("198.51.100.7", 5062))
        self.assertEqual(len(self.received), 2)


class OutTests(DatagramTestCase):
    """
    Sending says why it failed, and never raises.
    """

    def send(self, error: Exception | None = None, port: int = 5062) -> Any:
        self.port.error = error
        return self.datagrams.send(b"data", "198.51.100.7", port)

    def test_it_is_sent(self) -> None:
        self.assertEqual(self.send(), "")
        self.assertEqual(self.port.sent, [(b"data", ("198.51.100.7", 5062))])

    def test_no_room_in_the_kernel_is_a_loss_like_any_other(self) -> None:
        self.assertEqual(self.send(BlockingIOError(errno.EAGAIN, "full")), "")

    def test_a_refusal_of_the_kernel_is_told(self) -> None:
        for code in (errno.ENETUNREACH, errno.EMSGSIZE, errno.EPERM, errno.EINVAL):
            self.assertEqual(self.send(OSError(code, "x")), os.strerror(code))

    def test_an_error_without_a_number_is_told_too(self) -> None:
        self.assertNotEqual(self.send(OSError("odd")), "")

    def test_a_port_that_does_not_exist_is_told(self) -> None:
        self.assertEqual(self.send(OverflowError("port must be 0-65535")), "no such port")

    def test_before_the_start_and_after_the_end_it_is_closed(self) -> None:
        self.assertEqual(SipDatagrams(UDP, self.receive).send(b"x", "198.51.100.7", 1), "the listener is closed")
        self.datagrams.doStop()
        self.assertEqual(self.send(), "the listener is closed")
