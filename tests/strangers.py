"""
Those who send a node single bad messages that belong to nothing, over UDP, TCP and TLS.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
from collections import Counter

from tests.mutations import Mutations

__all__ = ["STATUS", "Strangers"]

STATUS = re.compile(rb"^SIP/2\.0 ([1-6][0-9]{2}) ", re.MULTILINE)
MAX_STREAMS = 5


class Strangers:
    """
    Two datagram sockets and a few connections.

    @ivar answers: how many answers there were, by status code.
    """

    def __init__(
        self,
        node: tuple[str, int],
        mutations: Mutations,
        chance: random.Random,
        tls_port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        @param tls: every other connection is over TLS, to C{tls_port}; L{None}: none is.
        """
        self._tls_port = tls_port
        self._tls = tls
        self.answers: Counter[str] = Counter()
        self._node = node
        self._mutations = mutations
        self._random = chance
        self._phones: list[socket.socket] = []
        self._streams: list[socket.socket] = []
        for port in (5999, 0):  # the Vias of most messages point to the first
            phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            phone.bind((node[0], port))
            phone.setblocking(False)
            self._phones.append(phone)

    def close(self) -> None:
        """
        Close all sockets.
        """
        for opened in (*self._phones, *self._streams):
            opened.close()

    def act(self) -> None:
        """
        Send one message.
        """
        message = next(self._mutations)
        if self._random.random() < 0.7:
            self._random.choice(self._phones).sendto(message, self._node)
        else:
            self._send_by_stream(message)

    def hear(self) -> None:
        """
        Count the answers over UDP; those over TCP are counted while sending.
        """
        for phone in self._phones:
            self._count_answers(phone)

    def _send_by_stream(self, message: bytes) -> None:
        streams = self._streams
        if len(streams) < MAX_STREAMS:
            streams.append(self._open())
        stream = self._random.choice(streams)
        try:
            cut = self._random.randrange(len(message) + 1)
            stream.sendall(message[:cut])
            stream.sendall(message[cut:])
            self._count_answers(stream)
        except (OSError, EOFError):  # it was closed for what it had brought
            stream.close()
            streams.remove(stream)
            return
        if self._random.random() < 0.1:  # out of step by now, perhaps
            stream.close()
            streams.remove(stream)

    def _open(self) -> socket.socket:
        if self._tls is None or self._random.random() < 0.5:
            stream = socket.create_connection(self._node, 5)
        else:
            host = self._node[0]
            stream = self._tls.wrap_socket(socket.create_connection((host, self._tls_port), 5), server_hostname=host)
        stream.settimeout(1)
        return stream

    def _count_answers(self, opened: socket.socket) -> None:
        """
        @raise EOFError: the peer has closed the stream.
        """
        opened.setblocking(False)
        try:
            while True:
                data = opened.recv(65535)
                if not data and opened.type == socket.SOCK_STREAM:
                    raise EOFError
                self.answers.update(code.decode() for code in STATUS.findall(data))
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        finally:
            if opened.type == socket.SOCK_STREAM:
                opened.settimeout(1)
