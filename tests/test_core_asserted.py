"""
P-Asserted-Identity (RFC 3325): believed of some, taken out of what others send.
"""

from __future__ import annotations

from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import GatewayConfig, GatewayTarget
from sipdmq.core.asserted import TrustDomain, has_assertions, remove_assertions, withhold_identity
from sipdmq.sip.message import Request, response_to
from sipdmq.sip.uri import parse_sip_uri
from sipdmq.sip.writer import format_message
from tests.fakes import PHONE, request
from tests.policy_network import BOB, CAROL, PolicyTestCase, Sent

ASSERTED = "P-Asserted-Identity: <sip:boss@example.org>"
PREFERRED = "P-Preferred-Identity: <sip:boss@example.org>"


class TrustDomainTests(SynchronousTestCase):
    """
    RFC 3325 §2.3: who is in it is the operator's word.
    """

    def test_networks_and_hosts(self) -> None:
        trusted = TrustDomain((ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")), ("198.51.100.1", "gw.example"))
        for host in ("192.0.2.7", "2001:db8::7", "198.51.100.1"):
            self.assertTrue(trusted.has(host), host)
        for host in ("192.0.3.7", "2001:db9::7", "198.51.100.2"):
            self.assertFalse(trusted.has(host), host)
        self.assertFalse(TrustDomain((), ()).has("192.0.2.7"))

    def test_nodes_of_the_cluster(self) -> None:
        trusted = TrustDomain((), ())
        self.assertFalse(trusted.may_assert(request("INVITE"), PHONE))
        trusted.believe_nodes(lambda request, source: source is PHONE)
        self.assertTrue(trusted.may_assert(request("INVITE"), PHONE))


class HeaderTests(SynchronousTestCase):
    def test_both_headers_go(self) -> None:
        given = request("INVITE", headers=[ASSERTED, "P-Asserted-Identity: tel:+1", PREFERRED, "Subject: x"])
        self.assertTrue(has_assertions(given))
        remove_assertions(given)
        self.assertFalse(has_assertions(given))
        self.assertEqual(given.headers.get("subject"), "x")

    def test_privacy(self) -> None:
        """
        §7: "id: The user requests that ... be kept private outside the trust domain".
        """
        for privacy, is_kept in (("none", True), ("id", False), ("header;ID; user", False), ("session", True)):
            given = request("INVITE", headers=[ASSERTED, f"Privacy: {privacy}"])
            withhold_identity(given)
            self.assertEqual("p-asserted-identity" in given.headers, is_kept, privacy)


class RelayTests(PolicyTestCase):
    """
    §5: "the proxy MUST remove the P-Asserted-Identity" of whoever is not trusted.
    """

    trusted = (ip_network("203.0.113.30/32"),)
    gateways = {"pstn": GatewayConfig((GatewayTarget(parse_sip_uri("sip:203.0.113.40")),))}

    def setUp(self) -> None:
        super().setUp()
        self.register("bob", BOB)

    def asserted(self, sent: Sent) -> list[str]:
        """
        What bob is told.
        """
        (found,) = (message for message, address in sent if isinstance(message, Request) and address == BOB)
        self.assertNotIn("p-preferred-identity", found.headers)
        return found.headers.get_all("p-asserted-identity")

    def invite(self, source: tuple[str, int], *headers: str) -> Sent:
        return self.ask(
            "INVITE", "sip:bob@example.org", source, user="x", from_="<sip:x@elsewhere.example>;tag=f1",
            call_id=f"{source[0]}{len(headers)}", headers=[f"Contact: <sip:x@{source[0]}>", ASSERTED, *headers],
        )  # fmt: skip

    def test_a_stranger_is_not_believed(self) -> None:
        self.assertEqual(self.asserted(self.invite(("203.0.113.66", 5060), PREFERRED)), [])

    def test_our_phones_are_not_either(self) -> None:
        sent = self.ask_with_password("MESSAGE", "sip:bob@example.org", headers=[ASSERTED, PREFERRED])
        self.assertEqual(self.asserted(sent), [])

    def test_who_is_trusted_is(self) -> None:
        for source in (CAROL, ("203.0.113.40", 5060)):
            self.assertEqual(self.asserted(self.invite(source)), ["<sip:boss@example.org>"])

    def test_who_wants_privacy_has_it(self) -> None:
        self.assertEqual(self.asserted(self.invite(CAROL, "Privacy: id")), [])

    def test_within_a_dialog(self) -> None:
        sent = self.invite(("203.0.113.66", 5060))
        ((response, _),) = self.reply(sent, 200)
        route = response.headers.get_all("record-route")[0]
        sent = self.ask(
            "INFO", f"sip:bob@{BOB[0]}", ("203.0.113.66", 5060), from_="<sip:x@elsewhere.example>;tag=f1",
            to="<sip:bob@example.org>;tag=t1", call_id="203.0.113.660", headers=[f"Route: {route}", ASSERTED],
        )  # fmt: skip
        self.assertEqual(self.asserted(sent), [])

    def test_a_phone_s_answer(self) -> None:
        sent = self.invite(CAROL)
        (invite,) = (message for message, address in sent if isinstance(message, Request) and address == BOB)
        response = response_to(invite, 180, "t1", [("P-Asserted-Identity", "<sip:boss@example.org>")])
        ((ringing, _),) = self.receive(format_message(response), BOB)
        self.assertEqual(ringing.status, 180)
        self.assertNotIn("p-asserted-identity", ringing.headers)
