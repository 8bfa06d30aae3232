"""
A phone of our own, for what the programs cannot: it speaks over a plain socket or TLS, and blocks.

It reads messages by itself, apart from L{sipdmq.sip}.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from tests.digest_client import DigestClient
from tests.interop.programs import ProgramFailed

__all__ = ["Answer", "Phone", "make_response"]

#: Seconds to wait for an answer.
TIMEOUT = 5.0


@dataclass(frozen=True)
class Answer:
    """
    A response.

    @ivar fields: names in lower case, and values.
    """

    status: int
    fields: tuple[tuple[str, str], ...]
    text: str

    def all(self, name: str) -> list[str]:
        """
        The values of all fields of that name.
        """
        return [value for each, value in self.fields if each == name.lower()]

    @property
    def challenges(self) -> list[str]:
        """
        Those of a 401 or 407, top first.
        """
        return self.all("proxy-authenticate" if self.status == 407 else "www-authenticate")


def read_answer(head: str) -> Answer:
    """
    Read what stands before the empty line.
    """
    first, *lines = head.split("\r\n")
    fields = []
    for line in lines:
        name, _, value = line.partition(":")
        fields.append((name.strip().lower(), value.strip()))
    return Answer(int(first.split()[1]), tuple(fields), head)


def make_response(request: bytes, status: str) -> bytes:
    """
    @param request: one message, or more behind it.
    @param status: C{"486 Busy Here"}.
    @return: the response, without a body.
    """
    head = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    kept = [line for line in head if line.startswith(("Via:", "Record-Route:", "From:", "Call-ID:", "CSeq:"))]
    (to,) = [line for line in head if line.startswith("To:")]
    tag = "" if ";tag=" in to else f";tag={os.urandom(4).hex()}"
    return "\r\n".join([f"SIP/2.0 {status}", *kept, to + tag, "Content-Length: 0", "", ""]).encode()


class Phone:
    """
    One user at one node.

    @ivar domain: of the user.
    @ivar address: the phone's own, and its port.
    @ivar digest: how it proves who it is; L{None} if it cannot.
    """

    def __init__(
        self,
        node: tuple[str, int],
        user: str,
        domain: str,
        password: str = "",
        *,
        protocol: str = "udp",
        algorithms: Sequence[str] = ("MD5",),
        tls: ssl.SSLContext | None = None,
        name: str = "",
    ) -> None:
        """
        Open its socket, or connect it.

        @param protocol: C{udp}, C{tcp} or C{tls}.
        @param tls: for C{tls}.
        @param name: that the node's certificate must have; its address if empty.
        """
        self.user = user
        self.domain = domain
        self.protocol = protocol
        self.digest = DigestClient(user, password, algorithms, os.urandom(4).hex()) if password else None
        self._count = 0
        self._request = b""
        self._buffer = b""
        self._socket: socket.socket
        if protocol == "udp":
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind((node[0], 0))
            self._socket.connect(node)
        else:
            self._socket = socket.create_connection(node, TIMEOUT)
            if protocol == "tls":
                assert tls is not None
                self._socket = tls.wrap_socket(self._socket, server_hostname=name or node[0])
        self._socket.settimeout(TIMEOUT)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]

    def close(self) -> None:
        """
        Close the socket.
        """
        self._socket.close()

    @property
    def contact(self) -> str:
        """
        Where it is reached.
        """
        return f"sip:{self.user}@{self.address[0]}:{self.address[1]};transport={self.protocol}"

    def make(self, method: str, uri: str, fields: Sequence[str] = (), to: str = "", from_: str = "") -> bytes:
        """
        @param to: the URI in To; by default C{uri}, and for REGISTER the user.
        @param from_: the URI in From; by default the user.
        @return: a request, different from all before, without a body.
        """
        self._count += 1
        own = f"sip:{self.user}@{self.domain}"
        mark = f"{os.urandom(6).hex()}.{self._count}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.protocol.upper()} {self.address[0]}:{self.address[1]};branch=z9hG4bK{mark};rport",
            "Max-Forwards: 70",
            f"From: <{from_ or own}>;tag={mark}",
            f"To: <{to or (own if method == 'REGISTER' else uri)}>",
            f"Call-ID: {mark}",
            f"CSeq: {self._count} {method}",
            *([f"Contact: <{self.contact}>"] if method == "INVITE" else []),
            *fields,
            "Content-Length: 0",
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def send(self, request: bytes) -> Answer:
        """
        Send a request as it is.

        @return: its final response; one other than 2xx to an INVITE has been acknowledged.
        @raise ProgramFailed: none came in time.
        """
        self.transmit(request)
        return self.final()

    def transmit(self, request: bytes) -> None:
        """
        Send a request as it is, and do not wait.
        """
        self._socket.sendall(request)
        self._request = request

    def final(self) -> Answer:
        """
        @return: the final response to what was sent last; as L{send}.
        @raise ProgramFailed: none came in time.
        """
        while True:
            answer = self.receive()
            if answer.status >= 200:
                break
        if self._request.startswith(b"INVITE ") and answer.status >= 300:
            self._acknowledge(self._request, answer)
        return answer

    def receive(self) -> Answer:
        """
        @return: the next response.
        @raise ProgramFailed: none came in time.
        """
        try:
            if self.protocol == "udp":
                head = self._socket.recv(65535).partition(b"\r\n\r\n")[0]
            else:
                while b"\r\n\r\n" not in self._buffer:
                    received = self._socket.recv(65535)
                    if not received:
                        raise ProgramFailed("the node closed the connection")
                    self._buffer += received
                head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")  # none of the node's answers has a body
        except TimeoutError:
            raise ProgramFailed(f"{self.user} got no answer") from None
        return read_answer(head.decode(errors="replace"))

    def _acknowledge(self, request: bytes, answer: Answer) -> None:
        lines = request.decode().split("\r\n")
        kept = [line for line in lines if line.startswith(("Via:", "Max-Forwards:", "From:", "Call-ID:"))]
        uri = lines[0].split()[1]
        number = next(line for line in lines if line.startswith("CSeq:")).split()[1]
        ack = [f"ACK {uri} SIP/2.0", *kept, f"To: {answer.all('to')[0]}", f"CSeq: {number} ACK", "Content-Length: 0"]
        self._socket.sendall("\r\n".join([*ack, "", ""]).encode())

    # with a password

    def ask(self, method: str, uri: str, fields: Sequence[str] = (), **changes: str) -> Answer:
        """
        Send a request with credentials, if there was a challenge before.

        @param changes: what L{DigestClient.credentials} shall say otherwise.
        """
        signed = list(fields)
        if self.digest is not None and self.digest.challenge:
            name = "Authorization" if method == "REGISTER" else "Proxy-Authorization"
            signed.append(f"{name}: {self.digest.credentials(method, uri, **changes)}")
        return self.send(self.make(method, uri, signed))

    def ask_challenged(self, method: str, uri: str, fields: Sequence[str] = ()) -> Answer:
        """
        Send a request without credentials, and once more with them when it is challenged.
        """
        answer = self.send(self.make(method, uri, fields))
        if answer.status in (401, 407) and self.digest is not None:
            self.digest.take(answer.challenges)
            answer = self.ask(method, uri, fields)
        return answer

    def register(self, contact: str = "", expires: int = 600) -> Answer:
        """
        Register, by password if it is asked for.

        @param contact: a URI; by default this phone's own.
        """
        fields = (f"Contact: <{contact or self.contact}>", f"Expires: {expires}")
        return self.ask_challenged("REGISTER", f"sip:{self.domain}", fields)
