"""
Header fields of our own, C{X-Sipdmq-...}: what nodes of this kind tell one another in requests that are not KDMQ. Pure.

They are believed when they come from a node of the cluster, removed from whatever comes from anybody else, and written
for nobody else.

C{X-Sipdmq-Registered} stands in a copy of a REGISTER (WIRE §12), once for each record that the REGISTER wrote or
removed, and holds what channel C{usrloc} would tell of it: C{ruid}, C{last_modified}, where it came from (C{received}),
until when it lives, and in front of its path the node that has its connection. So all nodes hold one record.

C{X-Sipdmq-Published} stands in a copy of a PUBLISH, once, and holds what channel C{presence} would tell of it, without
the document, which the copy has itself. So all nodes know one entity tag, and a phone may refresh at any of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sipdmq.dmq.presence_json import PresentityUpdate
from sipdmq.dmq.presence_json import decode as decode_presence
from sipdmq.dmq.presence_json import encode as encode_presence
from sipdmq.dmq.usrloc_form import UNKNOWN, UsrlocForm
from sipdmq.dmq.usrloc_json import decode
from sipdmq.dmq.usrloc_records import UsrlocRecord
from sipdmq.errors import DecodeError
from sipdmq.records import Binding
from sipdmq.sip.headers import Headers
from sipdmq.sip.message import Request
from sipdmq.sip.params import format_params

__all__ = [
    "has_own_headers",
    "read_published",
    "read_registered",
    "registered_values",
    "remove_own_headers",
    "write_published",
    "write_registered",
]

_PREFIX: Final = "x-sipdmq-"
_REGISTERED: Final = "X-Sipdmq-Registered"
_PUBLISHED: Final = "X-Sipdmq-Published"
_MAX_VALUE: Final = 8000
"""Characters: a little less than C{[limits] header_length}, above which the receiver refuses the whole request."""
_MAX_VALUES: Final = 64
_MAX_TOTAL: Final = 25_000
"""Characters of all values: with them the copy shall still be a datagram."""


def has_own_headers(headers: Headers) -> bool:
    """
    Whether there may be one; quick, for every request.
    """
    return _PREFIX in " ".join(headers.first)


def remove_own_headers(headers: Headers) -> None:
    """
    Take all of them out.
    """
    for key in [key for key in headers.keys() if key.startswith(_PREFIX)]:  # noqa: SIM118 - they have no other iterator
        headers.remove(key)


def registered_values(records: Iterable[Binding], form: UsrlocForm) -> list[str]:
    """
    What is told of some records.

    @param records: live ones and removed ones.
    @return: none when it is too much: then each node stores the copy as it would a REGISTER.
    """
    values = [
        (form.encode_remove(record, record.ruid) if record.removed else form.encode_update(record)).decode(
            "utf-8", "surrogateescape"
        )
        for record in records
    ]
    is_fit = (
        len(values) <= _MAX_VALUES
        and sum(map(len, values)) <= _MAX_TOTAL
        and all(len(value) <= _MAX_VALUE for value in values)
    )
    return values if is_fit else []


def write_registered(headers: Headers, values: Iterable[str]) -> None:
    """
    Add what is told of the records.

    @param values: L{registered_values}.
    """
    for value in values:
        headers.add(_REGISTERED, value)


def read_registered(
    request: Request, form: UsrlocForm, aor: str, teller: str = UNKNOWN
) -> tuple[list[Binding], list[str]]:
    """
    What another node tells of the records that a REGISTER has written there.

    @param aor: of the REGISTER: all are records of it.
    @param teller: the other node.
    @return: the records, removed ones among them; and why others cannot be used.
    """
    bindings: list[Binding] = []
    faults: list[str] = []
    # Contact has all parameters, the JSON only some
    contacts = {contact.uri.text: contact.params for contact in request.contacts}
    for value in request.headers.get_all(_REGISTERED.lower())[:_MAX_VALUES]:
        try:
            told = [
                form.binding(each, teller)
                for each in decode(value.encode("utf-8", "surrogateescape"))
                if isinstance(each, UsrlocRecord)
            ]
        except DecodeError as error:
            faults.append(error.reason)
            continue
        for binding in told:
            params = contacts.get(binding.contact)
            if params is not None and not binding.removed:
                kept = {name: text for name, text in params.items() if name not in ("expires", "q")}
                binding = binding._replace(params=format_params(kept))
            bindings.append(binding._replace(aor=aor))
    return bindings, faults


def write_published(headers: Headers, update: PresentityUpdate) -> None:
    """
    Add what is told of a publication.
    """
    headers.add(_PUBLISHED, encode_presence(update._replace(body=b"")).decode("utf-8", "surrogateescape"))


def read_published(request: Request) -> PresentityUpdate | None:
    """
    What another node tells of the publication that a PUBLISH has changed there.

    @return: L{None}: nothing that can be used. Then it is a PUBLISH like any other.
    """
    event = request.headers.first.get("event", "").partition(";")[0].strip(" \t")
    value = request.headers.first.get(_PUBLISHED.lower(), "")
    try:
        found = decode_presence(value.encode("utf-8", "surrogateescape"), (event,))
    except DecodeError:
        return None
    return found if isinstance(found, PresentityUpdate) else None
