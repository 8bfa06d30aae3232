"""
The default policy in the running node: who may register, who may call whom, and who is asked for a password.
"""

from __future__ import annotations

from zope.interface.verify import verifyObject

from sipdmq.core.policy import DefaultPolicy
from sipdmq.interfaces.routing import IRoutingPolicy
from sipdmq.sip.message import Request
from sipdmq.sip.writer import format_message
from tests.policy_network import ALICE, BOB, CAROL, NODE, PolicyTestCase

FOREIGN = f"sip:carol@{CAROL[0]}"


class InterfaceTests(PolicyTestCase):
    def test_interface(self) -> None:
        verifyObject(IRoutingPolicy, DefaultPolicy())


class RegisterTests(PolicyTestCase):
    """
    RFC 3261 §10.3 steps 3 and 4.
    """

    def register_as(self, username: str, aor: str) -> list[int]:
        sent = self.ask_with_password("REGISTER", "sip:example.org", username=username, to=f"<sip:{aor}>")
        return self.answers(sent, ALICE)

    def test_401_then_200(self) -> None:
        self.assertEqual(self.register_as("alice", "alice@example.org"), [200])
        self.assertEqual(self.number("location.bindings"), 1)

    def test_another_s_name(self) -> None:
        self.assertEqual(self.register_as("alice", "bob@example.org"), [403])
        self.assertEqual(self.number("location.bindings"), 0)

    def test_a_wrong_password_is_asked_again(self) -> None:
        self.assertEqual(self.register_as("mallory", "mallory@example.org"), [401])

    def test_another_domain_in_to_is_refused_without_a_challenge(self) -> None:
        sent = self.ask("REGISTER", "sip:example.org", to=f"<sip:alice@{CAROL[0]}>")
        self.assert_refused(sent, 403, reason="Not Our User")

    def test_a_merged_one(self) -> None:
        """
        RFC 3261 §8.2.2.2: the same request by two ways. The credentials are counted as used by the first.
        """
        self.register("alice", ALICE)
        sent = self.ask("REGISTER", "sip:example.org", to="<sip:alice@example.org>", call_id="register-alice")
        self.assert_refused(sent, 401)

    def test_it_cannot_be_cancelled(self) -> None:
        data = self.build("REGISTER", "sip:example.org", to="<sip:alice@example.org>")
        self.receive(data, ALICE)
        cancel = data.replace(b"REGISTER sip", b"CANCEL sip").replace(b"1 REGISTER", b"1 CANCEL")
        self.assert_refused(self.receive(cancel, ALICE), 481)


class OpenRegisterTests(PolicyTestCase):
    """
    The same where authentication is off.
    """

    is_guarded = False

    def test_200_at_once(self) -> None:
        self.register("alice", ALICE)
        self.register("anybody", BOB)
        self.assertEqual(self.number("location.bindings"), 2)

    def test_a_merged_one(self) -> None:
        for status in (200, 482):
            sent = self.ask("REGISTER", "sip:example.org", to="<sip:alice@example.org>", call_id="c")
            self.assert_refused(sent, status)

    def test_cancelled_too_late(self) -> None:
        data = self.build("REGISTER", "sip:example.org", to="<sip:alice@example.org>")
        self.receive(data, ALICE)
        cancel = data.replace(b"REGISTER sip", b"CANCEL sip").replace(b"1 REGISTER", b"1 CANCEL")
        self.assert_refused(self.receive(cancel, ALICE), 200)
        self.assertEqual(self.number("location.bindings"), 1)

    def test_calls_go_inside_only(self) -> None:
        """
        Where nobody is known everybody is a stranger: no open relay.
        """
        self.register("bob", BOB)
        self.assert_relayed(self.ask("INVITE", "sip:bob@example.org"), BOB)
        self.assert_refused(self.ask("INVITE", FOREIGN, call_id="c2"), 403)
        self.assert_refused(self.ask("INVITE", "sip:nobody@example.org", call_id="c3"), 480)

    def test_credentials_are_not_asked_for_and_pass_through(self) -> None:
        self.register("bob", BOB)
        line = 'Proxy-Authorization: Digest username="alice", realm="elsewhere", nonce="n", uri="u", response="r"'
        sent = self.ask("MESSAGE", "sip:bob@example.org", headers=[line])
        self.assertIn("elsewhere", sent[0][0].headers.get("proxy-authorization"))


class CallTests(PolicyTestCase):
    """
    Who calls whom.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("bob", BOB)

    def test_between_our_users(self) -> None:
        sent = self.ask_with_password("INVITE", "sip:bob@example.org")
        self.assert_relayed(sent, BOB)
        self.assertEqual(self.answers(sent, ALICE), [100])

    def test_our_credentials_go_no_further(self) -> None:
        """
        RFC 3261 §22.3.
        """
        sent = self.ask_with_password("INVITE", "sip:bob@example.org")
        (copy,) = (message for message, _ in sent if isinstance(message, Request))
        self.assertNotIn("proxy-authorization", copy.headers)

    def test_without_password_nobody_hears_of_it(self) -> None:
        for method in ("INVITE", "MESSAGE", "SUBSCRIBE", "BYE", "NEW"):
            sent = self.ask(method, "sip:bob@example.org", call_id=method)
            self.assert_refused(sent, 407)
            self.assertIn("proxy-authenticate", sent[0][0].headers)

    def test_in_another_s_name(self) -> None:
        sent = self.ask_with_password("INVITE", "sip:bob@example.org", user="bob")
        self.assert_refused(sent, 403, reason="Not Your Name")

    def test_in_a_name_that_looks_like_one_of_ours(self) -> None:
        """
        A port, a dot or capital letters make no stranger of who calls himself alice.
        """
        for host, status in (("example.org:9999", 403), ("EXAMPLE.ORG.", 407), ("Example.Org", 407), (NODE, 407)):
            sent = self.invite_from_stranger(from_=f"<sip:alice@{host}>;tag=f1", call_id=host)
            self.assert_refused(sent, status, CAROL)

    def test_from_a_stranger_to_our_user(self) -> None:
        self.assert_relayed(self.invite_from_stranger(), BOB)
        self.assert_relayed(self.invite_from_stranger(from_="<tel:+15550100>;tag=f1", call_id="c2"), BOB)

    def test_from_our_user_to_elsewhere(self) -> None:
        self.assert_refused(self.ask("INVITE", FOREIGN), 407)
        self.assert_relayed(self.ask_with_password("INVITE", FOREIGN), CAROL)

    def test_between_foreigners(self) -> None:
        for method in ("INVITE", "OPTIONS", "MESSAGE", "REGISTER"):
            from_ = "<sip:carol@elsewhere.example>;tag=f1"
            sent = self.ask(method, "sip:dave@203.0.113.40", CAROL, from_=from_, call_id=method)
            self.assert_refused(sent, 403, CAROL, "Relaying Denied")

    def test_who_is_not_there(self) -> None:
        """
        An authenticated caller is told whether there is such a user; others are not.
        """
        for user, status in (("nobody", 404), ("alice", 480), ("a%20b", 480), ("mallory%20", 404)):
            uri = f"sip:{user}@example.org"
            self.assert_refused(self.ask_with_password("INVITE", uri, call_id=user), status)
            self.assert_refused(self.invite_from_stranger(uri=uri, call_id=user), 480, CAROL)

    def test_two_copies_of_one_call_that_came_by_two_ways(self) -> None:
        """
        RFC 3261 §8.2.2.2 is for user agents; a proxy forwards both, and the phone refuses one.
        """
        self.assert_relayed(self.invite_from_stranger(), BOB)
        self.assert_relayed(self.invite_from_stranger(), BOB)

    def test_a_loop(self) -> None:
        """
        Alice's phone has our own address as its Contact: what we send there comes back to us, once.
        """
        self.register("alice", ALICE, headers=[f"Contact: <sip:alice@{NODE}>"])
        sent = self.invite_from_stranger(uri="sip:alice@example.org")
        for _ in range(10):
            copies = [message for message, address in sent if isinstance(message, Request) and address[0] == NODE]
            if not copies:
                break
            sent = self.receive(format_message(copies[0]), (NODE, 5060))
        self.assertEqual(self.answers(sent, (NODE, 5060)), [482])
        self.assertEqual(self.number("proxy.loops"), 1)
        self.assertEqual(self.number("proxy.relayed"), 1)

    def test_max_forwards(self) -> None:
        data = self.build("OPTIONS", "sip:bob@example.org", CAROL, from_="<sip:c@elsewhere.example>;tag=1")
        data = data.replace(b"Max-Forwards: 70", b"Max-Forwards: 0")
        self.assert_refused(self.receive(data, CAROL), 483, CAROL)

    def test_cancel_is_never_challenged(self) -> None:
        data = self.build("INVITE", "sip:bob@example.org", CAROL, from_="<sip:carol@elsewhere.example>;tag=f1")
        self.reply(self.receive(data, CAROL), 180)
        cancel = data.replace(b"INVITE sip", b"CANCEL sip").replace(b"1 INVITE", b"1 CANCEL")
        sent = self.receive(cancel, CAROL)
        self.assertEqual(self.answers(sent, CAROL), [200])
        self.assert_relayed(sent, BOB, "CANCEL")

    def test_cancel_of_nothing(self) -> None:
        self.assert_refused(self.ask("CANCEL", "sip:bob@example.org"), 481)

    def test_an_ack_of_no_dialog_is_dropped(self) -> None:
        for headers in ((), [f"Route: <sip:{NODE};lr>"], [f"Route: <sip:{NODE};lr;c=AAAAAAAAAAAAAA>"]):
            for to in ("<sip:bob@example.org>", "<sip:bob@example.org>;tag=t1"):
                self.assertEqual(self.ask("ACK", f"sip:bob@{BOB[0]}", to=to, headers=headers), [])
        self.assertEqual(self.number("proxy.dropped_acks"), 6)

    def test_the_ack_of_a_refusal_ends_here(self) -> None:
        data = self.build("INVITE", "sip:bob@example.org")
        ((response, _),) = self.receive(data, ALICE)
        to = f"To: <sip:bob@example.org>;tag={response.to.tag}".encode()
        ack = data.replace(b"INVITE", b"ACK").replace(b"To: <sip:bob@example.org>", to)
        self.assertEqual(self.receive(ack, ALICE), [])


class NeverRelayedTests(PolicyTestCase):
    """
    What no password opens.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("bob", BOB)

    def test_kdmq(self) -> None:
        """
        KDMQ is as strong as the location table, and trusted by the address it comes from: ours, if we relayed it.
        """
        invite = self.invite_from_stranger()
        route = f"Route: <{self.cookie_of(invite)}>"
        for uri, headers in (
            ("sip:usrloc@example.org", ()),
            (f"sip:usrloc@{CAROL[0]}", ()),
            (f"sip:usrloc@{CAROL[0]};maddr={NODE}", ()),
            (f"sip:usrloc@{CAROL[0]}", [f"Route: <sip:{CAROL[0]};lr>"]),
            (f"sip:usrloc@{CAROL[0]}", [route]),
            ("sip:bob@example.org", [route]),
        ):
            for to in ("<sip:bob@example.org>", "<sip:bob@example.org>;tag=t1"):
                self.assert_refused(self.ask("KDMQ", uri, to=to, headers=headers), 403)

    def test_register_for_our_domain(self) -> None:
        """
        It ends here: with a Route, and in a dialog too.
        """
        invite = self.invite_from_stranger()
        cookie = self.cookie_of(invite)
        for routes in (
            [f"<sip:{CAROL[0]};lr>"],
            [f"<{cookie}>"],
            [f"<{cookie}>", f"<sip:{CAROL[0]};lr>"],
        ):
            for to in ("<sip:alice@example.org>", "<sip:alice@example.org>;tag=t1"):
                headers = [f"Route: {', '.join(routes)}"]
                for uri in ("sip:example.org", f"sip:alice@{NODE}", f"sip:example.org;maddr={CAROL[0]}"):
                    self.assert_refused(self.ask("REGISTER", uri, to=to, headers=headers), 401)
        headers = [f"Route: <sip:{CAROL[0]};lr>", f"Contact: <sip:alice@{ALICE[0]}>"]
        sent = self.ask_with_password("REGISTER", "sip:example.org", to="<sip:alice@example.org>", headers=headers)
        self.assert_refused(sent, 200)

    def test_register_for_another_domain_is_not_ours_to_save(self) -> None:
        uri = f"sip:{CAROL[0]}"
        self.assert_refused(self.ask("REGISTER", uri, to="<sip:alice@example.org>"), 401)
        sent = self.ask_with_password("REGISTER", uri, to="<sip:alice@example.org>")
        self.assert_relayed(sent, CAROL, "REGISTER")
        self.assertEqual(self.number("location.bindings"), 1)
