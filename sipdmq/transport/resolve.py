"""
From a URI to the addresses a request may be sent to (RFC 3263, with the SRV rules of RFC 2782).

The URI says as much as it likes; DNS is asked for the rest, in this order::

    numeric host            nothing to ask
    port                    A and AAAA of the domain
    transport, no port      SRV of that transport; none: A and AAAA, default port
    neither                 NAPTR, then SRV of what it names; no NAPTR: SRV of all that we speak; none: A and AAAA

A lookup that fails, or takes too long, counts as one without records: what the others said is still used. All that
comes from DNS is foreign data; each list of it is cut to a length, each chain followed for a few steps only.
"""

from __future__ import annotations

import re
import socket
from bisect import bisect_left
from collections.abc import Collection, Coroutine, Iterable, Sequence
from itertools import accumulate, chain, groupby
from random import Random, SystemRandom
from typing import Any, Final, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.logger import Logger
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.errors import ParseError, UnreachableError
from sipdmq.interfaces.messages import ITargetResolver
from sipdmq.records import SECURE_PORT, Protocol, Target
from sipdmq.sip.uri import DEFAULT_PORT, SipURI, normalize_host

__all__ = ["WAYS", "TargetResolver", "Way", "order_services", "usable_pointers"]

_T = TypeVar("_T")
_Section = tuple[dns.RRHeader, ...]
_log = Logger()


class Way(NamedTuple):
    """
    How one transport protocol is called in URIs and in DNS.

    @ivar secure: what a C{sips:} URI may be sent over.
    @ivar params: the values of C{transport=} that mean it: in a C{sips:} URI any, in a C{sip:} URI the first only,
        because C{sip:…;transport=tcp} is not TLS.
    @ivar naptr: the service field of its NAPTR records, in lower case.
    @ivar srv: what stands before the domain in the name of its SRV records.
    @ivar port: the default port.
    """

    protocol: Protocol
    secure: bool
    params: tuple[str, ...]
    naptr: bytes
    srv: bytes
    port: int


WAYS: tuple[Way, ...] = (
    Way(Protocol.UDP, False, ("udp",), b"sip+d2u", b"_sip._udp.", DEFAULT_PORT),
    Way(Protocol.TCP, False, ("tcp",), b"sip+d2t", b"_sip._tcp.", DEFAULT_PORT),
    Way(Protocol.TLS, True, ("tls", "tcp"), b"sips+d2t", b"_sips._tcp.", SECURE_PORT),
)
"""
First choice first: "the client SHOULD use UDP for a SIP URI" (RFC 3263 §4.1).
"""

_MAX_TARGETS: Final = 16  # of one resolution
_MAX_NAMES: Final = 8  # hosts or services that one answer may send us on to
_MAX_ALIASES: Final = 8  # CNAMEs in a row
_MAX_RECORDS: Final = 64  # of one section of one answer; the rest is ignored
_MAX_REMEMBERED: Final = 512  # answers
_MAX_ASKING: Final = 200  # each question has a socket of its own; whoever names more unknown hosts gets no answer
_MAX_TTL: Final = 300.0  # seconds; the hosts file has no TTL, and twisted.names gives it an hour
_NOTHING_TTL: Final = 5.0  # seconds; of a failure too, so that a dead DNS server does not delay every request

_STAGES: Final = 3  # NAPTR, SRV and address lookups follow one another: each may take its share of the time
_REPEAT: Final = (1, 2, 4)  # seconds until each repetition of a query; each DNS server gets the first, then ...
_ADDRESS_TYPES: Final = {socket.AF_INET: dns.A, socket.AF_INET6: dns.AAAA}
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
# RFC 1035 §2.3.4. dns.Name.encode writes the length of a label unchecked: one of 192 bytes would become a pointer.
_DOMAIN: Final = re.compile(rb"(?!.{254})[a-z0-9_\-]{1,63}(?:\.[a-z0-9_\-]{1,63})*")


def _numeric(host: str) -> tuple[socket.AddressFamily, str] | None:
    """
    The family and usual spelling of a numeric address, L{None} for a name.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return family, socket.inet_ntop(family, socket.inet_pton(family, host))
    except OSError:
        return None


def _owned(name: bytes, record_type: int, records: Iterable[dns.RRHeader]) -> tuple[bytes, list[Any]]:
    """
    The records of a name in one answer, through its CNAMEs.

    @param name: in lower case.
    @return: the name that the CNAMEs end at, and the payloads of its records of that type.
    """
    found: dict[bytes, list[Any]] = {}
    aliases: dict[bytes, Any] = {}
    for record in records:
        if record.type == record_type:
            found.setdefault(record.name.name.lower(), []).append(record.payload)
        elif record.type == dns.CNAME:
            aliases[record.name.name.lower()] = record.payload
    for _ in range(_MAX_ALIASES):
        if name in found or name not in aliases:
            break
        name = aliases[name].name.name.lower()
    return name, found.get(name, [])


def usable_pointers(records: Iterable[dns.Record_NAPTR], ways: Sequence[Way]) -> list[list[tuple[Way, bytes]]]:
    """
    Which SRV records the NAPTR records of a domain point to.

    @param ways: what we can send over, and for a C{sips:} URI may.
    @return: the way and the name of its SRV records, by preference, in one list for each order, lowest first: "once
        a NAPTR is found whose rule 'matches' the target, the client MUST NOT consider any NAPTRs with a higher value
        for order" (RFC 2915 §2). Empty when no record is of use.
    @see: RFC 3263 §4.1: "The resource record will contain an empty regular expression and a replacement value"
    """
    by_service = {way.naptr: way for way in ways}
    usable = [
        record
        for record in records
        if record.service.string.lower() in by_service
        and record.flags.string.lower() == b"s"
        and not record.regexp.string
        and record.replacement.name.strip(b".")
    ]
    usable.sort(key=lambda record: (record.order, record.preference))
    return [
        [(by_service[record.service.string.lower()], record.replacement.name) for record in group]
        for _, group in groupby(usable[:_MAX_NAMES], key=lambda record: record.order)
    ]


def order_services(records: Iterable[dns.Record_SRV], random: Random) -> list[dns.Record_SRV]:
    """
    Put SRV records in the order in which they shall be tried: by priority, and within one by chance and weight.

    @see: RFC 2782, "The format of the SRV RR", C{Weight}
    """
    ordered: list[dns.Record_SRV] = []
    for _, group in groupby(sorted(records, key=lambda record: record.priority), key=lambda record: record.priority):
        left = sorted(group, key=lambda record: record.weight > 0)  # "those with weight 0 are placed at the beginning"
        while left:
            running_sums = list(accumulate(record.weight for record in left))
            ordered.append(left.pop(bisect_left(running_sums, random.randint(0, running_sums[-1]))))
    return ordered


async def _all(coroutines: Iterable[Coroutine[Deferred[object], object, _T]]) -> list[_T]:
    started = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    return [await deferred for deferred in started]


class _Answer(NamedTuple):
    records: _Section
    additional: _Section
    expires_at: float  # by the clock


_NOTHING: Final = _Answer((), (), 0.0)


class _Answers:
    """
    Asks DNS, and remembers the answers as long as their TTL allows.

    (C{twisted.names.client.createResolver} has a cache in its chain, but only a C{DNSServerFactory} ever fills it.)
    """

    def __init__(self, dns_resolver: IResolver, clock: IReactorTime, patience: float) -> None:
        self._dns = IResolver(dns_resolver)
        self._clock = IReactorTime(clock)
        self._patience = patience
        self._remembered: dict[tuple[bytes, int], _Answer] = {}
        self._asking = 0

    async def lookup(self, name: bytes, record_type: int, deadline: float) -> tuple[list[Any], _Section]:
        """
        @param deadline: when to stop waiting, by the clock.
        @return: the payloads of the records of the name, or of what it is an alias for, and the additional section
            of that answer; both empty when there are none or nobody answered in time.
        """
        name = name.lower()
        for _ in range(_MAX_ALIASES):
            key = (name, record_type)
            answer = self._remembered.get(key)
            if answer is None or answer.expires_at <= self._clock.seconds():
                answer = await self._ask(name, record_type, deadline)
            canonical, found = _owned(name, record_type, answer.records)
            if found or canonical == name:
                return found, answer.additional
            name = canonical
        return [], ()

    def _ask(self, name: bytes, record_type: int, deadline: float) -> Deferred[_Answer]:
        patience = min(self._patience, deadline - self._clock.seconds())
        if patience <= 0 or not _DOMAIN.fullmatch(name) or self._asking >= _MAX_ASKING:
            return succeed(_NOTHING)
        self._asking += 1
        asked: Deferred[Any] = self._dns.query(dns.Query(name, record_type, dns.IN), _REPEAT)
        asked.addTimeout(patience, self._clock)
        asked.addBoth(self._asked)
        return asked.addCallbacks(
            self._answered, self._failed, (name, record_type), errbackArgs=(name, record_type, patience)
        )

    def _asked(self, result: Any) -> Any:
        self._asking -= 1
        return result

    def _failed(self, reason: Failure, name: bytes, record_type: int, patience: float) -> _Answer:
        if not isinstance(reason.value, (dns.DomainError, dns.AuthoritativeDomainError)):
            _log.debug("DNS: {name} type {type}: {reason}", name=name, type=record_type, reason=repr(reason.value))
            # Only silence of the full time is worth remembering. twisted.names lets all who ask the same wait for one
            # query, which ends for all when the first of them has no more time.
            if patience < self._patience or isinstance(reason.value, CancelledError):
                return _NOTHING
        return self._answered(((), (), ()), name, record_type)

    def _answered(self, sections: tuple[Sequence[dns.RRHeader], ...], name: bytes, record_type: int) -> _Answer:
        records, additional = tuple(sections[0][:_MAX_RECORDS]), tuple(sections[2][:_MAX_RECORDS])
        ttl = min([_MAX_TTL, *(record.ttl for record in records + additional)]) if records else _NOTHING_TTL
        answer = _Answer(records, additional, self._clock.seconds() + ttl)
        self._remembered.pop((name, record_type), None)
        if len(self._remembered) >= _MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[name, record_type] = answer
        return answer


@implementer(ITargetResolver)
class TargetResolver:
    """
    RFC 3263 §4 with twisted.names.
    """

    def __init__(
        self,
        dns_resolver: IResolver,
        clock: IReactorTime,
        protocols: Collection[Protocol],
        families: Sequence[socket.AddressFamily],
        timeout: float = 9.0,
        random: Random | None = None,
    ) -> None:
        """
        @param dns_resolver: C{twisted.names.client.createResolver()} or its like.
        @param protocols: what we have a listener for.
        @param families: C{AF_INET} and C{AF_INET6}, or the one of them for which we have listeners; the preferred
            first: its addresses come first for each host (RFC 7984 §4).
        @param timeout: seconds after which a resolution ends, with what it has got by then. A single lookup may
            take a third of it.
        @param random: for the weights of SRV records.
        """
        self._clock = IReactorTime(clock)
        self._answers = _Answers(dns_resolver, clock, timeout / _STAGES)
        self._families = tuple(families)
        self._timeout = timeout
        self._random = random or SystemRandom()
        self._ways = tuple(way for way in WAYS if way.protocol in protocols)
        self._secure_ways = tuple(way for way in self._ways if way.secure)

    def resolve(self, uri: SipURI) -> Deferred[tuple[Target, ...]]:
        """
        See L{ITargetResolver.resolve}. At most 16 targets, all different; C{name} is the domain looked up, C{fixed}
        that the URI names the transport.

        @see: RFC 3263 §4: "We define TARGET as the value of the maddr parameter of the URI, if present, otherwise,
            the host value of the hostport component of the URI."
        """
        try:
            ways, fixed = self._usable_ways(uri)
            host = uri.host
            maddr = uri.param("maddr")
            if maddr:
                host = normalize_host(maddr)
            if uri.port == 0:
                raise UnreachableError(f"{uri}: nobody listens on port 0")
            numeric = _numeric(host)
            if numeric is None:
                return Deferred.fromCoroutine(self._search(host.rstrip("."), uri.port, ways, fixed))
            family, address = numeric
            if family not in self._families:
                raise UnreachableError(f"{uri}: no listener for this address family")
        except ParseError as error:
            return fail(UnreachableError(f"{uri}: {error.reason}"))
        except UnreachableError as error:
            return fail(error)
        return succeed((Target(ways[0].protocol, address, uri.port or ways[0].port, fixed),))

    def _usable_ways(self, uri: SipURI) -> tuple[tuple[Way, ...], bool]:
        """
        What the URI may be sent over, the default first, and whether it names the transport itself.
        """
        secure = uri.scheme == "sips"
        ways = self._secure_ways if secure else self._ways
        transport = uri.param("transport")
        if transport is not None:
            named = transport.lower()
            ways = tuple(way for way in ways if named in (way.params if secure else way.params[:1]))
        if not ways:
            raise UnreachableError(f"{uri}: no listener for this transport")
        return ways, transport is not None

    async def _search(self, domain: str, port: int | None, ways: tuple[Way, ...], fixed: bool) -> tuple[Target, ...]:
        deadline = self._clock.seconds() + self._timeout
        name = domain.encode("ascii", "replace")
        if port is None and not _is_local(name):
            found = await self._by_service(name, ways, fixed, deadline)
        else:
            found = await self._addresses(name, ways[0], port or ways[0].port, (), deadline)
        unique = dict.fromkeys(Target(way.protocol, host, port, fixed, name=domain) for way, host, port in found)
        if not unique:
            raise UnreachableError(f"{domain}: no address in DNS that we can send to")
        return tuple(unique)[:_MAX_TARGETS]

    async def _by_service(
        self, name: bytes, ways: tuple[Way, ...], fixed: bool, deadline: float
    ) -> list[tuple[Way, str, int]]:
        """
        The part of RFC 3263 §4.1 and §4.2 for a domain without a port.
        """
        choices: list[list[tuple[Way, bytes]]] = []
        if not fixed:
            pointers, _ = await self._answers.lookup(name, dns.NAPTR, deadline)
            choices = usable_pointers(pointers, ways)
        if not choices:
            # "Queries are done using the service identifier "_sip" for SIP URIs and "_sips" for SIPS URIs."
            choices = [[(way, way.srv + name) for way in ways if way.secure == ways[0].secure]]
        is_service = False
        hosts_left = _MAX_TARGETS
        # Beyond RFC 2915: a higher order is considered where the lower one leads to no address at all.
        for choice in choices:
            answers = await _all(self._answers.lookup(service, dns.SRV, deadline) for _, service in choice)
            is_service = is_service or any(records for records, _ in answers)
            # RFC 2782: "A Target of "." means that the service is decidedly not available at this domain."
            services = [
                (record, way, additional)
                for (way, _), (records, additional) in zip(choice, answers)
                for record in order_services(records, self._random)[:_MAX_NAMES]
                if record.target.name.strip(b".") and record.port
            ][:hosts_left]
            hosts_left -= len(services)
            found = await _all(
                self._addresses(record.target.name, way, record.port, additional, deadline)
                for record, way, additional in services
            )
            if any(found):
                return list(chain.from_iterable(found))
        if is_service:
            return []
        way = choices[0][0][0]
        return await self._addresses(name, way, way.port, (), deadline)

    async def _addresses(
        self, name: bytes, way: Way, port: int, additional: _Section, deadline: float
    ) -> list[tuple[Way, str, int]]:
        """
        RFC 2782: "query the DNS for address records for the Target or use any such records found in the Additional
        Data section of the earlier SRV response."
        """
        name = name.lower()
        if _is_local(name):
            # RFC 6761 §6.3: loopback, whatever DNS thinks of it, and without waiting for one that may not be there
            return [(way, _LOOPBACK[family], port) for family in self._families]
        by_family = [_owned(name, _ADDRESS_TYPES[family], additional)[1] for family in self._families]
        if not any(by_family):
            answers = await _all(
                self._answers.lookup(name, _ADDRESS_TYPES[family], deadline) for family in self._families
            )
            by_family = [records for records, _ in answers]
        return [
            (way, socket.inet_ntop(family, record.address), port)
            for family, records in zip(self._families, by_family)
            for record in records
        ]


def _is_local(name: bytes) -> bool:
    return name == b"localhost" or name.endswith(b".localhost")
