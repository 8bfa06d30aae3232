"""
Whole nodes in a cluster in memory: calls that one follows are known to all, and outlive it.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.config import DialogConfig
from sipdmq.dialog.hashes import core_hash
from sipdmq.dialog.service import Dialogs
from sipdmq.errors import RequestRefused
from sipdmq.interfaces.dialogs import Dialog, DialogState, IDialogListener
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import INodeListener, IRepairer
from sipdmq.records import ChannelMessage, Origin
from tests.dmq_network import DMQNetwork, address
from tests.test_dialog_service import SOURCE, Listener, Routed, answer, request

LIFETIME = 120


class Ends(Listener):
    """
    Keeps what this node ended itself.
    """

    def dialog_changed(self, dialog: Dialog, origin: Origin) -> None:
        if dialog.is_over and origin is Origin.LOCAL:
            super().dialog_changed(dialog, origin)

    def dialog_forgotten(self, dialog: Dialog, origin: Origin) -> None:
        pass


class DialogClusterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = DMQNetwork(self)

    def join(self, *numbers: int) -> None:
        config = {"dialog": DialogConfig(enable=True, default_timeout=LIFETIME)}
        for number in numbers:
            peers = [int(host.rpartition(".")[2]) for host in self.network.nodes]
            self.network.add(number, *peers, sections=config)
        self.network.pump(2)

    def dialogs(self, number: int) -> Dialogs:
        dialogs = self.network.nodes[address(number)].node.dialogs
        assert dialogs is not None
        return dialogs

    def states(self, *numbers: int) -> list[list[int]]:
        self.network.pump(1)
        return [[int(dialog.state) for dialog in self.dialogs(number).all()] for number in numbers]

    def begin(self, number: int, call: str = "call1") -> Any:
        invite = request(call=call)
        self.dialogs(number).request_relayed(invite, "alice@example.org", SOURCE)
        return invite

    def confirm(self, number: int, call: str = "call1") -> None:
        invite = self.begin(number, call)
        self.dialogs(number).call_answered(invite, answer(invite))
        self.dialogs(number).ack_relayed(request("ACK", call=call, to_tag="t2"))

    def test_a_call_is_known_to_all(self) -> None:
        self.join(1, 2, 3)
        invite = self.begin(1)
        self.assertEqual(self.states(2, 3), [[1], [1]])
        self.dialogs(1).call_ringing(invite, answer(invite, status=180))
        self.assertEqual(self.states(2, 3), [[2], [2]])
        self.dialogs(1).call_answered(invite, answer(invite))
        self.assertEqual(self.states(1, 2, 3), [[3], [2], [2]])
        self.dialogs(1).ack_relayed(request("ACK", to_tag="t2"))
        self.assertEqual(self.states(2, 3), [[4], [4]])
        self.assertEqual(self.dialogs(2).all()[0].callee, self.dialogs(1).all()[0].callee)
        self.dialogs(1).bye_relayed(request("BYE", to_tag="t2", cseq=2))
        self.assertEqual(self.states(2, 3), [[5], [5]])
        self.network.pump(6)
        self.assertEqual(self.states(1, 2, 3), [[], [], []])

    def test_its_bye_may_come_by_another_node(self) -> None:
        self.join(1, 2)
        self.confirm(1)
        self.assertEqual(self.states(2), [[4]])
        self.dialogs(2).bye_relayed(request("BYE", to_tag="t2", cseq=2))
        self.assertEqual(self.states(1), [[5]])

    def test_who_joins_gets_all(self) -> None:
        self.join(1, 2)
        for number in range(5):
            self.confirm(1 + number % 2, f"call{number}")
        self.network.pump(1)
        self.join(3)
        self.network.pump(3)
        self.assertEqual(self.states(3), [[4] * 5])
        told_by = {dialog.call_id: dialog.told_by for dialog in self.dialogs(3).all()}
        self.assertEqual(told_by, {f"call{each}": f"sip:{address(1 + each % 2)}:5060" for each in range(5)})

    def test_limits_count_the_calls_of_all(self) -> None:
        self.join(1, 2)
        for number in (1, 2):
            invite = request(call=f"call{number}")
            self.dialogs(number).limit(Routed(invite), "caller", "alice", 2)  # type: ignore[arg-type]
            self.dialogs(number).request_relayed(invite, "", SOURCE)
            self.network.pump(1)
        third = Routed(request(call="call3"))
        for number in (1, 2):
            error = self.assertRaises(
                RequestRefused, self.dialogs(number).limit, third, "caller", "alice", 2
            )  # fmt: skip
            self.assertEqual(error.status, 486)

    def test_one_survivor_ends_the_calls_of_a_lost_node(self) -> None:
        self.join(1, 2, 3)
        self.confirm(1)
        self.assertEqual(self.states(2, 3), [[4], [4]])
        ends = [Ends(), Ends()]
        for number, each in zip((2, 3), ends, strict=True):
            self.dialogs(number).watch(IDialogListener(each))
        self.network.dead.add(address(1))
        self.network.pump(LIFETIME - 10, 0.5)
        self.assertEqual([each.take() for each in ends], [[], []], "not before its time")
        self.assertEqual(self.states(2, 3), [[4], [4]])
        self.network.pump(20, 0.5)
        self.assertEqual(
            [event for each in ends for event in each.take()], [("changed", DialogState.DELETED, Origin.LOCAL)]
        )
        self.assertEqual(self.states(2, 3), [[], []])

    def test_what_it_answers(self) -> None:
        self.join(1)
        cluster = self.network.nodes[address(1)].node.cluster
        assert cluster is not None
        peer = cluster.dialog
        assert peer is not None
        for interface in (IRepairer, INodeListener, IInspectable, IDialogListener):
            verifyObject(interface, peer)
        entry = core_hash(b"c9", 4096)
        name = f'"callid":"c9","from_uri":"a","to_uri":"b","req_uri":"b","tag1":"t","h_id":7,"h_entry":{entry}'
        head = '{"action":'
        for body, status in (
            ('{"action":2,"h_entry":1,"h_id":1,"state":4}', 500),
            ('{"action":3,"h_entry":1,"h_id":1}', 500),
            (head + "1," + name + ',"state":3}', 500),
            (head + "1," + name.replace('"c9"', '"c8"') + ',"state":2}', 500),
            (head + "1," + name.replace('"h_id":7', '"h_id":0') + ',"state":2}', 500),
            ('{"action":1,"callid":"c9"}', 400),
            ("", 400),
            ("{}", 200),
            (head + "1," + name + ',"state":2}', 200),
            (head + "2," + name + ',"state":1}', 500),
            (head + "2," + name + ',"state":4}', 200),
            (head + "2," + name + ',"state":2}', 200),
            (head + "3," + name + "}", 200),
        ):
            message = ChannelMessage("dialog", None, SOURCE, "application/json", body.encode())
            self.assertEqual(peer.message_received(message).status, status, body)
        self.flushLoggedErrors()
