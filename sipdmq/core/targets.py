"""
Where a registered phone is reached.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol as Structure

from twisted.internet.defer import Deferred, succeed

from sipdmq.core.domains import is_address
from sipdmq.interfaces.messages import IFlows, ITargetResolver
from sipdmq.records import Listener, Protocol, Target
from sipdmq.sip.uri import DEFAULT_PORT, SipURI, parse_sip_uri

__all__ = ["BindingTargets", "Reached"]


class Reached(Structure):
    """
    What is known of how a phone is reached: a L{Binding<sipdmq.records.Binding>}, or a subscription, whose fields of
    these names mean the same.
    """

    @property
    def contact(self) -> str: ...

    @property
    def received(self) -> str: ...

    @property
    def socket(self) -> str: ...

    @property
    def flow(self) -> str: ...


class BindingTargets:
    """
    From a binding to targets, by the way that its REGISTER came: back over its connection, or from the listener that
    received it, over the same transport whatever the size of a request. That way is open through the NAT in front
    of the phone; another one may not be. So for a subscription, by the way of its SUBSCRIBE.
    """

    def __init__(self, listeners: Iterable[Listener], flows: IFlows, resolver: ITargetResolver) -> None:
        self._listeners = {str(listener): listener for listener in listeners}
        self._flows = IFlows(flows)
        self._resolver = ITargetResolver(resolver)

    def resolve(self, binding: Reached) -> Deferred[tuple[Target, ...]]:
        """
        @return: a Deferred of a non-empty tuple of L{Target}, first choice first; already fired unless the contact
            names a host and the binding has no C{received}.
        @raise UnreachableError: (failure of the Deferred) the contact's host has no address.
        """
        if binding.flow:
            target = self._flows.target_of(binding.flow)
            if target is not None:
                return succeed((target,))
            # The connection is gone. Whoever listens at its contact can still be called; the others cannot.
            return self._resolved(parse_sip_uri(binding.contact))
        listener = self._listeners.get(binding.socket)
        uri = parse_sip_uri(binding.received or binding.contact)
        if listener is None or listener.protocol is not Protocol.UDP:
            return self._resolved(uri)
        if is_address(uri.host) and not _is_led_elsewhere(uri):
            port = DEFAULT_PORT if uri.port is None else uri.port
            return succeed((Target(Protocol.UDP, uri.host, port, True, "", False, listener),))
        return self._resolved(uri).addCallback(_fixed, listener)

    def _resolved(self, uri: SipURI) -> Deferred[tuple[Target, ...]]:
        targets: Deferred[tuple[Target, ...]] = self._resolver.resolve(uri)
        return targets


def _is_led_elsewhere(uri: SipURI) -> bool:
    return "maddr" in uri.params or ("transport" in uri.params and uri.params["transport"].lower() != "udp")


def _fixed(targets: tuple[Target, ...], listener: Listener) -> tuple[Target, ...]:
    """
    UDP targets leave from the listener that the phone knows, and stay UDP; a contact that asks for another transport
    gets it.
    """
    return tuple(
        target._replace(fixed=True, listener=listener) if target.protocol is Protocol.UDP else target
        for target in targets
    )
