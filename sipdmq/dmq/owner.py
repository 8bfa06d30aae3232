"""
The owner of a contact: the node that has its connection, where it was registered over TCP, TLS or WebSocket. Pure.

Nobody else can reach such a contact, so it goes to the other nodes with a URI of the owner in front of its path:
C{<sip:FLOW.MAC@192.0.2.1:5060;lr>}. By RFC 3327 all of them, Kamailios included, then send what is for this contact
through the owner; sipdmq nodes also read from it who that is.

C{FLOW} is the name of the connection, C{MAC} a keyed hash over it and the node: a request that comes back with the URI
as its top Route was sent by somebody who had it from the location table, so it needs no challenge; and since a phone's
connection has nobody else at its other end, it is delivered there or nowhere (430).
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from hmac import compare_digest
from typing import Final, NamedTuple

from sipdmq.errors import ParseError
from sipdmq.records import NodeName, Protocol
from sipdmq.sip.fields import parse_route
from sipdmq.sip.grammar import split_commas
from sipdmq.sip.uri import DEFAULT_PORT, SipURI

__all__ = ["FlowTokens", "Owned"]

_MAC_BYTES: Final = 12
_TOKEN: Final = re.compile(r"([0-9A-Za-z\-]{1,64})\.([A-Za-z0-9_\-]{16})")
_PROTOCOLS: Final = {protocol.name.lower(): protocol for protocol in Protocol}


class Owned(NamedTuple):
    """
    What stands on top of a path.

    @ivar owner: the node that has the connection.
    @ivar flow: its name there.
    @ivar path: the rest.
    """

    owner: NodeName
    flow: str
    path: str


class FlowTokens:
    """
    Makes and reads the URIs of owners.
    """

    def __init__(self, key: bytes, node: NodeName) -> None:
        """
        @param key: the same on all nodes: C{derive_key(secret, "flow")}. With a secret of its own each node still
            reads what it made itself.
        @param node: this one.
        """
        self._key = key
        self.node = node

    def _mac(self, node: NodeName, flow: str) -> str:
        data = f"{node}\0{flow}".encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(data, digest_size=_MAC_BYTES, key=self._key[:64], person=b"flow").digest()
        return urlsafe_b64encode(digest).decode("ascii")

    def make(self, flow: str) -> str:
        """
        The URI of a connection of this node, as a value of Path: C{"<sip:...;lr>"}.
        """
        node = self.node
        host = f"[{node.host}]" if ":" in node.host else node.host
        transport = "" if node.protocol is Protocol.UDP else f";transport={node.protocol.name.lower()}"
        return f"<sip:{flow}.{self._mac(node, flow)}@{host}:{node.port}{transport};lr>"

    def with_owner(self, flow: str, path: str) -> str:
        """
        The path of a contact as the other nodes are told it.

        @param flow: empty for one that any node can reach: then the path is as it was.
        """
        if not flow:
            return path
        return f"{self.make(flow)}, {path}" if path else self.make(flow)

    def read(self, uri: SipURI) -> str | None:
        """
        The connection that a Route names.

        @param uri: a Route whose host and port mean this node.
        @return: its name; empty for one that looks like it and that no node of this cluster made for this one; C{None}
            for an ordinary URI.
        """
        if "lr" not in uri.params or _TOKEN.fullmatch(uri.user) is None:
            return None
        return self._flow_of(uri, self.node) or ""

    def _flow_of(self, uri: SipURI, node: NodeName) -> str | None:
        if "lr" not in uri.params or uri.password is not None:
            return None
        match = _TOKEN.fullmatch(uri.user)
        if match is None:
            return None
        flow, mac = match.groups()
        return flow if compare_digest(mac, self._mac(node, flow)) else None

    def split(self, path: str) -> Owned | None:
        """
        Who owns the contact with this path.

        @return: C{None}: nobody, any node can reach it.
        """
        if "." not in path or not path:
            return None
        try:
            values = split_commas(path)
            uri = parse_route(values[0]).uri
        except ParseError:
            return None
        if not isinstance(uri, SipURI) or uri.scheme != "sip" or not uri.user:
            return None
        protocol = _PROTOCOLS.get((uri.params.get("transport") or "udp").lower())
        if protocol is None:
            return None
        node = NodeName(protocol, uri.host, uri.port or DEFAULT_PORT)
        flow = self._flow_of(uri, node)
        return None if flow is None else Owned(node, flow, ", ".join(values[1:]))
