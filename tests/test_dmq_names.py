"""
The addresses of nodes that are named by host name.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sipdmq.dmq.names import KEEP, MAX_HOSTS, NodeNames
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.messages import ITargetResolver
from sipdmq.records import NodeName, Protocol, Target
from sipdmq.sip.uri import SipURI, parse_sip_uri


def node(host: str, port: int = 5060) -> NodeName:
    return NodeName(Protocol.UDP, host, port)


@implementer(ITargetResolver)
class FakeDns:
    def __init__(self) -> None:
        self.hosts: dict[str, list[str]] = {}
        self.asked: list[str] = []

    def resolve(self, uri: SipURI) -> Deferred[Any]:
        self.asked.append(uri.host)
        found = self.hosts.get(uri.host)
        if not found:
            return fail(UnreachableError(f"{uri.host}: no such name"))
        return succeed(tuple(Target(Protocol.UDP, each, uri.port or 5060) for each in found))


class NodeNamesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.dns = FakeDns()
        self.found: list[tuple[NodeName, ...]] = []

    def make(self, *uris: str, multi_notify: bool = False) -> NodeNames:
        return NodeNames(self.clock, self.dns, [parse_sip_uri(uri) for uri in uris], multi_notify)

    def test_addresses_need_no_asking(self) -> None:
        names = self.make("sip:192.0.2.1:5070", "sip:192.0.2.1:5070;transport=udp", "sip:[2001:db8::1]")
        self.assertEqual(names.known(), (node("192.0.2.1", 5070), node("2001:db8::1")))
        names.look_up(self.found.append)
        self.assertEqual((self.dns.asked, self.found), ([], []))

    def test_one_address_of_a_name(self) -> None:
        self.dns.hosts["n.example"] = ["192.0.2.1", "192.0.2.2"]
        names = self.make("sip:n.example:5060")
        names.look_up(self.found.append)
        self.assertEqual(self.found, [(node("192.0.2.1"),)])
        self.assertEqual(names.host_of(node("192.0.2.1")), "n.example")

    def test_name_servers_change_their_order_and_the_node_stays(self) -> None:
        self.dns.hosts["n.example"] = ["192.0.2.1", "192.0.2.2"]
        names = self.make("sip:n.example:5060")
        names.look_up(self.found.append)
        self.dns.hosts["n.example"].reverse()
        names.look_up(self.found.append)
        self.assertEqual(names.known(), (node("192.0.2.1"),))
        self.dns.hosts["n.example"] = ["192.0.2.9"]
        names.look_up(self.found.append)
        self.assertEqual(names.known(), (node("192.0.2.9"),))

    def test_all_addresses_with_multi_notify(self) -> None:
        self.dns.hosts["n.example"] = ["192.0.2.1", "192.0.2.2"]
        names = self.make("sip:n.example", multi_notify=True)
        names.look_up(self.found.append)
        self.dns.hosts["n.example"].append("192.0.2.3")
        names.look_up(self.found.append)
        names.look_up(self.found.append)
        self.assertEqual([len(each) for each in self.found], [2, 3])

    def test_a_name_that_is_not_there_keeps_what_was_known(self) -> None:
        self.dns.hosts["n.example"] = ["192.0.2.1"]
        names = self.make("sip:n.example")
        names.look_up(self.found.append)
        self.dns.hosts.clear()
        names.look_up(self.found.append)
        self.assertEqual(names.known(), (node("192.0.2.1"),))

    def test_hosts_of_others(self) -> None:
        self.dns.hosts["o.example"] = ["192.0.2.7"]
        names = self.make()
        self.assertEqual(names.numeric(node("192.0.2.5")), node("192.0.2.5"))
        self.assertEqual(names.numeric(node("o.example")), node("192.0.2.7"))
        self.assertIsNone(names.numeric(node("nowhere.example")))
        names.numeric(node("nowhere.example"))
        self.assertEqual(self.dns.asked, ["o.example", "nowhere.example"], "each once")
        self.clock.advance(KEEP)
        names.numeric(node("nowhere.example"))
        self.assertEqual(self.dns.asked[2:], ["nowhere.example"])

    def test_a_flood_of_names_is_not_asked_for(self) -> None:
        names = self.make()
        for number in range(MAX_HOSTS + 100):
            names.address_of(f"h{number}.example")
        self.assertEqual(len(self.dns.asked), MAX_HOSTS)
        self.clock.advance(KEEP)
        names.address_of("new.example")
        self.assertEqual(len(self.dns.asked), MAX_HOSTS + 1)
