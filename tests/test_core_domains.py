"""
Which names and addresses are ours, and the address-of-record of a URI.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.domains import Domains, is_address
from sipdmq.sip.uri import parse_uri


def make_domains() -> Domains:
    return Domains(
        ("example.org", "second.example", "127.0.0.1"),
        {"alias.example": "second.example"},
        [("192.0.2.1", 5060), ("sip.example.org", 15060), ("2001:db8::1", 5060)],
    )


class DomainTests(SynchronousTestCase):
    """
    RFC 3261 §16.4: "If the domain of the Request-URI indicates a domain this element is responsible for".
    """

    def assert_domain(self, uri: str, domain: str | None) -> None:
        self.assertEqual(make_domains().domain_of(parse_uri(uri)), domain, uri)

    def test_each_name_is_its_own_domain(self) -> None:
        self.assert_domain("sip:example.org", "example.org")
        self.assert_domain("sip:a@second.example", "second.example")

    def test_letter_case_does_not_count(self) -> None:
        self.assert_domain("sip:a@EXAMPLE.org", "example.org")

    def test_a_dot_at_the_end_does_not_count(self) -> None:
        self.assert_domain("sip:a@example.org.", "example.org")

    def test_an_address_stands_for_the_first_name(self) -> None:
        for host in ("127.0.0.1", "192.0.2.1", "[2001:db8::1]", "[2001:DB8:0::1]", "sip.example.org"):
            self.assert_domain(f"sip:a@{host}", "example.org")

    def test_an_alias_stands_for_its_domain(self) -> None:
        self.assert_domain("sip:a@alias.example", "second.example")

    def test_another_host_is_not_ours(self) -> None:
        for host in ("other.example", "sub.example.org", "192.0.2.2"):
            self.assert_domain(f"sip:a@{host}", None)

    def test_a_port_on_which_we_do_not_listen_is_somebody_elses(self) -> None:
        self.assert_domain("sip:a@127.0.0.1:5070", None)
        self.assert_domain("sip:a@example.org:5060", "example.org")
        self.assert_domain("sip:a@example.org:15060", "example.org")

    def test_another_scheme_is_not_ours(self) -> None:
        self.assert_domain("tel:+1234", None)
        self.assert_domain("sips:a@example.org", "example.org")

    def test_a_configured_name_is_a_domain_even_if_it_is_advertised(self) -> None:
        domains = Domains(("first.example", "second.example"), {}, [("second.example", 5060)])
        self.assertEqual(domains.domain_of(parse_uri("sip:second.example")), "second.example")

    def test_without_a_name_the_first_address_is_the_domain(self) -> None:
        domains = Domains(("127.0.0.1", "::1"), {}, [("192.0.2.1", 5060)])
        self.assertEqual(domains.main, "127.0.0.1")
        for host in ("127.0.0.1", "[::1]", "192.0.2.1"):
            self.assertEqual(domains.domain_of(parse_uri(f"sip:{host}")), "127.0.0.1")


class AddressOfRecordTests(SynchronousTestCase):
    """
    RFC 3261 §10.3 step 5: "the URI MUST then be converted to a canonical form. To do that, all URI parameters MUST be
    removed (including the user-param), and any escaped characters MUST be converted to their unescaped form."
    """

    def assert_aor(self, uri: str, aor: str | None) -> None:
        self.assertEqual(make_domains().aor_of(parse_uri(uri)), aor, uri)

    def test_parameters_port_and_password_are_removed(self) -> None:
        self.assert_aor("sip:alice:secret@example.org:5060;transport=tcp;user=phone", "alice@example.org")

    def test_escapes_are_written_one_way(self) -> None:
        self.assert_aor("sip:%61lice@example.org", "alice@example.org")
        self.assert_aor("sip:a%40b@example.org", "a%40b@example.org")
        self.assert_aor("sip:a%2fb@example.org", "a%2Fb@example.org")

    def test_the_user_keeps_its_case_and_the_domain_does_not(self) -> None:
        self.assert_aor("sip:Alice@Example.ORG", "Alice@example.org")

    def test_sip_and_sips_are_one_user(self) -> None:
        self.assert_aor("sips:alice@example.org", "alice@example.org")

    def test_by_address_or_alias_it_is_the_same_user(self) -> None:
        self.assert_aor("sip:alice@192.0.2.1", "alice@example.org")
        self.assert_aor("sip:alice@alias.example", "alice@second.example")

    def test_none_without_user_or_outside_our_domains(self) -> None:
        for uri in ("sip:example.org", "sip:alice@other.example", "tel:+1234"):
            self.assert_aor(uri, None)

    def test_an_ipv6_domain_has_brackets(self) -> None:
        domains = Domains(("::1",), {}, [])
        self.assertEqual(domains.aor_of(parse_uri("sip:alice@[::1]")), "alice@[::1]")


class ClaimTests(SynchronousTestCase):
    """
    What people take for one of our users, whoever it is.
    """

    def test_a_name_of_ours_whatever_its_port(self) -> None:
        for uri, expected in (
            ("sip:alice@example.org", True), ("sip:alice@example.org:9999", True), ("sip:alice@EXAMPLE.org.:1", True),
            ("sips:alice@alias.example:9999", True), ("sip:alice@192.0.2.1", True), ("sip:alice@192.0.2.1:9999", False),
            ("sip:alice@other.example", False), ("sip:alice@example.org.other.example", False), ("tel:+1234", False),
        ):  # fmt: skip
            self.assertEqual(make_domains().is_claimed_by(parse_uri(uri)), expected, uri)


class AddressTests(SynchronousTestCase):
    """
    An address is digits and dots, or has a colon.
    """

    def test_addresses(self) -> None:
        for host in ("127.0.0.1", "::", "2001:db8::1", "::ffff:192.0.2.1"):
            self.assertTrue(is_address(host), host)

    def test_names(self) -> None:
        for host in ("localhost", "example.org", "face.example", "dead", "1and1.example"):
            self.assertFalse(is_address(host), host)
