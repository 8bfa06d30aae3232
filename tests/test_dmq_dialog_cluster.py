"""
Whole nodes in a cluster in memory: calls that one follows are known to all, and outlive it.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.config import DialogConfig
from sipdmq.dialog.hashes import core_hash, did_text
from sipdmq.dialog.service import Dialogs
from sipdmq.errors import RequestRefused
from sipdmq.interfaces.dialogs import Dialog, DialogState, IDialogListener, Leg
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import INodeListener, IRepairer
from sipdmq.records import ChannelMessage, Origin
from tests.dmq_network import DMQNetwork, address
from tests.test_dialog_node import ALICE, BOB, HEADS, bobs_answer, message
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


class DialogClusterTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = DMQNetwork(self)

    def join(self, *numbers: int, **keys: Any) -> None:
        """
        @param keys: of C{[dmq]}.
        """
        config = {"dialog": DialogConfig(enable=True, default_timeout=LIFETIME, profiles_with_value=("caller",))}
        for number in numbers:
            peers = [int(host.rpartition(".")[2]) for host in self.network.nodes if host != address(number)]
            self.network.add(number, *peers, sections=config, **keys)
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

    def confirm(self, number: int, *calls: str) -> None:
        for call in calls or ("call1",):
            invite = self.begin(number, call)
            self.dialogs(number).call_answered(invite, answer(invite))
            self.dialogs(number).ack_relayed(request("ACK", call=call, to_tag="t2"))

    def end(self, number: int, call: str = "call1") -> None:
        self.dialogs(number).bye_relayed(request("BYE", call=call, to_tag="t2", cseq=2))

    def calls(self, number: int) -> dict[str, tuple[int, str]]:
        """
        Those that are not over, at a node: state, and the end of the name of their owner.
        """
        return {
            dialog.call_id: (int(dialog.state), dialog.told_by.removesuffix(":5060")[-1:] or str(number))
            for dialog in self.dialogs(number).all()
            if not dialog.is_over
        }

    def watch_ends(self, *numbers: int) -> list[Ends]:
        found = [Ends() for _ in numbers]
        for number, each in zip(numbers, found, strict=True):
            self.dialogs(number).watch(IDialogListener(each))
        return found

    def cut(self, number: int, *others: int) -> None:
        """
        Nothing gets from one to the others, and nothing back.
        """
        for other in others:
            self.network.cuts |= {(address(number), address(other)), (address(other), address(number))}


class DialogClusterTests(DialogClusterTestCase):
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

    def test_its_ack_may_come_by_another_node(self) -> None:
        """
        Who has seen the 2xx waits for it, and tells nobody of the 2xx before.
        """
        self.join(1, 2, 3)
        invite = self.begin(1)
        self.dialogs(1).call_answered(invite, answer(invite, ("<sip:beyond.example;lr>",)))
        self.assertEqual(self.states(1, 2, 3), [[3], [1], [1]])
        (dialog,) = self.dialogs(1).all()
        ours = f"<sip:192.0.2.50;lr{did_text(dialog.id)}>"
        for number, routes, expected in (
            (3, ("<sip:outer.example;lr>", ours), 1),  # it passes on its way to the first
            (2, (ours, ours, "<sip:beyond.example;lr>"), 4),
        ):
            ack = request("ACK", to_tag="t2", target="sip:bob@198.51.100.20", routes=routes)
            self.dialogs(number).ack_relayed(ack)
            self.assertEqual(self.states(2, 3), [[expected]] * 2)
        callees = [self.dialogs(number).all()[0].callee for number in (1, 2, 3)]
        self.assertEqual(callees, [dialog.callee] * 3)
        self.assertEqual(dialog.callee, Leg("t2", "0", "<sip:beyond.example;lr>", "sip:bob@198.51.100.20"))
        self.assertEqual(self.calls(1), {"call1": (4, "2")})
        ends = self.watch_ends(1, 2, 3)
        self.network.pump(LIFETIME + 1, 0.5)
        self.assertEqual([len(each.take()) for each in ends], [0, 1, 0])

    def test_a_real_one(self) -> None:
        """
        The call of two phones through the proxies, and then an address that moves from one node to the other.
        """
        self.join(1, 2)
        first, second = (self.network.nodes[address(number)] for number in (1, 2))
        domain = address(1)
        register = "From: <sip:bob@127.0.0.1>;tag=9\r\nTo: <sip:bob@127.0.0.1>\r\nCall-ID: r1\r\n"
        first.receive(message("REGISTER", "bob", f"sip:{domain}", register), *BOB)
        heads = HEADS.replace("bob@example.org", f"bob@{domain}")
        sent = first.receive(message("INVITE", "alice", f"sip:bob@{domain}", heads.format(tag="")), *ALICE)
        invite = next(data for data, to in sent if to == BOB)
        sent = first.receive(bobs_answer(invite.decode(), 200), *BOB)
        answered = next(data for data, to in sent if to == ALICE).decode()
        self.assertEqual(self.states(1, 2), [[3], [1]])
        found = re.search(r"^Record-Route: (.*)\r\n", answered, re.MULTILINE)
        assert found is not None
        for method, expected in (("ACK", 4), ("BYE", 5)):
            lines = f"Route: {found[1].replace(address(1), address(2))}\r\n" + heads.format(tag=";tag=2")
            sent = second.receive(message(method, "alice", f"sip:bob@{BOB[0]}:{BOB[1]}", lines), *ALICE)
            self.assertIn(BOB, [to for _, to in sent])
            self.assertEqual(self.states(1, 2), [[expected], [expected]])
            callees = [self.dialogs(number).all()[0].callee for number in (1, 2)]
            self.assertEqual(callees, [Leg("2", "0", "", f"sip:bob@{BOB[0]}:{BOB[1]}")] * 2)

    def test_an_ack_here_and_there_leaves_each_its_owner(self) -> None:
        self.join(1, 2)
        invite = self.begin(1)
        self.dialogs(1).call_answered(invite, answer(invite))
        (dialog,) = self.dialogs(1).all()
        self.network.pump(1.5)
        for number in (1, 2):
            ack = request("ACK", to_tag="t2", routes=(f"<sip:192.0.2.50;lr{did_text(dialog.id)}>",))
            self.dialogs(number).ack_relayed(ack)
        self.assertEqual(self.states(1, 2), [[4], [4]])
        self.assertEqual([self.dialogs(number).all()[0].told_by for number in (1, 2)], ["", ""])
        self.network.pump(LIFETIME + 1, 0.5)
        self.network.pump(10, 0.5)
        self.assertEqual(self.states(1, 2), [[], []])

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
        ends = self.watch_ends(2, 3)
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


PING = 10.0


class RepairTests(DialogClusterTestCase):
    """
    What somebody has missed he gets to know; beginnings, and ends too.
    """

    def setUp(self) -> None:
        super().setUp()
        self.join(1, 2, 3, ping_interval=PING)

    def test_after_a_partition_all_know_the_same(self) -> None:
        self.confirm(1, "over1", "stays1")
        self.confirm(2, "over2", "stays2")
        self.network.pump(1)
        self.cut(1, 2, 3)
        self.confirm(1, "new1", "short1")
        self.confirm(3, "new3")
        for number, call in ((1, "over1"), (1, "short1"), (2, "over2")):
            self.end(number, call)
        self.network.pump(5 * PING, 0.5)
        self.assertEqual(set(self.calls(1)), {"stays1", "new1", "over2", "stays2"})
        self.assertEqual(set(self.calls(2)), {"over1", "stays1", "stays2", "new3"})
        self.network.cuts.clear()
        self.network.pump(3 * PING, 0.5)
        expected = {"stays1": (4, "1"), "new1": (4, "1"), "stays2": (4, "2"), "new3": (4, "3")}
        for number in (1, 2, 3):
            self.assertEqual(self.calls(number), expected, number)
        ends = self.watch_ends(1, 2, 3)
        self.network.pump(LIFETIME, 0.5)
        over = ("changed", DialogState.DELETED, Origin.LOCAL)
        self.assertEqual([each.take() for each in ends], [[over] * 2, [over], [over]], "each by its owner")

    def test_limits_after_a_partition_and_for_the_calls_of_a_killed_node(self) -> None:
        """
        While they are apart each side counts what it has heard of; then all count all. The calls of a killed node count
        until its heir has ended them.
        """

        def may_call(number: int, call: str) -> bool:
            invite = request(call=call)
            try:
                self.dialogs(number).limit(Routed(invite), "caller", "alice", 2, 403)  # type: ignore[arg-type]
            except RequestRefused as refusal:
                self.assertEqual(refusal.status, 403)
                return False
            self.confirm(number, call)
            self.network.pump(1)
            return True

        def counts(*numbers: int) -> list[int]:
            return [self.dialogs(number).profile_size("caller", "alice") for number in numbers]

        self.assertTrue(may_call(1, "before"))
        self.cut(1, 2, 3)
        self.assertEqual([may_call(number, f"apart{number}") for number in (1, 2, 3)], [True, True, False])
        self.assertEqual(counts(1, 2, 3), [2, 2, 2])
        self.network.pump(3 * PING, 0.5)
        self.network.cuts.clear()
        self.network.pump(3 * PING, 0.5)
        self.assertEqual(counts(1, 2, 3), [3, 3, 3])
        self.end(2, "apart2")
        self.network.pump(1)
        self.assertEqual([may_call(number, f"more{number}") for number in (1, 2, 3)], [False] * 3)
        self.network.dead.add(address(1))
        self.network.pump(3 * PING, 0.5)
        self.assertEqual([may_call(number, f"late{number}") for number in (2, 3)], [False] * 2)
        self.network.pump(LIFETIME, 0.5)
        self.assertEqual(counts(2, 3), [0, 0])
        self.assertTrue(may_call(3, "anew"))

    def test_what_a_killed_node_told_some_all_get(self) -> None:
        """
        Its beginnings and its ends: one survivor tells the other, and has its timers.
        """
        self.confirm(1, "over")
        self.network.pump(1)
        self.network.cuts.add((address(1), address(3)))
        self.confirm(1, "begun")
        self.end(1, "over")
        self.network.pump(0.5)
        self.assertEqual((set(self.calls(2)), set(self.calls(3))), ({"begun"}, {"over"}))
        self.network.dead.add(address(1))
        self.network.pump(6 * PING, 0.5)
        self.assertEqual([self.calls(2), self.calls(3)], [{"begun": (4, "1")}] * 2)
        ends = self.watch_ends(2, 3)
        self.network.pump(LIFETIME, 0.5)
        self.assertEqual(sum(len(each.take()) for each in ends), 1)
        self.assertEqual(self.states(2, 3), [[], []])

    def test_what_comes_late_of_a_lost_node_the_heir_passes_on(self) -> None:
        self.network.dead.add(address(1))
        self.network.pump(6 * PING, 0.5)
        body = self.message_of_a_call_at(1)
        for number in (2, 3):
            node = self.network.nodes[address(number)].node.cluster
            assert node is not None and node.dialog is not None
            sender = next(each for each in node.service.membership.nodes() if each.name.host == address(1))
            heir = node.service.membership.passes_on(str(sender.name))
            if heir:
                node.dialog.message_received(ChannelMessage("dialog", sender, SOURCE, "application/json", body, 1))
        self.network.pump(1)
        self.assertEqual([self.calls(2), self.calls(3)], [{"late": (4, "1")}] * 2)

    def message_of_a_call_at(self, number: int) -> bytes:
        """
        What it would have told others of one.
        """
        self.confirm(number, "late")
        (dialog,) = self.dialogs(number).all()
        cluster = self.network.nodes[address(number)].node.cluster
        assert cluster is not None and cluster.dialog is not None
        put: list[Any] = []
        self.patch(cluster.dialog._replicator, "put", lambda channel, key, change: put.append(change))
        cluster.dialog.dialog_changed(dialog, Origin.LOCAL)
        return cluster.dialog.encode(put[0])

    def test_a_newcomer_gets_each_once(self) -> None:
        for number in (1, 2, 3):
            self.confirm(number, f"call{number}", f"over{number}")
            self.end(number, f"over{number}")
        self.network.pump(90, 0.5)  # since then nobody counts as new any more
        self.network.take_requests()
        self.join(4, ping_interval=PING)
        self.network.pump(3)
        told = [body for _, to, body in self.network.take_requests("dialog") if to == address(4)]
        begun = [body for body in told if b'"callid":"call' in body]
        self.assertEqual((len(begun), len(told)), (3, 3 + 3 + 1), "the ends, too, and the end of all")
        self.assertEqual(self.calls(4), {f"call{number}": (4, str(number)) for number in (1, 2, 3)})
        cluster = self.network.nodes[address(4)].node.cluster
        assert cluster is not None and cluster.dialog is not None
        self.assertTrue(cluster.dialog.newcomer.is_complete)

    def test_who_was_started_anew_has_its_own_calls_again(self) -> None:
        self.confirm(1, "mine")
        self.confirm(2, "theirs")
        self.network.pump(1)
        self.join(1, ping_interval=PING)
        self.network.pump(3)
        self.assertEqual(self.calls(1), {"mine": (4, "1"), "theirs": (4, "2")})
        mine = next(dialog for dialog in self.dialogs(1).all() if dialog.call_id == "mine")
        self.assertEqual(mine.told_by, "")
        ends = self.watch_ends(1, 2, 3)
        self.network.pump(LIFETIME, 0.5)
        self.assertEqual([len(each.take()) for each in ends], [1, 1, 0])
