"""
What KDMQ there is on the wire, counted beside the nodes: needs root, for a packet socket on the loopback interface.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Tap", "Traffic", "tapped"]

ETH_P_IP = 0x0800
SOL_PACKET = 263
PACKET_STATISTICS = 6
#: Bytes of an Ethernet and of an IP header without options, as the loopback interface has them, and of a UDP header.
HEAD = 14 + 20 + 8
BUFFER = 64 * 2**20
IN_ORDER = b'"aor":'
SYNC = b'"action":3'


@dataclass(frozen=True)
class Traffic:
    """
    What was seen so far, of the channel usrloc alone.

    @ivar requests: KDMQ requests, those sent again counted again.
    @ivar size: bytes of these and of their answers, as UDP carries them.
    @ivar contacts: in these requests, removals among them.
    @ivar asked_at: monotonic seconds, when a sync was asked for first; 0: it was not.
    @ivar first_at: when a contact was seen first.
    @ivar answered_at: when a request was answered last.
    @ivar last_at: when a contact was seen last.
    """

    requests: int
    size: int
    contacts: int
    asked_at: float
    first_at: float
    answered_at: float
    last_at: float


class Tap:
    """
    See L{tapped}.
    """

    def __init__(self, network: str, to: str) -> None:
        self._network = bytes(map(int, network.split(".")))
        self._to = socket.inet_aton(to) if to else b""
        # requests, bytes, contacts, asked, first contact, last answer, last contact, lost by the tap
        self._seen = multiprocessing.Array(ctypes.c_double, 8)
        self._stopped = multiprocessing.Event()
        self._ready = multiprocessing.Event()
        self._process = multiprocessing.Process(target=self._watch, daemon=True)

    def start(self) -> None:
        """
        @raise OSError: it does not begin.
        """
        self._process.start()
        if not self._ready.wait(5):
            raise OSError("no packet socket: only root may have one")

    def stop(self) -> None:
        self._stopped.set()
        self._process.join(5)

    def read(self) -> Traffic:
        """
        @raise OSError: packets were lost by the tap itself: the numbers are too small.
        """
        time.sleep(0.3)
        return self.glance()

    def glance(self) -> Traffic:
        """
        The same without waiting for what is still in the tap's own queue.
        """
        seen = list(self._seen)
        if seen[7]:
            raise OSError(f"the tap lost {seen[7]:.0f} packets")
        return Traffic(int(seen[0]), int(seen[1]), int(seen[2]), *seen[3:7])

    def _watch(self) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)) as sock:
            sock.bind(("lo", ETH_P_IP))
            with contextlib.suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
            sock.settimeout(0.1)
            seen: Any = self._seen.get_obj()
            network, to = self._network, self._to
            self._ready.set()
            while not self._stopped.is_set():
                try:
                    packet = sock.recv(70_000)
                except TimeoutError:
                    seen[7] += struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
                    continue
                # both addresses are those of our nodes, so this is no phone
                if packet[26 : 26 + len(network)] != network or packet[30 : 30 + len(network)] != network:
                    continue
                start = packet[HEAD : HEAD + 16]
                if start == b"KDMQ sip:usrloc@":
                    if SYNC in packet and not seen[3]:
                        seen[3] = time.monotonic()
                    if to and packet[30:34] != to:
                        continue
                    count = packet.count(IN_ORDER)
                    now = time.monotonic()
                    seen[0] += 1
                    seen[1] += len(packet) - HEAD
                    seen[2] += count
                    if count:
                        seen[4] = seen[4] or now
                        seen[6] = now
                elif start[:8] == b"SIP/2.0 " and b"sip:usrloc@" in packet and packet.find(b" KDMQ\r\n", HEAD) > 0:
                    if to and packet[26:30] != to:
                        continue
                    seen[1] += len(packet) - HEAD
                    seen[5] = time.monotonic()


@contextlib.contextmanager
def tapped(network: str, to: str = "") -> Iterator[Tap]:
    """
    A process that counts meanwhile.

    @param network: what the addresses of all nodes begin with, C{"127.71.3"}.
    @param to: count only what is for this node, and its answers; empty: everything.
    """
    tap = Tap(network, to)
    tap.start()
    try:
        yield tap
    finally:
        tap.stop()
