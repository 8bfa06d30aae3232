"""
Nodes that are hardly there: they join a cluster, answer what they are asked, and know nothing.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import threading

__all__ = ["Crowd"]


class Crowd:
    """
    Many of them, in one thread.

    @ivar hosts: their addresses; all have port 5060.
    """

    def __init__(self, hosts: list[str]) -> None:
        self.hosts = hosts
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[str, socket.socket] = {}
        for host in hosts:
            opened = self._sockets[host] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.bind((host, 5060))
            self._selector.register(opened, selectors.EVENT_READ, host)
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """
        All are gone, without a word.
        """
        self._is_over = True
        self._thread.join()
        for opened in self._sockets.values():
            opened.close()
        self._selector.close()

    def join(self, host: str) -> None:
        """
        Each of them tells a node that it is there.

        @param host: of the node, which has port 5060.
        """
        for own, opened in self._sockets.items():
            mark = os.urandom(6).hex()
            body = f"sip:{own}:5060;status=active\r\n"
            request = (
                f"KDMQ sip:notification_peer@{host}:5060 SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {own};branch=z9hG4bK{mark}\r\n"
                f"To: <sip:notification_peer@{host}:5060>\r\n"
                f"From: <sip:notification_peer@{own}:5060>;tag={mark}\r\n"
                f"CSeq: 10 KDMQ\r\nCall-ID: {mark}\r\nContent-Length: {len(body)}\r\n"
                f"Max-Forwards: 2\r\nContent-Type: text/plain\r\n\r\n{body}"
            )
            opened.sendto(request.encode(), (host, 5060))

    def _serve(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.1):
                opened = key.fileobj
                assert isinstance(opened, socket.socket)
                data, sender = opened.recvfrom(65535)
                if data.startswith(b"KDMQ "):
                    opened.sendto(self._answer(key.data, data.decode(errors="replace")), sender)

    def _answer(self, own: str, request: str) -> bytes:
        head = request.partition("\r\n\r\n")[0].split("\r\n")
        kept = [line for line in head if re.match(r"(Via|From|Call-ID|CSeq):", line)]
        (to,) = [line for line in head if line.startswith("To:")]
        channel = head[0].split("@")[0].partition("sip:")[2]
        status = "404 User Not Found" if channel == "sipdmq" else "200 OK"
        body = f"sip:{own}:5060;status=active\r\n" if channel == "notification_peer" else ""
        lines = [f"SIP/2.0 {status}", *kept, f"{to};tag=1", "Content-Type: text/plain", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", body]).encode()
