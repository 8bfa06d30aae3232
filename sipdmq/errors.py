"""
Every exception of sipdmq. Each says who is at fault, and what to answer.

L{ConfigError} is the operator's to mend, L{ParseError} and L{DecodeError} the peer's fault, L{RequestRefused} a
decision of ours, L{UnreachableError} the network's doing, and L{TransactionStateError} our own mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipdmq.sip.message import Request

__all__ = [
    "CommandError",
    "ConfigError",
    "DecodeError",
    "ParseError",
    "RequestRefused",
    "SipDmqError",
    "TransactionStateError",
    "UnreachableError",
    "WrongCredentials",
]


class SipDmqError(Exception):
    """
    The root of all exceptions that sipdmq raises on purpose.
    """


class ConfigError(SipDmqError):
    """
    The configuration cannot be used: the operator mends the named key.

    @ivar path: C{str}, the file as the operator named it.
    @ivar section: C{str}, without brackets; empty when the file as a whole is meant.
    @ivar key: C{str}; empty when the section as a whole is meant.
    @ivar reason: C{str}, what is wrong and what would be right.
    """

    def __init__(self, path: str, section: str, key: str, reason: str) -> None:
        super().__init__(path, section, key, reason)
        self.path = path
        self.section = section
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        place = " ".join(part for part in (f"[{self.section}]" if self.section else "", self.key) if part)
        return f"{self.path}: {place}: {self.reason}" if place else f"{self.path}: {self.reason}"


class ParseError(SipDmqError):
    """
    The peer sent something that is no SIP message, or one whose values break the grammar.

    @ivar reason: C{str}, short enough for a reason phrase or a Warning.
    @ivar status: C{int}, the status code of the answer: 400, 413, 505 ...
    @ivar request: what could be read of the request, for the answer; L{None} when it was a response, or when too
        little could be read to answer at all.
    """

    def __init__(self, reason: str, status: int = 400, request: Request | None = None) -> None:
        super().__init__(reason, status)
        self.reason = reason
        self.status = status
        self.request = request

    def __str__(self) -> str:
        return f"{self.status} {self.reason}"


class DecodeError(SipDmqError):
    """
    The body of a message between nodes cannot be read: the other node's fault. Nothing of it was applied.

    @ivar reason: C{str}, for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RequestRefused(SipDmqError):
    """
    A well-formed request that is answered with other than 2xx, because somebody decided so.

    @ivar status: C{int}, 300 to 699.
    @ivar headers: header fields to add to the answer, as C{(name, value)} pairs.
    @ivar reason: C{str}, the reason phrase, or empty for the usual one of C{status}.
    """

    def __init__(self, status: int, headers: Sequence[tuple[str, str]] = (), reason: str = "") -> None:
        super().__init__(status, tuple(headers), reason)
        self.status = status
        self.headers = tuple(headers)
        self.reason = reason


class WrongCredentials(RequestRefused):
    """
    A challenge was answered, and wrongly: there is no such user, or it is not his password. A policy that counts who
    guesses lets it through afterwards: it is the next challenge.
    """


class CommandError(SipDmqError):
    """
    An operator's command cannot be carried out.

    @ivar code: C{int}, as Kamailio has it: 500, 404 for what is not there.
    @ivar reason: C{str}, for the operator.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code} - {self.reason}"


class UnreachableError(SipDmqError):
    """
    A message could not be handed to the network, or a name has no address to send to.

    @ivar reason: C{str}, for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TransactionStateError(SipDmqError):
    """
    A transaction user asked for what its transaction's state does not allow: a mistake in our own code.
    """
