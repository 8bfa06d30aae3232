"""
Documents of the calls that a user has: what his phones say, as one document (RFC 4235). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sipdmq.errors import DecodeError
from sipdmq.presence.elements import Element, format_xml, name_in, read_xml

__all__ = ["CONTENT_TYPE", "compose", "read_dialog_info", "version_at"]

CONTENT_TYPE: Final = "application/dialog-info+xml"
DIALOG_INFO: Final = "urn:ietf:params:xml:ns:dialog-info"

_ROOT: Final = name_in(DIALOG_INFO, "dialog-info")
_DIALOG: Final = name_in(DIALOG_INFO, "dialog")
_VERSION: Final = b' version="0"'


def read_dialog_info(body: bytes) -> Element:
    """
    Read a dialog-info document.

    @raise DecodeError: it is none, or a dialog in it lacks its id.
    @see: RFC 4235 §4.1
    """
    root = read_xml(body)
    if root.name != _ROOT:
        raise DecodeError("the root must be a dialog-info element")
    for child in root.elements:
        if child.name == _DIALOG and not child.attributes.get("id"):
            raise DecodeError("a dialog lacks its id")
    return root


def compose(aor: str, bodies: Sequence[bytes]) -> bytes:
    """
    All calls of a user, as a full document with version 0; see L{version_at}.

    @param aor: C{"alice@example.org"}.
    @param bodies: what was published, the newest first; of two dialogs with one id the newer counts. What cannot be
        read is left out.
    """
    found: dict[str, Element] = {}
    for body in bodies:
        try:
            root = read_dialog_info(body)
        except DecodeError:
            continue
        for element in root.elements:
            if element.name == _DIALOG:
                found.setdefault(element.attributes["id"], element)
    children: list[Element | str] = []
    for element in found.values():
        children += ("\n  ", element)
    if children:
        children.append("\n")
    entity = f"sip:{aor}".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    attributes = {"entity": entity, "state": "full", "version": "0"}
    return format_xml(Element(_ROOT, attributes, tuple(children)), {})


def version_at(body: bytes) -> int:
    """
    Where in a document of L{compose} its version stands: each watcher counts those that he gets (RFC 4235 §4.1).

    @return: as L{EventDocument.version_at<sipdmq.records.EventDocument>}.
    """
    return body.index(_VERSION) + len(_VERSION) - 2
