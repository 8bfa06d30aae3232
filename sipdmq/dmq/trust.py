"""
Who may join the cluster and send to it, decided by the address that a KDMQ came from. Pure.

KDMQ is as strong as full control of the location table, and has no authentication of its own (WIRE §1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from sipdmq.dmq.lines import numeric_host
from sipdmq.records import NodeName

__all__ = ["LOOPBACK", "Network", "Trust", "allowed_networks", "missing_trust", "parse_networks"]

Network = IPv4Network | IPv6Network

LOOPBACK: Final[tuple[Network, ...]] = (ip_network("127.0.0.0/8"), ip_network("::1"))
"""What C{[dmq] allow} holds on a node whose C{server_address} is one of these."""

LOG_INTERVAL: Final = 60.0
"""Seconds between two log lines about one source."""
MAX_SOURCES: Final = 1000
"""So many strangers are told apart in the log within a minute; all others together have one line."""
_ALL_OTHERS: Final = ""


def parse_networks(text: str) -> tuple[Network, ...]:
    """
    The value of C{[dmq] allow}: addresses and networks, separated by white space or commas.

    @raise ValueError: it says which word is wrong.
    """
    networks = []
    for word in text.replace(",", " ").split():
        try:
            networks.append(ip_network(word.strip("[]")))
        except ValueError:
            raise ValueError(f"'{word}' must be an address or a network, as 192.0.2.0/24 or 2001:db8::/64") from None
    return tuple(networks)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_networks(server_host: str, allow: Sequence[Network]) -> tuple[Network, ...]:
    """
    The networks to trust: those named; on loopback, where none is named, loopback.

    @param server_host: of C{server_address}, numeric.
    """
    return tuple(allow) or (LOOPBACK if _is_loopback(server_host) else ())


def missing_trust(server_host: str, allow: Sequence[Network], has_notification_address: bool) -> str:
    """
    What is wrong with a node that would take in nobody.

    @return: for the operator, about the key C{[dmq] allow}; empty if nothing is.
    """
    if allow or has_notification_address or _is_loopback(server_host):
        return ""
    return (
        "must name the networks of the other nodes, as 192.0.2.0/24, or notification_address a node to join through: "
        f"server_address {server_host} is not on loopback, and nobody could join"
    )


class Trust:
    """
    Whose KDMQ is read.
    """

    __slots__ = ("_allow", "_configured", "_is_listed", "_logged", "refused")

    def __init__(
        self, allow: Sequence[Network], configured: Iterable[NodeName], is_listed: Callable[[str], bool]
    ) -> None:
        """
        @param allow: L{allowed_networks}.
        @param configured: the notification addresses.
        @param is_listed: whether a trusted member has listed a node at this address:
            L{NodeList.has_host<sipdmq.dmq.nodelist.NodeList.has_host>}. It is bounded there.
        """
        self._allow = tuple(allow)
        self._is_listed = is_listed
        self._configured: frozenset[str] = frozenset()
        self._logged: dict[str, float] = {}
        self.refused = 0
        self.configure(configured)

    def configure(self, configured: Iterable[NodeName]) -> None:
        """
        The notification addresses are these now.
        """
        self._configured = frozenset(name.host for name in configured)

    def is_allowed(self, host: str) -> bool:
        """
        Whether a KDMQ from this address may be read.

        @param host: numeric, of L{Source<sipdmq.records.Source>}: never what the message says of itself.
        """
        host = numeric_host(host) or host  # an IPv4 address in the clothes of IPv6
        if host in self._configured or self._is_listed(host):
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._allow)

    def should_log(self, host: str, now: float) -> bool:
        """
        A stranger was refused: whether that is worth a line in the log, one for each source and minute.

        @param now: seconds.
        """
        self.refused += 1
        if host not in self._logged and len(self._logged) >= MAX_SOURCES:
            # In the order of their times, as each is put at the end again.
            for source, logged_at in list(self._logged.items()):
                if now - logged_at < LOG_INTERVAL:
                    break
                del self._logged[source]
            if len(self._logged) >= MAX_SOURCES:
                host = _ALL_OTHERS
        logged_at = self._logged.get(host, float("-inf"))
        if now - logged_at < LOG_INTERVAL:
            return False
        self._logged.pop(host, None)
        self._logged[host] = now
        return True
