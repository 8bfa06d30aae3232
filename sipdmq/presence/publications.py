"""
What a PUBLISH does to the publications of a presentity (RFC 3903 §6). Pure.

An entity tag ends in C{.NUMBER}, which counts the changes of the publication. Kamailio: a node that refreshes a
publication of ours goes on with that number, and fails with 500 where there is none (WIRE §8). The number is also what
nodes agree by on which of two versions is the newer one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from sipdmq.core import refuse
from sipdmq.core.contacts import remembered_until
from sipdmq.errors import DecodeError, RequestRefused
from sipdmq.interfaces.publications import Publication
from sipdmq.presence.packages import PACKAGES, EventPackage
from sipdmq.sip.grammar import TOKEN
from sipdmq.sip.message import Request

__all__ = ["MAX_TOGETHER", "PublicationLimits", "Publish", "apply_publish", "laid_to_rest", "read_publish"]

MAX_TOGETHER: Final = 30_000
"""
Bytes of all documents of a presentity in one package: watchers get them as one, and it has to fit into a datagram.
"""
_MAX_ETAG: Final = 200
_TOKEN_FIRST: Final = re.compile(r"[ \t]*([^ \t;]+)[ \t]*(?:;|\Z)")


class PublicationLimits(NamedTuple):
    """
    @ivar min_expires: seconds; less is refused with 423.
    @ivar max_expires: seconds; more becomes this.
    @ivar body: bytes of one document.
    @ivar publications: of a presentity in one package.
    @ivar forget_after: seconds for which a removal is remembered at most, in a cluster; 0: the node is alone, and
        remembers none.
    """

    min_expires: int = 60
    default_expires: int = 3600
    max_expires: int = 3600
    body: int = 12_000
    publications: int = 20
    forget_after: int = 0


class Publish(NamedTuple):
    """
    What a PUBLISH asks for.

    @ivar etag: in SIP-If-Match; empty for an initial publication.
    @ivar expires_in: seconds; 0: it is to be removed.
    @ivar body: L{None}: it stays as it is.
    """

    aor: str
    event: str
    etag: str
    expires_in: int
    body: bytes | None

    @property
    def user(self) -> str:
        """
        Of the AoR.
        """
        return self.aor.rpartition("@")[0]

    @property
    def domain(self) -> str:
        """
        Of the AoR.
        """
        return self.aor.rpartition("@")[2]


def _package(request: Request, allowed: Iterable[str]) -> EventPackage:
    value = request.headers.first.get("event", "")
    match = _TOKEN_FIRST.match(value)
    package = None if match is None else PACKAGES.get(match[1])
    if package is None:
        raise refuse.bad_event(allowed)  # §6 step 2: also where it is missing
    return package


def read_publish(request: Request, aor: str, limits: PublicationLimits) -> Publish:
    """
    Read a PUBLISH.

    @param aor: of the presentity, which the Request-URI names.
    @raise RequestRefused: 400, 413, 415, 423, 489.
    @raise ParseError: of Expires.
    @see: RFC 3903 §6 steps 2 to 5
    """
    first = request.headers.first
    package = _package(request, PACKAGES)
    etag = first.get("sip-if-match", "")
    if "sip-if-match" in first and (
        request.headers.is_repeated("sip-if-match") or not TOKEN.fullmatch(etag) or len(etag) > _MAX_ETAG
    ):
        raise refuse.bad_request("Invalid SIP-If-Match")
    expires_in = request.expires
    if expires_in is None:
        expires_in = limits.default_expires
    elif 0 < expires_in < limits.min_expires:
        raise refuse.interval_too_brief(limits.min_expires)
    body = _body(request, package, limits) if request.body else None
    if body is None and not etag:
        raise refuse.bad_request("Missing Body")
    return Publish(aor, package.name, etag, min(expires_in, limits.max_expires), body)


def _body(request: Request, package: EventPackage, limits: PublicationLimits) -> bytes:
    first = request.headers.first
    content_type = first.get("content-type", "").partition(";")[0].strip(" \t").lower()
    if content_type != package.content_type:
        raise refuse.unsupported_content([package.content_type])
    if first.get("content-encoding", "identity").lower() != "identity":
        raise RequestRefused(415, [("Accept-Encoding", "identity")])
    if len(request.body) > limits.body:
        raise refuse.too_large()
    try:
        package.check(request.body)
    except DecodeError as error:
        raise refuse.bad_request(error.reason) from None
    return request.body


def laid_to_rest(publication: Publication, latest: int, now: int, forget_after: int) -> Publication:
    """
    A publication as a tombstone.

    @param latest: until when somebody may still hold a version of it.
    """
    until = remembered_until(latest, now, forget_after)
    return publication._replace(removed=True, body=b"", expires_at=until, known_until=latest)


def apply_publish(
    records: Sequence[Publication],
    publish: Publish,
    now: int,
    limits: PublicationLimits,
    new_ruid: Callable[[], str],
) -> tuple[Sequence[Publication], Publication]:
    """
    The records of a presentity in one package after a PUBLISH.

    @param records: live publications and tombstones.
    @param now: seconds since the epoch.
    @param new_ruid: makes a name that no other node makes.
    @return: all records, those that did not change being the same objects; and the one that the PUBLISH is about, with
        its new entity tag.
    @raise RequestRefused: 412 where SIP-If-Match names nothing, 403 for one publication too many.
    @see: RFC 3903 §6 steps 3 to 6
    """
    at = -1
    if publish.etag:
        for number, record in enumerate(records):
            if record.etag == publish.etag and not record.removed and record.expires_at > now:
                at = number
                break
        else:
            raise refuse.conditional_request_failed()
    stored = records[at] if at >= 0 else None
    name = new_ruid()
    if stored is None:
        new = Publication(
            publish.aor, publish.event, name, f"{name}.0", "", 0, now, now + publish.expires_in, publish.user,
            publish.domain, publish.body or b"",
        )  # fmt: skip
    else:
        version = stored.version + 1
        latest = max(stored.known_until, stored.expires_at)
        new = stored._replace(
            etag=f"{name}.{version}",
            previous=stored.etag,
            version=version,
            recv=now,
            expires_at=now + publish.expires_in,
            told_by="",
            known_until=latest if latest > now + publish.expires_in else 0,
        )
        if publish.body is not None:
            new = new._replace(body=publish.body)
    others = [*records[:at], *records[at + 1 :]] if at >= 0 else records
    if not publish.expires_in:
        if stored is None or not limits.forget_after:
            return others, new._replace(removed=True)
        rest = laid_to_rest(new._replace(etag=stored.etag), latest, now, limits.forget_after)
        return [*others, rest], new._replace(removed=True)
    if stored is None or publish.body is not None:
        _check_room(others, new, limits)
    return [*others, new], new


def _check_room(others: Iterable[Publication], new: Publication, limits: PublicationLimits) -> None:
    live = [record for record in others if not record.removed]
    if len(live) >= limits.publications:
        raise refuse.forbidden("Too Many Publications")
    if sum([len(record.body) for record in live]) + len(new.body) > MAX_TOGETHER:
        raise refuse.forbidden("Publications Too Long Together")
