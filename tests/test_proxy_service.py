"""
The proxy as a whole: Record-Route and what follows it, ACK, loops, and what is never relayed.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface.verify import verifyObject

from sipdmq.errors import RequestRefused
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import ITransactionUser
from sipdmq.interfaces.routing import ICallListener, IProxy
from sipdmq.records import Destination, Listener, Protocol, Source
from sipdmq.sip.fields import parse_name_addr
from sipdmq.sip.message import Request
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.fakes import PHONE, PHONE_TCP, TCP, UDP, request_bytes
from tests.proxy_network import BOB, CAROL, NODE, ProxyTestCase, binding, to

BOB_TCP = Source(Protocol.TCP, BOB, 40002, TCP, "flow2")
OUTER = Listener(Protocol.UDP, "0.0.0.0", 5080, "203.0.113.80", 5080)


class ServiceTests(ProxyTestCase):
    def test_interfaces(self) -> None:
        for interface in (IProxy, ITransactionUser, IInspectable):
            verifyObject(interface, self.proxy)
        verifyObject(ICallListener, self.calls)
        self.assertRaises(RequestRefused, self.proxy.request_received, None)

    def test_a_listener_that_breaks_harms_nobody(self) -> None:
        self.calls.request_relayed = lambda *_: 1 / 0  # type: ignore[method-assign, assignment]
        self.route_to(to(BOB))
        self.request()
        self.answer(200)
        self.assertEqual(self.upstream(), [100, 200])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop(self) -> None:
        self.route_to(to(BOB), to(CAROL))
        self.request()
        self.answer(180)
        self.proxy.stop()
        self.layer.stop()
        self.assert_nothing_left()


class RefusalTests(ProxyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.route_to(to(BOB))

    def assert_refused(self, status: int) -> None:
        self.assertEqual(self.upstream()[-1:], [status])
        self.assertEqual([target.host for _, target in self.transport.sent], [PHONE.host])
        self.assert_nothing_left()

    def test_kdmq_is_never_relayed(self) -> None:
        for headers in ((), ("Route: <sip:203.0.113.1;lr>",)):
            self.transport.sent.clear()
            self.request("KDMQ", uri="sip:usrloc@203.0.113.1", headers=headers)
            self.assert_refused(403)

    def test_nor_is_a_register_of_ours(self) -> None:
        self.request("REGISTER", uri="sip:example.org")
        self.assert_refused(403)
        self.request("REGISTER", uri="sip:example.net", via="SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK2")
        self.assertEqual(len(self.sent("REGISTER", BOB)), 1)

    def test_too_many_hops(self) -> None:
        data = request_bytes("INVITE", "sip:bob@example.org").replace(b"Forwards: 70", b"Forwards: 0")
        self.receive(data)
        self.assert_refused(483)

    def test_sips_is_for_tls_alone(self) -> None:
        """
        RFC 5630 §3.1.3: nobody else hears of it. A Route makes no difference but where it goes (§16.6 step 7).
        """
        phone = binding(f"sip:bob@{BOB}")
        self.route_to(Destination(phone.contact, binding=phone))
        self.request(uri="sips:bob@example.org")
        self.assertEqual((self.upstream(), self.sent("INVITE")), ([100, 480], []))
        self.route_to(Destination(f"sips:bob@{BOB}"))
        via = "SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK2"
        self.request(uri="sips:bob@example.org", headers=(f"Route: <sip:{CAROL};lr>",), via=via)
        ((_, target),) = (each for each in self.transport.sent if each[0] in self.sent("INVITE"))
        self.assertEqual((target.protocol, target.host), (Protocol.TLS, CAROL))

    def test_no_breadth_left(self) -> None:
        self.request(headers=("Max-Breadth: 0",))
        self.assert_refused(440)
        self.transport.sent.clear()
        self.route_to(to(BOB), to(CAROL))
        self.request(headers=("Max-Breadth: 1",))
        self.assert_refused(440)
        self.request(headers=("Max-Breadth: 3",))
        breadths = [message.headers.get("max-breadth") for message in self.sent("INVITE")]
        self.assertEqual(breadths, ["2", "1"])


class LoopTests(ProxyTestCase):
    """
    RFC 5393 §3: "a request ... forked to two ... each of which resolves to the same proxy".
    """

    def run_until_quiet(self, method: str = "INVITE") -> int:
        """
        What the node sends to itself arrives.

        @return: how many copies of the request it sent.
        """
        done = 0
        node = Source(Protocol.UDP, NODE, 5060, UDP)
        while done < len(self.transport.sent):
            message, target = self.transport.sent[done]
            done += 1
            self.assertLess(done, 5000)
            if target.host == NODE:
                self.receive(message, node)
        return len(self.sent(method))

    def fork_to(self, *contacts: str) -> None:
        bindings = [binding(contact, "alice@example.org") for contact in contacts]
        self.user.destinations = lambda verdict: [
            Destination(each.contact, binding=each, path=each.path) for each in bindings
        ]

    def test_alice_is_herself_twice(self) -> None:
        self.fork_to(f"sip:alice@{NODE};x=1", f"sip:alice@{NODE};x=2")
        for number, headers in enumerate(((), ("Route: <sip:192.0.2.1;lr>",))):
            self.transport.sent.clear()
            self.request(
                uri="sip:alice@example.org",
                headers=headers,
                via=f"SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK{number}x",
            )
            self.assertLessEqual(self.run_until_quiet(), 6)
            self.assertEqual(self.upstream(), [100, 482])
            self.pump(40)
            self.run_until_quiet()
            self.pump(40)
            self.assert_nothing_left()

    def test_two_who_fork_to_both(self) -> None:
        """
        The attack of §3.1: alice's and bob's bindings are alice and bob.
        """
        self.user.destinations = lambda verdict: [
            Destination(each.contact, binding=each)
            for name in ("alice", "bob")
            for each in [binding(f"sip:{name}@{NODE}", verdict.request.uri_text[4:].split("@")[0] + "@example.org")]
        ]
        self.request(uri="sip:alice@example.org")
        self.assertLessEqual(self.run_until_quiet(), 6)

    def test_a_loop_of_a_policys_making(self) -> None:
        self.route_to(Destination(f"sip:alice@{NODE}"), Destination(f"sip:bob@{NODE}"))
        self.request()
        self.assertLess(self.run_until_quiet(), 20)

    def test_many_contacts_stay_within_the_breadth(self) -> None:
        count = 0

        def fresh(verdict: object) -> list[Destination]:
            nonlocal count
            count += 2
            return [Destination(f"sip:u{count + at}@{NODE}") for at in range(2)]

        self.user.destinations = fresh  # type: ignore[assignment]
        self.request()
        self.assertLess(self.run_until_quiet(), 2 * 60)

    def test_a_spiral_is_no_loop(self) -> None:
        self.user.destinations = lambda verdict: (
            [to(CAROL)] if "carol" in verdict.request.uri_text else [Destination(f"sip:carol@{NODE}")]
        )
        self.request()
        self.run_until_quiet()
        self.answer(200, CAROL)
        self.run_until_quiet()
        self.assertEqual(self.upstream(), [100, 200])


class DialogTests(ProxyTestCase):
    """
    §16.6 step 4, §16.12: a call whose requests follow the Record-Route of its INVITE.
    """

    listeners = (UDP, TCP, OUTER)
    alice = PHONE
    bob = Source(Protocol.UDP, BOB, 5060, UDP)

    def call(
        self,
        destination: Destination,
        contact: str,
        alice_contact: str = "sip:alice@198.51.100.7:5062",
        above: Sequence[str] = (),
    ) -> None:
        """
        Alice calls, bob answers with a Contact.

        @param above: the Record-Routes of those between us and bob.
        """
        self.route_to(destination)
        self.request(source=self.alice, headers=(f"Contact: <{alice_contact}>",))
        invite = self.last("INVITE")
        self.record_routes = invite.headers.get_all("record-route")
        self.contacts = (alice_contact, contact)
        headers = [("Record-Route", value) for value in (*above, *self.record_routes)]
        self.answer(200, self.transport.sent[-1][1].host, headers=[*headers, ("Contact", f"<{contact}>")])
        self.route_set = self.last(200).headers.get_all("record-route")[::-1]
        self.user.destinations = lambda verdict: ()
        self.transport.sent.clear()

    def in_dialog(
        self, method: str, is_from_caller: bool = True, number: int = 2, routes: bool = True, hops: int = 70
    ) -> None:
        """
        One of them sends a request along the route set.

        @param hops: its Max-Forwards.
        """
        tags = ("f1", "t1") if is_from_caller else ("t1", "f1")
        route_set = self.route_set if is_from_caller else self.record_routes
        source = self.alice if is_from_caller else self.bob
        transport = source.protocol.name
        data = request_bytes(
            method,
            self.contacts[1 if is_from_caller else 0],
            via=f"SIP/2.0/{transport} {source.host}:{source.port};branch=z9hG4bK{number}{method}",
            from_=f"<sip:a@example.org>;tag={tags[0]}",
            to=f"<sip:b@example.org>;tag={tags[1]}",
            cseq=f"{number} {method}",
            headers=[f"Route: {route}" for route in route_set] if routes else (),
        )
        self.receive(data.replace(b"Max-Forwards: 70", b"Max-Forwards: %d" % hops), source)

    def where(self, method: str) -> list[str]:
        """
        Where requests of a method went.
        """
        return [f"{target}" for message, target in self.transport.sent if message in self.sent(method)]

    def test_udp_without_nat(self) -> None:
        self.call(to(BOB), f"sip:bob@{BOB}:5070")
        self.assertEqual(len(self.record_routes), 1)
        self.in_dialog("ACK", number=1)
        self.in_dialog("INFO", False)
        self.in_dialog("BYE", number=3)
        self.assertEqual(self.where("ACK"), [f"udp:{BOB}:5070"])
        self.assertEqual(self.where("INFO"), ["udp:198.51.100.7:5062"])
        self.assertEqual(self.where("BYE"), [f"udp:{BOB}:5070"])
        self.assertNotIn("route", self.last("BYE").headers)
        self.assertEqual(self.calls.events[-1], ("bye", "BYE"))
        self.pump(40)
        self.assert_nothing_left()

    def test_phones_behind_nats(self) -> None:
        phone = binding("sip:bob@10.0.0.2:5062", received=f"sip:{BOB}:40001")
        self.call(Destination(phone.contact, binding=phone), phone.contact, "sip:alice@10.0.0.2:5062")
        self.in_dialog("ACK", number=1)
        self.in_dialog("INFO", False)
        self.assertEqual(self.where("ACK"), [f"udp:{BOB}:40001"])
        self.assertEqual(self.where("INFO"), [f"udp:{PHONE.host}:{PHONE.port}"])

    def test_over_connections(self) -> None:
        """
        Nobody listens at either Contact: RFC 5626 §5.1.
        """
        self.alice, self.bob = PHONE_TCP, BOB_TCP
        self.flows.alive = {"flow1": (PHONE_TCP.host, PHONE_TCP.port), "flow2": (BOB, 40002)}
        phone = binding("sip:bob@10.0.0.2;transport=tcp", socket=str(TCP), flow="flow2")
        self.call(Destination(phone.contact, binding=phone), phone.contact, "sip:alice@10.0.0.1;transport=tcp")
        self.assertEqual(len(self.record_routes), 1)
        self.in_dialog("ACK", number=1)
        self.in_dialog("INFO", False)
        self.assertEqual(self.where("ACK"), [f"tcp:{BOB}:40002"])
        self.assertEqual(self.where("INFO"), [f"tcp:{PHONE_TCP.host}:40000"])
        self.assertEqual([target.flow for _, target in self.transport.sent], ["flow2", "flow1"])

    def test_a_connection_that_is_gone(self) -> None:
        self.alice = PHONE_TCP
        self.call(to(BOB), f"sip:bob@{BOB}", f"sip:alice@{CAROL};transport=tcp")
        self.in_dialog("BYE", False)
        self.assertEqual(self.where("BYE"), [f"tcp:{CAROL}:5060"])

    def test_two_transports_two_record_routes(self) -> None:
        """
        RFC 5658 §3.1.
        """
        self.alice = PHONE_TCP
        self.flows.alive = {"flow1": (PHONE_TCP.host, PHONE_TCP.port)}
        self.call(to(BOB), f"sip:bob@{BOB}:5070")
        uris = [parse_name_addr(value).uri.text.partition(";c=")[0] for value in self.record_routes]
        self.assertEqual(uris, [f"sip:{NODE}:5060;lr", f"sip:{NODE}:5060;transport=tcp;lr"])
        self.in_dialog("ACK", number=1)
        self.in_dialog("BYE", False)
        self.assertEqual(self.where("ACK"), [f"udp:{BOB}:5070"])
        self.assertEqual(self.where("BYE"), [f"tcp:{PHONE_TCP.host}:40000"])

    def test_marked_record_routes_still_lead_through_the_dialog(self) -> None:
        heard: list[int] = []

        def did(request: Request) -> str:
            heard.append(len(self.calls.events))
            return ";did=80d.bdd1"

        self.proxy.mark_routes(did)
        self.alice = PHONE_TCP
        self.flows.alive = {"flow1": (PHONE_TCP.host, PHONE_TCP.port)}
        self.call(to(BOB), f"sip:bob@{BOB}:5070")
        self.assertEqual([value.endswith(";did=80d.bdd1>") for value in self.record_routes], [True, True])
        self.assertEqual(heard, [1], "asked after the listeners have heard of the call")
        self.in_dialog("ACK", number=1)
        self.in_dialog("BYE", False)
        self.assertEqual(self.where("ACK"), [f"udp:{BOB}:5070"])
        self.assertEqual(self.where("BYE"), [f"tcp:{PHONE_TCP.host}:40000"])

    def test_two_listeners(self) -> None:
        phone = binding(f"sip:bob@{BOB}:5070", socket=str(OUTER))
        self.call(Destination(phone.contact, binding=phone), phone.contact)
        self.assertEqual(len(self.record_routes), 2)
        self.in_dialog("ACK", number=1)
        self.in_dialog("BYE", False)
        self.assertEqual([target.listener for _, target in self.transport.sent], [OUTER, UDP])

    def test_a_long_request_keeps_to_udp(self) -> None:
        self.call(to(BOB), f"sip:bob@{BOB}")
        self.contacts = (self.contacts[0], f"sip:{'b' * 1300}@{BOB}")
        self.in_dialog("INFO")
        self.assertEqual(self.where("INFO"), [f"udp:{BOB}:5060"])

    def test_the_location_store_is_not_asked(self) -> None:
        self.call(to(BOB), f"sip:bob@{BOB}")
        self.route_to(to(CAROL))
        self.in_dialog("INVITE")
        self.assertEqual(self.where("INVITE"), [f"udp:{BOB}:5060"])
        self.assertEqual(self.calls.events[-1], ("answered", 200))

    def test_what_is_never_relayed_is_not_relayed_in_a_dialog_either(self) -> None:
        """
        Whoever hands it to the proxy.
        """
        self.call(to(BOB), "sip:bob@example.org")
        for method in ("KDMQ", "REGISTER"):
            self.in_dialog(method)
            self.assertEqual((self.upstream()[-1], self.sent(method)), (403, []))
            self.transport.sent.clear()

    def test_hops_are_counted(self) -> None:
        """
        A request that comes around again and again within its dialog ends by Max-Forwards (§16.3 step 3).
        """
        self.call(to(BOB), f"sip:bob@{BOB}")
        self.in_dialog("INFO", hops=1)
        self.assertEqual(self.last("INFO").max_forwards, 0)
        self.in_dialog("INFO", number=3, hops=0)
        self.assertEqual((self.upstream(), len(self.sent("INFO"))), ([483], 1))

    def test_without_our_route_it_is_no_dialog_of_ours(self) -> None:
        self.call(to(BOB), f"sip:bob@{BOB}")
        self.in_dialog("BYE", routes=False)
        self.assertEqual(self.upstream(), [404])
        self.in_dialog("ACK", routes=False)
        self.assertEqual(self.sent("ACK"), [])
        self.assertEqual(self.proxy.snapshot()["proxy.dropped_acks"], 1)

    def test_an_ack_that_nobody_can_be_sent(self) -> None:
        for contact in ("sip:bob@nowhere.example.net", "tel:+1"):
            self.call(to(BOB), contact)
            self.in_dialog("ACK")
            self.assertEqual(self.sent("ACK"), [])
            self.layer.stop()
        self.call(to(BOB), f"sip:bob@{BOB}")
        self.transport.missing = {Protocol.UDP}
        self.in_dialog("ACK")
        self.assertEqual(self.proxy.snapshot()["proxy.dropped_acks"], 3)
        self.assertNotIn(("ack", "ACK"), self.calls.events)

    def test_an_ack_hops_too(self) -> None:
        self.call(to(BOB), f"sip:bob@{BOB}")
        self.in_dialog("ACK")
        ack = self.last("ACK")
        self.assertEqual(ack.max_forwards, 69)
        self.assertEqual(len(ack.vias), 2)
        self.assertEqual(self.calls.events[-1], ("ack", "ACK"))

    def test_a_connection_that_is_gone_leads_to_nobody_else(self) -> None:
        """
        Where the cookie names nothing but the connection, the Request-URI is no way either (RFC 5626 §11.5).
        """
        self.alice = PHONE_TCP
        self.call(to(BOB), f"sip:bob@{BOB}", "sip:alice@10.0.0.1;transport=tcp")
        self.contacts = (f"sip:alice@{CAROL}", self.contacts[1])
        self.in_dialog("BYE", False)
        self.assertEqual((len(self.sent(430, BOB)), self.sent("BYE")), (1, []))

    def test_a_path_leads_there(self) -> None:
        """
        RFC 3327 §5.3: a request for a binding with a Path has it as its Route, and goes to the edge proxy on top of it.
        """
        path = f"<sip:{CAROL};lr>"
        phone = binding(f"sip:bob@{BOB}:5070", path=path, received=f"sip:{BOB}:40001")
        self.route_to(Destination(phone.contact, path=path, binding=phone))
        self.request()
        self.assertEqual(self.where("INVITE"), [f"udp:{CAROL}:5060"])
        invite = self.last("INVITE")
        self.assertEqual((invite.headers.get("route"), invite.uri_text), (path, phone.contact))

    def test_the_way_of_the_path(self) -> None:
        """
        RFC 3327: the edge proxy of a binding gets the request.
        """
        self.resolver.names["edge.example.net"] = None
        path = f"<sip:{CAROL};lr>"
        phone = binding("sip:bob@10.0.0.2", path=path, flow="flow9")
        self.call(Destination(phone.contact, path=path, binding=phone), phone.contact, above=(path,))
        self.assertEqual(len(self.record_routes), 1)
        self.in_dialog("ACK", number=1)
        self.assertEqual(self.where("ACK"), [f"udp:{CAROL}:5060"])
        self.assertEqual(self.last("ACK").headers.get("route"), path)

    def test_what_is_forwarded_is_a_message(self) -> None:
        self.call(to(BOB), f"sip:bob@{BOB}")
        self.in_dialog("UPDATE")
        again = parse_message(format_message(self.last("UPDATE")))
        assert isinstance(again, Request)
        self.assertEqual(again.uri_text, f"sip:bob@{BOB}")
