"""
Which names and addresses are ours, and what the address-of-record of a URI is. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sipdmq.sip.uri import URI, SipURI, format_host

__all__ = ["Domains", "aor_in", "is_address"]

_ADDRESS: Final = re.compile(r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*")


def is_address(host: str) -> bool:
    """
    Whether a host is a numeric address.

    @param host: in lower case, IPv6 without brackets.
    """
    return bool(_ADDRESS.fullmatch(host))


class Domains:
    """
    The domains that this node is responsible for (RFC 3261 §10.3, §16.4).

    Each name is a domain of its own. An address, whether configured or one that we listen on, and an alias stand for
    a domain: C{sip:alice@192.0.2.1} and C{sip:alice@example.org} are one user.
    """

    def __init__(
        self,
        domains: Sequence[str],
        aliases: Mapping[str, str],
        addresses: Iterable[tuple[str, int]],
    ) -> None:
        """
        @param domains: names and addresses, in lower case, IPv6 without brackets; not empty. Addresses stand for the
            first name, or where there is none, for the first address.
        @param aliases: further names, each with the domain that it stands for.
        @param addresses: hosts and ports of our listeners, as they are and as they are advertised.
        """
        addresses = tuple(addresses)
        names = [domain for domain in domains if not is_address(domain)]
        self.main = names[0] if names else domains[0]
        self._domains: dict[str, str] = {}
        for host, _ in addresses:
            self._domains[host] = self.main
        for domain in domains:
            self._domains[domain] = self.main if is_address(domain) else domain
        self._domains.update(aliases)
        self._ports = frozenset(port for _, port in addresses)

    def domain_of(self, uri: URI) -> str | None:
        """
        The domain that a URI belongs to, C{None} if it is not ours.

        A port makes it somebody else's unless we listen on it: C{sip:alice@127.0.0.1:5070} is a phone beside us.
        """
        if not isinstance(uri, SipURI) or (uri.port is not None and uri.port not in self._ports):
            return None
        host = uri.host
        return self._domains.get(host[:-1] if host[-1] == "." else host)

    def is_claimed_by(self, uri: URI) -> bool:
        """
        Whether a URI passes for one of ours: one in a domain of ours, and a name of ours with any port. Who reads
        C{alice@example.org:9999} on a display takes it for C{alice@example.org}.
        """
        if not isinstance(uri, SipURI):
            return False
        host = uri.host
        return self.domain_of(uri) is not None or (
            not is_address(host) and (host[:-1] if host[-1] == "." else host) in self._domains
        )

    def aor_of(self, uri: URI) -> str | None:
        """
        The canonical address-of-record of a URI in one of our domains.

        @return: C{None} if the domain is not ours, or if there is no user.
        """
        domain = self.domain_of(uri)
        return None if domain is None else aor_in(domain, uri)


def aor_in(domain: str, uri: URI) -> str | None:
    """
    The canonical address-of-record of a URI whose domain is known: C{"alice@example.org"}, without parameters,
    escapes in one spelling.

    @return: C{None} if there is no user.
    @see: RFC 3261 §10.3 step 5
    """
    if not isinstance(uri, SipURI) or not uri.user:
        return None
    return f"{uri.canonical_user}@{format_host(domain)}"
