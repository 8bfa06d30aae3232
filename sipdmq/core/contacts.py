"""
What registrar and cluster must agree on about the contacts of an address-of-record: when two are the same binding,
how long a removal is remembered, how many fit into an answer. Pure.

RFC 3261 §19.1.4 is no equivalence: C{<sip:a@b>} equals C{<sip:a@b;x=1>} and C{<sip:a@b;x=2>}, which differ. What
several nodes are to decide alike, in whatever order they hear of it, needs one; so a record has an L{identity}, a text
that is the same or not. The registrar goes by the RFC, and says what follows in terms of identities: a REGISTER for
C{<sip:a@b>} that replaces C{<sip:a@b;x=1>} removes one record and adds another.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from sipdmq.errors import ParseError
from sipdmq.records import Binding
from sipdmq.sip.uri import URI, OtherURI, canonical_escapes, parse_uri

__all__ = [
    "CONTACT_OVERHEAD",
    "MAX_ANSWER",
    "PERMANENT",
    "answer_size",
    "contact_key",
    "identity",
    "known_until",
    "remembered_until",
]

PERMANENT: Final = 2**32 - 1
"""C{expires_at} of a contact that never expires: C{"expires":0} among Kamailios."""
MAX_ANSWER: Final = 30_000
"""
Characters that the contacts of an AoR may take in an answer: half a datagram; the request's own lines come on top.
"""
CONTACT_OVERHEAD: Final = 40  # "Contact: <>;q=0.555;expires=7200" and the line end
GRACE: Final = 60
LEAST_MEMORY: Final = 600
_KEPT_LENGTH: Final = 100


def contact_key(uri: URI) -> str:
    """
    One text for all spellings of a URI: what §19.1.4 holds equal for reasons of spelling gives the same; what it holds
    equal because a parameter stands in one of the two only does not.
    """
    if isinstance(uri, OtherURI):
        return f"{uri.scheme}:{uri.text.partition(':')[2]}"
    params = ";".join(
        sorted([f"{name}={canonical_escapes(value).lower()}" if value else name for name, value in uri.params.items()])
    )
    password = "" if uri.password is None else ":" + canonical_escapes(uri.password)
    port = "" if uri.port is None else uri.port
    headers = ""
    if uri.headers is not None:
        pairs = [piece.partition("=") for piece in uri.headers.split("&")]
        headers = "?" + "&".join(
            sorted([f"{canonical_escapes(name).lower()}={canonical_escapes(value)}" for name, _, value in pairs])
        )
    # No part can hold a blank: the parts of two different URIs never give the same text.
    return f"{uri.scheme} {uri.canonical_user}{password} {uri.host} {port} {params}{headers}"


def _key_of(contact: str) -> str:
    try:
        return contact_key(parse_uri(contact))
    except ParseError:
        return " " + contact


_key_of_kept = lru_cache(maxsize=1024)(_key_of)


def identity(binding: Binding) -> str:
    """
    Which contact of its AoR a record is: that of C{+sip.instance} and C{reg-id} where it has both (RFC 5626 §6), else
    its contact URI, else, for a removal that names none, its C{ruid}.
    """
    if binding.instance and binding.reg_id:
        return f"instance {binding.reg_id} {binding.instance}"
    contact = binding.contact
    if not contact:
        return f"ruid {binding.ruid}"
    return _key_of_kept(contact) if len(contact) <= _KEPT_LENGTH else _key_of(contact)


def known_until(binding: Binding) -> int:
    """
    The latest C{expires_at} that any version of a record was known to have: until then, somebody who has not heard of
    the newest version may still hold one.
    """
    return binding.known_until or binding.expires_at


def remembered_until(latest: int, now: int, forget_after: int) -> int:
    """
    Until when a removal is remembered, so that an older version of the record, from a node that was cut off, does not
    bring it back.

    @param latest: L{known_until} of what was removed.
    @param forget_after: seconds, for what would never have expired, and the most of all.
    """
    if latest >= PERMANENT:
        return now + forget_after
    return min(max(latest + GRACE, now + LEAST_MEMORY), now + max(forget_after, LEAST_MEMORY))


def answer_size(bindings: Iterable[Binding]) -> int:
    """
    Characters that live bindings take in the answer to a REGISTER.
    """
    size = path = 0
    for binding in bindings:
        size += len(binding.contact) + len(binding.params) + CONTACT_OVERHEAD
        path = max(path, len(binding.path))
    return size + path
