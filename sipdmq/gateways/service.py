"""
The groups of gateways at work: asks each gateway by OPTIONS whether it is there, and says where a call goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.config import GatewayConfig
from sipdmq.errors import UnreachableError
from sipdmq.gateways.groups import Gateway, GatewayGroup, uri_at
from sipdmq.interfaces.gateways import IGateways
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IClientUser, IRequestSender, ITargetResolver
from sipdmq.records import Destination, Target
from sipdmq.sip.headers import Headers
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response
from sipdmq.sip.uri import URI, SipURI, format_host

__all__ = ["Gateways"]

log = Logger()

PROBE_PAUSE: Final = 1.0
"""Seconds from one probe of a gateway to the next at least, however many calls fail there."""


@implementer(IGateways, IInspectable)
class Gateways:
    """
    All groups of the configuration. Until it is known better, a gateway counts as there.
    """

    def __init__(
        self,
        clock: IReactorTime,
        groups: Mapping[str, GatewayConfig],
        sender: IRequestSender,
        resolver: ITargetResolver,
        ids: Ids,
        random: Callable[[], float],
        from_uri: str,
        user_agent: str,
    ) -> None:
        """
        @param groups: by name.
        @param random: from 0, included, to 1, excluded: C{random.random}.
        @param from_uri: what we call ourselves in the From of a probe, C{"sip:example.org"}.
        """
        self.clock = IReactorTime(clock)
        self.sender = IRequestSender(sender)
        self.resolver = ITargetResolver(resolver)
        self._ids = ids
        self._random = random
        self._from_uri = from_uri
        self._user_agent = user_agent
        self._groups = {name: GatewayGroup(name, config) for name, config in groups.items()}
        self._watches: list[_Watch] = []
        self._by_uri: dict[str, list[_Watch]] = {}
        for group in self._groups.values():
            for gateway in group.gateways:
                watch = _Watch(self, group, gateway)
                self._watches.append(watch)
                self._by_uri.setdefault(gateway.uri.text, []).append(watch)
        self.probes = 0

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}: the gateways of all groups, those that are out, and the probes that were sent;
        and of each group, those that are in.
        """
        numbers: dict[str, int | float] = {
            "gateways.all": len(self._watches),
            "gateways.out": sum(watch.gateway.is_out for watch in self._watches),
            "gateways.probes": self.probes,
        }
        for name, group in self._groups.items():
            numbers[f"gateways.in.{name}"] = sum(not gateway.is_out for gateway in group.gateways)
        return numbers

    def group(self, name: str, request_uri: URI | None = None) -> tuple[Destination, ...]:
        """
        See L{IGateways.group}.
        """
        group = self._groups.get(name)
        if group is None:
            raise LookupError(f"there is no [gateway {name}]")
        return tuple(
            [
                Destination(
                    gateway.uri.text if request_uri is None else uri_at(gateway.uri, request_uri),
                    1000 - place,
                    next_hop=gateway.uri,
                    answer_timeout=group.config.answer_timeout,
                    failover=group.config.dead_codes,
                )
                for place, gateway in enumerate(group.choose(self._random))
            ]
        )

    def report(self, next_hop: SipURI, is_alive: bool) -> None:
        """
        See L{IGateways.report}.
        """
        for watch in self._by_uri.get(next_hop.text, ()):
            if is_alive:
                watch.answered()
            else:
                watch.failed("a call failed")
                watch.hurry()

    def start(self) -> None:
        """
        Begin to probe, the gateways of a group evenly over its interval.
        """
        for group in self._groups.values():
            interval = group.config.probe_interval
            watches = [watch for watch in self._watches if watch.group is group]
            for place, watch in enumerate(watches):
                if interval:
                    watch.start(interval * place / len(watches))

    def stop(self) -> None:
        """
        Probe no more.
        """
        for watch in self._watches:
            watch.stop()

    def probe_for(self, gateway: SipURI) -> Request:
        """
        The OPTIONS that asks a gateway whether it is there (RFC 3261 §11.1). To has neither port nor transport
        (§19.1.1).
        """
        headers = Headers()
        headers.add("Max-Forwards", "70")
        headers.add("From", f"<{self._from_uri}>;tag={self._ids.tag()}")
        headers.add("To", f"<{gateway.scheme}:{format_host(gateway.host)}>")
        headers.add("Call-ID", self._ids.call_id())
        headers.add("CSeq", "1 OPTIONS")
        headers.add("User-Agent", self._user_agent)
        headers.add("Content-Length", "0")
        self.probes += 1
        return Request("OPTIONS", gateway.text, headers)


@implementer(IClientUser)
class _Watch:
    """
    What is done about one gateway: a probe at a time, the next one an interval after it was sent.
    """

    def __init__(self, service: Gateways, group: GatewayGroup, gateway: Gateway) -> None:
        self._service = service
        self.group = group
        self.gateway = gateway
        self._call: IDelayedCall | None = None
        self._is_started = False
        self._is_asking = False
        self._asked_at = 0.0

    def start(self, delay: float) -> None:
        """
        @param delay: seconds until the first probe.
        """
        self._is_started = True
        self._call = self._service.clock.callLater(delay, self._ask)

    def stop(self) -> None:
        """
        What is under way comes to nothing.
        """
        self._is_started = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def hurry(self) -> None:
        """
        Ask now, or as soon as the pause after the last probe is over.
        """
        if self._call is None:  # it is being asked, or never is
            return
        clock = self._service.clock
        soon = max(clock.seconds(), self._asked_at + PROBE_PAUSE)
        if soon < self._call.getTime():
            self._call.reset(soon - clock.seconds())

    def _ask(self) -> None:
        self._call = None
        self._is_asking = True
        self._asked_at = self._service.clock.seconds()
        resolved: Deferred[tuple[Target, ...]] = self._service.resolver.resolve(self.gateway.uri)
        resolved.addCallback(self._send).addErrback(self._not_sent)

    def _send(self, targets: tuple[Target, ...]) -> None:
        if self._is_started:
            self._service.sender.send_request(self._service.probe_for(self.gateway.uri), targets, self)

    def _not_sent(self, failure: Failure) -> None:
        if isinstance(failure.value, UnreachableError):
            self.unreachable(failure.value.reason)
        else:
            log.failure("{gateway} could not be probed", failure, gateway=self.gateway)
            self.unreachable(failure.getErrorMessage())

    def response_received(self, response: Response) -> None:
        """
        See L{IClientUser.response_received}.
        """
        if response.status >= 200:
            self._asked(self.group.is_sign_of_life(response.status), f"it answers {response.status}")

    def timed_out(self) -> None:
        """
        See L{IClientUser.timed_out}.
        """
        self._asked(False, "no answer")

    def unreachable(self, reason: str) -> None:
        """
        See L{IClientUser.unreachable}.
        """
        self._asked(False, reason)

    def _asked(self, is_alive: bool, reason: str) -> None:
        if not self._is_asking or not self._is_started:
            return
        self._is_asking = False
        if is_alive:
            self.answered()
        else:
            self.failed(reason)
        clock = self._service.clock
        due = self._asked_at + max(PROBE_PAUSE, self.group.config.probe_interval)
        self._call = clock.callLater(max(0.0, due - clock.seconds()), self._ask)

    def answered(self) -> None:
        """
        The gateway has shown that it is there.
        """
        if self.gateway.answered():
            log.info("gateway {gateway} of {group} is back", gateway=self.gateway.uri, group=self.group.name)

    def failed(self, reason: str) -> None:
        """
        The gateway has not answered, or not as one who is there.
        """
        if self.gateway.failed():
            log.warn(
                "gateway {gateway} of {group} is out after {failures} failures: {reason}; {left} left",
                gateway=self.gateway.uri,
                group=self.group.name,
                failures=self.gateway.failures,
                reason=reason,
                left=sum(not gateway.is_out for gateway in self.group.gateways),
            )
