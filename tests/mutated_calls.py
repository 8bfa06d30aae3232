"""
Running calls through a node, whose two sides damage what they say: requests and responses, inside and outside of
dialogs, over UDP, TCP and TLS. The same for the same seed, as far as the node answers the same.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field

from tests.digest_client import DigestClient, read_challenge
from tests.link import Link, fields_of
from tests.mutations import Damage

__all__ = ["Callee", "Caller"]

BAD = 0.5
"""The share of messages that is damaged."""
MAX_CALLS = 30
"""Of one caller, and requests that one callee has not answered yet. The oldest are forgotten: as phones that vanish."""
STATUSES = (100, 180, 183, 183, 199, 200, 200, 200, 202, 302, 401, 407, 486, 487, 491, 503, 603)
REGISTER_EVERY = 1.0
"""Seconds."""

_URI = re.compile(rb"<(sips?:[^>\r\n]+)>")
_LENGTH = re.compile(rb"\r\n(?:content-length|l)[ \t]*:[^\r\n]*", re.IGNORECASE)


def _uri_of(message: bytes, name: bytes, otherwise: bytes) -> bytes:
    for value in fields_of(message, name):
        found = _URI.search(value)
        if found:
            return found[1]
    return otherwise


def _framed(message: bytes) -> bytes:
    """
    As bad as it is, but on a stream all of it, and nothing else, is read as one message.
    """
    head, _, body = message.partition(b"\r\n\r\n")
    return b"%s\r\nContent-Length: %d\r\n\r\n%s" % (_LENGTH.sub(b"", head), len(body), body)


@dataclass
class Dialog:
    """
    What one side knows of a call.

    @ivar local: the value of From in its requests; C{remote} that of To.
    @ivar routes: the values of Route in its requests.
    @ivar target: their Request-URI.
    @ivar invite: as this side sent it last.
    @ivar state: C{calling}, C{ringing}, C{answered}
    """

    call_id: bytes
    local: bytes
    remote: bytes
    target: bytes
    routes: list[bytes] = field(default_factory=list)
    cseq: int = 1
    invite: bytes = b""
    state: str = "calling"


class Side:
    """
    One side of calls.

    @ivar sent: how many damaged requests and responses it sent, as C{[requests, responses]}.
    """

    def __init__(self, link: Link, chance: random.Random, user: str, domain: str, digest: DigestClient | None) -> None:
        """
        @param digest: how it proves who it is; L{None} for a stranger, and where it need not.
        """
        self.link = link
        self.sent = [0, 0]
        self._chance = chance
        self._damage = Damage(chance, lambda: self._last)
        self._last = b"\r\n\r\n"
        self._user = user
        self._domain = domain
        self._digest = digest
        self._count = 0

    def _mark(self) -> str:
        self._count += 1
        return f"{self._count}x{self._chance.randrange(10**9)}"

    @property
    def _contact(self) -> bytes:
        host, port = self.link.address
        return f"<sip:{self._user}@{host}:{port};transport={self.link.protocol}>".encode()

    def _request(self, method: str, dialog: Dialog, more: list[bytes], branch: str = "") -> bytes:
        host, port = self.link.address
        uri = dialog.target.decode("utf-8", "surrogateescape")
        lines = [
            f"{method} {uri} SIP/2.0".encode("utf-8", "surrogateescape"),
            f"Via: SIP/2.0/{self.link.protocol.upper()} {host}:{port};branch=z9hG4bK{branch or self._mark()}".encode(),
            b"Max-Forwards: 70",
            b"From: " + dialog.local,
            b"To: " + dialog.remote,
            b"Call-ID: " + dialog.call_id,
            f"CSeq: {dialog.cseq} {method}".encode(),
            b"Contact: " + self._contact,
            *[b"Route: " + route for route in dialog.routes],
            *more,
        ]
        if self._digest is not None and self._digest.challenge and method not in ("ACK", "CANCEL"):
            name = "Authorization" if method == "REGISTER" else "Proxy-Authorization"
            lines.append(f"{name}: {self._digest.credentials(method, uri)}".encode("utf-8", "surrogateescape"))
        body = b"v=0\r\n" if method in ("INVITE", "UPDATE", "PRACK") else b""
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])

    def _say(self, message: bytes) -> bool:
        """
        @return: whether it went as it is.
        """
        is_bad = self._chance.random() < BAD
        if is_bad:
            damaged = self._damage(message)
            self.sent[message.startswith(b"SIP/")] += 1
            self._last = message
            message = damaged
        is_lost = is_bad and self.link.protocol != "udp" and self._chance.random() < 0.2
        if is_bad and self.link.protocol != "udp" and not is_lost:
            message = _framed(message)
        self.link.send(message)
        if is_lost:  # nobody can tell where the next message would begin
            self.link.close()
        return not is_bad

    def _take_challenge(self, response: bytes) -> bool:
        """
        @return: whether it is a challenge that can be answered.
        """
        if self._digest is None or not response.startswith((b"SIP/2.0 401", b"SIP/2.0 407")):
            return False
        found = fields_of(response, b"www-authenticate") + fields_of(response, b"proxy-authenticate")
        values = [value.decode("utf-8", "surrogateescape") for value in found]
        try:
            # The other side makes up and damages challenges, too.
            self._digest.take([value for value in values if {"realm", "nonce"} <= read_challenge(value).keys()])
        except AssertionError:
            return False
        return True

    def _in_dialog(self, dialog: Dialog) -> tuple[bytes, bool]:
        """
        One more request within a dialog.

        @return: it, and whether it ends the dialog.
        """
        method = self._chance.choice(("INVITE", "UPDATE", "INFO", "MESSAGE", "REFER", "BYE", "BYE"))
        dialog.cseq += 1
        request = self._request(method, dialog, [b"Max-Breadth: 20", b"Session-Expires: 90"])
        if method == "INVITE":
            dialog.invite = request
        return request, method == "BYE"


class Caller(Side):
    """
    Calls one user again and again.
    """

    def __init__(
        self, link: Link, chance: random.Random, user: str, domain: str, digest: DigestClient | None, callee: str
    ) -> None:
        """
        @param callee: the URI that it calls.
        """
        super().__init__(link, chance, user, domain, digest)
        self._callee = callee.encode()
        self._calls: dict[bytes, Dialog] = {}

    def act(self) -> None:
        """
        Send one message.
        """
        chance = self._chance
        calls = self._calls
        if not calls or (len(calls) < MAX_CALLS and chance.random() < 0.3):
            mark = self._mark()
            local = f"<sip:{self._user}@{self._domain}>;tag={mark}".encode()
            dialog = Dialog(mark.encode(), local, b"<" + self._callee + b">", self._callee)
            dialog.invite = self._request("INVITE", dialog, [b"Supported: 100rel, timer"])
            if len(calls) >= MAX_CALLS:
                del calls[next(iter(calls))]
            calls[dialog.call_id] = dialog
            self._say(dialog.invite)
            return
        dialog = chance.choice(list(calls.values()))
        if dialog.state == "calling":
            self._say(dialog.invite)
        elif dialog.state == "ringing" and chance.random() < 0.6:
            dialog.cseq += 1
            self._say(self._request("PRACK", dialog, [b"RAck: 1 1 INVITE"]))
        elif dialog.state == "ringing":
            if self._say(dialog.invite.replace(b"INVITE ", b"CANCEL ", 1).replace(b" INVITE", b" CANCEL", 1)):
                calls.pop(dialog.call_id, None)
        elif chance.random() < 0.4:
            self._say(self._acknowledge(dialog))
        else:
            request, is_end = self._in_dialog(dialog)
            if self._say(request) and is_end:
                calls.pop(dialog.call_id, None)

    def _acknowledge(self, dialog: Dialog) -> bytes:
        number, dialog.cseq = dialog.cseq, int(fields_of(dialog.invite, b"cseq")[0].split()[0])
        ack = self._request("ACK", dialog, [])
        dialog.cseq = number
        return ack

    def _acknowledge_failure(self, dialog: Dialog, response: bytes) -> bytes:
        ack = dialog.invite.replace(b"INVITE ", b"ACK ", 1).replace(b" INVITE", b" ACK", 1)
        to = b"".join(fields_of(response, b"to")[:1])
        return ack.replace(b"\r\nTo: " + dialog.remote, b"\r\nTo: " + to, 1)

    def hear(self) -> list[bytes]:
        """
        Take what has come.

        @return: it.
        """
        messages = self.link.receive()
        for message in messages:
            if not message.startswith(b"SIP/2.0 "):
                continue
            self._take_challenge(message)
            call_id = b"".join(fields_of(message, b"call-id")[:1])
            dialog = self._calls.get(call_id)
            if dialog is None or b"INVITE" not in b"".join(fields_of(message, b"cseq")[:1]):
                continue
            status = message[8:11]
            if status >= b"300":
                if self._chance.random() < 0.5:  # else it is repeated until timer H
                    self._say(self._acknowledge_failure(dialog, message))
                if dialog.state != "answered":
                    del self._calls[call_id]
            elif status > b"100" and dialog.state != "answered":
                dialog.state = "answered" if status >= b"200" else "ringing"
                dialog.remote = b"".join(fields_of(message, b"to")[:1])
                dialog.routes = fields_of(message, b"record-route")[::-1]
                dialog.target = _uri_of(message, b"contact", self._callee)
                if dialog.state == "answered":
                    self.link.send(self._acknowledge(dialog))
        return messages

    def vanish(self) -> None:
        """
        Lose the connection, and all calls with it.
        """
        self._calls.clear()
        if self.link.protocol != "udp":
            self.link.close()


class Callee(Side):
    """
    Is registered, and answers what it is asked, in time or not at all.
    """

    def __init__(self, link: Link, chance: random.Random, user: str, domain: str, digest: DigestClient | None) -> None:
        super().__init__(link, chance, user, domain, digest)
        self._open: list[bytes] = []
        self._dialogs: list[Dialog] = []
        self._registered_at = 0.0
        own = f"<sip:{user}@{domain}>".encode()
        self._registration = Dialog(self._mark().encode(), own + b";tag=r", own, f"sip:{domain}".encode())

    def register(self) -> None:
        """
        Register anew, if it is time.
        """
        now = time.monotonic()
        if self.link.is_closed or now >= self._registered_at + REGISTER_EVERY:
            self._registered_at = now
            self._registration.cseq += 1
            self.link.send(self._request("REGISTER", self._registration, [b"Expires: 3"]))

    def act(self) -> None:
        """
        Send one message.
        """
        chance = self._chance
        if self._dialogs and chance.random() < 0.2:
            dialog = chance.choice(self._dialogs)
            request, is_end = self._in_dialog(dialog)
            if self._say(request) and is_end:
                self._dialogs.remove(dialog)
        elif self._open:
            at = chance.randrange(len(self._open))
            request = self._open[at]
            status = chance.choice(STATUSES)
            if self._say(self._response(request, status)) and status >= 200:
                del self._open[at]
                if status < 300 and request.startswith(b"INVITE "):
                    self._answered(request)

    def _response(self, request: bytes, status: int) -> bytes:
        to = b"".join(fields_of(request, b"to")[:1])
        if b";tag=" not in to and status > 100:
            to += b";tag=callee%d" % self._chance.randrange(3)
        lines = [
            b"SIP/2.0 %d Reason" % status,
            *[b"Via: " + via for via in fields_of(request, b"via")],
            *[name.title() + b": " + b"".join(fields_of(request, name)[:1]) for name in (b"from", b"call-id", b"cseq")],
            b"To: " + to,
            *[b"Record-Route: " + route for route in fields_of(request, b"record-route")],
            b"Contact: " + self._contact,
            b"RSeq: 1",
            b"Require: 100rel",
        ]
        if status in (401, 407):
            name = b"WWW" if status == 401 else b"Proxy"
            lines.append(name + b'-Authenticate: Digest realm="elsewhere", nonce="n", algorithm=MD5, qop="auth"')
        return b"\r\n".join([*lines, b"Content-Length: 0", b"", b""])

    def _answered(self, request: bytes) -> None:
        """
        From now on this side knows the dialog, too.
        """
        call_id, local, remote = (b"".join(fields_of(request, name)[:1]) for name in (b"call-id", b"to", b"from"))
        tag = b"" if b";tag=" in local else b";tag=callee0"
        target = _uri_of(request, b"contact", b"sip:nobody@127.0.31.250")
        dialog = Dialog(call_id, local + tag, remote, target, fields_of(request, b"record-route"), state="answered")
        self._dialogs = [*self._dialogs[-MAX_CALLS:], dialog]

    def hear(self) -> list[bytes]:
        """
        Take what has come.

        @return: it.
        """
        messages = self.link.receive()
        for message in messages:
            if message.startswith(b"SIP/2.0 "):
                if self._take_challenge(message):
                    self._registered_at = 0.0
            elif not message.startswith(b"ACK "):
                self._open = [*self._open[-MAX_CALLS:], message]
        return messages

    def vanish(self) -> None:
        """
        Lose the connection; register over another one.
        """
        if self.link.protocol != "udp":
            self.link.close()
        self._open.clear()
        self._dialogs.clear()
