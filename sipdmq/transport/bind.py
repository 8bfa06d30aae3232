"""
Opening the sockets that the node listens on: before the node counts as started, and before it becomes a daemon, so
that an address in use is an error that the operator sees.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from sipdmq.errors import UnreachableError
from sipdmq.records import Listener, Protocol

__all__ = ["advertised", "bind_listener", "family_of", "is_numeric"]

RECEIVE_BUFFER: Final = 4 * 2**20
"""Bytes asked of the kernel for a UDP socket; it gives what net.core.rmem_max allows. Bursts wait there."""

SEND_BUFFER: Final = 4 * 2**20
"""The same for what leaves, by net.core.wmem_max. What is for a neighbour that does not answer ARP waits there, up to
208 kB for each and 3 s; with the default, one dead node would fill it, and answers to phones would be lost."""

BACKLOG: Final = 1024
_WILDCARDS: Final = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}


def family_of(host: str) -> socket.AddressFamily:
    """
    @param host: a numeric address, IPv6 without brackets.
    """
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_numeric(host: str) -> bool:
    """
    Whether a host is an address and no name.
    """
    try:
        socket.inet_pton(family_of(host), host)
    except (OSError, ValueError):
        return False
    return True


def bind_listener(listener: Listener) -> socket.socket:
    """
    A bound socket, for TCP and TLS a listening one; not blocking.

    An IPv6 socket is for IPv6 alone, so that C{[::]} and C{0.0.0.0} can stand side by side on every system. UDP does
    not share its address: two programs that do get each a part of the datagrams.

    @raise UnreachableError: the address is in use, not ours, or not allowed; the reason names the cure.
    """
    family = family_of(listener.host)
    is_udp = listener.protocol is Protocol.UDP
    opened = socket.socket(family, socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_udp:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((listener.host, listener.port))
        if not is_udp:
            opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise UnreachableError(f"{listener}: {_cure(error)}") from None
    return opened


def _cure(error: OSError) -> str:
    cures = {
        errno.EADDRINUSE: "stop the program that has it (see 'ss -lnptu'), or choose another port",
        errno.EADDRNOTAVAIL: "this machine has no such address; listen on one that it has, or on 0.0.0.0",
        errno.EACCES: "ports below 1024 need privileges; choose another port",
        errno.EINVAL: "a link-local address (fe80::) cannot be listened on; listen on a global one, or on [::]",
        errno.EAFNOSUPPORT: "this machine has no IPv6; listen on an IPv4 address",
    }
    number = error.errno or 0
    cure = cures.get(number)
    return f"{os.strerror(number)}; {cure}" if cure else os.strerror(number)


def advertised(listener: Listener) -> Listener:
    """
    A listener with something to say of itself: one on all addresses that was not told what to advertise takes the
    address from which this machine reaches the world.

    @raise UnreachableError: it reaches nothing.
    """
    elsewhere = _WILDCARDS.get(listener.advertise_host)
    if elsewhere is None:
        return listener
    with socket.socket(family_of(elsewhere), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((elsewhere, 9))  # a datagram socket sends nothing to connect; the kernel picks the route
            host = probe.getsockname()[0]
        except OSError:
            raise UnreachableError(
                f"{listener}: no address of this machine reaches the world; name one: {listener} advertise HOST:PORT"
            ) from None
    return listener._replace(advertise_host=host)
