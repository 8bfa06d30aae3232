"""
L{sipdmq.core.targets}: where a registered phone is reached.
"""

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sipdmq.core.targets import BindingTargets
from sipdmq.interfaces.messages import IFlows, ITargetResolver
from sipdmq.records import Binding, Listener, Protocol, Target
from sipdmq.sip.uri import SipURI

UDP_A = Listener(Protocol.UDP, "192.0.2.1", 5060, "192.0.2.1", 5060)
UDP_B = Listener(Protocol.UDP, "192.0.2.1", 5080, "192.0.2.1", 5080)
TCP = Listener(Protocol.TCP, "192.0.2.1", 5060, "192.0.2.1", 5060)
PHONE = Target(Protocol.TCP, "198.51.100.7", 40001, True, "f1", True, TCP)


def binding(contact: str, received: str = "", socket: str = "udp:192.0.2.1:5060", flow: str = "") -> Binding:
    return Binding(
        "alice@example.org", "r1", contact, "", -1, 2000, "c", 1, "", 0, "", received, socket, flow, "", 1000
    )


@implementer(IFlows)
class OneFlow:
    def is_alive(self, flow: str) -> bool:
        return flow == "f1"

    def target_of(self, flow: str) -> "Target | None":
        return PHONE if flow == "f1" else None


@implementer(ITargetResolver)
class RecordingResolver:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolve(self, uri: SipURI) -> "Deferred[tuple[Target, ...]]":
        self.asked.append(uri.text)
        return succeed(
            (Target(Protocol.UDP, "203.0.113.5", 5070), Target(Protocol.TCP, "203.0.113.5", 5071, name=uri.host))
        )


class BindingTargetsTests(SynchronousTestCase):
    """
    A request takes the way back that its REGISTER came.
    """

    def setUp(self) -> None:
        self.resolver = RecordingResolver()
        self.targets = BindingTargets((UDP_A, UDP_B, TCP), OneFlow(), self.resolver)

    def resolve(self, given: Binding) -> "tuple[Target, ...]":
        return self.successResultOf(self.targets.resolve(given))

    def test_over_the_connection_of_the_register(self) -> None:
        given = binding("sip:alice@10.0.0.3:5060;transport=tcp", "sip:198.51.100.7:40001;transport=tcp", str(TCP), "f1")
        self.assertEqual(self.resolve(given), (PHONE,))
        self.assertEqual(self.resolver.asked, [])

    def test_a_connection_that_is_gone_leaves_the_contact(self) -> None:
        given = binding("sip:alice@pc.example.org;transport=tcp", "sip:198.51.100.7:40001", str(TCP), "f0")
        self.resolve(given)
        self.assertEqual(self.resolver.asked, ["sip:alice@pc.example.org;transport=tcp"])

    def test_udp_numeric_needs_no_dns_and_stays_udp(self) -> None:
        for given, host, port, listener in (
            (binding("sip:alice@10.0.0.3"), "10.0.0.3", 5060, UDP_A),
            (binding("sip:alice@10.0.0.3:5062", socket=str(UDP_B)), "10.0.0.3", 5062, UDP_B),
            (binding("sip:alice@10.0.0.3:5062;transport=UDP"), "10.0.0.3", 5062, UDP_A),
            (binding("sip:alice@10.0.0.3", "sip:198.51.100.7:4711"), "198.51.100.7", 4711, UDP_A),
            (binding("sip:alice@[2001:db8::3]:5062"), "2001:db8::3", 5062, UDP_A),
        ):
            expected = Target(Protocol.UDP, host, port, True, "", False, listener)
            self.assertEqual(self.resolve(given), (expected,), given.contact)
        self.assertEqual(self.resolver.asked, [])

    def test_a_name_is_resolved_and_udp_stays_udp(self) -> None:
        self.assertEqual(
            self.resolve(binding("sip:alice@pc.example.org", socket=str(UDP_B))),
            (
                Target(Protocol.UDP, "203.0.113.5", 5070, True, "", False, UDP_B),
                Target(Protocol.TCP, "203.0.113.5", 5071, name="pc.example.org"),
            ),
        )

    def test_a_contact_that_names_another_way_gets_it(self) -> None:
        for contact in ("sip:a@10.0.0.3;transport=tcp", "sip:a@10.0.0.3;maddr=10.0.0.4"):
            self.resolve(binding(contact))
        self.assertEqual(self.resolver.asked, ["sip:a@10.0.0.3;transport=tcp", "sip:a@10.0.0.3;maddr=10.0.0.4"])

    def test_a_listener_that_is_gone_leaves_the_address(self) -> None:
        self.resolve(binding("sip:a@10.0.0.3", "sip:198.51.100.7:4711", "udp:192.0.2.9:5060"))
        self.assertEqual(self.resolver.asked, ["sip:198.51.100.7:4711"])
