"""
Channel dialog: what is told, what is answered, and who is sent what.
"""

from __future__ import annotations

import json
from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.dmq.dialog import DialogPeer
from sipdmq.dmq.dialog_json import DialogTold
from sipdmq.interfaces.dialogs import DialogState, IDialogListener, Leg
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import INodeListener, IRepairer
from sipdmq.records import ChannelMessage, ClusterNode, NodeStatus, Protocol, Source
from tests.fakes import UDP
from tests.test_dialog_service import DialogTestCase, answer
from tests.test_dmq_dialog_json import captured
from tests.test_dmq_usrloc_json import CAPTURES
from tests.usrloc_node import KAMAILIO, OURS, FakeCluster

#: What one Kamailio told another, in the order in which that happened.
STORIES = {
    "captures": (
        "update-new-vars", "state-early", "state-confirmed", "sync-update", "state-deleted-bye", "rm", "update-new",
        "state-deleted-486", "foreign-update", "foreign-confirmed", "foreign-backwards", "foreign-bad-hash",
        "err-action-99", "err-bad-json", "err-empty", "err-state-unknown", "err-unknown-field", "sync-request",
    ),
    "captures-6.1": ("update-new-vars", "state-confirmed", "sync-update", "update-new"),
}  # fmt: skip


class DialogPeerTestCase(DialogTestCase):
    """
    A node in a cluster with a Kamailio and one of ours.
    """

    def setUp(self) -> None:
        super().setUp()
        self.cluster = FakeCluster()
        self.cluster.members = [KAMAILIO, OURS]
        self.peer = DialogPeer(self.clock, self.now, self.dialogs, self.cluster, self.cluster, self.cluster)
        self.dialogs.connect(self.cluster.answers_for)
        self.peer.start(False)
        self.addCleanup(self.peer.stop)

    def receive(self, body: bytes, sender: ClusterNode | None = KAMAILIO) -> int:
        """
        @return: the status of the answer.
        """
        host = "192.0.2.99" if sender is None else sender.name.host
        message = ChannelMessage("dialog", sender, Source(Protocol.UDP, host, 5060, UDP), "application/json", body, 1)
        self.peer.keys_of(message)
        return self.peer.message_received(message).status

    def put(self, node: ClusterNode | None = KAMAILIO) -> list[Any]:
        """
        What was put for a node, or for all, since this was asked last; others are let go.
        """
        self.clock.pump([0.01] * 5)
        put, self.cluster.put_ones = self.cluster.put_ones, []
        return [change for name, _, change in put if name == (node and node.name)]


class OutwardTests(DialogPeerTestCase):
    def told(self, change: Any) -> list[bytes]:
        return [self.peer.join([self.peer.encode(change)])[1]]

    def test_nobody_needs_the_end_of_a_dialog_that_he_does_not_know(self) -> None:
        invite = self.begin()
        self.dialogs.call_failed(invite, 486)
        begun, ended = self.put(None)
        self.clock.advance(6)
        (forgotten,) = self.put(None)
        found = [
            self.peer.is_needless(self.told(change), status)
            for change, status in ((begun, 500), (ended, 500), (forgotten, 500), (ended, 400), (forgotten, 404))
        ]
        self.assertEqual(found, [False, True, True, False, False])


class SyncTests(DialogPeerTestCase):
    """
    Calls of this node, of another one of ours, of a Kamailio, and of one that is lost.
    """

    LOST = "sip:192.0.2.66:5060"

    def setUp(self) -> None:
        super().setUp()
        self.cluster.members = [KAMAILIO, OURS, self.newcomer("kamailio 5.6.3")]
        for call in ("own", "over"):
            invite = self.begin(call)
        self.dialogs.call_failed(invite, 486)
        (own, *_) = self.dialogs.all()
        for number, told_by in enumerate((str(OURS.name), str(KAMAILIO.name), self.LOST)):
            self.assertTrue(self.dialogs.merge(own._replace(
                id=own.id._replace(h_id=900 + number), call_id=told_by, told_by=told_by, caller=Leg(f"t{number}"),
            )))  # fmt: skip
        self.put()

    def newcomer(self, release: str) -> ClusterNode:
        name = KAMAILIO.name._replace(host="192.0.2.13")
        return ClusterNode(name, NodeStatus.ACTIVE, release, release.startswith("sipdmq"))

    def calls(self, node: ClusterNode) -> list[str]:
        """
        What was put for a node: the Call-IDs, and for each end how.
        """
        return [
            change.call_id if isinstance(change, DialogTold) else type(change).__name__ for change in self.put(node)
        ]

    def test_a_kamailio_gets_each_from_one_node(self) -> None:
        for release in ("kamailio 5.6.3", "kamailio 6.1.4"):
            for inherited, expected in (((), ["own"]), ((self.LOST,), ["own", self.LOST])):
                self.cluster.inherited = set(inherited)
                node = self.newcomer(release)
                self.assertEqual(self.receive(b'{"action":4}', node), 200)
                self.assertEqual(self.calls(node), expected, release)

    def test_where_it_may_have_asked_this_one_only_it_gets_all(self) -> None:
        everything = ["own", str(OURS.name), str(KAMAILIO.name), self.LOST]
        for release in ("kamailio 6.2.0", ""):
            node = self.newcomer(release)
            self.receive(b'{"action":4}', node)
            self.assertEqual(self.calls(node), everything, release)

    def test_one_of_ours_gets_the_ends_too(self) -> None:
        node = self.newcomer("sipdmq 0.1")
        self.receive(b'{"action":4}', node)
        told = ["own", "_Gone", str(OURS.name), str(KAMAILIO.name), self.LOST, "SyncEnd"]
        self.assertEqual(self.calls(node), told)
        self.clock.advance(6)  # now it is forgotten
        self.put()
        self.receive(b'{"action":4,"ours":1}', node)
        self.assertEqual(self.calls(node), ["_Gone", *[each for each in told if each != "_Gone"]])

    def test_one_that_waits_for_its_ack_is_told_as_an_early_one(self) -> None:
        """
        State 3 is nothing that a Kamailio takes (WIRE §9).
        """
        invite = self.begin("answered")
        self.dialogs.call_answered(invite, answer(invite))
        self.put()
        node = self.newcomer("kamailio 5.6.3")
        self.receive(b'{"action":4}', node)
        told = {change.call_id: (change.state, change.start_ts) for change in self.put(node)}
        self.assertEqual(told, {"own": (1, 0), "answered": (2, 0)})

    def test_a_repair_of_a_kamailio(self) -> None:
        self.clock.advance(6)
        self.put()
        self.cluster.restorers[KAMAILIO.name] = OURS.name
        self.peer.repair(KAMAILIO, 60)
        self.assertEqual(self.calls(KAMAILIO), ["_Gone", "own"], "by each node: it minds what is older")


class InwardTests(DialogPeerTestCase):
    def test_a_clock_that_is_ahead_prolongs_nothing(self) -> None:
        told = json.loads(captured("captures/dl-update-new-vars"))
        confirmed = json.loads(captured("captures/dl-state-confirmed"))
        ahead = int(self.now()) + 10**6
        self.receive(json.dumps({**told, "init_ts": ahead}).encode())
        self.receive(json.dumps({**confirmed, "start_ts": ahead}).encode())
        (dialog,) = self.dialogs.all()
        self.assertEqual(dialog.state, DialogState.CONFIRMED)
        self.assertEqual((dialog.init_ts, dialog.start_ts), (int(self.now()), int(self.now())))

    def test_interfaces(self) -> None:
        for interface in (IRepairer, INodeListener, IInspectable, IDialogListener):
            verifyObject(interface, self.peer)

    def test_every_capture_is_answered_as_kamailio_does(self) -> None:
        """
        WIRE §13.
        """
        recorded = {
            f"{path.parent.name}/{path.name.removesuffix('.sip')}"
            for path in CAPTURES.glob("captures*/dl-*.sip")
            if not path.name.endswith(".reply.sip")
        }
        told = [f"{folder}/dl-{name}" for folder, names in STORIES.items() for name in names]
        self.assertEqual(set(told), recorded)
        for name in told:
            status = int((CAPTURES / f"{name}.reply.sip").read_bytes()[8:11])
            self.assertEqual(self.receive(captured(name)), status, name)
        left = {dialog.call_id: dialog.state for dialog in self.dialogs.all() if not dialog.is_over}
        expected = {"fakecall-1@x": DialogState.CONFIRMED, "call1": DialogState.CONFIRMED}
        self.assertEqual(left, {**expected, "call2": DialogState.UNCONFIRMED})

    def test_what_kills_a_kamailio_is_400_or_nothing(self) -> None:
        for name, status in (
            *(("array", 200), ("empty-object", 200), ("null", 400), ("update-min", 400), ("vars-null", 400)),
            ("update-no-leg", 200),
        ):
            self.assertEqual(self.receive(captured(f"captures/malformed-dl-{name}")), status, name)
        self.assertEqual([dialog.call_id for dialog in self.dialogs.all()], ["call1"])
        self.assertEqual(self.peer.snapshot()["dmq_dialog.refused"], 3)
