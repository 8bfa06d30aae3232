"""
What strangers try in order to be relayed by us, or to be taken for somebody else: by Route, maddr, strict routes, To
tags, ports, user parts, and cookies of other dialogs. And what they may not do to others with our answers.
"""

from __future__ import annotations

from random import Random

from sipdmq.core.auth import AMPLIFICATION
from sipdmq.sip.message import Request, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.fakes import request_bytes
from tests.policy_network import BOB, NODE, STRANGER, PolicyTestCase, Sent

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

    def final_response(
        self, status: int, padding: int, size: int, method: str = "INVITE", again: int = 0
    ) -> tuple[list[int], int]:
        """
        A stranger's request to bob, who answers it with a final response; nobody acknowledges that.

        @param padding: characters of a header of the response.
        @param size: of the request.
        @param again: so often it comes once more before the response, and so often after it.
        @return: the final responses that were sent within 40 s, by size, and all bytes that were.
        """
        asked = self.build(
            method, "sip:bob@example.org", STRANGER, from_="<sip:m@elsewhere.example>;tag=m1",
            headers=["Contact: <sip:m@elsewhere.example>"], call_id=f"{status}x{padding}x{size}x{again}",
        )  # fmt: skip
        asked = asked.replace(b"\r\n\r\n", b"\r\nSubject: %s\r\n\r\n" % (b"x" * (size - len(asked) - 11)), 1)
        self.assertEqual(len(asked), size)
        sent = self.memory.receive(asked, *STRANGER)
        (data,) = (data for data, address in sent if address == BOB)
        request = parse_message(data)
        assert isinstance(request, Request)
        for _ in range(again):
            sent += self.memory.receive(asked, *STRANGER)
        if method == "INVITE":
            sent += self.memory.receive(format_message(response_to(request, 180, "t1")), *BOB)
        response = response_to(request, status, "t1", [("Subject", "x" * padding)])
        sent += self.memory.receive(format_message(response), *BOB)
        self.memory.take_sent()
        for _ in range(again):
            sent += self.memory.receive(asked, *STRANGER)
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
                for again in (0, 2):
                    finals, total = self.final_response(486, padding, size, again=again)
                    self.assertLess(total, AMPLIFICATION * size * (1 + 2 * again), (padding, size))
                    self.assertGreater(len(finals), 0, (padding, size))
        finals, _ = self.final_response(603, 300, 1200)
        self.assertGreater(len(finals), 2)
        self.assertGreater(finals[0], 500)  # as bob wrote it

    def test_a_refusal_of_another_request(self) -> None:
        """
        Each copy of it is answered by one that is less than three times as long.
        """
        for padding in (0, 300, 2000):
            for size in (300, 500, 900):
                finals, _ = self.final_response(486, padding, size, "MESSAGE", again=2)
                self.assertEqual(len(finals), 3, (padding, size))
                self.assertLess(max(finals), AMPLIFICATION * size, (padding, size))
        self.assertGreater(self.final_response(603, 300, 1200, "MESSAGE")[0][0], 500)  # as bob wrote it

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
        for data in (
            b"\r\n\r\n", b"x", b"INVITE", b"INVITE sip:a SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n",
            b"X sip:a SIP/2.0\r\nv:SIP/2.0/UDP h\r\n\r\n", b"X a:b SIP/2.0\r\nv:SIP/2.0/UDP h\r\n\r\n",
        ):  # fmt: skip
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
