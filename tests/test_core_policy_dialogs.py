"""
What follows within a dialog through the whole node: who may send it, where it may go, and that it arrives as it was.
"""

from __future__ import annotations

from dataclasses import replace

from sipdmq.records import Protocol, Source
from sipdmq.sip.message import response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.digest_client import DigestClient
from tests.fakes import UDP
from tests.memory_node import MemoryNode
from tests.policy_network import BOB, CAROL, NODE, Sent
from tests.test_core_policy_attacks import TARGET, VICTIM, AttackTestCase


class DialogTestCase(AttackTestCase):
    """
    Carol, a stranger, has called bob.

    @ivar cookie: her Record-Route; C{callees}: his.
    """

    def setUp(self) -> None:
        super().setUp()
        invite = self.invite_from_stranger(call_id="call-1")
        answered = self.reply(invite, 200)
        self.callees = self.cookie_of(invite)
        ((response, _),) = answered
        self.cookie = response.headers.get_all("record-route")[0][1:-1]

    def within(self, method: str, **changes: object) -> Sent:
        given = {
            "from_": "<sip:carol@elsewhere.example>;tag=f1",
            "to": "<sip:bob@example.org>;tag=t1",
            "call_id": "call-1",
            "cseq": f"2 {method}",
            "headers": [f"Route: <{self.cookie}>"],
            **changes,
        }
        return self.ask(method, given.pop("uri", f"sip:bob@{BOB[0]}"), CAROL, user="carol", **given)


class DialogTests(DialogTestCase):
    """
    Within a dialog nobody is asked for a password, if our Record-Route vouches for it.
    """

    def test_it_is_followed_without_a_challenge(self) -> None:
        for method in ("ACK", "INFO", "UPDATE", "BYE", "NEW"):
            sent = self.within(method)
            self.assert_relayed(sent, BOB, method)

    def test_from_the_other_side_too(self) -> None:
        """
        Bob is ours, and hangs up without a password.
        """
        sent = self.ask(
            "BYE", f"sip:carol@{CAROL[0]}", BOB, user="bob", call_id="call-1", headers=[f"Route: <{self.callees}>"],
            from_="<sip:bob@example.org>;tag=t1", to="<sip:carol@elsewhere.example>;tag=f1",
        )  # fmt: skip
        self.assert_relayed(sent, CAROL, "BYE")

    def test_the_cookie_is_of_this_dialog_alone(self) -> None:
        for changes in (
            {"call_id": "call-2"},
            {"from_": "<sip:carol@elsewhere.example>;tag=f2"},
            {"to": "<sip:bob@example.org>"},
            {"headers": [f"Route: <{self.cookie}x>"]},
            {"headers": [f"Route: <{self.cookie[:-1]}>"]},
            {"headers": [f"Route: <{self.cookie.replace('sip:', 'sip:u@')}>"]},
            {"headers": [f"Route: <{self.cookie.replace(';lr', '')}>"]},
            {"headers": [f"Route: <sip:{NODE};lr>, <{self.cookie}>"]},
            {"headers": [f"Route: <sip:{VICTIM[0]};lr>, <{self.cookie}>"]},
            {"headers": []},
        ):
            self.assert_refused(self.within("INFO", **changes), 403, CAROL)

    def test_it_leads_to_bob_alone(self) -> None:
        """
        A cookie is no ticket to others: neither by the Request-URI, nor by a Route, nor by passing for bob.
        """
        route = f"Route: <{self.cookie}>"
        as_bob = {"from_": "<sip:bob@elsewhere.example>;tag=t1", "to": "<sip:carol@elsewhere.example>;tag=f1"}
        for changes in (
            {"uri": TARGET},
            {"uri": f"sip:bob@{BOB[0]};maddr={VICTIM[0]}"},
            {"headers": [route, f"Route: <sip:{VICTIM[0]};lr>"]},
            {"headers": [route, f"Route: <{TARGET}>"]},
            {"headers": [route, f"Route: <sip:{NODE};lr>"], "uri": TARGET},
            {"headers": [f"Route: <{TARGET}>"], "uri": self.cookie},
            {"uri": f"sip:carol@{CAROL[0]}", **as_bob},
            {"uri": TARGET, **as_bob},
            {"uri": TARGET, "headers": [f"Route: <{self.callees}>"]},
        ):
            for method in ("INVITE", "MESSAGE", "BYE", "NEW"):
                self.assert_refused(self.within(method, **changes), 403, CAROL)
            self.assertEqual(self.within("ACK", **changes), [])

    def test_nor_to_whom_it_names_as_its_own_contact(self) -> None:
        """
        Where a stranger says that he is, bob may send; not he himself in bob's name.
        """
        moved = self.within("UPDATE", headers=[f"Route: <{self.cookie}>", f"Contact: <{TARGET}>"])
        self.assert_relayed(moved, BOB, "UPDATE")
        for uri in (TARGET, f"sip:carol@{CAROL[0]}"):
            self.assert_refused(self.within("INFO", uri=uri), 403, CAROL)

    def test_each_side_may_move(self) -> None:
        """
        RFC 3261 §12.2: a re-INVITE or UPDATE, or the 2xx to it, may name another Contact.
        """
        there = ("203.0.113.31", 5060)
        moved = self.within("UPDATE", headers=[f"Route: <{self.cookie}>", f"Contact: <sip:carol@{there[0]}>"])
        self.reply(moved, 200, contact="sip:bob@198.51.100.99")
        self.assert_relayed(self.within("INFO", uri="sip:bob@198.51.100.99"), ("198.51.100.99", 5060), "INFO")
        sent = self.ask(
            "BYE", f"sip:carol@{there[0]}", BOB, user="bob", call_id="call-1", headers=[f"Route: <{self.callees}>"],
            from_="<sip:bob@example.org>;tag=t1", to="<sip:carol@elsewhere.example>;tag=f1",
        )  # fmt: skip
        self.assert_relayed(sent, there, "BYE")

    def test_who_is_ours_may_go_on_by_his_password(self) -> None:
        """
        What a cookie does not allow is asked for as outside of a dialog. So bob finds carol, who has moved
        where another node saw it.
        """
        uri = f"sip:carol@{VICTIM[0]}"
        sent = self.ask(
            "BYE", uri, BOB, user="bob", call_id="call-1", headers=[f"Route: <{self.callees}>"],
            from_="<sip:bob@example.org>;tag=t1", to="<sip:carol@elsewhere.example>;tag=f1",
        )  # fmt: skip
        self.assert_refused(sent, 407, BOB)

    def test_a_registration_in_a_dialog_is_asked_for_its_password(self) -> None:
        sent = self.ask(
            "REGISTER", "sip:example.org", CAROL, call_id="call-1", headers=[f"Route: <{self.cookie}>"],
            from_="<sip:carol@elsewhere.example>;tag=f1", to="<sip:alice@example.org>;tag=t1",
        )  # fmt: skip
        self.assert_refused(sent, 401, CAROL)

    def test_a_lost_response_of_what_was_not_relayed(self) -> None:
        """
        The connection breaks before the refusal, or the registration's answer, is gone: nobody minds.
        """
        transactions = self.memory.node.transactions
        for data in (
            self.build("INVITE", "sip:nobody@example.org", CAROL, from_="<sip:c@elsewhere.example>;tag=1"),
            self.build("REGISTER", "sip:example.org", CAROL, to="<sip:alice@example.org>"),
        ):
            self.receive(data, CAROL)
            source = Source(Protocol.UDP, *CAROL, UDP)
            transactions.transport_failed(transactions.transport.response_target(parse_message(data), source), "gone")
        self.assertEqual(self.flushLoggedErrors(), [])


class OtherNodeTests(DialogTestCase):
    """
    What one node of a cluster has given out is good at all, if they have the same secret.
    """

    secret = "the same on all nodes"

    def go_to_another(self, secret: str = "") -> None:
        """
        From now on phones send to a node that knows nothing of them.

        @param secret: by default the same.
        """
        auth = replace(self.config.auth, secret=secret or self.secret)
        self.memory = MemoryNode(self, replace(self.config, auth=auth))

    def test_a_dialog_goes_on(self) -> None:
        self.go_to_another()
        self.assert_relayed(self.within("INFO"), BOB, "INFO")
        self.go_to_another("one of its own, sadly")
        self.assert_refused(self.within("INFO"), 403, CAROL)

    def test_a_nonce_is_good(self) -> None:
        ((challenge, _),) = self.ask("REGISTER", "sip:example.org", to="<sip:alice@example.org>")
        client = DigestClient("alice", "alice")
        client.take(challenge.headers.get_all("www-authenticate"))
        for secret, status in (("", 200), ("one of its own, sadly", 401)):
            self.go_to_another(secret)
            headers = [f"Authorization: {client.credentials('REGISTER', 'sip:example.org')}"]
            sent = self.ask("REGISTER", "sip:example.org", to="<sip:alice@example.org>", headers=headers)
            self.assert_refused(sent, status)


class ExtensionTests(DialogTestCase):
    """
    What others have added to SIP passes through: nothing of it is ours to change, require or answer.
    """

    METHODS = {
        "INVITE": ("Require: 100rel", "Supported: timer, 100rel", "Session-Expires: 1800;refresher=uac", "Min-SE: 90"),
        "PRACK": ("RAck: 776656 1 INVITE",),  # RFC 3262
        "UPDATE": ("Session-Expires: 1800;refresher=uas", "Min-SE: 90", "Require: timer"),  # RFC 3311, 4028
        "MESSAGE": ("Content-Type: text/plain", "Expires: 30"),  # RFC 3428
        "REFER": ("Refer-To: <sip:dave@elsewhere.example?Replaces=1%40x>", "Referred-By: <sip:c@h>"),  # RFC 3515
        "INFO": ("Info-Package: foo", "Content-Disposition: Info-Package", "Recv-Info: foo, bar"),  # RFC 6086
        "SUBSCRIBE": ("Event: presence", "Accept: application/pidf+xml"),
        "NOTIFY": ("Event: presence", "Subscription-State: active;expires=30"),
    }

    def test_requests(self) -> None:
        for number, (method, lines) in enumerate(self.METHODS.items(), 10):
            headers = [f"Route: <{self.cookie}>", *lines]
            sent = self.within(method, headers=headers, cseq=f"{number} {method}")
            (passed,) = (message for message, address in sent if address == BOB)
            self.assertEqual(passed.method, method)
            for line in lines:
                self.assertIn(line, passed.headers.lines(), method)

    def test_responses(self) -> None:
        """
        A reliable provisional response (RFC 3262 §3), 422 (RFC 4028 §6), 469 (RFC 6086 §4.2.2), 489.
        """
        given = {
            ("INVITE", 183): ("Require: 100rel", "RSeq: 988789", "Recv-Info: foo"),
            ("UPDATE", 422): ("Min-SE: 1800",),
            ("INFO", 469): ("Recv-Info: bar",),
            ("SUBSCRIBE", 489): ("Allow-Events: presence",),
        }
        for number, ((method, status), lines) in enumerate(given.items(), 10):
            sent = self.within(method, cseq=f"{number} {method}")
            (passed,) = (message for message, address in sent if address == BOB)
            response = response_to(passed, status, "t1", [tuple(line.split(": ", 1)) for line in lines])
            ((back, address),) = self.receive(format_message(response), BOB)
            self.assertEqual((back.status, address), (status, CAROL))
            for line in lines:
                self.assertIn(line, back.headers.lines(), method)
