"""
The text of a file of users: C{user:realm:algorithm:ha1} in each line. Pure.

Lines that are empty or begin with C{#} are for people. Only C{realm} may hold a colon (an IPv6 address).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sipdmq.errors import SipDmqError
from sipdmq.sip.digest import ALGORITHMS, algorithm_name, compute_ha1, is_ha1

__all__ = ["UserFileError", "Users", "parse_users", "with_user", "without_user"]

Users = Mapping[tuple[str, str, str], str]
"""From user, realm and algorithm to C{H(A1)}."""

_FORM: Final = "must read user:realm:algorithm:ha1, as 'sipdmq-users add' writes it"


class UserFileError(SipDmqError):
    """
    A line that cannot be used. It is not quoted: it may hold what nobody shall see.

    @ivar line: its number, from 1.
    @ivar reason: what is wrong and what would be right.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


def _read_line(line: str) -> tuple[str, str, str, str] | None:
    """
    @return: user, realm, algorithm and hash; C{None} if the line is for people.
    @raise ValueError: it cannot be used, and why.
    """
    line = line.strip(" \t\r\n")
    if not line or line[0] == "#":
        return None
    user, colon, rest = line.partition(":")
    parts = rest.rsplit(":", 2)
    if not colon or len(parts) != 3 or not user or not parts[0]:
        raise ValueError(_FORM)
    realm, written, ha1 = parts
    algorithm = algorithm_name(written)
    if not algorithm:
        raise ValueError(f"the algorithm must be one of {', '.join(ALGORITHMS)}")
    ha1 = ha1.lower()
    if not is_ha1(algorithm, ha1):
        raise ValueError(f"what stands behind {algorithm} is no such hash; {_FORM}")
    return user, realm, algorithm, ha1


def parse_users(text: str) -> Users:
    """
    Read a whole file.

    @raise UserFileError: a line cannot be used, or says again what another one has said.
    """
    users: dict[tuple[str, str, str], str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        try:
            read = _read_line(line)
        except ValueError as error:
            raise UserFileError(number, str(error)) from None
        if read is None:
            continue
        key = read[:3]
        if key in users:
            raise UserFileError(number, f"{key[0]!r} of {key[1]!r} has a line for {key[2]} already")
        users[key] = read[3]
    return users


def without_user(text: str, username: str, realm: str) -> str:
    """
    The text without the lines of one user; all others stay as they are.

    @param text: one that L{parse_users} reads.
    """
    kept = []
    for line in text.split("\n"):
        read = _read_line(line)
        if read is None or read[:2] != (username, realm):
            kept.append(line)
    return "\n".join(kept)


def with_user(text: str, username: str, realm: str, password: str) -> str:
    """
    The text with a user, or with a new password for him: a line for each algorithm, at the end.

    @param text: one that L{parse_users} reads.
    """
    text = without_user(text, username, realm)
    if text and not text.endswith("\n"):
        text += "\n"
    for algorithm in ALGORITHMS:
        text += f"{username}:{realm}:{algorithm}:{compute_ha1(algorithm, username, realm, password)}\n"
    return text
