"""
What strangers try in order to be relayed by us, or to be taken for somebody else: by Route, maddr, strict routes, To
tags, ports, user parts, and cookies of other dialogs. And what they may not do to others with our answers.
"""

from __future__ import annotations

from random import Random

from sipdmq.core.auth import AMPLIFICATION
from sipdmq.records import Protocol, Source
from sipdmq.sip.message import Request, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.fakes import UDP, request_bytes
from tests.policy_network import BOB, CAROL, NODE, STRANGER, PolicyTestCase, Sent

VICTIM = ("203.0.113.99", 5060)
TARGET = f"sip:victim@{VICTIM[0]}"


class AttackTestCase(PolicyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.register("bob", BOB)

    def attack(self, method: str, uri: str, **changes: object) -> Sent:
        """
        A stranger sends something.
        """
        given = {"from_": "<sip:mallory@elsewhere.example>;tag=m1", **changes}
        return self.ask(method, uri, STRANGER, user="mallory", **given)


class OpenRelayTests(AttackTestCase):
    """
    RFC 3261 §26.3.2.1, §16.3: whoever is not ours and speaks to nobody of ours gets no further.
    """

    URIS = (
        TARGET,
        f"{TARGET}:5060",
        f"{TARGET};lr",
        f"{TARGET};maddr={NODE}",
        f"{TARGET}:5060;maddr={NODE}",
        f"sip:victim@{VICTIM[0]};maddr={NODE};transport=udp",
        f"sip:bob@example.org:{VICTIM[1] + 1}",
        f"sip:bob@{NODE}:25",
        f"sip:bob%40example.org@{VICTIM[0]}",
        f"sip:bob@example.org@{VICTIM[0]}",
        f"sip:{VICTIM[0]}",
        f"sips:victim@{VICTIM[0]}",
    )
    ROUTES = (
        "",
        f"<sip:{NODE};lr>",
        f"<sip:{NODE}>",
        "<sip:example.org;lr>",
        f"<sip:{NODE};lr>, <sip:{NODE};lr>",
        f"<sip:{VICTIM[0]};lr>",
        f"<sip:{NODE};lr>, <sip:{VICTIM[0]};lr>",
        f"<sip:{NODE};lr>, <sip:{VICTIM[0]}>",
        f"<{TARGET}>",
        f"<sip:{VICTIM[0]};maddr={NODE};lr>, <{TARGET}>",
        f"<sip:{NODE};maddr={VICTIM[0]};lr>",
        f"<sip:{NODE};lr;c=AAAAAAAAAAAAAA>",
        f"<sip:{NODE};lr;c=>, <sip:{VICTIM[0]};lr>",
        f"<sip:u@{NODE};lr;c=AAAAAAAAAAAAAA>",
    )

    def test_no_way_leads_to_the_victim(self) -> None:
        tried = 0
        for uri in self.URIS:
            for route in self.ROUTES:
                for tag in ("", ";tag=t1"):
                    for method in ("INVITE", "MESSAGE", "BYE", "REGISTER", "NEW"):
                        headers = [f"Route: {route}"] if route else []
                        sent = self.attack(method, uri, to=f"<{TARGET}>{tag}", headers=headers, call_id=str(tried))
                        self.assertEqual(self.relayed(sent), [], (method, uri, route, tag))
                        self.assertEqual([address for _, address in sent], [STRANGER])
                        tried += 1
        self.assertEqual(self.number("proxy.relayed"), 0)

    def test_a_route_of_his_own_to_our_user(self) -> None:
        """
        He may call bob; not lead the call by others.
        """
        for route in self.ROUTES:
            headers = [f"Route: {route}"] if route else []
            for uri in ("sip:bob@example.org", f"sip:bob@example.org;maddr={VICTIM[0]}", f"sip:bob@{NODE};lr"):
                for address in {each[2] for each in self.relayed(self.attack("INVITE", uri, headers=headers))}:
                    self.assertEqual(address, BOB, (route, uri))

    def test_a_strict_route(self) -> None:
        """
        The Request-URI names us, the last Route is where it shall go.
        """
        for uri in (f"sip:{NODE}", f"sip:{NODE};lr", f"sip:{NODE};lr;c=AAAAAAAAAAAAAA", "sip:example.org"):
            for tag in ("", ";tag=t1"):
                for method in ("INVITE", "MESSAGE", "OPTIONS", "REGISTER"):
                    headers = [f"Route: <{TARGET}>"]
                    sent = self.attack(method, uri, to=f"<{TARGET}>{tag}", headers=headers)
                    self.assertEqual(self.relayed(sent), [], (method, uri, tag))

    def test_a_contact_is_registered_by_its_owner_only(self) -> None:
        """
        Nobody becomes reachable through us who has no password.
        """
        for from_ in ("<sip:bob@example.org>;tag=1", "<sip:mallory@elsewhere.example>;tag=1"):
            sent = self.attack("REGISTER", "sip:example.org", from_=from_, to="<sip:bob@example.org>")
            self.assert_refused(sent, 401, STRANGER)
        self.assertEqual(self.number("location.bindings"), 1)


class DialogTests(AttackTestCase):
    """
    Within a dialog nobody is asked for a password, if our Record-Route vouches for it.
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


class AmplificationTests(AttackTestCase):
    """
    Who writes another's address into his datagrams gets him less than three times as much as he sends: refusals and
    challenges are dropped when they do not fit.
    """

    algorithms = ("SHA-512-256", "SHA-256", "MD5")

    def sizes(self, data: bytes) -> tuple[int, int]:
        """
        @return: how many answers, and their bytes.
        """
        sent = self.memory.receive(data, *STRANGER)
        return len(sent), sum(len(each) for each, address in sent if address == STRANGER)

    def test_three_challenges_become_fewer_for_a_short_request(self) -> None:
        short = (
            b"REGISTER sip:example.org SIP/2.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK1\r\nf:<sip:a@example.org>;tag=1\r\n"
            b"t:<sip:a@example.org>\r\ni:1\r\nCSeq:1 REGISTER\r\nm:*\r\nExpires:0\r\nl:0\r\n\r\n"
        )
        ((response, _),) = self.receive(short, STRANGER)
        self.assertEqual(response.status, 401)
        count = len(response.headers.get_all("www-authenticate"))
        self.assertIn(count, (1, 2))
        long = short.replace(b"l:0", b"Subject: %s\r\nl:0" % (b"x" * 300)).replace(b"bK1", b"bK2")
        ((response, _),) = self.receive(long, STRANGER)
        self.assertEqual(len(response.headers.get_all("www-authenticate")), 3)

    def small_requests(self, seed: int, count: int) -> list[bytes]:
        """
        As short as can be, good and bad.
        """
        random = Random(seed)
        pick = random.choice
        requests = []
        for number in range(count):
            method = pick(("OPTIONS", "INVITE", "REGISTER", "MESSAGE", "BYE", "KDMQ", "CANCEL", "X", "SUBSCRIBE"))
            uri = "sip:" + pick(("example.org", "b@example.org", "a@h", "", NODE, "bob@example.org", "a@h:tel"))
            extra = pick((
                "", "Require:a\r\n", "Proxy-Require:b\r\n", "Route:<sip:h;lr>\r\n", "Max-Forwards:0\r\n",
                "Expires:x\r\n", "m:*\r\n", "m:<sip:a@h>\r\n", "m:<sip:a@h>;expires=1\r\n", "Content-Length:9\r\n",
                "Authorization:Digest realm=\"example.org\"\r\n", "Require: a b\r\n",
            ))  # fmt: skip
            host = pick(("h", "example.org"))
            requests.append(
                f"{method} {uri} SIP/{pick(('2.0', '2.0', '2.0', '3.0'))}\r\nv:SIP/2.0/UDP h;branch=z9hG4bK{number}\r\n"
                f"f:<sip:a@{host}>{pick((';tag=1', ''))}\r\nt:<sip:{pick('ab')}@{host}>{pick((';tag=2', ''))}\r\n"
                f"i:{number}\r\nCSeq:1 {pick((method, method, method, 'Y'))}\r\n{extra}\r\n".encode()
            )
        return requests

    def test_any_small_request(self) -> None:
        answered = 0
        for data in self.small_requests(1, 3000):
            count, size = self.sizes(data)
            self.assertLessEqual(count, 2, data)  # 100 and a final one, of a call that was relayed
            self.assertLess(size, AMPLIFICATION * len(data), data)
            answered += count
        self.assertGreater(answered, 1500)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_no_timer_sends_a_refusal_again(self) -> None:
        for method in ("INVITE", "REGISTER", "MESSAGE"):
            self.attack(method, "sip:nobody@example.org", from_="<sip:alice@example.org>;tag=1")
        self.assertEqual(self.pump(40), [])

    def final_response(self, status: int, padding: int, size: int) -> tuple[list[int], int]:
        """
        A stranger's INVITE to bob, who answers it with a final response; nobody acknowledges that.

        @param padding: characters of a header of the response.
        @param size: of the INVITE.
        @return: the final responses that were sent within 40 s, by size, and all bytes that were.
        """
        headers = ["Contact: <sip:m@elsewhere.example>", f"Subject: {'x' * padding}"]
        invite = self.build(
            "INVITE", "sip:bob@example.org", STRANGER, from_="<sip:m@elsewhere.example>;tag=m1", headers=headers[:1],
            call_id=f"{status}x{padding}x{size}",
        )  # fmt: skip
        invite = invite.replace(b"\r\n\r\n", b"\r\nSubject: %s\r\n\r\n" % (b"x" * (size - len(invite) - 11)), 1)
        self.assertEqual(len(invite), size)
        sent = self.memory.receive(invite, *STRANGER)
        (data,) = (data for data, address in sent if address == BOB)
        request = parse_message(data)
        assert isinstance(request, Request)
        sent += self.memory.receive(format_message(response_to(request, 180, "t1")), *BOB)
        response = response_to(request, status, "t1", [("Subject", "x" * padding)])
        sent += self.memory.receive(format_message(response), *BOB)
        self.memory.take_sent()
        self.memory.reactor.pump([0.25] * 160)
        sent += self.memory.take_sent()
        mine = [data for data, address in sent if address == STRANGER]
        finals = [len(data) for data in mine if data.startswith(b"SIP/2.0 %d" % status)]
        return finals, sum(map(len, mine))

    def test_a_refusal_of_whom_he_called(self) -> None:
        """
        It is shortened if it must be, and repeated as long as there is room: to a caller who is there it arrives.
        """
        for padding in (0, 300, 2000):
            for size in (400, 500, 900):
                finals, total = self.final_response(486, padding, size)
                self.assertLess(total, AMPLIFICATION * size, (padding, size))
                self.assertGreater(len(finals), 0, (padding, size))
        finals, _ = self.final_response(603, 300, 1200)
        self.assertGreater(len(finals), 2)
        self.assertGreater(finals[0], 500)  # as bob wrote it

    def test_who_asks_again_is_answered_again(self) -> None:
        """
        Each copy of the INVITE counts: this is how a lost answer is asked for.
        """
        invite = self.build("INVITE", "sip:bob@example.org", STRANGER, from_="<sip:m@elsewhere.example>;tag=m1")
        sent = self.receive(invite, STRANGER)
        self.reply(sent, 486)
        self.pump(20)
        for _ in range(3):
            self.assertEqual(self.answers(self.receive(invite, STRANGER), STRANGER), [486])

    def test_a_proven_caller_gets_all(self) -> None:
        """
        Alice has shown her password.
        """
        sent = self.ask_with_password("INVITE", "sip:bob@example.org")
        self.reply(sent, 486)
        self.assertGreater(len(self.pump(31)), 7)

    def test_what_is_no_request_at_all(self) -> None:
        for data in (b"\r\n\r\n", b"x", b"INVITE", b"INVITE sip:a SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n"):
            _, size = self.sizes(data)
            self.assertLess(size, AMPLIFICATION * len(data))

    def test_a_stream_gets_all_challenges(self) -> None:
        """
        Its other end is there, or there would be no connection.
        """
        stream = self.memory.connect(*STRANGER)
        data = request_bytes("REGISTER", via="SIP/2.0/TCP h;branch=z9hG4bK1", to="<sip:a@example.org>")
        answer = parse_message(stream.receive(data))
        self.assertEqual(len(answer.headers.get_all("www-authenticate")), 3)


class OpenAmplificationTests(AttackTestCase):
    """
    Without authentication nothing is held small.
    """

    is_guarded = False

    def test_options_of_few_bytes(self) -> None:
        data = (
            b"OPTIONS sip:example.org SIP/2.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK1\r\nf:<sip:a@h>;tag=1\r\n"
            b"t:<sip:a@h>\r\ni:1\r\nCSeq:1 OPTIONS\r\n\r\n"
        )
        ((response, _),) = self.receive(data, STRANGER)
        self.assertEqual(response.status, 200)
