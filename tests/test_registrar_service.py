"""
The registrar as a transaction user: what it answers to a REGISTER, and what it stores of where that came from.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sipdmq.core.domains import Domains
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.location import ILocationStore
from sipdmq.interfaces.messages import IServerTransaction, ITransactionUser
from sipdmq.records import Binding, Listener, Protocol, Source
from sipdmq.registrar.bindings import RegisterLimits
from sipdmq.registrar.service import Registrar
from sipdmq.registrar.store import MemoryLocationStore
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from sipdmq.transport.layer import stamp_source

EPOCH = 1_700_000_000  # Tue, 14 Nov 2023 22:13:20 GMT
UDP = Listener(Protocol.UDP, "192.0.2.1", 5060, "192.0.2.1", 5060)
TCP = UDP._replace(protocol=Protocol.TCP)


@implementer(IServerTransaction)
class FakeTransaction:
    """
    Takes the answers.
    """

    def __init__(self, request: Request, source: Source, merged: bool) -> None:
        self.request = request
        self.source = source
        self.to_tag = ""
        self.is_cancelled = False
        self.cancel_reasons: list[str] = []
        self.responses: list[Response] = []
        self._merged = merged

    def respond(self, response: Response) -> None:
        self.responses.append(response)

    def respond_statelessly(self, response: Response) -> None:
        self.responses.append(response)

    def is_merged(self) -> bool:
        return self._merged

    def hold_small(self) -> None:
        raise NotImplementedError

    def drop(self) -> None:
        raise NotImplementedError

    def forget_request(self) -> None:
        raise NotImplementedError


@implementer(ILocationStore)
class StandInStore:
    """
    Stores nothing, and gives the same answer to all.
    """

    def __init__(self, answer: Callable[[], Deferred[Any]]) -> None:
        self._answer = answer

    def lookup(self, aor: str) -> Deferred[Any]:
        return self._answer()

    def update(self, aor: str, decide: Any, origin: Any) -> Deferred[Any]:
        return self._answer()

    def pages(self, cursor: Any) -> Any:
        raise NotImplementedError

    def watch(self, listener: Any) -> None:
        raise NotImplementedError

    def count(self) -> int:
        return 0


class RegistrarTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store: Any = MemoryLocationStore(self.clock, self.now)
        self.registrar = self.make_registrar(self.store)
        self._cseqs = itertools.count(1)

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def make_registrar(self, store: Any) -> Registrar:
        domains = Domains(
            ("example.org", "other.example", "192.0.2.1"), {"sip.example.org": "example.org"}, [("192.0.2.1", 5060)]
        )
        limits = RegisterLimits(min_expires=60, default_expires=3600, max_expires=7200, max_contacts=3)
        return Registrar(store, domains, limits, Ids(random.Random(1).randbytes), self.now)

    def send(
        self,
        *lines: str,
        uri: str = "sip:example.org",
        to: str = "<sip:alice@example.org>",
        via: str = "SIP/2.0/UDP 192.0.2.7:5062;branch=z9hG4bK1",
        source: Source | None = None,
        merged: bool = False,
    ) -> FakeTransaction:
        """
        Give the registrar a REGISTER.

        @param source: of its packet; where its Via says, if not given.
        """
        source = source or Source(Protocol.UDP, "192.0.2.7", 5062, UDP)
        head = (
            f"REGISTER {uri} SIP/2.0", f"Via: {via}", "From: <sip:alice@example.org>;tag=1", f"To: {to}", "Call-ID: c1",
            f"CSeq: {next(self._cseqs)} REGISTER", *lines, "\r\n",
        )  # fmt: skip
        request = parse_message("\r\n".join(head).encode("utf-8", "surrogateescape"))
        assert isinstance(request, Request)
        stamp_source(request, source)
        transaction = FakeTransaction(request, source, merged)
        self.registrar.request_received(transaction)
        return transaction

    def ask(self, *lines: str, **how: Any) -> Response:
        """
        @return: the only answer.
        """
        (response,) = self.send(*lines, **how).responses
        return response

    def refused(self, *lines: str, **how: Any) -> RequestRefused | ParseError:
        refusal = self.assertRaises((RequestRefused, ParseError), self.send, *lines, **how)
        assert isinstance(refusal, (RequestRefused, ParseError))
        return refusal

    def stored(self, aor: str = "alice@example.org") -> Sequence[Binding]:
        bindings: Sequence[Binding] = self.successResultOf(self.store.lookup(aor))
        return bindings


class AnswerTests(RegistrarTestCase):
    """
    RFC 3261 §10.3 step 8: "The registrar returns a 200 (OK) response. The response MUST contain Contact header field
    values enumerating all current bindings."
    """

    def test_the_interface(self) -> None:
        verifyObject(ITransactionUser, self.registrar)
        verifyObject(IServerTransaction, self.send())

    def test_the_store_must_be_one(self) -> None:
        self.assertRaises(TypeError, self.make_registrar, object())

    def test_all_bindings_with_what_is_left_of_their_time(self) -> None:
        self.ask("Contact: <sip:a@h>;q=0.5;expires=600")
        self.clock.advance(100.5)
        response = self.ask("Contact: <sip:b@h>;methods=INVITE")
        self.assertEqual((response.status, response.reason), (200, "OK"))
        self.assertEqual(
            response.headers.get_all("contact"),
            ["<sip:b@h>;methods=INVITE;expires=3600", "<sip:a@h>;q=0.5;expires=500"],
        )
        self.clock.advance(599.4)
        self.assertEqual(len(self.ask().headers.get_all("contact")), 1)

    def test_date(self) -> None:
        """
        "The response SHOULD include a Date header field."
        """
        self.assertEqual(self.ask("Contact: <sip:a@h>").headers.get("date"), "Tue, 14 Nov 2023 22:13:20 GMT")
        self.clock.advance(0.9)
        self.assertEqual(self.ask().headers.get("date"), "Tue, 14 Nov 2023 22:13:20 GMT")
        self.clock.advance(0.1)
        self.assertEqual(self.ask().headers.get("date"), "Tue, 14 Nov 2023 22:13:21 GMT")

    def test_path_is_answered_as_it_was_stored(self) -> None:
        """
        RFC 3327 §5.3: the registrar copies the Path values into its 200.
        """
        lines = ("Contact: <sip:a@h>", "Path: <sip:p1;lr>, <sip:p2;lr>", "Path: <sip:p3;lr>", "Supported: path")
        response = self.ask(*lines)
        self.assertEqual(response.headers.get_all("path"), ["<sip:p1;lr>, <sip:p2;lr>, <sip:p3;lr>"])
        self.assertEqual(self.stored()[0].path, "<sip:p1;lr>, <sip:p2;lr>, <sip:p3;lr>")
        self.assertNotIn("path", self.ask().headers)

    def test_the_to_tag(self) -> None:
        self.assertTrue(self.ask().to.tag)
        self.assertNotEqual(self.ask().to.tag, self.ask().to.tag)

    def test_a_query_changes_nothing(self) -> None:
        self.ask("Contact: <sip:a@h>")
        before = self.stored()
        self.clock.advance(10)
        self.assertEqual(self.ask().headers.get_all("contact"), ["<sip:a@h>;expires=3590"])
        self.assertEqual(self.ask("Expires: 0").headers.get_all("contact"), ["<sip:a@h>;expires=3590"])
        self.assertEqual(self.stored(), before)

    def test_after_a_removal_no_contact_is_left(self) -> None:
        self.ask("Contact: <sip:a@h>, <sip:b@h>")
        self.assertNotIn("contact", self.ask("Contact: *", "Expires: 0").headers)
        self.assertEqual(self.stored(), ())

    def test_bytes_that_are_no_utf_8_come_back_as_they_came(self) -> None:
        response = self.ask('Contact: <sip:a@h>;x="\udce9"')
        self.assertIn(b'Contact: <sip:a@h>;x="\xe9";expires=3600\r\n', format_message(response))

    def test_a_folded_value_is_one_line_in_the_answer(self) -> None:
        response = self.ask('Contact: <sip:a@h>;x="a\r\n b"', "Path: <sip:p1;lr>,\r\n <sip:p2;lr>")
        self.assertEqual(response.headers.get_all("contact"), ['<sip:a@h>;x="a b";expires=3600'])
        self.assertEqual(response.headers.get_all("path"), ["<sip:p1;lr>, <sip:p2;lr>"])


class WayTests(RegistrarTestCase):
    """
    What is stored of the way back: C{received} where source and Via differ, the listener, the connection.
    """

    def way(self, via: str, source: Source) -> tuple[str, str, str]:
        self.ask("Contact: <sip:a@h>", via=via, source=source)
        (binding,) = self.stored()
        return binding.received, binding.socket, binding.flow

    def test_received_if_and_only_if_source_and_via_differ(self) -> None:
        for sent_by, host, port, expected in (
            ("192.0.2.7:5062", "192.0.2.7", 5062, ""),
            ("192.0.2.7:5062;rport", "192.0.2.7", 5062, ""),
            ("192.0.2.7", "192.0.2.7", 5060, ""),
            ("192.0.2.7;rport", "192.0.2.7", 5060, ""),
            ("[2001:DB8::7]:5062;rport", "2001:db8::7", 5062, ""),
            ("192.0.2.7:5062", "192.0.2.7", 5063, "sip:192.0.2.7:5063"),
            ("192.0.2.7", "192.0.2.7", 5063, "sip:192.0.2.7:5063"),
            ("10.0.0.9:5062;rport", "203.0.113.9", 40000, "sip:203.0.113.9:40000"),
            ("10.0.0.9:5062", "203.0.113.9", 5062, "sip:203.0.113.9:5062"),
            ("phone.example.org", "203.0.113.9", 5060, "sip:203.0.113.9:5060"),
            ("[2001:db8::7]:5062", "2001:db8::8", 5062, "sip:[2001:db8::8]:5062"),
            # a stranger's own word counts for nothing
            ("192.0.2.7:5062;received=198.51.100.1;rport=1", "192.0.2.7", 5062, ""),
        ):
            via = f"SIP/2.0/UDP {sent_by};branch=z9hG4bK1"
            self.assertEqual(
                self.way(via, Source(Protocol.UDP, host, port, UDP)), (expected, "udp:192.0.2.1:5060", ""), sent_by
            )

    def test_a_connection_is_the_way_back_whatever_the_via_says(self) -> None:
        for sent_by in ("192.0.2.7:5062", "10.0.0.9", "192.0.2.7:40000;rport"):
            self.assertEqual(
                self.way(f"SIP/2.0/TCP {sent_by};branch=z9hG4bK1", Source(Protocol.TCP, "192.0.2.7", 40000, TCP, "f1")),
                ("sip:192.0.2.7:40000;transport=tcp", "tcp:192.0.2.1:5060", "f1"),
            )


class AorTests(RegistrarTestCase):
    """
    RFC 3261 §10.3 steps 1 and 5: which domain, and which user.
    """

    def test_who_is_not_found(self) -> None:
        """
        "If the address-of-record is not valid for the domain in the Request-URI, the registrar MUST send a 404 (Not
        Found) response and skip the remaining steps."
        """
        for uri, to in (
            ("sip:elsewhere.net", "<sip:alice@elsewhere.net>"),
            ("sip:elsewhere.net", "<sip:alice@example.org>"),
            ("sip:example.org", "<sip:alice@elsewhere.net>"),
            ("sip:example.org", "<sip:alice@other.example>"),
            ("sip:other.example", "<sip:alice@example.org>"),
            ("sip:example.org", "<sip:example.org>"),
            ("sip:example.org", "<tel:+1-201-555-0123>"),
            ("sip:example.org", "<sip:alice@example.org:5070>"),
            ("sip:example.org:5070", "<sip:alice@example.org>"),
        ):
            self.assertEqual(self.refused("Contact: <sip:a@h>", uri=uri, to=to).status, 404, (uri, to))
        self.assertEqual(self.store.snapshot()["location.aors"], 0)

    def test_one_user_under_several_names(self) -> None:
        for uri, to in (
            ("sip:example.org", "sip:alice@example.org"),
            ("sip:EXAMPLE.org", "<sip:alice@Example.ORG>"),
            ("sip:sip.example.org", "<sip:alice@sip.example.org>"),
            ("sip:example.org", "<sip:alice@sip.example.org>"),
            ("sip:192.0.2.1", "<sip:alice@192.0.2.1>"),
            ("sip:192.0.2.1:5060", "<sip:alice@example.org:5060>"),
            ("sip:example.org;transport=udp", '"Alice" <sip:alice:secret@example.org;user=phone>;x=y'),
            ("sips:example.org", "<sips:alice@example.org>"),
            ("sip:example.org", "<sip:%61l%69ce@example.org>"),
        ):
            self.ask("Contact: <sip:a@h>", uri=uri, to=to)
            self.assertEqual([binding.aor for binding in self.stored()], ["alice@example.org"], (uri, to))
        self.assertEqual(self.store.snapshot()["location.aors"], 1)

    def test_different_users(self) -> None:
        for uri, to, aor in (
            ("sip:example.org", "<sip:Alice@example.org>", "Alice@example.org"),
            ("sip:other.example", "<sip:alice@other.example>", "alice@other.example"),
            ("sip:example.org", "<sip:al%40ice@example.org>", "al%40ice@example.org"),
            ("sip:example.org", "<sip:%00@example.org>", "%00@example.org"),
            ("sip:example.org", "<sip:al%3bice@example.org>", "al%3Bice@example.org"),
            ("sip:example.org", "<sip:al;ice@example.org>", "al;ice@example.org"),
        ):
            self.ask("Contact: <sip:a@h>", uri=uri, to=to)
            self.assertEqual([binding.aor for binding in self.stored(aor)], [aor])


class RefusalTests(RegistrarTestCase):
    def test_a_merged_request(self) -> None:
        """
        RFC 3261 §8.2.2.2: "the UAS core SHOULD generate a 482 (Loop Detected) response".
        """
        self.assertEqual(self.refused("Contact: <sip:a@h>", merged=True).status, 482)
        self.assertEqual(self.stored(), ())

    def test_before_anything_was_changed(self) -> None:
        for lines, status in (
            (["Contact: <sip:a@h>;expires=5"], 423),
            (["Contact: *"], 400),
            (["Contact: <sip:a@h>;q=7"], 400),
            (["Contact: <tel:1>"], 400),
        ):
            self.assertEqual(self.refused(*lines).status, status, lines)
        self.assertEqual(self.stored(), ())

    def test_by_what_is_stored(self) -> None:
        response = self.ask(*[f"Contact: <sip:{name}@h>" for name in "abcd"])
        self.assertEqual((response.status, response.reason), (403, "Forbidden (Too Many Contacts)"))
        self.ask("Contact: <sip:a@h>")
        self._cseqs = itertools.count(1)
        self.assertEqual(self.ask("Contact: <sip:a@h>;q=1").status, 500)
        self.assertEqual(self.stored()[0].q, -1)

    def test_a_store_that_fails(self) -> None:
        """
        It is answered with 500, logged, and the phone may try again.
        """
        self.registrar = self.make_registrar(StandInStore(lambda: fail(OSError("disk full"))))
        self.assertEqual(self.ask().status, 500)
        self.assertEqual(self.ask("Contact: <sip:a@h>").status, 500)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_the_answer_waits_for_the_store(self) -> None:
        waiting: Deferred[Any] = Deferred()
        self.registrar = self.make_registrar(StandInStore(lambda: waiting))
        transaction = self.send("Contact: <sip:a@h>")
        self.assertEqual(transaction.responses, [])
        waiting.errback(RequestRefused(403))
        self.assertEqual([response.status for response in transaction.responses], [403])
