"""
Dialogs follow the calls that the proxy tells of.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sipdmq.config import DialogConfig
from sipdmq.dialog.hashes import did_text
from sipdmq.dialog.service import Dialogs
from sipdmq.errors import RequestRefused
from sipdmq.interfaces.dialogs import Dialog, DialogState, IDialogListener, IDialogs, Leg
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.routing import ICallListener
from sipdmq.records import Origin, Protocol, Source
from sipdmq.sip.message import Request, Response
from sipdmq.sip.parser import parse_message
from tests.fakes import UDP, pump

EPOCH = 1_700_000_000
SOURCE = Source(Protocol.UDP, "198.51.100.7", 5062, UDP)
PEER = "sip:192.0.2.2:5060"


def request(
    method: str = "INVITE",
    call: str = "call1",
    tag: str = "t1",
    to_tag: str = "",
    cseq: int = 1,
    target: str = "sip:bob@example.org",
    routes: tuple[str, ...] = (),
) -> Request:
    return parse_message("\r\n".join([  # type: ignore[return-value]
        f"{method} {target} SIP/2.0", *(f"Route: {route}" for route in routes),
        f"Via: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK{cseq}{method}",
        f"From: <sip:alice@example.org>;tag={tag}", f"To: <sip:bob@example.org>{f';tag={to_tag}' if to_tag else ''}",
        f"Call-ID: {call}", f"CSeq: {cseq} {method}", "Max-Forwards: 70", "Contact: <sip:alice@198.51.100.7:5062>",
        "Record-Route: <sip:192.0.2.99;lr>", "Content-Length: 0", "", "",
    ]).encode())  # fmt: skip


def answer(to: Request, routes: tuple[str, ...] = (), status: int = 200) -> Response:
    return parse_message("\r\n".join([  # type: ignore[return-value]
        f"SIP/2.0 {status} OK", f"Via: {to.headers.first['via']}", f"From: {to.headers.first['from']}",
        "To: <sip:bob@example.org>;tag=t2", f"Call-ID: {to.call_id}", "CSeq: 1 INVITE",
        "Contact: <sip:bob@198.51.100.20>", *(f"Record-Route: {route}" for route in routes),
        "Content-Length: 0", "", "",
    ]).encode())  # fmt: skip


class Routed:
    """
    As much of a L{RoutedRequest} as marks need.
    """

    def __init__(self, message: Request) -> None:
        self.message = message


@implementer(IDialogListener)
class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[str, DialogState, Origin]] = []

    def dialog_changed(self, dialog: Dialog, origin: Origin) -> None:
        self.events.append(("changed", dialog.state, origin))

    def dialog_forgotten(self, dialog: Dialog, origin: Origin) -> None:
        self.events.append(("forgotten", dialog.state, origin))

    def take(self) -> list[tuple[str, DialogState, Origin]]:
        events, self.events = self.events, []
        return events


class DialogTestCase(SynchronousTestCase):
    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.numbers = iter(range(1, 10**6))
        self.dialogs = Dialogs(
            self.clock, self.now, DialogConfig(**self.settings), lambda size: next(self.numbers).to_bytes(size, "big")
        )
        self.addCleanup(self.dialogs.stop)
        self.listener = Listener()
        self.dialogs.watch(self.listener)

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def begin(self, call: str = "call1") -> Request:
        invite = request(call=call)
        self.dialogs.request_relayed(invite, "alice@example.org", SOURCE)
        return invite

    def states(self) -> list[DialogState]:
        return [dialog.state for dialog in self.dialogs.all()]


class CallTests(DialogTestCase):
    def test_interfaces(self) -> None:
        for interface in (IDialogs, ICallListener, IInspectable):
            verifyObject(interface, self.dialogs)

    def test_a_call(self) -> None:
        invite = self.begin()
        self.dialogs.call_ringing(invite, answer(invite, status=180))
        self.dialogs.call_answered(invite, answer(invite))
        self.dialogs.ack_relayed(request("ACK", to_tag="t2"))
        self.dialogs.bye_relayed(request("BYE", to_tag="t2", cseq=2))
        self.assertEqual(
            self.listener.take(),
            [("changed", DialogState(state), Origin.LOCAL) for state in (1, 2, 4, 5)],
            "Kamailio never tells of state 3",
        )
        pump(self.clock, 4.5)
        self.assertEqual(self.listener.take(), [])
        pump(self.clock, 0.5)
        self.assertEqual(self.listener.take(), [("forgotten", DialogState.DELETED, Origin.LOCAL)])
        self.assertEqual((self.states(), self.clock.getDelayedCalls()[1:]), ([], []))

    def test_what_is_known_of_it(self) -> None:
        invite = self.begin()
        (dialog,) = self.dialogs.all()
        self.assertEqual((dialog.id.h_entry, dialog.call_id, dialog.init_ts), (3336, "call1", EPOCH))
        self.assertEqual(
            tuple(dialog.caller), ("t1", "1", "<sip:192.0.2.99;lr>", "sip:alice@198.51.100.7:5062")
        )
        mark = self.dialogs.mark(invite)
        self.assertEqual(mark, ";did=80d.1")
        routes = ("<sip:192.0.2.50;lr>, <sip:192.0.2.51;lr>", f"<sip:192.0.2.1;lr{mark}>", "<sip:192.0.2.99;lr>")
        self.clock.advance(2)
        self.dialogs.call_answered(invite, answer(invite, routes))
        (dialog,) = self.dialogs.all()
        self.assertEqual(
            tuple(dialog.callee), ("t2", "0", "<sip:192.0.2.50;lr>, <sip:192.0.2.51;lr>", "sip:bob@198.51.100.20")
        )
        self.assertEqual((dialog.start_ts, dialog.lifetime), (EPOCH + 2, 43_200))

    def test_one_that_fails(self) -> None:
        self.dialogs.call_failed(self.begin(), 486)
        self.assertEqual(self.states(), [DialogState.DELETED])

    def test_the_callee_hangs_up(self) -> None:
        invite = self.begin()
        self.dialogs.call_answered(invite, answer(invite))
        self.dialogs.bye_relayed(request("BYE", tag="t2", to_tag="t1"))
        self.assertEqual(self.states(), [DialogState.DELETED])

    def test_what_belongs_to_no_dialog(self) -> None:
        invite = request()
        self.dialogs.call_ringing(invite, answer(invite))
        self.dialogs.call_answered(invite, answer(invite))
        self.dialogs.ack_relayed(request("ACK", to_tag="t2"))
        self.dialogs.bye_relayed(request("BYE", to_tag="t2"))
        self.dialogs.call_failed(invite, 404)
        self.assertEqual((self.states(), self.dialogs.mark(invite)), ([], ""))

    def test_no_dialog_has_the_number_0(self) -> None:
        """
        Kamailio takes that for none (WIRE §9).
        """
        self.numbers = iter((0,))
        self.begin()
        self.assertEqual([dialog.id.h_id for dialog in self.dialogs.all()], [1])

    def test_the_same_invite_again(self) -> None:
        self.begin()
        self.begin()
        self.assertEqual(len(self.states()), 1)

    def test_nobody_answers_and_nobody_says_so(self) -> None:
        self.begin()
        pump(self.clock, 300, 1)
        self.assertEqual(self.states(), [DialogState.DELETED])
        self.assertEqual(self.dialogs.snapshot()["dialog.timed_out"], 1)

    def test_nobody_hangs_up(self) -> None:
        invite = self.begin()
        self.dialogs.call_answered(invite, answer(invite))
        self.clock.pump([301, 42_000])
        self.assertEqual(self.states(), [DialogState.CONFIRMED_NA])
        self.clock.pump([900])
        self.assertEqual(self.states(), [DialogState.DELETED])


class FullTests(DialogTestCase):
    settings = {"max_dialogs": 1}

    def test_one_too_many_is_a_call_all_the_same(self) -> None:
        self.begin()
        self.begin("call2")
        self.assertEqual((len(self.states()), self.dialogs.snapshot()["dialog.turned_away"]), (1, 1))


class PolicyTests(DialogTestCase):
    settings = {"profiles_no_value": ("inbound",)}

    def test_a_limit(self) -> None:
        for number in range(2):
            routed: Any = Routed(request(call=f"call{number}"))
            self.dialogs.limit(routed, "caller", "alice", 2)
            self.dialogs.set_profile(routed, "inbound")
            self.begin(f"call{number}")
        third: Any = Routed(request(call="call3"))
        with self.assertRaises(RequestRefused) as caught:
            self.dialogs.limit(third, "caller", "alice", 2)
        self.assertEqual(caught.exception.status, 486)
        with self.assertRaises(RequestRefused) as caught:
            self.dialogs.limit(third, "caller", "alice", 2, 403)
        self.assertEqual(caught.exception.status, 403)
        self.dialogs.limit(third, "caller", "bob", 2)
        size = self.dialogs.profile_size
        self.assertEqual((size("caller", "alice"), size("caller"), size("inbound")), (2, 2, 2))
        self.dialogs.call_failed(request(call="call0"), 487)
        self.dialogs.limit(third, "caller", "alice", 2)

    def test_what_counts_nowhere(self) -> None:
        routed: Any = Routed(request())
        for name, value in (("caller", ""), ("inbound", "x"), ("unknown", ""), ("unknown", "x")):
            self.assertRaises(LookupError, self.dialogs.set_profile, routed, name, value)
        self.assertRaises(LookupError, self.dialogs.profile_size, "unknown")

    def test_variables(self) -> None:
        routed: Any = Routed(request())
        self.dialogs.set_variable(routed, "note", "x")
        self.assertRaises(ValueError, self.dialogs.set_variable, routed, "note", "x" * 9000)
        self.begin()
        (dialog,) = self.dialogs.all()
        self.assertEqual(dialog.variables, (("note", "x"),))

    def test_what_was_marked_and_never_relayed_takes_no_room(self) -> None:
        for number in range(11_000):
            self.dialogs.set_variable(Routed(request(call=f"c{number}")), "a", "b")  # type: ignore[arg-type]
        self.assertEqual(len(self.dialogs._marks), 10_000)


class ByPolicyOnlyTests(DialogTestCase):
    settings = {"track": ()}

    def test_what_the_policy_has_marked_is_followed(self) -> None:
        self.begin("call1")
        self.dialogs.set_variable(Routed(request(call="call2")), "a", "b")  # type: ignore[arg-type]
        self.begin("call2")
        self.assertEqual([dialog.call_id for dialog in self.dialogs.all()], ["call2"])


class OthersTests(DialogTestCase):
    """
    What other nodes tell.
    """

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        (self.ours,) = self.dialogs.all()
        self.theirs = self.ours._replace(
            id=self.ours.id._replace(h_id=77), call_id="theirs", told_by=PEER, changed_at=self.now()
        )
        self.listener.take()

    def test_a_call_of_another_node_is_known_and_counted(self) -> None:
        self.assertTrue(self.dialogs.merge(self.theirs))
        self.assertEqual(self.listener.take(), [("changed", DialogState.UNCONFIRMED, Origin.REPLICATED)])
        self.assertTrue(self.dialogs.merge(self.theirs))
        self.assertEqual(self.listener.take(), [], "that is no news")
        self.assertTrue(self.dialogs.remove(self.theirs.id, PEER))
        self.assertFalse(self.dialogs.remove(self.theirs.id, PEER))
        self.assertTrue(self.dialogs.merge(self.theirs))
        self.assertIsNone(self.dialogs.get(self.theirs.id), "it came late")

    def test_its_ack_may_come_here(self) -> None:
        self.dialogs.merge(self.theirs)
        did = did_text(self.theirs.id)
        for routes in ((), ("<sip:other;lr>",), ("<sip:other;lr>", f"<sip:ours;lr{did}>")):
            self.dialogs.ack_relayed(request("ACK", call="theirs", to_tag="t2", routes=routes))
            self.assertIn(self.theirs, self.dialogs.all(), routes)
        self.listener.take()
        for _ in range(2):
            routes = (f"<sip:ours;lr{did}>, <sip:near;lr>", "<sip:far;lr>")
            self.dialogs.ack_relayed(request("ACK", call="theirs", to_tag="t2", target="sip:bob@phone", routes=routes))
        self.assertEqual(self.listener.take(), [("changed", DialogState.CONFIRMED, Origin.LOCAL)])
        theirs = self.dialogs.get(self.theirs.id)
        assert theirs is not None
        self.assertEqual(theirs.callee, Leg("t2", "0", "<sip:far;lr>, <sip:near;lr>", "sip:bob@phone"))
        self.assertEqual((theirs.told_by, theirs.start_ts), ("", EPOCH))

    def test_an_ack_of_ours_comes_after_the_2xx(self) -> None:
        self.begin()
        (dialog,) = self.dialogs.all()
        self.dialogs.ack_relayed(request("ACK", to_tag="t2", routes=(f"<sip:ours;lr{did_text(dialog.id)}>",)))
        self.assertEqual(self.states(), [DialogState.UNCONFIRMED])

    def test_its_bye_may_come_here(self) -> None:
        self.dialogs.merge(self.theirs)
        self.dialogs.bye_relayed(request("BYE", call="theirs", to_tag="t2"))
        self.assertEqual(self.listener.take()[-1], ("changed", DialogState.DELETED, Origin.LOCAL))

    def test_its_owner_ends_it(self) -> None:
        self.dialogs.merge(self.theirs)
        pump(self.clock, 330, 1)
        theirs = self.dialogs.get(self.theirs.id)
        assert theirs is not None
        self.assertEqual(theirs.state, DialogState.UNCONFIRMED)
        self.dialogs.merge(self.theirs._replace(state=DialogState.DELETED, changed_at=self.now()))
        self.listener.take()
        pump(self.clock, 6, 1)
        self.assertEqual(self.listener.take(), [("forgotten", DialogState.DELETED, Origin.EXPIRED)])

    def test_or_its_heir(self) -> None:
        self.dialogs.connect(lambda told_by: True)
        self.dialogs.merge(self.theirs)
        pump(self.clock, 301, 1)
        theirs = self.dialogs.get(self.theirs.id)
        assert theirs is not None
        self.assertEqual((theirs.state, theirs.told_by), (DialogState.DELETED, ""))

    def test_or_nobody(self) -> None:
        self.dialogs.merge(self.theirs)
        pump(self.clock, 362, 1)
        self.assertIsNone(self.dialogs.get(self.theirs.id))
        self.assertIn(("forgotten", DialogState.UNCONFIRMED, Origin.EXPIRED), self.listener.take())
