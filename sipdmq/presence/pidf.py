"""
Presence documents: what the phones of one user say, as one document (RFC 3863, RFC 4479). Pure.

Where two publications have a tuple, person or device of the same id, that of the newer one counts: mostly it is the
same phone, started again before its first publication was over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from sipdmq.errors import DecodeError
from sipdmq.presence.elements import XML_NAMESPACE, Element, format_xml, name_in, read_xml

__all__ = ["CONTENT_TYPE", "compose", "read_pidf"]

CONTENT_TYPE: Final = "application/pidf+xml"
PIDF: Final = "urn:ietf:params:xml:ns:pidf"
DATA_MODEL: Final = "urn:ietf:params:xml:ns:pidf:data-model"
PREFIXES: Final = {
    DATA_MODEL: "dm",
    "urn:ietf:params:xml:ns:pidf:rpid": "rpid",
    "urn:ietf:params:xml:ns:pidf:cipid": "c",
    "urn:ietf:params:xml:ns:pidf:caps": "caps",
    "http://www.w3.org/2001/XMLSchema-instance": "xsi",
}

_ROOT: Final = name_in(PIDF, "presence")
_TUPLE: Final = name_in(PIDF, "tuple")
_STATUS: Final = name_in(PIDF, "status")
_BASIC: Final = name_in(PIDF, "basic")
_NOTE: Final = name_in(PIDF, "note")
_PERSON: Final = name_in(DATA_MODEL, "person")
_DEVICE: Final = name_in(DATA_MODEL, "device")
_ORDER: Final = {_TUPLE: 0, _NOTE: 1, _PERSON: 2, _DEVICE: 3}
"""The schema of RFC 3863 §4.4 has tuples, notes, and then elements of others."""
_OTHERS: Final = 4
_LANGUAGE: Final = name_in(XML_NAMESPACE, "lang")


def read_pidf(body: bytes) -> Element:
    """
    Read a presence document.

    @raise DecodeError: it is none, or a tuple, person or device in it lacks its id.
    @see: RFC 3863 §4
    """
    root = read_xml(body)
    if root.name != _ROOT:
        raise DecodeError("the root must be a presence element of PIDF")
    for child in root.elements:
        if child.name in (_TUPLE, _PERSON, _DEVICE) and not child.attributes.get("id"):
            raise DecodeError("a tuple, person or device lacks its id")
    return root


def _key(element: Element) -> tuple[str, ...]:
    """
    What there is once of.
    """
    name = element.name
    if name == _NOTE:
        text = "".join([child for child in element.children if isinstance(child, str)])
        return (name, element.attributes.get(_LANGUAGE, ""), text.strip())
    return (name, element.attributes.get("id") or repr(element))


def _indented(elements: Iterable[Element]) -> tuple[Element | str, ...]:
    """
    Elements that stand below the root, one a line.
    """
    children: list[Element | str] = []
    for element in elements:
        children += ("\n  ", element)
    if children:
        children.append("\n")
    return tuple(children)


def compose(aor: str, bodies: Sequence[bytes]) -> bytes:
    """
    The presence document of a user.

    @param aor: C{"alice@example.org"}.
    @param bodies: what was published, the newest first; what cannot be read among it, as a Kamailio may have taken it,
        is left out.
    @return: with one closed tuple where nothing is published, which every watcher shows as not there.
    """
    found: dict[tuple[str, ...], Element] = {}
    for body in bodies:
        try:
            root = read_pidf(body)
        except DecodeError:
            continue
        for element in root.elements:
            found.setdefault(_key(element), element)
    elements = sorted(found.values(), key=lambda element: _ORDER.get(element.name, _OTHERS))
    if not any(element.name in (_TUPLE, _PERSON, _DEVICE) for element in elements):
        basic = Element(_BASIC, {}, ("closed",))
        name = "t" + hashlib.blake2b(aor.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
        elements.insert(0, Element(_TUPLE, {"id": name}, (Element(_STATUS, {}, (basic,)),)))
    entity = f"sip:{aor}".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return format_xml(Element(_ROOT, {"entity": entity}, _indented(elements)), PREFIXES)
