"""
A publication in the form of channel C{presence}, and back. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sipdmq.core.contacts import PERMANENT
from sipdmq.core.domains import Domains
from sipdmq.dmq.presence_json import HARD_STATE, PresentityUpdate
from sipdmq.errors import ParseError
from sipdmq.interfaces.publications import Publication
from sipdmq.sip.uri import SipURI, parse_sip_uri

__all__ = ["PresenceForm", "version_of"]

_VERSION: Final = re.compile(r"\.([0-9]{1,9})\Z")


def version_of(etag: str) -> int:
    """
    The number at the end of an entity tag: how often the publication was changed (WIRE §8).

    @return: 0 where there is none.
    """
    match = _VERSION.search(etag)
    return int(match[1]) if match else 0


class PresenceForm:
    """
    How this node writes and reads publications.
    """

    def __init__(self, domains: Domains, is_node_at: Callable[[str, int | None], bool], node: str) -> None:
        """
        @param is_node_at: whether a node of the cluster is at an address and port.
        @param node: this one, as in C{told_by}.
        """
        self._domains = domains
        self._is_node_at = is_node_at
        self._node = node

    # writing

    def update(self, publication: Publication, known_as: str = "", by: str = "") -> PresentityUpdate:
        """
        What all nodes are told of a change.

        @param known_as: the entity tag by which the receiver knows the publication; by default the one before.
        @param by: see L{PresentityUpdate.by}.
        """
        known = known_as or publication.previous
        if publication.removed:
            return self._update(publication, known_as or publication.etag, 0, False, "", by)
        expires = _expires_in(publication, publication.recv)
        if known:
            return self._update(publication, known, expires, False, publication.etag, by)
        return self._update(publication, publication.etag, expires, True, "", by)

    def new(self, publication: Publication, now: int) -> PresentityUpdate:
        """
        What a Kamailio is told that does not have it yet. Kamailio: 5.6.3 counts C{expires} from the arrival of the
        message, so it is what is left now.
        """
        moved = publication._replace(recv=now)
        return self._update(moved, publication.etag, _expires_in(publication, now), True, "", "")

    @staticmethod
    def _update(
        publication: Publication, etag: str, expires: int, is_new: bool, cur_etag: str, by: str
    ) -> PresentityUpdate:
        return PresentityUpdate(
            publication.domain,
            publication.user,
            publication.event,
            etag,
            expires,
            publication.recv,
            is_new,
            cur_etag,
            publication.ruid,
            publication.body,
            publication.sender,
            by,
        )

    # reading

    def publication(self, update: PresentityUpdate, now: int, counts_from_now: bool, sender: str) -> Publication:
        """
        What another node wrote, as a publication of ours; a removal as a tombstone that ends when the publication
        would have, as far as it says.

        @param now: seconds since the epoch.
        @param counts_from_now: C{expires} is as from the arrival of the message: a Kamailio 5.
        @param sender: who has sent it, as in C{told_by}.
        """
        removed = not update.expires
        # One that came in the future came now: the other clock is ahead.
        recv = min(update.recv, now) if update.recv else now
        base = now if counts_from_now else recv
        expires_at = PERMANENT if update.expires == HARD_STATE else min(base + update.expires, PERMANENT)
        etag = update.cur_etag or update.etag
        version = version_of(etag)
        return Publication(
            self._aor(update.user, update.domain),
            update.event,
            update.ruid or f"etag {etag}",
            etag,
            "" if update.is_new else update.etag,
            version + 1 if removed else version,
            update.recv or now,
            now if removed else expires_at,
            update.user,
            update.domain,
            b"" if removed else update.body or b"",
            update.sender,
            removed,
            "" if update.by == self._node else update.by or sender,
        )

    def _aor(self, user: str, domain: str) -> str:
        """
        Whose state it is. The address of a node stands for our first domain, as our own does: the phone has published
        there by address. Of a domain that is nobody's here it is kept for the other nodes.
        """
        try:
            uri = parse_sip_uri(f"sip:{user}@{domain}")
        except ParseError:
            return f"{user}@{domain}"
        aor = self._domains.aor_of(uri)
        if aor is not None:
            return aor
        if isinstance(uri, SipURI) and self._is_node_at(uri.host, uri.port):
            return f"{uri.canonical_user}@{self._domains.main}"
        return f"{uri.canonical_user}@{domain}"


def _expires_in(publication: Publication, now: int) -> int:
    """
    Seconds for C{expires}; at least 1, as 0 would be a removal.
    """
    if publication.expires_at >= PERMANENT:
        return HARD_STATE
    return max(publication.expires_at - now, 1)
