"""
A UDP echo on Twisted: what the reactor, the two system calls and one Python call cost without any SIP.

    python bench/twisted_echo.py 127.0.0.1 5060
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorUDP
from twisted.internet.protocol import DatagramProtocol


class Echo(DatagramProtocol):
    """
    Returns each datagram to where it came from.
    """

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        self.transport.write(datagram, addr)


def main(host: str, port: int) -> None:
    """
    Serve until the process is ended.
    """
    IReactorUDP(reactor).listenUDP(port, Echo(), interface=host, maxPacketSize=65535)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
