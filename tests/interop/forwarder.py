"""
A bad network between network namespaces: an Ethernet switch in a process of its own, which loses, doubles, delays and
reorders frames as it is told. Frames are forwarded as they are, so addresses, ARP and TCP are what they would be.

C{python -m tests.interop.forwarder --seed 7 PORT...}, in the namespace that holds the interfaces named PORT. Each line
of its input is a JSON object of L{Faults}; each is answered with one line, the counts so far. It ends with its input.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Dice", "Faults", "Switch"]

# linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3

#: Bytes of struct virtio_net_hdr in front of each frame. It says what is still missing from it: interfaces of this kind
#: leave checksums and the cutting of TCP segments to a hardware that is not there.
VNET_HEADER = 10
MAX_FRAME = VNET_HEADER + 14 + 65535

#: Frames that are taken from one interface before the others have their turn.
AT_ONCE = 64
#: Bytes asked for as buffers of the interfaces: nothing shall be lost here but on purpose.
BUFFER = 8 * 2**20


@dataclass(frozen=True)
class Faults:
    """
    What is done to frames, to each by itself.

    @ivar loss: the share that is lost, 0 to 1.
    @ivar double: the share that arrives twice.
    @ivar reorder: the share that arrives later than others which were sent C{behind} seconds after them.
    @ivar behind: seconds, how much later.
    @ivar delay: seconds that every frame takes.
    @ivar jitter: seconds that it may take longer.
    @ivar spared: frames from and to these ports pass unharmed.
    """

    loss: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    behind: float = 0.03
    delay: float = 0.0
    jitter: float = 0.0
    spared: tuple[str, ...] = ()


class Dice:
    """
    What becomes of each frame.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random
        self.faults = Faults()
        self.counts = dict.fromkeys(("passed", "lost", "doubled", "reordered"), 0)

    def throw(self, ports: Iterable[str]) -> tuple[float, ...]:
        """
        @param ports: where the frame comes from and goes to.
        @return: after how many seconds each copy of it arrives.
        """
        faults, chance = self.faults, self._random
        if any(port in faults.spared for port in ports):
            self.counts["passed"] += 1
            return (0.0,)
        if chance() < faults.loss:
            self.counts["lost"] += 1
            return ()
        self.counts["passed"] += 1
        wait = faults.delay + faults.jitter * chance()
        if chance() < faults.reorder:
            self.counts["reordered"] += 1
            wait += faults.behind
        if chance() < faults.double:
            self.counts["doubled"] += 1
            return (wait, wait + faults.jitter * chance())
        return (wait,)


class Switch:
    """
    Frames go to the port behind which their receiver was heard, or to all.
    """

    def __init__(
        self, ports: Iterable[str], dice: Dice, send: Callable[[str, bytes], object], now: Callable[[], float]
    ) -> None:
        """
        @param send: puts a frame on a port.
        @param now: seconds.
        """
        self._ports = tuple(ports)
        self._dice = dice
        self._send = send
        self._now = now
        self._behind: dict[bytes, str] = {}
        self._late: list[tuple[float, int, str, bytes]] = []
        self._numbers = itertools.count()

    def received(self, port: str, frame: bytes) -> None:
        """
        @param frame: its Ethernet header stands behind L{VNET_HEADER} bytes.
        """
        to, sender = frame[VNET_HEADER : VNET_HEADER + 6], frame[VNET_HEADER + 6 : VNET_HEADER + 12]
        self._behind[sender] = port
        is_for_all = bool(to[:1] and to[0] & 1)
        known = None if is_for_all else self._behind.get(to)
        for out in self._ports if known is None else (known,):
            if out == port:
                continue
            for wait in self._dice.throw((port, out)):
                if wait:
                    heapq.heappush(self._late, (self._now() + wait, next(self._numbers), out, frame))
                else:
                    self._send(out, frame)

    def send_due(self) -> float | None:
        """
        Send what was late and is due.

        @return: seconds until there is more; L{None} when there is none.
        """
        while self._late:
            wait = self._late[0][0] - self._now()
            if wait > 0:
                return wait
            _, _, out, frame = heapq.heappop(self._late)
            self._send(out, frame)
        return None


def open_port(name: str) -> socket.socket:
    """
    @return: a socket for all frames that come in at an interface, and for those to be sent there.
    """
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    opened.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    opened.bind((name, ETH_P_ALL))
    opened.setblocking(False)
    return opened


class Capture:
    """
    All frames that came in, in a file for tcpdump and Wireshark.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - until the process ends
        self._file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 2**18, 1))  # pcap 2.4, Ethernet

    def add(self, frame: bytes) -> None:
        """
        @param frame: as L{Switch.received} gets it.
        """
        now, size = time.time(), len(frame) - VNET_HEADER
        self._file.write(struct.pack("=IIII", int(now), int(now % 1 * 1e6), size, size))
        self._file.write(frame[VNET_HEADER:])
        self._file.flush()


class Forwarder:
    """
    The switch at its interfaces, and the pipe that it is told by.
    """

    def __init__(self, names: list[str], seed: int, capture: str = "") -> None:
        """
        @param capture: the name of a file; empty: none.
        """
        self._capture = Capture(capture) if capture else None
        self._sockets = {name: open_port(name) for name in names}
        self._dice = Dice(seed)
        self._switch = Switch(names, self._dice, self._send, time.monotonic)
        self._dropped = 0
        self._text = b""
        self._selector = selectors.DefaultSelector()
        for name, opened in self._sockets.items():
            self._selector.register(opened, selectors.EVENT_READ, name)
        self._selector.register(sys.stdin.buffer.fileno(), selectors.EVENT_READ, None)

    def run(self) -> None:
        """
        Until the input ends.
        """
        wait: float | None = None
        while True:
            for key, _ in self._selector.select(wait):
                if key.data is not None:
                    self._take(key.data)
                elif not self._listen():
                    return
            wait = self._switch.send_due()

    def _take(self, name: str) -> None:
        opened, received = self._sockets[name], self._switch.received
        for _ in range(AT_ONCE):
            try:
                frame = opened.recv(MAX_FRAME)
            except OSError:  # nothing more, or the interface went down
                return
            if self._capture is not None:
                self._capture.add(frame)
            received(name, frame)

    def _send(self, name: str, frame: bytes) -> None:
        try:
            self._sockets[name].send(frame)
        except OSError:  # the interface is down
            self._dropped += 1

    def _listen(self) -> bool:
        data = os.read(sys.stdin.buffer.fileno(), 65536)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            self._dice.faults = Faults(**{**told, "spared": tuple(told.get("spared", ()))})
            sys.stdout.write(json.dumps({**self._dice.counts, "dropped": self._dropped}) + "\n")
            sys.stdout.flush()
        return bool(data)


def main() -> None:
    """
    The program.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.interop.forwarder", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("ports", nargs="+", metavar="PORT")
    parser.add_argument("--capture", default="", metavar="FILE", help="write what comes in into this file, as pcap")
    options = parser.parse_args()
    Forwarder(options.ports, options.seed, options.capture).run()


if __name__ == "__main__":
    main()
