"""
Publications and PUBLISH requests for tests.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from sipdmq.interfaces.presence import IEventStateListener
from sipdmq.interfaces.publications import IPublicationListener, Publication, PublicationChange
from sipdmq.records import Origin
from tests.location_store_tests import EPOCH

__all__ = ["ALICE", "RecordingWatcher", "make_publication", "pidf"]

ALICE = "alice@example.org"


def pidf(basic: str = "open", name: str = "t1") -> bytes:
    """
    A presence document of one tuple.
    """
    return (
        '<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:alice@example.org">'
        f'<tuple id="{name}"><status><basic>{basic}</basic></status></tuple></presence>'
    ).encode()


def make_publication(ruid: str = "r1", expires_in: int = 60, **changes: Any) -> Publication:
    """
    A live one of alice.

    @param expires_in: seconds from EPOCH.
    @param changes: fields that differ from the usual.
    """
    publication = Publication(
        ALICE, "presence", ruid, f"{ruid}.0", "", 0, EPOCH, EPOCH + expires_in, "alice", "example.org", pidf()
    )
    return publication._replace(**changes)


@implementer(IPublicationListener, IEventStateListener)
class RecordingWatcher:
    """
    Remembers what it was told.

    @ivar changes: of publications.
    @ivar states: C{(aor, event, origin)}.
    """

    def __init__(self) -> None:
        self.changes: list[PublicationChange] = []
        self.states: list[tuple[str, str, Origin]] = []

    def publication_changed(self, change: PublicationChange) -> None:
        self.changes.append(change)

    def state_changed(self, aor: str, package: str, origin: Origin) -> None:
        self.states.append((aor, package, origin))

    def take(self) -> tuple[list[tuple[str, bool]], list[Origin]]:
        """
        C{(etag, is gone)} of what has changed, and where new states came from, since this was asked last.
        """
        changes = [(change.publication.etag, change.is_gone) for change in self.changes]
        states = [origin for _, _, origin in self.states]
        self.changes.clear()
        self.states.clear()
        return changes, states
