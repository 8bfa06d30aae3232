"""
Gateways are probed, taken out and taken back.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sipdmq.config import GatewayConfig, GatewayTarget
from sipdmq.errors import UnreachableError
from sipdmq.gateways.service import PROBE_PAUSE, Gateways
from sipdmq.interfaces.gateways import IGateways
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IClientUser, IRequestSender, ITargetResolver
from sipdmq.records import Protocol, Target
from sipdmq.sip.message import Request
from sipdmq.sip.parser import parse_message
from sipdmq.sip.timers import TimerValues
from sipdmq.sip.uri import SipURI, parse_sip_uri
from sipdmq.sip.writer import format_message
from sipdmq.transaction.layer import TransactionLayer
from tests.fakes import PHONE, Events, FakeTransport, RecordingUser, answer, make_ids


@implementer(IRequestSender)
class FakeSender:
    """
    Sends nothing.

    @ivar sent: C{(seconds, host, request, user)} in order.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sent: list[tuple[float, str, Request, Any]] = []

    def send_request(
        self, request: Request, targets: tuple[Target, ...], user: Any, prepare: Any = None, loop: str = "",
        timers: Any = None,
    ) -> None:
        self.sent.append((self._clock.seconds(), targets[0].host, request, IClientUser(user)))

    def user_of(self, request: Request) -> None:
        """
        Nothing comes back.
        """

    def send_stateless(self, message: Any, target: Target) -> None:
        raise NotImplementedError


@implementer(ITargetResolver)
class FakeResolver:
    """
    Knows all names.

    @ivar unknown: but these.
    @ivar slow: a Deferred to wait for.
    """

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        self.slow: Deferred[Any] | None = None

    def resolve(self, uri: SipURI) -> Deferred[Any]:
        if self.slow is not None:
            return self.slow
        if uri.host in self.unknown:
            return fail(UnreachableError(f"no address for {uri.host}"))
        return succeed((Target(Protocol.UDP, uri.host, 5060),))


class GatewaysTestCase(SynchronousTestCase):
    """
    @ivar logged: the texts that were logged.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.sender = FakeSender(self.clock)
        self.resolver = FakeResolver()
        self.logged: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "sipdmq.gateways.service":
                self.logged.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def make(self, sender: Any = None, **groups: GatewayConfig) -> Gateways:
        gateways = Gateways(
            self.clock,
            groups,
            sender or self.sender,
            self.resolver,
            make_ids(),
            Random(1).random,
            "sip:example.org",
            "sipdmq",
        )
        self.addCleanup(gateways.stop)
        return gateways

    def group(self, *hosts: str, **keys: Any) -> GatewayConfig:
        """
        @param hosts: in the order in which they are tried.
        """
        targets = tuple(GatewayTarget(parse_sip_uri(f"sip:{host}"), 100 - n) for n, host in enumerate(hosts))
        return GatewayConfig(targets, **keys)

    def probed(self) -> list[tuple[float, str]]:
        """
        When which host was probed, since this was asked last.
        """
        sent, self.sender.sent = self.sender.sent, []
        return [(seconds, host) for seconds, host, *_ in sent]

    def end_probe(self, status: int = 0) -> None:
        """
        The probe that was sent last ends.

        @param status: of its final response; 0: there is none.
        """
        _, _, request, user = self.sender.sent[-1]
        if status:
            request.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx")
            user.response_received(answer(request, status))
        else:
            user.timed_out()

    def hosts(self, gateways: Gateways, name: str = "pstn") -> list[str]:
        """
        Where a call would go.
        """
        return [str(destination.next_hop.host) for destination in gateways.group(name) if destination.next_hop]


class InterfaceTests(GatewaysTestCase):
    def test_interfaces(self) -> None:
        gateways = self.make(pstn=self.group("a"))
        verifyObject(IGateways, gateways)
        verifyObject(IInspectable, gateways)
        verifyObject(IClientUser, gateways._watches[0])
        verifyObject(IRequestSender, self.sender)

    def test_what_is_handed_in_is_checked_at_the_door(self) -> None:
        self.assertRaises(TypeError, self.make, sender=object())


class GroupTests(GatewaysTestCase):
    """
    Where a call goes.
    """

    def test_destinations_one_after_the_other(self) -> None:
        gateways = self.make(pstn=self.group("a:5062;transport=tcp", "b", answer_timeout=7.0))
        first, second = gateways.group("pstn", parse_sip_uri("sip:+4912@example.org;user=phone"))
        self.assertEqual(first.uri, "sip:+4912@a:5062;transport=tcp;user=phone")
        self.assertEqual(str(first.next_hop), "sip:a:5062;transport=tcp")
        self.assertEqual((second.uri, str(second.next_hop)), ("sip:+4912@b;user=phone", "sip:b"))
        self.assertGreater(first.q, second.q)
        self.assertEqual((first.answer_timeout, first.timeout, first.binding), (7.0, 0, None))

    def test_without_a_request_uri_the_gateways_own(self) -> None:
        self.assertEqual([each.uri for each in self.make(pstn=self.group("a", "b")).group("pstn")], ["sip:a", "sip:b"])

    def test_a_hundred_gateways_have_a_hundred_places(self) -> None:
        gateways = self.make(pstn=self.group(*[f"h{n}" for n in range(100)])).group("pstn")
        self.assertEqual([each.q for each in gateways], list(range(1000, 900, -1)))

    def test_no_such_group(self) -> None:
        error = self.assertRaises(LookupError, self.make(pstn=self.group("a")).group, "fax")
        self.assertIn("there is no [gateway fax]", str(error))

    def test_numbers(self) -> None:
        gateways = self.make(pstn=self.group("a", "b", probe_threshold=1), fax=self.group("a"))
        gateways.report(parse_sip_uri("sip:b"), False)
        self.assertEqual(
            gateways.snapshot(),
            {"gateways.all": 3, "gateways.out": 1, "gateways.probes": 0, "gateways.in.pstn": 1, "gateways.in.fax": 1},
        )


class ProbeTests(GatewaysTestCase):
    """
    OPTIONS at regular times.
    """

    def test_the_request(self) -> None:
        self.make(pstn=self.group("gw.example.net:5062;transport=tcp")).start()
        self.clock.advance(0)
        request = self.sender.sent[0][2]
        request.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx")
        read = parse_message(format_message(request))
        assert isinstance(read, Request)
        self.assertEqual(read.start_line, "OPTIONS sip:gw.example.net:5062;transport=tcp SIP/2.0")
        self.assertEqual((read.from_.uri.text, bool(read.from_.tag)), ("sip:example.org", True))
        self.assertEqual((read.to.uri.text, read.to.tag), ("sip:gw.example.net", ""))
        self.assertEqual((read.max_forwards, read.cseq), (70, (1, "OPTIONS")))
        self.assertEqual((read.headers.get("user-agent"), read.contacts), ("sipdmq", []))

    def test_each_probe_is_a_call_of_its_own(self) -> None:
        self.make(pstn=self.group("a", "b")).start()
        self.clock.pump([0, 15])
        (_, _, one, _), (_, _, other, _) = self.sender.sent
        self.assertNotEqual(one.call_id, other.call_id)
        self.assertNotEqual(one.from_.tag, other.from_.tag)

    def test_spread_over_the_interval(self) -> None:
        self.make(pstn=self.group("a", "b", "c", probe_interval=30)).start()
        for _ in range(9):
            self.clock.advance(0 if not self.clock.seconds() and not self.sender.sent else 10)
            self.end_probe(200)
        self.assertEqual(
            self.probed(),
            [(0, "a"), (10, "b"), (20, "c"), (30, "a"), (40, "b"), (50, "c"), (60, "a"), (70, "b"), (80, "c")],
        )

    def test_an_interval_of_zero_never_probes_and_never_takes_out(self) -> None:
        gateways = self.make(pstn=self.group("a", probe_interval=0, probe_threshold=1))
        gateways.start()
        for _ in range(5):
            gateways.report(parse_sip_uri("sip:a"), False)
            self.clock.advance(3600)
        self.assertEqual((self.probed(), self.hosts(gateways)), ([], ["a"]))

    def test_one_at_a_time(self) -> None:
        gateways = self.make(pstn=self.group("a", probe_interval=10))
        gateways.start()
        self.clock.pump([0] + [1] * 25)
        gateways.report(parse_sip_uri("sip:a"), False)
        self.assertEqual(len(self.sender.sent), 1)
        self.end_probe()  # it took longer than the interval: the next one is due
        self.clock.advance(0)
        self.assertEqual(self.probed(), [(0, "a"), (25, "a")])

    def test_a_provisional_response_is_no_end(self) -> None:
        self.make(pstn=self.group("a", probe_interval=10)).start()
        self.clock.advance(0)
        self.end_probe(100)
        self.clock.advance(10)
        self.assertEqual(len(self.probed()), 1)

    def test_stopped(self) -> None:
        gateways = self.make(pstn=self.group("a", "b"))
        gateways.start()
        self.clock.advance(0)
        gateways.stop()
        self.end_probe(200)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_while_a_name_is_looked_up(self) -> None:
        self.resolver.slow = Deferred()
        gateways = self.make(pstn=self.group("a"))
        gateways.start()
        self.clock.advance(0)
        gateways.stop()
        self.resolver.slow.callback((Target(Protocol.UDP, "a", 5060),))
        self.assertEqual((self.probed(), self.clock.getDelayedCalls()), ([], []))


class StateTests(GatewaysTestCase):
    """
    Out and back, each told once.
    """

    def run_probes(self, gateways: Gateways, *statuses: int) -> list[bool]:
        """
        @param statuses: what each probe ends with.
        @return: after each, whether calls go there.
        """
        gateways.start()
        is_in = []
        for number, status in enumerate(statuses):
            self.clock.advance(30 if number else 0)
            self.assertEqual(len(self.sender.sent), number + 1)
            self.end_probe(status)
            is_in.append(self.hosts(gateways) == ["a"])
        return is_in

    def test_three_without_answer_take_it_out_and_one_with_takes_it_back(self) -> None:
        gateways = self.make(pstn=self.group("a"))
        self.assertEqual(self.run_probes(gateways, 0, 0, 0, 0, 200, 200), [True, True, False, False, True, True])
        self.assertEqual(
            self.logged,
            ["gateway sip:a of pstn is out after 3 failures: no answer; 0 left", "gateway sip:a of pstn is back"],
        )

    def test_answers_that_count_as_none(self) -> None:
        gateways = self.make(pstn=self.group("a"))
        self.assertEqual(self.run_probes(gateways, 503, 408, 500, 404), [True, True, False, True])
        self.assertEqual(self.logged[0], "gateway sip:a of pstn is out after 3 failures: it answers 500; 0 left")

    def test_a_refusal_is_a_sign_of_life(self) -> None:
        gateways = self.make(pstn=self.group("a", probe_threshold=1))
        self.assertEqual(self.run_probes(gateways, 403, 405, 486, 603), [True] * 4)
        self.assertEqual(self.logged, [])

    def test_a_name_without_address(self) -> None:
        self.resolver.unknown.add("a")
        gateways = self.make(pstn=self.group("a", probe_threshold=2))
        gateways.start()
        self.clock.pump([0, 30])
        self.assertEqual(self.hosts(gateways), [])
        self.assertEqual(self.logged, ["gateway sip:a of pstn is out after 2 failures: no address for a; 0 left"])
        self.resolver.unknown.clear()
        self.clock.advance(30)
        self.end_probe(200)
        self.assertEqual(self.hosts(gateways), ["a"])

    def test_a_resolver_that_breaks_is_logged_and_ends_nothing(self) -> None:
        self.resolver.slow = fail(ZeroDivisionError())
        self.make(pstn=self.group("a")).start()
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.resolver.slow = None
        self.clock.advance(30)
        self.assertEqual(self.probed(), [(30, "a")])


class ReportTests(GatewaysTestCase):
    """
    What calls tell.
    """

    def test_a_failed_call_has_the_gateway_probed_at_once(self) -> None:
        gateways = self.make(pstn=self.group("a", probe_interval=60))
        gateways.start()
        self.clock.advance(0)
        self.end_probe(200)
        self.clock.advance(20)
        gateways.report(parse_sip_uri("sip:a"), False)
        self.clock.advance(0)
        self.assertEqual(self.probed(), [(0, "a"), (20, "a")])

    def test_many_failed_calls_are_no_flood_of_probes(self) -> None:
        gateways = self.make(pstn=self.group("a", probe_interval=60, probe_threshold=100))
        gateways.start()
        self.clock.advance(0)
        for _ in range(50):
            if self.sender.sent[-1][3]._is_asking:
                self.end_probe(200)
            gateways.report(parse_sip_uri("sip:a"), False)
            self.clock.advance(0.1)
        times = [seconds for seconds, _ in self.probed()]
        self.assertEqual(len(times), 5)
        self.assertTrue(all(later - earlier >= PROBE_PAUSE - 1e-6 for earlier, later in pairwise(times)))

    def test_failed_calls_take_it_out_and_an_answered_probe_takes_it_back(self) -> None:
        gateways = self.make(pstn=self.group("a", "b"))
        gateways.start()
        self.clock.advance(0)  # to a; b's comes later
        for _ in range(3):
            gateways.report(parse_sip_uri("sip:a"), False)
        self.assertEqual(self.hosts(gateways), ["b"])
        self.assertEqual(self.logged, ["gateway sip:a of pstn is out after 3 failures: a call failed; 1 left"])
        self.end_probe(200)
        self.assertEqual(self.hosts(gateways), ["a", "b"])

    def test_an_answered_call_ends_a_row_of_failures(self) -> None:
        gateways = self.make(pstn=self.group("a"))
        for is_alive in (False, False, True, False, False):
            gateways.report(parse_sip_uri("sip:a"), is_alive)
        self.assertEqual(self.hosts(gateways), ["a"])

    def test_the_same_gateway_in_two_groups(self) -> None:
        gateways = self.make(pstn=self.group("a", probe_threshold=1), fax=self.group("a", probe_threshold=2))
        gateways.report(parse_sip_uri("sip:a"), False)
        self.assertEqual((self.hosts(gateways), self.hosts(gateways, "fax")), ([], ["a"]))

    def test_what_is_no_gateway(self) -> None:
        gateways = self.make(pstn=self.group("a"))
        gateways.report(parse_sip_uri("sip:elsewhere"), False)
        self.assertEqual(gateways.snapshot()["gateways.out"], 0)


class TransactionTests(GatewaysTestCase):
    """
    With real client transactions.
    """

    def test_a_silent_gateway_is_out_after_three_times_timer_f(self) -> None:
        events: Events = []
        transport = FakeTransport(self.clock, events)
        layer = TransactionLayer(self.clock, make_ids(), TimerValues(), 100, 2**20)
        layer.connect(transport, RecordingUser(events))
        gateways = self.make(sender=layer, pstn=self.group("192.0.2.9"))
        gateways.start()
        self.clock.pump([0.25] * 4 * 95)
        self.assertEqual(self.hosts(gateways), ["192.0.2.9"])
        self.clock.pump([0.25] * 4 * 4)
        self.assertEqual(self.hosts(gateways), [])
        self.assertEqual(gateways.probes, 4)
        layer.message_received(answer(transport.last, 200), PHONE)
        self.assertEqual(self.hosts(gateways), ["192.0.2.9"])
        layer.stop()
