"""
The values that cross packages: what little they can do by themselves.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.records import BindingChange, Listener, Origin, Protocol, Source, Target
from tests.location_store_tests import make_binding


class AddressTests(SynchronousTestCase):
    def test_listeners_and_targets_read_as_in_the_configuration(self) -> None:
        for record, expected in (
            (Listener(Protocol.UDP, "192.0.2.1", 5060, "sip.example.org", 5062), "udp:192.0.2.1:5060"),
            (Listener(Protocol.TCP, "2001:db8::1", 5070, "x", 1), "tcp:[2001:db8::1]:5070"),
            (Target(Protocol.UDP, "192.0.2.7", 5062), "udp:192.0.2.7:5062"),
            (Target(Protocol.TCP, "::1", 5060, flow="f"), "tcp:[::1]:5060"),
        ):
            self.assertEqual(str(record), expected)

    def test_only_udp_loses_messages(self) -> None:
        self.assertEqual([protocol.is_reliable for protocol in Protocol], [False, True, True])

    def test_only_tls_is_secure(self) -> None:
        self.assertEqual([protocol.is_secure for protocol in Protocol], [False, False, True])

    def test_default_ports(self) -> None:
        self.assertEqual([protocol.default_port for protocol in Protocol], [5060, 5060, 5061])

    def test_the_names_of_protocols_are_those_of_a_via(self) -> None:
        self.assertEqual([protocol.name for protocol in Protocol], ["UDP", "TCP", "TLS"])

    def test_what_comes_over_udp_has_no_flow(self) -> None:
        listener = Listener(Protocol.UDP, "192.0.2.1", 5060, "192.0.2.1", 5060)
        self.assertEqual(Source(Protocol.UDP, "192.0.2.7", 5062, listener).flow, "")

    def test_a_target_may_be_changed_unless_it_says_otherwise(self) -> None:
        target = Target(Protocol.UDP, "192.0.2.7", 5062)
        self.assertEqual(target[3:], (False, "", False, None, ""))


class BindingTests(SynchronousTestCase):
    def test_a_binding_is_a_value(self) -> None:
        self.assertEqual(make_binding("a"), make_binding("a"))
        self.assertNotEqual(make_binding("a"), make_binding("a", cseq=2))
        self.assertEqual(len({make_binding("a"), make_binding("a")}), 1)
        self.assertRaises(AttributeError, setattr, make_binding("a"), "cseq", 2)

    def test_when_nobody_is_there_any_more(self) -> None:
        live, removed = make_binding("a"), make_binding("a", removed=True)
        for binding, origin, expected in (
            (live, Origin.LOCAL, False),
            (live, Origin.REPLICATED, False),
            (live, Origin.LOADED, False),
            (live, Origin.EXPIRED, True),
            (removed, Origin.LOCAL, True),
            (removed, Origin.REPLICATED, True),
        ):
            self.assertIs(BindingChange(binding, None, origin).is_gone, expected)
