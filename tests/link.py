"""
Sockets to a node that stay in use whatever it does with them, and as much of a message as tests need to read.
"""

from __future__ import annotations

import re
import socket
import ssl

__all__ = ["Link", "fields_of"]

_FIELD = re.compile(rb"^([A-Za-z-]+)[ \t]*:[ \t]*(.*?)\r?$", re.MULTILINE)
_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,6})\r?$", re.MULTILINE | re.IGNORECASE)


def fields_of(message: bytes, name: bytes) -> list[bytes]:
    """
    The lines of one header field, without its name.
    """
    head = message.partition(b"\r\n\r\n")[0]
    return [value for key, value in _FIELD.findall(head) if key.lower() == name]


class Link:
    """
    A socket to the node, opened again whenever the node has closed it.

    @ivar address: its own, host and port.
    @ivar protocol: C{udp}, C{tcp} or C{tls}.
    """

    def __init__(self, node: tuple[str, int], protocol: str, tls: ssl.SSLContext | None = None) -> None:
        """
        @param node: its host, and the port for that protocol.
        @param tls: needed for C{tls}.
        """
        self.protocol = protocol
        self._node = node
        self._tls = tls
        self._buffer = b""
        self._socket: socket.socket | None = None
        self.address = (node[0], 0)
        self.open()

    def open(self) -> None:
        """
        Open it; a stream from another port than before.
        """
        self.close()
        self._buffer = b""
        if self.protocol == "udp":
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**21)
            opened.bind(self.address)
        else:
            opened = socket.create_connection(self._node, 5, (self._node[0], 0))
            opened.settimeout(1)
            if self._tls is not None:
                opened.settimeout(5)
                opened = self._tls.wrap_socket(opened, server_hostname=self._node[0])
                opened.settimeout(1)
        self._socket = opened
        self.address = opened.getsockname()

    @property
    def is_closed(self) -> bool:
        """
        Whether it will be opened by the next message.
        """
        return self._socket is None

    def close(self) -> None:
        """
        Close it.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, data: bytes) -> None:
        """
        Send a message.
        """
        if self._socket is None:
            self.open()
        assert self._socket is not None
        try:
            if self.protocol == "udp":
                self._socket.sendto(data, self._node)
            else:
                self._socket.sendall(data)
        except OSError:
            self.close()

    def receive(self) -> list[bytes]:
        """
        All messages that have come.
        """
        messages: list[bytes] = []
        opened = self._socket
        if opened is None:
            return messages
        opened.setblocking(False)
        try:
            while True:
                data = opened.recv(65535)
                if self.protocol == "udp":
                    messages.append(data)
                elif data:
                    self._buffer += data
                else:
                    self.close()
                    break
        except (BlockingIOError, ssl.SSLWantReadError):
            opened.settimeout(1)
        except OSError:
            self.close()
        return messages + self._framed()

    def _framed(self) -> list[bytes]:
        messages = []
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end + 2)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < size:
                break
            messages.append(self._buffer[:size])
            self._buffer = self._buffer[size:]
        return messages
