"""
What nodes of either kind have of each contact, in one form, to be compared key by key.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from tests.interop.cluster import Kamailio, Member
from tests.interop.programs import ProgramFailed

__all__ = ["Key", "Record", "differences", "records_of"]

Key = tuple[str, str]
"""A user and the URI of a contact."""

#: Questions to one node that wait for answers, seconds until one is repeated, and how often.
WINDOW = 20
REPEAT_AFTER = 0.5
TRIES = 20

#: Seconds by which two nodes may differ about when a contact expires: they count whole ones.
ROUNDING = 1


@dataclass(frozen=True)
class Record:
    """
    One contact.

    @ivar q: 0 to 1000, -1 when not given.
    @ivar expires_at: seconds since the epoch.
    @ivar received: empty when not given.
    """

    contact: str
    q: int
    expires_at: int
    call_id: str
    cseq: int
    path: str
    user_agent: str
    received: str

    def differs(self, other: Record, rounding: int = ROUNDING) -> str:
        """
        @param rounding: seconds for C{expires_at}.
        @return: in what they differ, and how; empty if in nothing.
        """
        found = []
        for field in fields(self):
            one, two = getattr(self, field.name), getattr(other, field.name)
            if field.name == "expires_at" and abs(one - two) <= rounding:
                continue
            if field.name == "received" and not (one and two):
                continue
            if one != two:
                found.append(f"{field.name} {one!r} / {two!r}")
        return ", ".join(found)


def differences(first: Mapping[Key, Record], second: Mapping[Key, Record]) -> dict[Key, str]:
    """
    @return: what is not the same, by its key.
    """
    found = {}
    for key in sorted(first.keys() | second.keys()):
        one, two = first.get(key), second.get(key)
        if one is None or two is None:
            found[key] = "missing / there" if one is None else "there / missing"
        elif one.differs(two):
            found[key] = one.differs(two)
    return found


def records_of(node: Kamailio | Member, users: Iterable[str]) -> dict[Key, Record]:
    """
    What a node has of these users.

    @raise ProgramFailed: it does not tell.
    """
    if isinstance(node, Kamailio):
        return _dumped(node, set(users))
    return _looked_up(node, users)


def _dumped(node: Kamailio, users: set[str]) -> dict[Key, Record]:
    found = {}
    contacts = node.contacts()
    now = int(time.time())
    for (user, contact), each in contacts.items():
        if user in users:
            received, path = ("" if each[name] == "[not set]" else each[name] for name in ("Received", "Path"))
            found[user, contact] = Record(
                contact, round(each["Q"] * 1000) if each["Q"] >= 0 else -1, now + int(each["Expires"]),
                each["Call-ID"], int(each["CSeq"]), path, each["User-Agent"], received,
            )  # fmt: skip
    return found


def _looked_up(node: Member, users: Iterable[str]) -> dict[Key, Record]:
    """
    By the verb C{lookup} of the channel C{sipdmq}: what a node answers to another one that asks for a user, every key
    of every contact. It makes the asker no member, and leaves nothing behind.
    """
    found: dict[Key, Record] = {}
    waiting: dict[str, tuple[str, float, int]] = {}  # by Call-ID: the user, when to ask again, how often it was asked
    to_ask = deque((user, 0) for user in users)
    with node.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((node.host, 0))
        opened.connect((node.host, node.port))
        while to_ask or waiting:
            while to_ask and len(waiting) < WINDOW:
                user, tries = to_ask.popleft()
                if tries == TRIES:
                    raise ProgramFailed(f"{node.host} does not say what it has of {user}")
                mark = os.urandom(8).hex()
                waiting[mark] = (user, time.monotonic() + REPEAT_AFTER, tries + 1)
                opened.send(_question(node, user, mark))
            if not select.select([opened], [], [], REPEAT_AFTER)[0]:
                now = time.monotonic()
                for mark, (user, at, tries) in list(waiting.items()):
                    if at <= now:
                        del waiting[mark]
                        to_ask.append((user, tries))
                continue
            mark, answer = _answer(opened.recv(65535))
            if mark not in waiting:
                continue
            user, _, tries = waiting.pop(mark)
            if answer is None:  # it does not know itself yet
                time.sleep(0.1)
                to_ask.append((user, tries))
            else:
                found.update({(user, record.contact): record for record in answer})
    return found


def _question(node: Member, user: str, mark: str) -> bytes:
    body = json.dumps({"lookup": {"aor": f"{user}@localhost"}})
    return (
        f"KDMQ sip:sipdmq@{node.host}:5060 SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {node.host}:5999;branch=z9hG4bK{mark};rport\r\n"
        f"To: <sip:sipdmq@{node.host}:5060>\r\nFrom: <sip:sipdmq@{node.host}:5999>;tag={mark}\r\n"
        f"CSeq: 10 KDMQ\r\nCall-ID: {mark}\r\nContent-Length: {len(body)}\r\nMax-Forwards: 1\r\n"
        f"Content-Type: application/json\r\n\r\n{body}"
    ).encode()


def _answer(data: bytes) -> tuple[str, list[Record] | None]:
    """
    @return: the Call-ID, and what was told; L{None} when nothing was.
    """
    head, _, body = data.decode("utf-8", "surrogateescape").partition("\r\n\r\n")
    call_id = re.search(r"^Call-ID: (\S+)", head, re.MULTILINE | re.IGNORECASE)
    mark = call_id[1] if call_id else ""
    if not head.startswith("SIP/2.0 200 "):
        return mark, None
    told = json.loads(body)["lookup"]["multi"].values()
    return mark, [
        Record(
            each["c"], each["q"], each["expires"], each["callid"], each["cseq"], each["path"], each["user_agent"],
            each["received"],
        )
        for each in told
    ]  # fmt: skip
