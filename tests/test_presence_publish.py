"""
PUBLISH in the running node: who may, what is answered, and what the policies can do with it.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.config import PresenceConfig
from sipdmq.core.domains import Domains
from sipdmq.core.policy import DefaultPolicy
from sipdmq.interfaces.publications import IPublisher
from sipdmq.presence.publication_store import MemoryPublicationStore
from sipdmq.presence.publications import PublicationLimits
from sipdmq.presence.publish import Publisher
from tests.fakes import make_ids
from tests.location_store_tests import EPOCH
from tests.policy_network import ALICE, BOB, CAROL, PolicyTestCase, Sent
from tests.publication_tools import pidf

AOR = "sip:alice@example.org"
HEADERS = ("Event: presence", "Content-Type: application/pidf+xml")


class PublishTestCase(PolicyTestCase):
    presence = PresenceConfig(enable=True)

    def publish(self, *headers: str, body: bytes = b"", uri: str = AOR, **changes: Any) -> Any:
        """
        @return: the answer.
        """
        ask = self.ask_with_password if self.is_guarded else self.ask
        changes.setdefault("call_id", self.branch())
        sent = ask("PUBLISH", uri, headers=headers, body=body, **changes)
        ((response, address),) = sent
        self.assertEqual(address, ALICE)
        return response

    def document(self) -> str:
        return self.memory.node.publications.document("alice@example.org", "presence").body.decode()


class GuardedTests(PublishTestCase):
    def test_the_interface(self) -> None:
        publications = MemoryPublicationStore(self.memory.reactor, lambda: EPOCH)
        domains = Domains(["example.org"], {}, [])
        verifyObject(IPublisher, Publisher(publications, domains, PublicationLimits(), make_ids(), lambda: EPOCH))

    def test_401_like_a_register_then_200(self) -> None:
        first = self.ask("PUBLISH", AOR, headers=HEADERS, body=pidf())
        self.assert_refused(first, 401)
        response = self.publish(*HEADERS, body=pidf())
        self.assertEqual((response.status, response.headers.get("expires")), (200, "3600"))
        self.assertTrue(response.headers.get("sip-etag"))
        self.assertEqual(self.number("presence.publications"), 1)

    def test_only_for_oneself(self) -> None:
        """
        It is the Request-URI that counts: whose state it is.
        """
        response = self.publish(*HEADERS, body=pidf(), uri="sip:bob@example.org")
        self.assertEqual((response.status, response.reason), (403, "Forbidden (Not Your Name)"))
        response = self.publish(*HEADERS, body=pidf(), from_="<sip:carol@elsewhere.example>;tag=1")
        self.assertEqual(response.status, 200)
        self.assertEqual(self.number("presence.publications"), 1)

    def test_a_stranger_s_is_not_passed_on(self) -> None:
        self.register("bob", BOB)
        sent = self.ask("PUBLISH", "sip:bob@example.org", CAROL, from_="<sip:carol@x.example>;tag=1", headers=HEADERS)
        self.assert_refused(sent, 401, CAROL)

    def test_options_name_it(self) -> None:
        ((response, _),) = self.ask("OPTIONS", "sip:example.org")
        self.assertIn("PUBLISH", response.headers.get("allow"))
        ((response, _),) = self.ask("PUBLISH", "sip:example.org", headers=HEADERS, body=pidf())
        self.assertEqual(response.status, 405)  # nobody's state


class OpenTests(PublishTestCase):
    is_guarded = False

    def test_initial_refresh_modify_remove(self) -> None:
        """
        RFC 3903 §4.1.
        """
        first = self.publish(*HEADERS, body=pidf()).headers.get("sip-etag")
        self.assertIn("<basic>open</basic>", self.document())
        second = self.publish("Event: presence", f"SIP-If-Match: {first}").headers.get("sip-etag")
        self.assertIn("<basic>open</basic>", self.document())
        third = self.publish(*HEADERS, f"SIP-If-Match: {second}", body=pidf("closed")).headers.get("sip-etag")
        self.assertIn("<basic>closed</basic>", self.document())
        self.assertEqual(len({first, second, third}), 3)
        response = self.publish("Event: presence", f"SIP-If-Match: {third}", "Expires: 0")
        self.assertEqual((response.status, response.headers.get("expires")), (200, "0"))
        self.assertEqual(self.number("presence.publications"), 0)
        self.assertEqual(self.publish("Event: presence", f"SIP-If-Match: {third}").status, 412)

    def test_refusals(self) -> None:
        for headers, body, status, field in (
            (["Event: presence", "SIP-If-Match: x.1"], b"", 412, None),
            (["Event: conference"], b"x", 489, ("allow-events", "presence, dialog, message-summary")),
            (["Event: presence", "Content-Type: text/plain"], b"x", 415, ("accept", "application/pidf+xml")),
            ([*HEADERS, "Expires: 5"], pidf(), 423, ("min-expires", "60")),
            (HEADERS, b"<a>", 400, None),
            (HEADERS, b"", 400, None),
            (HEADERS, b"<a>" + b"x" * 60_000 + b"</a>", 413, None),
            ([*HEADERS, "Require: nothing"], pidf(), 420, ("unsupported", "nothing")),
        ):
            response = self.publish(*headers, body=body)
            self.assertEqual(response.status, status)
            if field:
                self.assertEqual(response.headers.get(field[0]), field[1])
        self.assertEqual(self.number("presence.publications"), 0)

    def test_a_retransmission_gets_the_same_answer_and_a_merged_one_482(self) -> None:
        data = self.build("PUBLISH", AOR, headers=HEADERS, body=pidf())
        first, again = self.receive(data, ALICE), self.receive(data, ALICE)
        self.assertEqual(first[0][0].headers.get("sip-etag"), again[0][0].headers.get("sip-etag"))
        self.assertEqual(self.publish(*HEADERS, body=pidf(), call_id="c1").status, 482)
        self.assertEqual(self.number("presence.publications"), 1)

    def test_one_user_by_address_and_by_name(self) -> None:
        self.publish(*HEADERS, body=pidf(), uri="sip:alice@192.0.2.1:5060")
        self.assertIn('entity="sip:alice@example.org"', self.document())

    def test_a_foreign_one_is_none_of_ours(self) -> None:
        sent = self.ask("PUBLISH", "sip:alice@192.0.2.99", CAROL, from_="<sip:c@x.example>;tag=1", headers=HEADERS)
        self.assert_refused(sent, 403, CAROL)

    def test_expiry(self) -> None:
        self.publish(*HEADERS, "Expires: 60", body=pidf())
        self.pump(60)
        self.assertEqual(self.number("presence.publications"), 0)

    def test_stopping_leaves_no_timer(self) -> None:
        self.publish(*HEADERS, body=pidf())
        self.memory.service.stopService()
        self.assertEqual(self.memory.reactor.getDelayedCalls(), [])


class OffTests(PolicyTestCase):
    def test_it_goes_to_the_phone_as_before(self) -> None:
        self.register("bob", BOB)
        sent: Sent = self.ask_with_password("PUBLISH", "sip:bob@example.org", headers=HEADERS, body=pidf())
        self.assert_relayed(sent, BOB, "PUBLISH")
        ((response, _),) = self.ask("OPTIONS", "sip:example.org")
        self.assertNotIn("PUBLISH", response.headers.get("allow"))
        self.assertNotIn("presence.publications", self.memory.node.snapshot())

    def test_a_policy_that_takes_it_all_the_same(self) -> None:
        """
        404, as for a user that there is not.
        """
        class Policy(DefaultPolicy):
            async def route(self, request: Any, node: Any) -> None:
                node.handle_publish(request)

        self.patch(self.memory.node._dispatcher, "_policy", Policy())
        self.assert_refused(self.ask("PUBLISH", AOR, headers=HEADERS, body=pidf()), 404)


class OwnPolicyTests(PublishTestCase):
    is_guarded = False

    def test_it_learns_what_was_changed_and_decides_once(self) -> None:
        seen: list[Any] = []

        class Policy(DefaultPolicy):
            def route(self, request: Any, node: Any) -> None:  # type: ignore[override]
                node.handle_publish(request)
                seen.append((request.published, request.is_decided))
                try:
                    node.handle_publish(request)
                except RuntimeError as error:
                    seen.append(str(error))

        self.patch(self.memory.node._dispatcher, "_policy", Policy())
        self.publish(*HEADERS, body=pidf())
        self.assertEqual(seen[0][0].publication.body, pidf())
        self.assertEqual((seen[0][1], seen[1]), (True, f"<RoutedRequest PUBLISH {AOR}> is decided already"))
