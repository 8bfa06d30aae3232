"""
From a URI to targets: RFC 3263 sentence by sentence, the weights of RFC 2782, and DNS that is slow, silent or hostile.
"""

from __future__ import annotations

import socket
from itertools import pairwise
from random import Random
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IResolver
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.names import cache, client, dns, hosts
from twisted.names import resolve as names_resolve
from twisted.names.authority import FileAuthority
from twisted.names.common import ResolverBase
from twisted.names.error import DNSNameError, DNSServerError
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.errors import UnreachableError
from sipdmq.interfaces.messages import ITargetResolver
from sipdmq.records import Protocol
from sipdmq.sip.uri import parse_sip_uri
from sipdmq.transport.resolve import WAYS, TargetResolver, order_services, usable_pointers

BOTH = (socket.AF_INET, socket.AF_INET6)


def a(address: str) -> dns.Record_A:
    return dns.Record_A(address)


def aaaa(address: str) -> dns.Record_AAAA:
    return dns.Record_AAAA(address)


def srv(priority: int, weight: int, port: int, target: str) -> dns.Record_SRV:
    return dns.Record_SRV(priority, weight, port, b"." if target == "." else target.encode())


def naptr(order: int, preference: int, service: str, replacement: str, flags: str = "s", regexp: str = "") -> Any:
    return dns.Record_NAPTR(order, preference, flags.encode(), service.encode(), regexp.encode(), replacement.encode())


def header(name: str, record: Any, ttl: int = 60) -> dns.RRHeader:
    return dns.RRHeader(name.encode(), record.TYPE, dns.IN, ttl, record)


class TableResolver(ResolverBase):
    """
    An L{IResolver} that answers from a dict, and notes what it was asked.

    @ivar table: C{"name TYPE"} to the payloads, to a whole answer as three lists of L{dns.RRHeader}, to an exception,
        or to L{None}: no answer ever.
    @ivar asked: C{"name TYPE"}, in order.
    """

    def __init__(self, table: dict[str, Any]) -> None:
        super().__init__()
        self.table = table
        self.asked: list[str] = []

    def _lookup(self, name: bytes, cls: int, type: int, timeout: object) -> Deferred[Any]:
        key = f"{name.decode()} {dns.QUERY_TYPES[type]}"
        self.asked.append(key)
        answer = self.table.get(key, DNSNameError())
        if answer is None:
            return Deferred()
        if isinstance(answer, Exception):
            return fail(answer)
        if isinstance(answer, tuple):
            return succeed(answer)
        return succeed(([header(name.decode(), record) for record in answer], [], []))


class ScriptedRandom(Random):
    """
    @ivar asked: the bounds of each number that was drawn.
    """

    def __new__(cls, *_: object) -> ScriptedRandom:
        return super().__new__(cls)  # Python 3.10 would take what is given for the seed, and hash it

    def __init__(self, numbers: list[int]) -> None:
        super().__init__()
        self.numbers = list(numbers)
        self.asked: list[tuple[int, int]] = []

    def randint(self, a: int, b: int) -> int:
        self.asked.append((a, b))
        return self.numbers.pop(0)


class ResolveTestCase(SynchronousTestCase):
    """
    @ivar ask: resolves a URI with a table, and says the targets as C{"udp:192.0.2.1:5060"}.
    """

    protocols: tuple[Any, ...] = (Protocol.UDP, Protocol.TCP)
    families: tuple[socket.AddressFamily, ...] = (socket.AF_INET,)

    def make(self, table: dict[str, Any]) -> TargetResolver:
        self.clock = Clock()
        self.dns = TableResolver(table)
        return TargetResolver(self.dns, self.clock, self.protocols, self.families, 9.0, Random(1))

    def ask(self, uri: str, table: dict[str, Any] | None = None) -> list[str]:
        targets = self.successResultOf(self.make(table or {}).resolve(parse_sip_uri(uri)))
        return [str(target) for target in targets]

    def refuse(self, uri: str, table: dict[str, Any] | None = None) -> str:
        failure = self.failureResultOf(self.make(table or {}).resolve(parse_sip_uri(uri)), UnreachableError)
        return str(failure.value)

    def with_tls(self) -> None:
        self.protocols = tuple(Protocol)


class InterfaceTests(ResolveTestCase):
    def test_provides_the_interface(self) -> None:
        self.assertTrue(verifyObject(ITargetResolver, self.make({})))
        self.assertTrue(verifyObject(IResolver, self.dns))

    def test_wrong_neighbours_are_refused_at_start(self) -> None:
        with self.assertRaises(TypeError):
            TargetResolver(object(), Clock(), (Protocol.UDP,), BOTH)  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            TargetResolver(TableResolver({}), object(), (Protocol.UDP,), BOTH)  # type: ignore[arg-type]


class Section4Tests(ResolveTestCase):
    """
    RFC 3263 §4: "We define TARGET as the value of the maddr parameter of the URI, if present, otherwise, the host
    value of the hostport component of the URI. It identifies the domain to be contacted."
    """

    families: tuple[socket.AddressFamily, ...] = BOTH

    def test_maddr(self) -> None:
        for maddr, expected in (
            ("192.0.2.9", "udp:192.0.2.9:5070"),
            ("[2001:DB8:0::9]", "udp:[2001:db8::9]:5070"),
            ("Other.example", "udp:192.0.2.8:5070"),
        ):
            targets = self.ask(f"sip:a@example.com:5070;maddr={maddr}", {"other.example A": [a("192.0.2.8")]})
            self.assertEqual(targets, [expected])

    def test_maddr_that_is_none(self) -> None:
        self.assertIn("Invalid IPv6 Reference", self.refuse("sip:example.com;maddr=[1.2.3]"))

    def test_an_empty_maddr_is_no_maddr(self) -> None:
        self.assertEqual(self.ask("sip:192.0.2.1;maddr="), ["udp:192.0.2.1:5060"])

    def test_the_name_is_what_was_asked_for(self) -> None:
        resolver = self.make({"_sip._udp.example.com SRV": [srv(0, 0, 5070, "h.other")], "h.other A": [a("192.0.2.1")]})
        (target,) = self.successResultOf(resolver.resolve(parse_sip_uri("sip:Example.COM.")))
        self.assertEqual((target.name, target.host, target.fixed), ("example.com", "192.0.2.1", False))


class Section41ParameterTests(ResolveTestCase):
    """
    RFC 3263 §4.1: "If the URI specifies a transport protocol in the transport parameter, that transport protocol
    SHOULD be used."
    """

    def test_transport(self) -> None:
        for transport in ("udp", "tcp", "TCP"):
            resolver = self.make({})
            (target,) = self.successResultOf(resolver.resolve(parse_sip_uri(f"sip:192.0.2.1;transport={transport}")))
            self.assertEqual(str(target), f"{transport.lower()}:192.0.2.1:5060")
            self.assertTrue(target.fixed)

    def test_a_transport_that_we_have_not_got(self) -> None:
        for transport in ("sctp", "tls", "ws", "", "udp%20"):
            self.assertIn("no listener for this transport", self.refuse(f"sip:192.0.2.1;transport={transport}"))
            self.assertEqual(self.dns.asked, [])

    def test_srv_of_that_transport_only(self) -> None:
        """
        §4.2: "because a transport was specified explicitly, the client performs an SRV query for that specific
        transport".
        """
        targets = self.ask(
            "sip:example.com;transport=tcp",
            {"_sip._tcp.example.com SRV": [srv(0, 0, 5070, "h.example.com")], "h.example.com A": [a("192.0.2.1")]},
        )
        self.assertEqual(targets, ["tcp:192.0.2.1:5070"])
        self.assertEqual(self.dns.asked, ["_sip._tcp.example.com SRV", "h.example.com A"])

    def test_no_srv_of_that_transport(self) -> None:
        targets = self.ask("sip:example.com;transport=tcp", {"example.com A": [a("192.0.2.1")]})
        self.assertEqual(targets, ["tcp:192.0.2.1:5060"])


class Section41DefaultTests(ResolveTestCase):
    """
    RFC 3263 §4.1: "Otherwise, if no transport protocol is specified, but the TARGET is a numeric IP address, the
    client SHOULD use UDP for a SIP URI, and TCP for a SIPS URI. Similarly, if no transport protocol is specified, and
    the TARGET is not numeric, but an explicit port is provided".
    """

    families: tuple[socket.AddressFamily, ...] = BOTH

    def test_numeric(self) -> None:
        for uri, expected in (
            ("sip:192.0.2.1", "udp:192.0.2.1:5060"),
            ("sip:alice@192.0.2.1:5080", "udp:192.0.2.1:5080"),
            ("sip:[2001:DB8::1]", "udp:[2001:db8::1]:5060"),
            ("sip:[2001:db8:0:0::1]:5080;transport=tcp", "tcp:[2001:db8::1]:5080"),
        ):
            self.assertEqual(self.ask(uri), [expected])
            self.assertEqual(self.dns.asked, [])
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_explicit_port(self) -> None:
        """
        §4.2: "Previously, if the port was explicit, but with a value of 5060, SRV records were used. Now, A or AAAA
        records will be used."
        """
        targets = self.ask("sip:example.com:5060", {"example.com A": [a("192.0.2.1"), a("192.0.2.2")]})
        self.assertEqual(targets, ["udp:192.0.2.1:5060", "udp:192.0.2.2:5060"])
        self.assertEqual(self.dns.asked, ["example.com A", "example.com AAAA"])

    def test_port_0(self) -> None:
        self.assertIn("port 0", self.refuse("sip:192.0.2.1:0"))

    def test_a_node_without_udp(self) -> None:
        self.protocols = (Protocol.TCP,)
        self.assertEqual(self.ask("sip:192.0.2.1"), ["tcp:192.0.2.1:5060"])
        self.assertIn("no listener", self.refuse("sip:192.0.2.1;transport=udp"))

    def test_a_node_without_ipv6(self) -> None:
        self.families = (socket.AF_INET,)
        self.assertIn("address family", self.refuse("sip:[2001:db8::1]"))
        table = {"example.com AAAA": [aaaa("2001:db8::1")]}
        self.assertIn("no address", self.refuse("sip:example.com:5060", table))
        self.assertEqual(self.dns.asked, ["example.com A"])


class Section41NaptrTests(ResolveTestCase):
    """
    RFC 3263 §4.1: "Otherwise, if no transport protocol or port is specified, and the target is not a numeric IP
    address, the client SHOULD perform a NAPTR query for the domain in the URI."
    """

    RFC_EXAMPLE: ClassVar[dict[str, Any]] = {
        "example.com NAPTR": [
            naptr(100, 50, "SIP+D2U", "_sip._udp.example.com"),
            naptr(50, 50, "SIPS+D2T", "_sips._tcp.example.com"),
            naptr(90, 50, "SIP+D2T", "_sip._tcp.example.com"),
        ],
        "_sip._tcp.example.com SRV": [srv(0, 1, 5060, "server1.example.com"), srv(1, 2, 5060, "server2.example.com")],
        "_sips._tcp.example.com SRV": [srv(0, 1, 5061, "server1.example.com")],
        "_sip._udp.example.com SRV": [srv(0, 1, 5060, "server1.example.com")],
        "server1.example.com A": [a("192.0.2.1")],
        "server2.example.com A": [a("192.0.2.2")],
    }

    def test_the_example_of_the_rfc(self) -> None:
        """
        "Since the client supports TCP and UDP, TCP will be used, targeted to a host determined by an SRV lookup of
        _sip._tcp.example.com."
        """
        self.assertEqual(
            self.ask("sip:user@example.com", self.RFC_EXAMPLE), ["tcp:192.0.2.1:5060", "tcp:192.0.2.2:5060"]
        )
        self.assertNotIn("_sip._udp.example.com SRV", self.dns.asked)

    def test_sips_records_are_retained_for_a_sip_uri(self) -> None:
        """
        "A client resolving a SIP URI SHOULD retain records with "SIPS" as the protocol, if the client supports TLS."
        """
        self.with_tls()
        self.assertEqual(self.ask("sip:user@example.com", self.RFC_EXAMPLE), ["tls:192.0.2.1:5061"])

    def test_a_sips_uri_goes_to_sips_services_only(self) -> None:
        """
        "a client resolving a SIPS URI MUST discard any services that do not contain "SIPS" as the protocol in the
        service field."
        """
        self.with_tls()
        table = dict(self.RFC_EXAMPLE)
        table["example.com NAPTR"] = [*table["example.com NAPTR"], naptr(1, 1, "SIP+D2U", "_sip._udp.example.com")]
        self.assertEqual(self.ask("sips:user@example.com", table), ["tls:192.0.2.1:5061"])

    def test_the_replacement_may_be_in_another_domain(self) -> None:
        """
        "It is not necessary for the domain suffixes in the NAPTR replacement field to match the domain of the
        original query".
        """
        table = {
            "example.com NAPTR": [naptr(1, 1, "sip+d2u", "_sip._udp.School.EDU")],
            "_sip._udp.school.edu SRV": [srv(0, 0, 5070, "h.school.edu")],
            "h.school.edu A": [a("192.0.2.1")],
        }
        self.assertEqual(self.ask("sip:example.com", table), ["udp:192.0.2.1:5070"])

    def test_which_records_are_usable(self) -> None:
        """
        "The resource record will contain an empty regular expression and a replacement value", and the client "MUST
        discard any service fields that identify a resolution service whose value is not "D2X"".
        """
        udp, tcp, _ = WAYS
        plain = (udp, tcp)
        for records, expected in (
            ([naptr(1, 2, "SIP+D2T", "t"), naptr(1, 1, "SIP+D2U", "u")], [[(udp, b"u"), (tcp, b"t")]]),
            ([naptr(2, 1, "SIP+D2T", "t"), naptr(1, 2, "SIP+D2U", "u")], [[(udp, b"u")], [(tcp, b"t")]]),
            ([naptr(1, 1, "SIPS+D2T", "t"), naptr(1, 1, "SIP+D2S", "s"), naptr(1, 1, "E2U+sip", "e")], []),
            ([naptr(1, 1, "SIP+D2U", "u", flags="a")], []),
            ([naptr(1, 1, "SIP+D2U", "u", flags="S")], [[(udp, b"u")]]),
            ([naptr(1, 1, "SIP+D2U", "u", regexp="!.*!x!")], []),
            ([naptr(1, 1, "SIP+D2U", ""), naptr(1, 1, "SIP+D2U", ".")], []),
        ):
            self.assertEqual(usable_pointers(records, plain), expected)

    def test_a_higher_order_counts_only_where_the_lower_leads_nowhere(self) -> None:
        table = {**self.RFC_EXAMPLE, "_sip._tcp.example.com SRV": DNSServerError()}
        self.assertEqual(self.ask("sip:example.com", table), ["udp:192.0.2.1:5060"])

    def test_pointers_without_services(self) -> None:
        """
        §4.2: "If no SRV records were found, the client performs an A or AAAA record lookup of the domain name ...
        using the transport protocol determined previously, at the default port for that transport."
        """
        table = {"example.com NAPTR": [naptr(1, 1, "SIP+D2T", "_sip._tcp.x")], "example.com A": [a("192.0.2.1")]}
        self.assertEqual(self.ask("sip:example.com", table), ["tcp:192.0.2.1:5060"])


class Section41ServiceTests(ResolveTestCase):
    """
    RFC 3263 §4.1: "If no NAPTR records are found, the client constructs SRV queries for those transport protocols it
    supports, and does a query for each."
    """

    def test_each_transport(self) -> None:
        table = {
            "_sip._udp.example.com SRV": [srv(0, 0, 5070, "u.example.com")],
            "_sip._tcp.example.com SRV": [srv(0, 0, 5080, "t.example.com")],
            "u.example.com A": [a("192.0.2.1")],
            "t.example.com A": [a("192.0.2.2")],
        }
        self.assertEqual(self.ask("sip:example.com", table), ["udp:192.0.2.1:5070", "tcp:192.0.2.2:5080"])

    def test_a_transport_is_supported_if_the_query_is_successful(self) -> None:
        table = {
            "_sip._tcp.example.com SRV": [srv(0, 0, 5080, "t.example.com")],
            "t.example.com A": [a("192.0.2.2")],
            "example.com A": [a("192.0.2.3")],
        }
        self.assertEqual(self.ask("sip:example.com", table), ["tcp:192.0.2.2:5080"])

    def test_service_identifiers(self) -> None:
        """
        "Queries are done using the service identifier "_sip" for SIP URIs and "_sips" for SIPS URIs."
        """
        self.with_tls()
        self.refuse("sip:example.com")
        self.assertEqual(
            self.dns.asked[1:], ["_sip._udp.example.com SRV", "_sip._tcp.example.com SRV", "example.com A"]
        )
        self.refuse("sips:example.com")
        self.assertEqual(self.dns.asked[1:], ["_sips._tcp.example.com SRV", "example.com A"])

    def test_none(self) -> None:
        """
        "If no SRV records are found, the client SHOULD use TCP for a SIPS URI, and UDP for a SIP URI."
        """
        self.with_tls()
        table = {"example.com A": [a("192.0.2.1")]}
        self.assertEqual(self.ask("sip:example.com", table), ["udp:192.0.2.1:5060"])
        self.assertEqual(self.ask("sips:example.com", table), ["tls:192.0.2.1:5061"])


class SipsTests(ResolveTestCase):
    """
    RFC 3261 §26.2.2: a SIPS URI is reached over TLS, whatever runs below it.
    """

    def test_without_tls_there_is_no_way(self) -> None:
        for uri in ("sips:192.0.2.1", "sips:example.com", "sips:example.com:5061", "sips:192.0.2.1;transport=tcp"):
            self.assertIn("no listener for this transport", self.refuse(uri))

    def test_with_tls(self) -> None:
        self.with_tls()
        for uri, expected in (
            ("sips:192.0.2.1", "tls:192.0.2.1:5061"),
            ("sips:192.0.2.1:5071;transport=tcp", "tls:192.0.2.1:5071"),
            ("sips:192.0.2.1;transport=tls", "tls:192.0.2.1:5061"),
            ("sip:192.0.2.1;transport=tls", "tls:192.0.2.1:5061"),
            ("sip:192.0.2.1;transport=tcp", "tcp:192.0.2.1:5060"),
            ("sip:192.0.2.1", "udp:192.0.2.1:5060"),
        ):
            self.assertEqual(self.ask(uri), [expected])
        self.assertIn("no listener", self.refuse("sips:192.0.2.1;transport=udp"))

    def test_tcp_in_a_sip_uri_is_not_tls(self) -> None:
        self.with_tls()
        self.protocols = (Protocol.UDP, Protocol.TLS)
        self.assertIn("no listener", self.refuse("sip:192.0.2.1;transport=tcp"))


class RFC2782Tests(ResolveTestCase):
    """
    RFC 2782: "A client MUST attempt to contact the target host with the lowest-numbered priority it can reach; target
    hosts with the same priority SHOULD be tried in an order defined by the weight field."
    """

    def test_priority(self) -> None:
        records = [srv(2, 0, 1, "c"), srv(0, 0, 1, "a"), srv(1, 9, 1, "b")]
        self.assertEqual([str(r.target) for r in order_services(records, Random(1))], ["a", "b", "c"])

    def test_weight(self) -> None:
        """
        "Larger weights SHOULD be given a proportionately higher probability of being selected."
        """
        random = Random(1)
        records = [srv(0, 10, 1, "seldom"), srv(0, 30, 1, "often"), srv(0, 0, 1, "hardly")]
        first = [str(order_services(records, random)[0].target) for _ in range(4100)]
        self.assertTrue(2900 < first.count("often") < 3100, first.count("often"))
        self.assertTrue(900 < first.count("seldom") < 1100, first.count("seldom"))
        self.assertTrue(50 < first.count("hardly") < 150, first.count("hardly"))

    def test_the_running_sum(self) -> None:
        """
        "choose a uniform random number between 0 and the sum computed (inclusive), and select the RR whose running
        sum value is the first in the selected order which is greater than or equal to the random number selected."
        """

        for numbers, expected in (
            ([0, 0, 0], ["zero", "one", "two"]),
            ([1, 0, 2], ["one", "zero", "two"]),
            ([3, 1, 0], ["two", "one", "zero"]),
        ):
            random = ScriptedRandom(numbers)
            records = [srv(0, 1, 1, "one"), srv(0, 2, 1, "two"), srv(0, 0, 1, "zero")]
            self.assertEqual([str(record.target) for record in order_services(records, random)], expected)
            self.assertEqual(random.asked[0], (0, 3))

    def test_a_target_of_a_dot(self) -> None:
        """
        "A Target of "." means that the service is decidedly not available at this domain."
        """
        table = {"_sip._udp.example.com SRV": [srv(0, 0, 5060, ".")], "example.com A": [a("192.0.2.1")]}
        self.refuse("sip:example.com", table)
        self.refuse("sip:example.com;transport=udp", table)
        self.assertNotIn("example.com A", self.dns.asked)
        self.assertEqual(self.ask("sip:example.com;transport=tcp", table), ["tcp:192.0.2.1:5060"])

    def test_additional_data(self) -> None:
        """
        "query the DNS for address records for the Target or use any such records found in the Additional Data section
        of the earlier SRV response."
        """
        records = [srv(0, 0, 5070, "H1.example.com"), srv(1, 0, 5071, "h2.example.com")]
        additional = [header("h1.EXAMPLE.com", a("192.0.2.1")), header("stray.example.com", a("192.0.2.66"))]
        answer: Any = ([header("_sip._udp.example.com", record) for record in records], [], additional)
        table = {"_sip._udp.example.com SRV": answer, "h2.example.com A": [a("192.0.2.2")]}
        targets = self.ask("sip:example.com;transport=udp", table)
        self.assertEqual(targets, ["udp:192.0.2.1:5070", "udp:192.0.2.2:5071"])
        self.assertEqual(self.dns.asked, ["_sip._udp.example.com SRV", "h2.example.com A"])

    def test_additional_data_of_a_family_without_listener(self) -> None:
        answer: Any = (
            [header("_sip._udp.example.com", srv(0, 0, 5070, "h.example.com"))],
            [],
            [header("h.example.com", aaaa("2001:db8::1"))],
        )
        table = {"_sip._udp.example.com SRV": answer, "h.example.com A": [a("192.0.2.2")]}
        self.assertEqual(self.ask("sip:example.com;transport=udp", table), ["udp:192.0.2.2:5070"])


class DualStackTests(ResolveTestCase):
    """
    RFC 7984 §4.1: a dual-stack client looks up both A and AAAA records; which come first is for the node to say.
    """

    TABLE: ClassVar[dict[str, Any]] = {"example.com A": [a("192.0.2.1")], "example.com AAAA": [aaaa("2001:db8::1")]}

    def test_the_preferred_family_first(self) -> None:
        expected = ["udp:192.0.2.1:5060", "udp:[2001:db8::1]:5060"]
        self.families = BOTH
        self.assertEqual(self.ask("sip:example.com:5060", self.TABLE), expected)
        self.families = BOTH[::-1]
        self.assertEqual(self.ask("sip:example.com:5060", self.TABLE), expected[::-1])


class LocalhostTests(ResolveTestCase):
    """
    RFC 6761 §6.3: "Name resolution APIs and libraries SHOULD recognize localhost names as special and SHOULD always
    return the IP loopback address for address queries".
    """

    families: tuple[socket.AddressFamily, ...] = BOTH

    def test_no_dns(self) -> None:
        for uri, expected in (
            ("sip:localhost", ["udp:127.0.0.1:5060", "udp:[::1]:5060"]),
            ("sip:LOCALHOST.:5070;transport=tcp", ["tcp:127.0.0.1:5070", "tcp:[::1]:5070"]),
            ("sip:a.localhost", ["udp:127.0.0.1:5060", "udp:[::1]:5060"]),
        ):
            self.assertEqual(self.ask(uri), expected)
            self.assertEqual(self.dns.asked, [])


class SlowTests(ResolveTestCase):
    """
    "UnreachableError: no answer from DNS in time" (L{ITargetResolver}), but what did answer is used.
    """

    families: tuple[socket.AddressFamily, ...] = BOTH

    def resolve(self, uri: str, table: dict[str, Any]) -> Deferred[Any]:
        return self.make(table).resolve(parse_sip_uri(uri))

    def test_nobody_answers(self) -> None:
        silent = {
            f"{prefix}example.com {kind}": None
            for prefix in ("", "_sip._udp.", "_sip._tcp.")
            for kind in ("NAPTR", "SRV", "A", "AAAA")
        }
        waiting = self.resolve("sip:example.com", silent)
        self.clock.pump([1.0] * 8)
        self.assertNoResult(waiting)
        self.clock.pump([1.0] * 2)
        self.failureResultOf(waiting, UnreachableError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_naptr_and_srv_without_answer(self) -> None:
        table = {"example.com NAPTR": None, "_sip._udp.example.com SRV": None, "example.com A": [a("192.0.2.1")]}
        waiting = self.resolve("sip:example.com", table)
        self.clock.pump([1.0] * 6)
        self.assertEqual([str(target) for target in self.successResultOf(waiting)], ["udp:192.0.2.1:5060"])

    def test_aaaa_without_answer(self) -> None:
        waiting = self.resolve("sip:example.com:5060", {"example.com A": [a("192.0.2.1")], "example.com AAAA": None})
        self.assertNoResult(waiting)
        self.clock.advance(3.0)
        self.assertEqual([str(target) for target in self.successResultOf(waiting)], ["udp:192.0.2.1:5060"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence_is_remembered_for_a_moment(self) -> None:
        resolver = self.make({"example.com NAPTR": None, "example.com A": [a("192.0.2.1")]})
        first = resolver.resolve(parse_sip_uri("sip:example.com"))
        self.clock.advance(3.0)
        self.successResultOf(first)
        self.successResultOf(resolver.resolve(parse_sip_uri("sip:example.com")))
        self.assertEqual(self.dns.asked.count("example.com NAPTR"), 1)
        self.clock.advance(5.0)
        self.assertNoResult(resolver.resolve(parse_sip_uri("sip:example.com")))

    def test_what_had_no_time_is_not_remembered(self) -> None:
        names = [f"n{i}.example.com" for i in range(4)]
        aliases: dict[str, Any] = {
            f"{name} A": ([header(name, dns.Record_CNAME(after.encode()))], [], []) for name, after in pairwise(names)
        }
        resolver = self.make({**aliases, "n3.example.com A": None, "n3.example.com AAAA": None})
        self.patch(resolver, "_timeout", 2.0)
        waiting = resolver.resolve(parse_sip_uri("sip:n0.example.com:5060"))
        self.clock.advance(2.0)
        self.failureResultOf(waiting, UnreachableError)
        self.dns.table["n3.example.com A"] = [a("192.0.2.1")]
        targets = self.successResultOf(resolver.resolve(parse_sip_uri("sip:n0.example.com:5060")))
        self.assertEqual([target.host for target in targets], ["192.0.2.1"])

    def test_what_another_one_cancelled_is_not_remembered(self) -> None:
        resolver = self.make({"example.com A": CancelledError()})
        self.failureResultOf(resolver.resolve(parse_sip_uri("sip:example.com:5060")), UnreachableError)
        self.dns.table["example.com A"] = [a("192.0.2.1")]
        self.successResultOf(resolver.resolve(parse_sip_uri("sip:example.com:5060")))

    def test_each_failure_is_one_lookup_without_records(self) -> None:
        for failure in (DNSServerError(), DNSNameError(), NotImplementedError(), OSError("no route"), ValueError()):
            table = {
                "example.com NAPTR": failure,
                "_sip._udp.example.com SRV": [srv(0, 0, 5070, "h1.example.com"), srv(1, 0, 5070, "h2.example.com")],
                "_sip._tcp.example.com SRV": failure,
                "h1.example.com A": failure,
                "h2.example.com A": [a("192.0.2.2")],
                "h2.example.com AAAA": failure,
            }
            self.assertEqual(self.ask("sip:example.com", table), ["udp:192.0.2.2:5070"])


class HostileTests(ResolveTestCase):
    """
    Nothing that DNS says makes a resolution long, large or endless.
    """

    def test_many_addresses(self) -> None:
        records = [a(f"192.0.{i >> 8}.{i & 255}") for i in range(4000)]
        self.assertEqual(len(self.ask("sip:example.com:5060", {"example.com A": records})), 16)

    def test_many_services(self) -> None:
        records = [srv(0, 1, 5060, f"h{i}.example.com") for i in range(4000)]
        self.refuse("sip:example.com;transport=udp", {"_sip._udp.example.com SRV": records})
        self.assertEqual(len(self.dns.asked), 1 + 8)

    def test_many_pointers(self) -> None:
        records = [naptr(i, 1, "SIP+D2U", f"_sip._udp.h{i}.example.com") for i in range(4000)]
        self.refuse("sip:example.com", {"example.com NAPTR": records})
        self.assertEqual(len(self.dns.asked), 1 + 8 + 1)

    def test_many_pointers_to_many_services(self) -> None:
        table: dict[str, Any] = {
            "example.com NAPTR": [naptr(i >> 1, 1, "SIP+D2U", f"_sip._udp.h{i}.example.com") for i in range(64)]
        }
        for i in range(64):
            hosts = [srv(0, 0, 5060, f"h{i}-{j}.example.com") for j in range(64)]
            table[f"_sip._udp.h{i}.example.com SRV"] = hosts
        self.refuse("sip:example.com", table)
        self.assertEqual(len(self.dns.asked), 1 + 8 + 16)

    def test_many_names_at_the_same_time(self) -> None:
        """
        Each question has a socket of its own while it waits.
        """
        names = [f"n{number}.example.com" for number in range(300)]
        resolver = self.make({f"{name} A": None for name in names})
        waiting = [resolver.resolve(parse_sip_uri(f"sip:{name}:5060")) for name in names]
        self.assertEqual(len(self.dns.asked), 200)
        for refused in waiting[200:]:
            self.failureResultOf(refused, UnreachableError)
        self.clock.advance(9)
        for unanswered in waiting[:200]:
            self.failureResultOf(unanswered, UnreachableError)
        resolver.resolve(parse_sip_uri("sip:later.example.com:5060")).addErrback(lambda _: None)
        self.assertEqual(self.dns.asked[200:], ["later.example.com A"])

    def test_targets_are_different(self) -> None:
        table = {
            "_sip._udp.example.com SRV": [srv(0, 0, 5070, "h1.example.com"), srv(1, 0, 5070, "h2.example.com")],
            "h1.example.com A": [a("192.0.2.1"), a("192.0.2.1")],
            "h2.example.com A": [a("192.0.2.1"), a("192.0.2.2")],
        }
        self.assertEqual(self.ask("sip:example.com", table), ["udp:192.0.2.1:5070", "udp:192.0.2.2:5070"])

    def test_aliases_in_one_answer(self) -> None:
        chain = [header("b.example.com", a("192.0.2.1")), header("example.com", dns.Record_CNAME(b"B.example.com"))]
        self.assertEqual(self.ask("sip:example.com:5060", {"example.com A": (chain, [], [])}), ["udp:192.0.2.1:5060"])
        self.assertEqual(len(self.dns.asked), 1)

    def test_an_alias_without_its_address(self) -> None:
        table = {
            "_sip._udp.example.com SRV": (
                [header("_sip._udp.example.com", dns.Record_CNAME(b"_sip._udp.b.org"))],
                [],
                [],
            ),
            "_sip._udp.b.org SRV": [srv(0, 0, 5070, "h.b.org")],
            "h.b.org A": ([header("h.b.org", dns.Record_CNAME(b"g.b.org"))], [], []),
            "g.b.org A": [a("192.0.2.1")],
        }
        self.assertEqual(self.ask("sip:example.com", table), ["udp:192.0.2.1:5070"])

    def test_alias_loops(self) -> None:
        one: dict[str, Any] = {"example.com A": ([header("example.com", dns.Record_CNAME(b"example.com"))], [], [])}
        self.refuse("sip:example.com:5060", one)
        names = [f"n{i}.example.com" for i in range(100)]
        long: dict[str, Any] = {
            f"{name} A": ([header(name, dns.Record_CNAME(after.encode()))], [], [])
            for name, after in zip(names, names[1:] + names[:1])
        }
        self.refuse("sip:n0.example.com:5060", long)
        self.assertEqual(len(self.dns.asked), 8)

    def test_records_of_other_names_do_not_count(self) -> None:
        answer: Any = ([header("victim.example", a("192.0.2.66"))], [], [])
        self.refuse("sip:example.com:5060", {"example.com A": answer})

    def test_names_that_are_none(self) -> None:
        """
        L{dns.Name} writes a label's length unchecked: a label of 192 bytes would become a compression pointer.
        """
        for host in ("x" * 64 + ".com", "x" * 200, ".".join(["x" * 60] * 5)):
            self.refuse(f"sip:{host}:5060", {f"{host} A": [a("192.0.2.1")]})
            self.assertEqual(self.dns.asked, [])

    def test_services_on_port_0(self) -> None:
        self.refuse("sip:example.com", {"_sip._udp.example.com SRV": [srv(0, 0, 0, "h.example.com")]})
        self.assertNotIn("h.example.com A", self.dns.asked)


class MemoryTests(ResolveTestCase):
    """
    Answers are remembered by their TTL, and not too many of them.
    """

    def test_until_the_ttl_is_over(self) -> None:
        resolver = self.make({"example.com A": ([header("example.com", a("192.0.2.1"), ttl=30)], [], [])})
        for elapsed, queries in ((0, 1), (29, 1), (1, 2), (1, 2)):
            self.clock.advance(elapsed)
            self.successResultOf(resolver.resolve(parse_sip_uri("sip:example.com:5060")))
            self.assertEqual(len(self.dns.asked), queries)

    def test_bounded(self) -> None:
        resolver = self.make({"h0.example.com A": [a("192.0.2.1")], "h600.example.com A": [a("192.0.2.1")]})
        for i in (0, *range(1, 601), 600, 0):
            resolver.resolve(parse_sip_uri(f"sip:h{i}.example.com:5060")).addErrback(lambda _: None)
        self.assertEqual(self.dns.asked.count("h600.example.com A"), 1)
        self.assertEqual(self.dns.asked.count("h0.example.com A"), 2)
        self.assertEqual(len(resolver._answers._remembered), 512)

    def test_an_answer_is_cut(self) -> None:
        resolver = self.make({"example.com A": [a("192.0.2.1")] * 4000})
        self.successResultOf(resolver.resolve(parse_sip_uri("sip:example.com:5060")))
        (answer,) = resolver._answers._remembered.values()
        self.assertEqual(len(answer.records), 64)


class TwistedNamesTests(ResolveTestCase):
    """
    With the real twisted.names, nothing sent.
    """

    def test_the_hosts_file(self) -> None:
        """
        The chain of C{twisted.names.client.createResolver}: hosts file, cache, network.
        """
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("192.0.2.7 proxy1 proxy1.example.com\n2001:db8::7 proxy1\n")
        reactor = MemoryReactorClock()
        network = client.Resolver(servers=[("192.0.2.53", 53)], reactor=reactor)
        self.patch(network, "queryUDP", lambda *query: self.fail("asked the network"))
        chain = names_resolve.ResolverChain([hosts.Resolver(path), cache.CacheResolver(reactor=reactor), network])
        resolver = TargetResolver(chain, reactor, (Protocol.UDP,), BOTH)
        targets = self.successResultOf(resolver.resolve(parse_sip_uri("sip:Proxy1:5060")))
        self.assertEqual([target.host for target in targets], ["192.0.2.7", "2001:db8::7"])

    def test_an_authority(self) -> None:
        class Zone(FileAuthority):
            def loadFile(self, filename: object) -> None:
                self.soa: Any = (b"example.com", dns.Record_SOA(b"ns.example.com", b"root.example.com", minimum=60))
                self.records: Any = {
                    b"example.com": [self.soa[1], naptr(1, 1, "SIP+D2T", "_sip._tcp.example.com")],
                    b"_sip._tcp.example.com": [srv(0, 0, 5070, "alias.example.com"), srv(1, 0, 5071, "h.example.com")],
                    b"alias.example.com": [dns.Record_CNAME(b"g.example.com")],
                    b"g.example.com": [a("192.0.2.1"), aaaa("2001:db8::1")],
                    b"h.example.com": [a("192.0.2.2")],
                }

        chain = DNSServerFactory(authorities=[Zone(None)]).resolver
        resolver = TargetResolver(chain, Clock(), (Protocol.UDP, Protocol.TCP), BOTH)
        targets = self.successResultOf(resolver.resolve(parse_sip_uri("sip:example.com")))
        expected = ["tcp:192.0.2.1:5070", "tcp:[2001:db8::1]:5070", "tcp:192.0.2.2:5071"]
        self.assertEqual([str(target) for target in targets], expected)
        self.failureResultOf(resolver.resolve(parse_sip_uri("sip:none.example.com")), UnreachableError)
