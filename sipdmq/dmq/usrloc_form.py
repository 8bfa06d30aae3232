"""
Between a binding of ours and what stands for it on the wire, as C{[usrloc]} says. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from sipdmq.core.contacts import PERMANENT, known_until
from sipdmq.core.domains import Domains
from sipdmq.dmq.owner import FlowTokens
from sipdmq.dmq.usrloc_json import encode
from sipdmq.dmq.usrloc_records import ALL_METHODS, UsrlocRecord
from sipdmq.errors import DecodeError, ParseError
from sipdmq.records import Binding
from sipdmq.sip.fields import parse_route
from sipdmq.sip.grammar import split_commas
from sipdmq.sip.params import parse_params, quote, unquote
from sipdmq.sip.uri import SipURI, canonical_escapes, format_host, is_plain_uri, parse_sip_uri, parse_uri

__all__ = ["UNKNOWN", "UsrlocForm", "methods_of", "methods_text"]

UNKNOWN: Final = "?"
"""In C{told_by}: a node that is in no list."""

# WIRE §6, "Method bits"
_METHOD_BITS: Final[Mapping[str, int]] = {
    name: 1 << bit
    for bit, name in enumerate(
        ("INVITE", "CANCEL", "ACK", "BYE", "INFO", "REGISTER", "SUBSCRIBE", "NOTIFY", "MESSAGE", "OPTIONS", "PRACK",
         "UPDATE", "REFER", "PUBLISH", "KDMQ")
    )
}  # fmt: skip

_PLAIN_USER: Final = re.compile(r"[A-Za-z0-9\-_.+]+")
"""Without domain, and the same in all spellings."""


def methods_of(params: str) -> int:
    """
    What a contact says that it understands (RFC 3840 C{methods}), as bits.

    @param params: of a binding.
    """
    if not params or "methods" not in params.lower():
        return ALL_METHODS
    try:
        value = parse_params(params).get("methods")
    except ParseError:
        return ALL_METHODS
    if value is None:
        return ALL_METHODS
    names = [name.strip(" \t").upper() for name in unquote(value).split(",")]
    return sum({_METHOD_BITS.get(name, 0) for name in names})


def methods_text(methods: int) -> str:
    """
    The inverse of L{methods_of}: C{";methods=\\"INVITE,BYE\\""}, empty for all and for none.
    """
    if methods in (0, ALL_METHODS):
        return ""
    names = ",".join([name for name, bit in _METHOD_BITS.items() if methods & bit])
    return f';methods="{names}"' if names else ""


class UsrlocForm:
    """
    How this node writes and reads records.
    """

    def __init__(
        self,
        domains: Domains,
        tokens: FlowTokens,
        use_domain: bool = False,
        replicate_socket_info: int = 0,
        replicate_cflags: int = 1,
        sockets: Iterable[str] = (),
        dmq_socket: str = "",
    ) -> None:
        """
        @param use_domain: whether the AoR on the wire has its domain; read are both forms.
        @param replicate_socket_info: 1: C{sock} is written. 3: C{dmq_socket} is put into every record that is read.
        @param replicate_cflags: 1: taken over, 0: not, another: that is put in their place.
        @param sockets: our listeners, C{"udp:192.0.2.1:5060"}.
        @param dmq_socket: the one of them that KDMQ comes by.
        """
        self._domains = domains
        self._host = format_host(domains.main)
        self._tokens = tokens
        self._node = str(tokens.node)
        self._use_domain = use_domain
        self._socket_info = replicate_socket_info
        self._replicate_cflags = replicate_cflags
        self._sockets = frozenset(sockets)
        self._dmq_socket = dmq_socket

    # writing

    def _record(
        self,
        binding: Binding,
        expires_at: int,
        ruid: str = "",
        sock: str = "",
        xavps: str = "",
        by: str = "",
        removed: bool = False,
    ) -> UsrlocRecord:
        aor, flow, path = binding.aor, binding.flow, binding.path
        return UsrlocRecord._make((  # half of what so many arguments cost
            aor if self._use_domain else aor.rpartition("@")[0],
            ruid or binding.ruid,
            binding.contact,
            binding.received,
            self._tokens.with_owner(flow, path) if flow else path,
            binding.call_id,
            binding.user_agent,
            binding.instance,
            0 if expires_at >= PERMANENT else expires_at,
            binding.cseq,
            binding.flags,
            binding.cflags,
            binding.q,
            binding.last_modified,
            methods_of(binding.params) if binding.methods < 0 else binding.methods,
            binding.reg_id,
            binding.server_id,
            sock,
            xavps,
            by,
            removed,
        ))

    def content(self, binding: Binding) -> bytes:
        """
        What all nodes write of a record, whatever else they know of it; see L{sipdmq.dmq.order.rank}.
        """
        return encode(self._record(binding, binding.expires_at))

    def encode_update(self, binding: Binding, ruid: str = "", by: str = "") -> bytes:
        """
        The fragment that tells of a live binding.

        @param ruid: the name that the receiver has for it; by default ours.
        @param by: to a node of ours: who changed it, where that is not this node.
        """
        sock = binding.socket if self._socket_info == 1 else ""
        return encode(self._record(binding, binding.expires_at, ruid, sock, binding.xavps, by))

    def encode_remove(self, binding: Binding, ruid: str, by: str = "") -> bytes:
        """
        The fragment that tells that a binding is gone: of a tombstone, or of what has expired.

        @param ruid: the name that it is to be removed by.
        @param by: as for L{encode_update}.
        """
        return encode(self._record(binding, known_until(binding), ruid, by=by, removed=True))

    # reading

    def binding(self, record: UsrlocRecord, sender: str = UNKNOWN) -> Binding:
        """
        What another node wrote, as a binding of ours.

        @param sender: who it is.
        @return: of one that is gone, C{expires_at} is the latest that was known of it.
        @raise DecodeError: its AoR is none of our domains, or nobody can be called at its contact.
        """
        aor = self._aor(record.aor)
        contact, path, received = record.c, record.path, record.received
        owner = flow = ""
        if record.removed:
            try:
                parse_uri(contact)
            except ParseError:
                contact = ""
            path = received = ""
        else:
            if path or not is_plain_uri(contact) or (received and not is_plain_uri(received)):
                _check_way(contact, path, received)
            owned = self._tokens.split(path) if path else None
            if owned is not None and owned.owner == self._tokens.node:
                flow, path = owned.flow, owned.path
            elif owned is not None:
                owner = str(owned.owner)
        instance = record.instance
        params = f";+sip.instance={quote(instance)}" if instance else ""
        if record.reg_id:
            params = f"{params};reg-id={record.reg_id}"
        if record.methods != ALL_METHODS:
            params += methods_text(record.methods)
        cflags = record.cflags if self._replicate_cflags == 1 else self._replicate_cflags
        # So many arguments cost twice as much as one tuple of them.
        return Binding._make((
            aor,
            record.ruid,
            contact,
            params,
            record.q,
            record.expires or PERMANENT,
            record.callid,
            record.cseq,
            instance,
            record.reg_id,
            path,
            received,
            self._socket(record.sock) if record.sock or self._socket_info == 3 else "",
            flow,
            record.user_agent,
            record.last_modified,
            record.server_id,
            record.removed,
            0,
            False,
            (),
            owner,
            record.methods,
            record.flags,
            cflags,
            record.xavps,
            "" if record.by == self._node else record.by or sender,
        ))

    def _socket(self, sock: str) -> str:
        if self._socket_info == 3:
            return self._dmq_socket
        return sock if sock in self._sockets else ""

    def _aor(self, text: str) -> str:
        if (text.isascii() and text.isalnum()) or _PLAIN_USER.fullmatch(text):
            return f"{text}@{self._host}"
        user, at, _ = text.rpartition("@")
        if not at:
            if any(character in text for character in " <>\"\\"):
                raise DecodeError("aor is no user")
            return f"{canonical_escapes(text)}@{self._host}"
        try:
            aor = self._domains.aor_of(parse_uri(f"sip:{text}"))
        except ParseError:
            aor = None
        if aor is None or not user:
            raise DecodeError("aor is in no domain of ours")
        return aor


def _check_way(contact: str, path: str, received: str) -> None:
    """
    @raise DecodeError: one of them is not what goes into a request or a Route.
    """
    try:
        parse_sip_uri(contact)
        if received:
            parse_sip_uri(received)
        if path:
            for value in split_commas(path):
                if not isinstance(parse_route(value).uri, SipURI):
                    raise DecodeError("path is no list of SIP URIs")
    except ParseError as error:
        raise DecodeError(f"contact, path or received: {error.reason}") from None
