"""
Identities that somebody vouches for: P-Asserted-Identity (RFC 3325). Pure.

It is worth as much as who wrote it: believed of the gateways of the configuration, of the nodes of the cluster, and of
the networks in C{[node] trusted}; taken out of what all others send, phones of ours included, so that nobody behind us
believes it because it came by us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from sipdmq.records import Source
from sipdmq.sip.message import Message, Request

__all__ = ["TrustDomain", "has_assertions", "remove_assertions", "withhold_identity"]

_ASSERTED: Final = "p-asserted-identity"
_PREFERRED: Final = "p-preferred-identity"


class TrustDomain:
    """
    The trust domain of RFC 3325 §2.3.
    """

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network], hosts: Iterable[str]) -> None:
        """
        @param hosts: numeric ones count, as text; names do not, since anybody may write DNS.
        """
        self._networks = tuple(networks)
        self._hosts = frozenset(hosts)
        self._is_from_node: Callable[[Request, Source], bool] | None = None

    def believe_nodes(self, is_from_node: Callable[[Request, Source], bool]) -> None:
        """
        In a cluster: believe what its other nodes pass on, too.
        """
        self._is_from_node = is_from_node

    def may_assert(self, request: Request, source: Source) -> bool:
        """
        Whether the P-Asserted-Identity in a request stays.

        @param request: as received.
        """
        return self.has(source.host) or (self._is_from_node is not None and self._is_from_node(request, source))

    def has(self, host: str) -> bool:
        """
        @param host: numeric, as of a L{Source<sipdmq.records.Source>}.
        """
        if host in self._hosts:
            return True
        if not self._networks:
            return False
        address = ip_address(host)
        return any(address in network for network in self._networks)


def has_assertions(message: Message) -> bool:
    """
    Whether there is something to remove.
    """
    first = message.headers.first
    return _ASSERTED in first or _PREFERRED in first


def remove_assertions(message: Message) -> None:
    """
    Take out what somebody says who is not to be believed (RFC 3325 §5).
    """
    message.headers.remove(_ASSERTED)
    message.headers.remove(_PREFERRED)


def withhold_identity(message: Message) -> None:
    """
    Take the identity out of what leaves the trust domain, if its owner has asked for that (RFC 3325 §7).
    """
    headers = message.headers
    if _ASSERTED in headers.first and any(
        word.strip().lower() == "id" for value in headers.get_all("privacy") for word in value.split(";")
    ):
        headers.remove(_ASSERTED)
