"""
Who may join and send (DESIGN §7).
"""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.trust import LOOPBACK, MAX_SOURCES, Trust, allowed_networks, missing_trust, parse_networks
from sipdmq.records import NodeName, Protocol


class TrustTests(SynchronousTestCase):
    def make(self, allow: str = "", *configured: str, listed: tuple[str, ...] = ()) -> Trust:
        names = [NodeName(Protocol.UDP, host, 5060) for host in configured]
        return Trust(parse_networks(allow), names, lambda host: host in listed)

    def test_networks(self) -> None:
        trust = self.make("192.0.2.0/24 2001:db8::/64, 198.51.100.7")
        for host in ("192.0.2.1", "192.0.2.255", "2001:db8::1", "198.51.100.7", "::ffff:192.0.2.9"):
            self.assertTrue(trust.is_allowed(host), host)
        for host in ("192.0.3.1", "198.51.100.8", "2001:db8:1::1", "127.0.0.1", "::1", "", "name.example"):
            self.assertFalse(trust.is_allowed(host), host)

    def test_notification_addresses_and_nodes_that_are_listed(self) -> None:
        trust = self.make("", "192.0.2.1", listed=("192.0.2.2",))
        self.assertEqual([trust.is_allowed(f"192.0.2.{last}") for last in (1, 2, 3)], [True, True, False])
        trust.configure([NodeName(Protocol.TCP, "192.0.2.3", 5060)])
        self.assertEqual([trust.is_allowed(f"192.0.2.{last}") for last in (1, 2, 3)], [False, True, True])

    def test_nobody_by_default_but_on_loopback(self) -> None:
        self.assertEqual(allowed_networks("127.0.0.1", ()), LOOPBACK)
        self.assertEqual(allowed_networks("::1", ()), LOOPBACK)
        self.assertEqual(allowed_networks("127.0.0.1", (ip_network("127.0.0.2"),)), (ip_network("127.0.0.2"),))
        self.assertEqual(allowed_networks("192.0.2.1", ()), ())
        self.assertTrue(Trust(LOOPBACK, (), lambda host: False).is_allowed("127.99.0.1"))

    def test_a_node_that_nobody_could_join_is_an_error_of_the_configuration(self) -> None:
        self.assertIn("must name", missing_trust("192.0.2.1", (), False))
        self.assertIn("notification_address", missing_trust("192.0.2.1", (), False))
        self.assertEqual(missing_trust("192.0.2.1", (), True), "")
        self.assertEqual(missing_trust("192.0.2.1", LOOPBACK, False), "")
        self.assertEqual(missing_trust("127.0.0.1", (), False), "")

    def test_words_that_are_no_networks(self) -> None:
        for text in ("192.0.2.1/24", "example.org", "192.0.2.0/33", "10.1"):
            self.assertIn(text, str(self.assertRaises(ValueError, parse_networks, text)))
        self.assertEqual(parse_networks(" [2001:db8::1] \n"), (ip_network("2001:db8::1"),))

    @settings(derandomize=True, max_examples=100, deadline=None, database=None)
    @given(st.text(max_size=40))
    def test_any_source_is_decided(self, host: str) -> None:
        self.assertIs(self.make("192.0.2.0/24").is_allowed(host), False)


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.trust = Trust((), (), lambda host: False)

    def test_one_line_for_each_source_and_minute(self) -> None:
        logged = [(at, host) for at in (0, 1, 59, 60, 61, 119, 120) for host in "ab" if self.trust.should_log(host, at)]
        self.assertEqual(logged, [(0, "a"), (0, "b"), (60, "a"), (60, "b"), (120, "a"), (120, "b")])
        self.assertEqual(self.trust.refused, 14)

    def test_a_flood_from_many_sources_is_bounded(self) -> None:
        lines = sum(self.trust.should_log(str(number), number / 10**4) for number in range(20_000))
        self.assertEqual(lines, MAX_SOURCES + 1)
        self.assertTrue(self.trust.should_log("late", 63.0))
        self.assertLess(len(self.trust._logged), MAX_SOURCES + 2)
