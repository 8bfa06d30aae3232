"""
What policies find as node.dmq.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from sipdmq.core.policy import DefaultPolicy
from sipdmq.dmq.functions import DMQFunctions, KDMQRequest
from sipdmq.errors import RequestRefused
from sipdmq.records import ClusterNode
from sipdmq.sip.message import Request, Response
from tests.dmq_network import address
from tests.test_dmq_service import ServiceTestCase, kdmq

EXAMPLE = Path(__file__).parents[1] / "etc" / "cluster" / "policy.py"


class Policy(DefaultPolicy):
    """
    Does with each KDMQ of channel C{mychan} what a test wants.
    """

    def __init__(self) -> None:
        self.react: Callable[[KDMQRequest, Any], Any] = lambda request, node: None
        self.seen: list[bytes] = []
        self.went_on = 0

    def route_kdmq(self, request: KDMQRequest, node: Any) -> Any:
        if request.kdmq.channel == "mychan":
            self.seen.append(request.kdmq.body)
            result = self.react(request, node)
            self.went_on += 1
            return result
        return None


class RoutingTests(ServiceTestCase):
    """
    A policy that has a method C{route_kdmq}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.policy = Policy()
        self.network.add(1, policy=self.policy)
        self.network.dmq(1).register_channel("mychan", lambda message: 202)

    def status(self, react: Callable[[KDMQRequest, Any], Any], channel: str = "mychan") -> int:
        self.policy.react = react
        response = self.ask(1, kdmq(channel, branch=str(len(self.policy.seen))))
        return 0 if response is None else response.status

    def test_what_it_does_not_decide_on_is_handled(self) -> None:
        self.assertEqual(self.status(lambda request, node: None), 202)
        self.assertEqual(self.policy.seen, [b"x"])

    def test_handle_and_process_end_the_routing(self) -> None:
        """
        Kamailio: dmq_handle_message() without C{continue} ends the script.
        """
        self.assertEqual(self.status(lambda request, node: node.dmq.handle_message(request)), 202)
        self.assertEqual(self.status(lambda request, node: node.dmq.process_message(request)), 202)
        self.assertEqual(self.policy.went_on, 0)

    def test_unless_it_is_to_continue(self) -> None:
        found: list[bool] = []
        self.assertEqual(self.status(lambda request, node: found.append(node.dmq.handle_message(request, True))), 202)
        self.assertEqual(self.status(lambda request, node: found.append(node.dmq.process_message(request, True))), 202)
        self.assertEqual((found, self.policy.went_on), ([True, True], 2))

    def test_a_channel_that_is_not_there(self) -> None:
        self.network.nodes[address(1)].node.cluster.service.channels._peers.pop("mychan")
        self.assertEqual(self.status(lambda request, node: node.dmq.handle_message(request)), 404)

    def test_a_refusal(self) -> None:
        def refuse(request: KDMQRequest, node: Any) -> None:
            raise RequestRefused(488)

        self.assertEqual(self.status(refuse), 488)

    def test_one_that_breaks(self) -> None:
        self.assertEqual(self.status(lambda request, node: 1 // 0), 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_one_that_waits(self) -> None:
        async def wait(request: KDMQRequest, node: Any) -> None:
            await waiting
            node.dmq.handle_message(request)

        waiting: Deferred[None] = Deferred()
        self.assertEqual(self.status(wait), 0)
        waiting.callback(None)
        ((data, _),) = self.network.nodes[address(1)].take_sent()
        self.assertIn(b" 202 ", data)

    def test_deciding_twice(self) -> None:
        def twice(request: KDMQRequest, node: Any) -> None:
            node.dmq.handle_message(request, True)
            node.dmq.handle_message(request, True)

        self.assertEqual(self.status(twice), 202)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class FunctionTests(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.network.add(1)
        self.network.add(2, 1)
        self.network.pump(1)
        self.dmq = self.network.dmq(1)

    def test_messages_that_were_made_here(self) -> None:
        got: list[tuple[bytes, Any]] = []
        self.dmq.register_channel("mychan", lambda message: got.append((message.body, message.sender)))
        reply = self.dmq.process_custom("mychan", "sip:127.0.0.2:5060", "now", "text/plain")
        self.assertEqual(reply.status, 200)
        self.assertTrue(self.dmq.handle_custom("mychan", "sip:127.0.0.77:5060", "queued", "text/plain"))
        self.assertFalse(self.dmq.handle_custom("nobody", "sip:127.0.0.2:5060", "x"))
        self.assertEqual(self.dmq.process_custom("nobody", "sip:127.0.0.2:5060", "x").status, 404)
        self.assertEqual([body for body, _ in got], [b"now", b"queued"])
        self.assertIsInstance(got[0][1], ClusterNode)
        self.assertIsNone(got[1][1])

    def test_nodes(self) -> None:
        self.dmq.change_status("sip:127.0.0.2:5060", "disabled")
        self.assertEqual(self.network.statuses(1), ["DISABLED"])
        self.assertRaises(ValueError, self.dmq.change_status, "sip:127.0.0.2:5060", "asleep")
        self.dmq.remove_node("sip:127.0.0.2:5060")
        self.assertEqual(self.network.statuses(1), [])
        self.dmq.remove_node("sip:127.0.0.2:5060")
        self.dmq.add_node("sip:127.0.0.2:5060")
        self.network.pump(1)
        self.assertEqual(self.network.statuses(1), ["ACTIVE"])

    def test_what_is_no_node(self) -> None:
        self.assertRaises(ValueError, self.dmq.add_node, "127.0.0.2")
        self.assertRaises(LookupError, self.dmq.send_message, "mychan", "sip:127.0.0.2:5070", "x")
        self.assertRaises(LookupError, self.dmq.add_node, "sip:nowhere.example:5060")
        self.assertRaises(ValueError, self.dmq.bcast_message, "no channel", "x")

    def test_leave_tells_all(self) -> None:
        leaving = self.dmq.leave()
        self.network.deliver()
        self.successResultOf(leaving)
        self.assertEqual(self.network.statuses(2), ["DISABLED"])

    def test_sl_send_sends_once(self) -> None:
        self.network.add(3, 1, sl_send=True)
        self.network.pump(1)
        self.network.dead.add(address(1))
        self.network.take_requests()
        sending = self.network.dmq(3).bcast_message("mychan", "x")
        self.assertEqual(self.successResultOf(sending), 2)
        self.network.pump(5)
        self.assertEqual(len(self.network.take_requests("mychan")), 2)

    def test_events(self) -> None:
        events: list[tuple[str, str]] = []
        from sipdmq.dmq.events import EventCallback

        self.network.nodes[address(1)].node.cluster.service.membership.watch(
            EventCallback(lambda name, node: events.append((name, node.name.host)))
        )
        self.dmq.change_status("sip:127.0.0.2:5060", "not_active")
        self.dmq.change_status("sip:127.0.0.2:5060", "active")
        self.dmq.change_status("sip:127.0.0.2:5060", "disabled")
        host = address(2)
        self.assertEqual(events, [("dmq:peer-down", host), ("dmq:peer-up", host), ("dmq:peer-disabled", host)])


class Replicating(DefaultPolicy):
    async def route(self, request: Any, node: Any) -> None:
        self.is_copy = node.dmq.is_from_node(request)
        await super().route(request, node)
        self.copies = node.dmq.t_replicate(request)


class ReplicateTests(ServiceTestCase):
    """
    WIRE §12.
    """

    def test_a_copy_of_what_was_received(self) -> None:
        policy = Replicating()
        self.network.add(1, policy=policy)
        self.network.add(2, 1)
        self.network.pump(1)
        self.network.seen.clear()
        register = (
            b"REGISTER sip:localhost SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK1\r\n"
            b"Max-Forwards: 70\r\nFrom: <sip:alice@localhost>;tag=1\r\nTo: <sip:alice@localhost>\r\nCall-ID: c\r\n"
            b"CSeq: 1 REGISTER\r\nContact: <sip:alice@198.51.100.7:5062>\r\nContent-Length: 0\r\n\r\n"
        )
        self.network.nodes[address(1)].reactor.ports[0].protocol.datagramReceived(register, ("198.51.100.7", 5062))
        self.network.deliver()
        (copy,) = [message for _, to, message in self.network.seen if isinstance(message, Request)]
        self.assertEqual([via.host for via in copy.vias], [address(1), "198.51.100.7"])
        self.assertEqual((copy.max_forwards, copy.uri_text), (69, "sip:localhost"))
        self.assertEqual(self.network.nodes[address(2)].node.store.count(), 1)
        self.assertTrue(policy.is_copy, "the second node has the same policy here")
        self.assertEqual(policy.copies, 0, "and sends it to nobody")


class ExampleTests(ServiceTestCase):
    """
    The policy in etc/cluster.
    """

    def test_it_uses_every_function(self) -> None:
        text = EXAMPLE.read_text()
        functions = {name for name in vars(DMQFunctions) if not name.startswith("_")}
        functions -= {"route_by", "has_sent"}  # the node's own
        self.assertEqual([name for name in sorted(functions) if f"dmq.{name}(" not in text], [])
        self.assertGreater(len(functions), 13)

    def test_each_command(self) -> None:
        policies = []
        for number, peers in ((1, ()), (2, (1,))):
            policy = _example()
            policies.append(policy)
            self.network.add(number, *peers, policy=policy)
        self.network.pump(1)
        for number in (1, 2):
            self.command(number, "listen", "")
        self.assertEqual(self.command(1, "tell", "one"), "1 nodes have it")
        self.assertEqual(policies[1].word, "one")
        self.assertEqual(self.command(1, "tell-2", "two"), "taken")
        self.assertEqual(policies[1].word, "two")
        self.assertEqual(self.command(1, "here", "three"), "the word is three")
        self.command(1, "add", "")
        self.command(1, "disable", "")
        nodes = "sip:127.0.0.1:5060=ACTIVE sip:127.0.0.2:5060=ACTIVE"
        self.assertEqual(self.command(1, "nodes", ""), f"{nodes} sip:127.0.0.4:5060=DISABLED")
        self.command(1, "remove", "")
        self.assertEqual(self.command(1, "nodes", ""), nodes)

    def command(self, number: int, name: str, word: str) -> str:
        self._count = getattr(self, "_count", 0) + 1
        node = self.network.nodes[address(number)]
        message = (
            f"MESSAGE sip:cluster-{name}@localhost SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.3:5099;branch=z9hG4bKm{self._count}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:admin@localhost>;tag=1\r\nTo: <sip:cluster@localhost>\r\nCall-ID: m{self._count}\r\n"
            f"CSeq: 1 MESSAGE\r\nContent-Length: {len(word)}\r\n\r\n{word}"
        )
        self.network.seen.clear()
        node.reactor.ports[0].protocol.datagramReceived(message.encode(), ("127.0.0.3", 5099))
        self.network.deliver()
        (answer,) = [message for _, to, message in self.network.seen if to == "127.0.0.3"]
        assert isinstance(answer, Response)
        return answer.reason


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("cluster_policy", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Policy()
