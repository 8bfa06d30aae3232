"""
Where the nodes are to be found that the configuration names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from sipdmq.dmq.lines import name_of, numeric_host
from sipdmq.errors import ParseError, UnreachableError
from sipdmq.interfaces.messages import ITargetResolver
from sipdmq.records import NodeName, Target
from sipdmq.sip.uri import SipURI, format_host, parse_sip_uri

__all__ = ["NodeNames"]

log = Logger()

KEEP: Final = 60.0
"""Seconds for which a host name is not asked for again."""
MAX_HOSTS: Final = 256
"""Host names of lists and Froms that are remembered; others are not looked up."""


class NodeNames:
    """
    The notification addresses as numeric names, and the addresses of the host names that others use.
    """

    def __init__(
        self, clock: IReactorTime, resolver: ITargetResolver, uris: Sequence[SipURI], all_addresses: bool
    ) -> None:
        """
        @param uris: C{notification_address}
        @param all_addresses: C{multi_notify}: all addresses of a name are nodes; else the first.
        """
        self._clock = IReactorTime(clock)
        self._resolver = ITargetResolver(resolver)
        self._uris = tuple(uris)
        self._all = all_addresses
        self._found: dict[str, tuple[NodeName, ...]] = {}
        self._host_names: dict[NodeName, str] = {}
        self._hosts: dict[str, tuple[float, str | None]] = {}  # when asked, what was answered
        self._complained: set[str] = set()
        self._names_only: list[SipURI] = []
        for uri in self._uris:
            if numeric_host(uri.host) is None:
                self._names_only.append(uri)
            else:
                self._found[uri.text] = (name_of(uri),)

    def known(self) -> tuple[NodeName, ...]:
        """
        What is known now.
        """
        return tuple(dict.fromkeys(name for uri in self._uris for name in self._found.get(uri.text, ())))

    def host_of(self, name: NodeName) -> str:
        """
        The host name that the configuration has for a node; empty: it has its address.
        """
        return self._host_names.get(name, "")

    def look_up(self, found: Callable[[tuple[NodeName, ...]], object]) -> None:
        """
        Ask for the addresses of those that are named by host name.

        @param found: called, perhaps several times, with all that is known then.
        """
        for uri in self._names_only:
            resolving = self._resolver.resolve(uri)
            resolving.addCallbacks(self._resolved, self._not_found, (uri, found), {}, (uri,), {})
            resolving.addErrback(lambda failure: log.failure("a notification address broke", failure))

    def _resolved(
        self, targets: tuple[Target, ...], uri: SipURI, found: Callable[[tuple[NodeName, ...]], object]
    ) -> None:
        self._complained.discard(uri.text)
        names = tuple(NodeName(each.protocol, each.host, each.port) for each in targets)
        if not self._all:
            # The one that is known stays while it is there: name servers change their order all the time.
            kept = [name for name in self._found.get(uri.text, ()) if name in names]
            names = tuple(kept or names[:1])
        if names == self._found.get(uri.text):
            return
        self._found[uri.text] = names
        for name in names:
            self._host_names[name] = uri.host
        found(self.known())

    def _not_found(self, failure: Failure, uri: SipURI) -> None:
        failure.trap(UnreachableError)
        if uri.text not in self._complained:
            self._complained.add(uri.text)
            log.warn("notification_address {reason}", reason=failure.getErrorMessage())

    def numeric(self, name: NodeName) -> NodeName | None:
        """
        A name with the address of its host; L{None}: not known now.
        """
        if numeric_host(name.host) is not None:
            return name
        address = self.address_of(name.host)
        return None if address is None else name._replace(host=address)

    def address_of(self, host: str) -> str | None:
        """
        The address of a host name, as far as it is known now; a look-up begins if it is not.

        @param host: in lower case.
        """
        for name, known in self._host_names.items():
            if known == host:
                return name.host
        now = self._clock.seconds()
        asked = self._hosts.get(host)
        if asked is None or now - asked[0] >= KEEP:
            if asked is None and len(self._hosts) >= MAX_HOSTS:
                oldest = min(self._hosts, key=lambda each: self._hosts[each][0])
                if now - self._hosts[oldest][0] < KEEP:
                    return None
                del self._hosts[oldest]
            self._hosts[host] = (now, asked[1] if asked else None)
            self._ask(host)
        return self._hosts[host][1]

    def _ask(self, host: str) -> None:
        try:
            uri = parse_sip_uri(f"sip:{format_host(host)}:5060")  # with a port: addresses only
        except ParseError:
            return

        def resolved(targets: tuple[Target, ...]) -> None:
            if host in self._hosts:
                self._hosts[host] = (self._hosts[host][0], targets[0].host)

        def failed(failure: Failure) -> Any:
            failure.trap(UnreachableError)
            if host in self._hosts:
                self._hosts[host] = (self._hosts[host][0], None)

        self._resolver.resolve(uri).addCallbacks(resolved, failed)
