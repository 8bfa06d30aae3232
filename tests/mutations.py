"""
Bad messages by the thousand, the same for the same seed: good ones, damaged in the ways that networks, programmers and
attackers damage them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["Damage", "Mutations"]

TORTURE: Final = Path(__file__).parent / "torture"

NUMBERS: Final = (
    b"0", b"-1", b"255", b"256", b"65535", b"65536", b"2147483647", b"2147483648", b"4294967295", b"4294967296",
    b"18446744073709551616", b"9" * 40, b"9" * 5000, b"0" * 300 + b"1", b"1e9", b"0x10", b"1.5", b"", b" ",
    "\u0661\u0662".encode(), "\u00b2".encode(),
)  # fmt: skip

PIECES: Final = (
    b"\x00", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\r\n ", b"\t", b"\x7f", b"\x1b[2J", b"\xff\xfe", b"\xc0\x80", b"\"",
    b"<", b">", b",", b";", b":", b"@", b"%", b"%00", b"%zz", b"\\", b"*", b"[", b"]", b"=", b"?", b" " * 400,
    "\u2028\u3000".encode(), b"\xed\xa0\x80", b"\x85", b"\x1c", b"\x0b", b"\x0c",
)  # fmt: skip

LINES: Final = (
    b"Require: @@@", b"Proxy-Require: \"x", b"Require: 100rel,, path", b"Proxy-Require:", b"Require:", b"Contact: *",
    b"Expires: 0", b"Expires: 4294967296", b"Path: <sip:p;lr>", b"Path: <", b"Route: <sip:127.0.0.1;lr>", b"Contact:",
    b"Max-Forwards: 0", b"Content-Length: 99999999999", b"l: 0", b"Content-Length: -1", b"Date: never", b": empty",
    b"Contact: <sip:x@h>;+sip.instance=\"\\\";reg-id=99999999999", b"Authorization: Digest x=\"", b"X" * 9000 + b": y",
    b"Subject: " + b"s" * 70000, b"Via: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKx" + b", SIP/2.0/UDP h" * 400,
    b"Contact: " + b",".join(b"<sip:c%d@h>" % number for number in range(40)), b"Min-Expires: x",
    b"Record-Route: <sip:127.0.31.250;lr>", b"Record-Route: <", b"Record-Route: <sip:h;lr;c=" + b"A" * 90 + b">",
    b"Record-Route: " + b", ".join(b"<sip:h%d;lr>" % number for number in range(300)), b"Max-Breadth: 0",
    b"Route: " + b", ".join(b"<sip:127.0.31.1;lr>" for _ in range(300)), b"Route: <sip:127.0.31.250>",
    b"Max-Breadth: -1", b"Max-Breadth: 99999999999999", b"Max-Breadth: 1, 2", b"Max-Forwards: 255", b"RAck: x",
    b"RSeq: 4294967296", b"Session-Expires: 1;refresher=nobody", b"Min-SE: 0", b"Replaces: a;to-tag=b;from-tag=c",
    b"Proxy-Authorization: Digest", b"Proxy-Authorization: Digest username=\"alice\", realm=\"example.com\"",
    b"Authorization: Digest username=\"alice\", realm=\"example.com\", nonce=\"\", uri=\"*\", response=\"\", nc=1",
    b"Proxy-Authorization: Basic YTpi", b"Proxy-Authenticate: Digest realm=\"example.com\", nonce=\"x\"",
    b"Refer-To: <sip:x@y?Replaces=z>", b"Identity: " + b"A" * 8000, b"Timestamp: 1e400", b"Retry-After: 9 (x",
)  # fmt: skip

SENT_BYS: Final = (
    b"0.0.0.0:5060", b"255.255.255.255:9", b"224.0.0.1", b"[::1]:5060", b"[::ffff:127.0.0.1]", b"localhost:0",
    b"127.0.31.250:65535", b"example.com:99999", b"a" * 300, b"[::1", b"127.0.31.250:1;received=127.0.31.251;rport=2",
    b"127.0.31.250;maddr=127.0.31.252;ttl=255", b"h;rport;rport", b"h;received=::1;branch=z9hG4bK", b"h;branch",
    b"host;branch=z9hG4bK\xff", b"127.0.31.250;rport=;received=x",
)  # fmt: skip

METHODS: Final = ("REGISTER", "REGISTER", "REGISTER", "OPTIONS", "INVITE", "CANCEL", "ACK", "BYE", "MESSAGE")
_NUMBER: Final = re.compile(rb"[0-9]+")
_PARAMETER: Final = re.compile(rb";[^;,\r\n>]+")
_COOKIE: Final = re.compile(rb"(?<=;c=)[A-Za-z0-9_\-]+")
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Damage:
    """
    The ways to damage a message.
    """

    def __init__(self, chance: random.Random, other: Callable[[], bytes]) -> None:
        """
        @param other: gives another message, to be mixed with one.
        """
        self._random = chance
        self._other = other
        self._cookie = b"A" * 40
        self._ways: tuple[Callable[[bytes], bytes], ...] = (
            self._flip_bits, self._truncate, self._repeat_line, self._delete_bytes, self._insert_piece,
            self._change_number, self._swap_lines, self._repeat_parameter, self._lengthen, self._mix, self._forge_via,
            self._insert_line, self._remove_line, self._damage_line, self._damage_line, self._mangle_cookie,
        )  # fmt: skip

    def __call__(self, message: bytes) -> bytes:
        """
        @return: it, damaged once or several times; short enough for a datagram.
        """
        chance = self._random
        for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
            message = chance.choice(self._ways)(message)
        return message[:65000]

    def _place(self, message: bytes) -> int:
        return self._random.randrange(len(message) + 1)

    def _flip_bits(self, message: bytes) -> bytes:
        changed = bytearray(message)
        for _ in range(self._random.choice((1, 1, 2, 8, 40))):
            if changed:
                changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _truncate(self, message: bytes) -> bytes:
        return message[: self._place(message)]

    def _delete_bytes(self, message: bytes) -> bytes:
        at = self._place(message)
        return message[:at] + message[at + self._random.choice((1, 2, 10, 50)) :]

    def _insert_piece(self, message: bytes) -> bytes:
        at = self._place(message)
        return message[:at] + self._random.choice(PIECES) + message[at:]

    def _change_number(self, message: bytes) -> bytes:
        found = list(_NUMBER.finditer(message))
        if not found:
            return message
        match = self._random.choice(found)
        return message[: match.start()] + self._random.choice(NUMBERS) + message[match.end() :]

    def _repeat_parameter(self, message: bytes) -> bytes:
        found = list(_PARAMETER.finditer(message))
        if not found:
            return message
        match = self._random.choice(found)
        times = self._random.choice((1, 1, 2, 300))
        return message[: match.end()] + match.group() * times + message[match.end() :]

    def _lengthen(self, message: bytes) -> bytes:
        at = self._place(message)
        piece = message[at : at + self._random.choice((1, 1, 5, 20))]
        return message[:at] + piece * self._random.choice((10, 300, 9000)) + message[at:]

    def _mix(self, message: bytes) -> bytes:
        return message[: self._place(message)] + self._other()[self._random.randrange(200) :]

    def _lines(self, message: bytes) -> tuple[list[bytes], bytes]:
        head, end, body = message.partition(b"\r\n\r\n")
        return head.split(b"\r\n"), end + body

    def _repeat_line(self, message: bytes) -> bytes:
        lines, rest = self._lines(message)
        line = self._random.choice(lines)
        for _ in range(self._random.choice((1, 1, 2, 300))):
            lines.insert(self._random.randrange(len(lines) + 1), line)
        return b"\r\n".join(lines) + rest

    def _swap_lines(self, message: bytes) -> bytes:
        lines, rest = self._lines(message)
        self._random.shuffle(lines) if self._random.random() < 0.2 else lines[1:].reverse()
        one, other = self._random.randrange(len(lines)), self._random.randrange(len(lines))
        lines[one], lines[other] = lines[other], lines[one]
        return b"\r\n".join(lines) + rest

    def _insert_line(self, message: bytes) -> bytes:
        lines, rest = self._lines(message)
        lines.insert(self._random.randrange(len(lines)) + 1, self._random.choice(LINES))
        return b"\r\n".join(lines) + rest

    def _remove_line(self, message: bytes) -> bytes:
        lines, rest = self._lines(message)
        del lines[self._random.randrange(len(lines))]
        return b"\r\n".join(lines) + rest

    def _forge_via(self, message: bytes) -> bytes:
        lines, rest = self._lines(message)
        branch = f";branch=z9hG4bK{self._random.randrange(10**9)}".encode()
        forged = b"Via: SIP/2.0/" + self._random.choice((b"UDP ", b"TCP ", b"TLS ", b"X "))
        lines.insert(1, forged + self._random.choice(SENT_BYS) + self._random.choice((b"", branch, branch)))
        return b"\r\n".join(lines) + rest

    def _damage_line(self, message: bytes) -> bytes:
        """
        One header field only: so the long ones get no more than their share.
        """
        lines, rest = self._lines(message)
        at = self._random.randrange(len(lines))
        ways = (self._flip_bits, self._delete_bytes, self._insert_piece, self._change_number, self._repeat_parameter)
        lines[at] = self._random.choice(ways)(lines[at])
        return b"\r\n".join(lines) + rest

    def _mangle_cookie(self, message: bytes) -> bytes:
        """
        The proof in a Route or Record-Route of the node: changed, or that of another dialog.
        """
        found = list(_COOKIE.finditer(message))
        if not found:
            return self._damage_line(message)
        chance = self._random
        match = chance.choice(found)
        cookie, other, self._cookie = match.group(), self._cookie, match.group()
        at = chance.randrange(len(cookie))
        changed = chance.choice(
            (
                other,
                cookie[:at],
                cookie + other,
                cookie[:at] + chance.choice(_BASE64).to_bytes(1, "big") + cookie[at + 1 :],
                bytes(chance.choices(_BASE64, k=chance.choice((1, 13, 14, 40, 100, 101)))),
            )
        )
        return message[: match.start()] + changed + message[match.end() :]

class Mutations:
    """
    An endless row of bad messages.
    """

    def __init__(self, seed: int, host: str) -> None:
        """
        @param host: a domain of the node; example.com is another one.
        """
        self._random = random.Random(seed)
        self._host = host
        self._count = 0
        self._torture = [path.read_bytes() for path in sorted(TORTURE.glob("rfc*/*.dat"))]
        self._damage = Damage(self._random, self._original)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """
        The next message; each is new, also for who looks at its branch and Call-ID only.
        """
        return self._damage(self._original())

    def _original(self) -> bytes:
        chance = self._random
        self._count += 1
        mark = f"{self._count}x{chance.randrange(10**9)}"
        if chance.random() < 0.5:
            message = chance.choice(self._torture)
            if chance.random() < 0.9:  # else a retransmission, or a merged request
                message = message.replace(b"z9hG4bK", b"z9hG4bK" + mark.encode())
            if chance.random() < 0.5:
                message = message.replace(b"example.com", self._host.encode())
            return message
        if chance.random() < 0.1:
            return self._response(mark)
        return self._request(chance.choice(METHODS), mark)

    def _request(self, method: str, mark: str) -> bytes:
        chance = self._random
        host, user = self._host, f"user{chance.randrange(200)}"
        uri = f"sip:{host}" if method in ("REGISTER", "OPTIONS") else f"sip:{user}@{host}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.31.250:5999;branch=z9hG4bK{mark}{chance.choice(('', ';rport'))}",
            "Max-Forwards: 70",
            f"From: <sip:{user}@{host}>;tag={mark}",
            f"To: <sip:{user}@{host}>{';tag=there' if method in ('ACK', 'BYE') else ''}",
            f"Call-ID: {mark}@127.0.31.250",
            f"CSeq: {chance.randrange(1, 2**31)} {method}",
        ]
        if method == "REGISTER":
            instance = f'+sip.instance="<urn:uuid:{chance.randrange(50)}>";reg-id=1'
            lines += [
                f"Contact: <sip:{user}@127.0.31.250:5999;transport=udp>;q=0.7;expires={chance.randrange(4)};{instance}",
                "Supported: path, outbound", "Path: <sip:p1.example.net;lr>", "Expires: 3", "User-Agent: soak",
            ]  # fmt: skip
        body = "v=0\r\n" if method == "INVITE" else ""
        lines += [f"Content-Length: {len(body)}", "", body]
        return "\r\n".join(lines).encode()

    def _response(self, mark: str) -> bytes:
        return (
            f"SIP/2.0 {self._random.choice((100, 180, 200, 404, 503, 699))} Reason\r\n"
            f"Via: SIP/2.0/UDP {self._host}:5060;branch=z9hG4bK{mark}\r\n"
            f"From: <sip:a@{self._host}>;tag=1\r\nTo: <sip:b@{self._host}>;tag=2\r\nCall-ID: {mark}\r\n"
            f"CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        ).encode()
