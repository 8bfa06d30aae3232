"""
The event packages whose state phones publish: their names and documents. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from sipdmq.errors import DecodeError
from sipdmq.presence import dialog_info, pidf

__all__ = ["PACKAGES", "EventPackage"]

_WAITING: Final = re.compile(rb"[ \t]*Messages-Waiting[ \t]*:[ \t]*(?:yes|no)[ \t]*(?:\r?\n|\Z)", re.IGNORECASE)
NO_MESSAGES: Final = b"Messages-Waiting: no\r\n"


class EventPackage(NamedTuple):
    """
    One package.

    @ivar name: as in Event.
    @ivar content_type: of its documents.
    @ivar check: given a document, raises DecodeError if it is none.
    @ivar compose: given an AoR and the published documents, the newest first, the one that watchers get; of none, what
        they get where nothing is published.
    @ivar version_at: given a composed document, L{EventDocument.version_at<sipdmq.records.EventDocument>}.
    """

    name: str
    content_type: str
    check: Callable[[bytes], object]
    compose: Callable[[str, Sequence[bytes]], bytes]
    version_at: Callable[[bytes], int] = lambda body: -1


def _check_summary(body: bytes) -> None:
    """
    @see: RFC 3842 §5.2: the status line comes first
    """
    if not _WAITING.match(body):
        raise DecodeError("the first line must be Messages-Waiting, yes or no")


def _newest_summary(_: str, bodies: Sequence[bytes]) -> bytes:
    """
    A mailbox has one server that knows: what was published last counts.
    """
    return next((body for body in bodies if _WAITING.match(body)), NO_MESSAGES)


PACKAGES: Final[Mapping[str, EventPackage]] = {
    package.name: package
    for package in (
        EventPackage("presence", pidf.CONTENT_TYPE, pidf.read_pidf, pidf.compose),  # RFC 3856
        EventPackage(
            "dialog",
            dialog_info.CONTENT_TYPE,
            dialog_info.read_dialog_info,
            dialog_info.compose,
            dialog_info.version_at,
        ),  # RFC 4235
        EventPackage(
            "message-summary", "application/simple-message-summary", _check_summary, _newest_summary
        ),  # RFC 3842
    )
}
"""By their names."""
