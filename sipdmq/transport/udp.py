"""
SIP over UDP.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from sipdmq.records import Listener, Protocol, Source

__all__ = ["SipDatagrams"]

log = Logger()

_UDP: Final = Protocol.UDP  # looking it up in its Enum for each datagram would cost four times as much


class SipDatagrams(DatagramProtocol):
    """
    One UDP listener. Knows nothing of what is in a datagram.
    """

    def __init__(self, listener: Listener, received: Callable[[bytes, Source], None]) -> None:
        """
        @param received: called with each datagram; what it raises is logged and ends here.
        """
        self.listener = listener
        self._received = received
        self._socket: socket.socket | None = None

    def startProtocol(self) -> None:
        # The transport's write() checks the address anew for each datagram, at five times the price of sending it.
        # Ours come from a Target, numeric already.
        self._socket = self.transport.getHandle()  # type: ignore[union-attr]

    def stopProtocol(self) -> None:
        self._socket = None

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        try:
            self._received(datagram, Source(_UDP, addr[0], addr[1], self.listener))
        except Exception:  # noqa: BLE001 - the edge of datagrams
            log.failure("a datagram from {host}:{port} broke us", host=addr[0], port=addr[1])

    def send(self, data: bytes, host: str, port: int) -> str:
        """
        Send a datagram.

        @return: empty, or why it could not be sent.
        """
        if self._socket is None:
            return "the listener is closed"
        try:
            self._socket.sendto(data, (host, port))
        except (BlockingIOError, InterruptedError):
            return ""  # no room in the kernel: lost, as it may be on any hop behind it
        except OSError as error:
            return os.strerror(error.errno or 0)
        except OverflowError:
            return "no such port"
        return ""
