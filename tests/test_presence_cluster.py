"""
Subscriptions of a cluster: exactly one NOTIFY for a change, and a survivor that goes on when a node is gone.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.records import Origin
from sipdmq.sip.message import Request
from sipdmq.sip.parser import parse_message
from tests.dmq_network import DMQNetwork, address
from tests.fakes import request_bytes
from tests.memory_node import MemoryNode
from tests.watchers import PRESENCE, FakeState, Watcher, plant

BOB = "bob@localhost"


class PresenceNetwork(DMQNetwork):
    """
    @ivar states: what each node knows, by address.
    @ivar watchers: by address and port.
    @ivar cut: pairs of nodes between which nothing arrives.
    @ivar loss: of datagrams between nodes, how many of a hundred are lost.
    @ivar is_planted: the state of presentities is what the test says, instead of what is published.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        super().__init__(case)
        self.states: dict[str, FakeState] = {}
        self.watchers: dict[tuple[str, int], Watcher] = {}
        self.cut: set[frozenset[str]] = set()
        self.loss = 0
        self.random = random.Random(1)
        self.is_planted = True

    def start(self, number: int, *peers: int, **keys: Any) -> MemoryNode:
        node = self.add(number, *peers, presence=PRESENCE, **{"ping_interval": 10.0, "timeout": 2.0, **keys})
        if self.is_planted:
            self.states[address(number)] = plant(node, FakeState("presence", "dialog"))
        return node

    def watcher(self, number: int, **given: Any) -> Watcher:
        watcher = Watcher(f"127.0.1.{number}", 5060, f"w{number}", BOB, **given)
        self.watchers[watcher.address] = watcher
        return watcher

    def deliver(self) -> None:
        while True:
            on_the_way = []
            for host, node in self.nodes.items():
                sent = node.take_sent()
                if host not in self.dead:
                    on_the_way += [(host, data, to) for data, to in sent]
            if not on_the_way:
                return
            for host, data, to in on_the_way:
                self.seen.append((host, to[0], parse_message(data)))
                self._arrive(host, data, to)

    def _arrive(self, host: str, data: bytes, to: tuple[str, int]) -> None:
        receiver = self.nodes.get(to[0])
        watcher = self.watchers.get(to)
        if receiver is not None:
            is_lost = self.random.randrange(100) < self.loss
            if to[0] not in self.dead and frozenset((host, to[0])) not in self.cut and not is_lost:
                receiver.reactor.ports[0].protocol.datagramReceived(data, (host, 5060))
        elif watcher is not None:
            answer = watcher.receive(data)
            if answer is not None:
                self.nodes[host].reactor.ports[0].protocol.datagramReceived(answer, watcher.address)

    def send(self, watcher: Watcher, number: int, expires: int = 600, **changes: Any) -> int:
        """
        A watcher sends its next SUBSCRIBE to a node.
        """
        given = {"from_": f"<sip:{watcher.user}@localhost>;tag=w{watcher.user}", **changes}
        data = watcher.subscribe(expires, **given)
        before = len(watcher.responses)
        self.nodes[address(number)].reactor.ports[0].protocol.datagramReceived(data, watcher.address)
        self.deliver()
        self.pump(0.2)
        return watcher.responses[before].status if len(watcher.responses) > before else 0

    def publish(self, number: int, body: str) -> None:
        """
        The state of bob changes at one node, and the others hear of it.
        """
        for host, state in self.states.items():
            is_here = host == address(number)
            if is_here or (host not in self.dead and frozenset((host, address(number))) not in self.cut):
                state.set(body, BOB, "presence", Origin.LOCAL if is_here else Origin.REPLICATED)

    def kill(self, number: int) -> None:
        """
        A node is gone without a word.
        """
        self.dead.add(address(number))

    def restart(self, number: int, *peers: int) -> MemoryNode:
        """
        It comes back, and remembers nothing.
        """
        self.dead.discard(address(number))
        del self.nodes[address(number)]
        return self.start(number, *peers)

    def owners(self, watcher: Watcher) -> dict[str, str]:
        """
        Who has a subscription, in the eyes of each node that is alive.
        """
        tag = watcher.to.rpartition("tag=")[2]
        found = {}
        for host, node in self.nodes.items():
            if host not in self.dead:
                record = node.node.watching.table.get(tag)
                found[host] = "" if record is None else record.owner
        return found


class ClusterTestCase(SynchronousTestCase):
    nodes = 3
    timeout = 2.0
    is_planted = True

    def setUp(self) -> None:
        self.network = PresenceNetwork(self)
        self.network.is_planted = self.is_planted
        self.network.start(1, timeout=self.timeout)
        for number in range(2, self.nodes + 1):
            self.network.start(number, 1, timeout=self.timeout)
        self.network.pump(15)

    def uri(self, number: int) -> str:
        return f"sip:{address(number)}:5060"

    def subscribed(self, number: int, at: int, **given: Any) -> Watcher:
        """
        A watcher that has been told what there is.
        """
        watcher = self.network.watcher(number, **given)
        self.assertEqual(self.network.send(watcher, at), 200)
        self.network.pump(2)
        watcher.told()
        return watcher

    def assert_owner(self, watcher: Watcher, number: int) -> None:
        found = self.network.owners(watcher)
        self.assertEqual(set(found.values()), {self.uri(number)}, found)


class OneNotifyTests(ClusterTestCase):
    def test_one_notify_wherever_the_change_comes_from(self) -> None:
        watchers = [self.subscribed(number, 1 + number % 3) for number in range(6)]
        for at in (1, 2, 3):
            self.network.publish(at, f"<at{at}/>")
            self.network.pump(2)
            self.assertEqual([watcher.told() for watcher in watchers], [[f"<at{at}/>"]] * 6)

    def test_every_node_knows_all(self) -> None:
        watcher = self.subscribed(1, 2)
        self.assert_owner(watcher, 2)
        self.network.send(watcher, 2, 0)
        self.network.pump(1)
        numbers = [node.node.snapshot()["subscriptions.live"] for node in self.network.nodes.values()]
        self.assertEqual(numbers, [0, 0, 0])

    def test_nothing_of_it_goes_to_a_kamailio(self) -> None:
        """
        Whatever answers a hello as none of ours would.
        """
        kamailio: Any = _Kamailio()
        self.network.nodes["127.0.0.9"] = kamailio
        kamailio.say_so("127.0.0.1")
        self.network.pump(15)
        self.assertEqual(self.network.nodes[address(1)].node.snapshot()["dmq.nodes_active"], 3)
        self.subscribed(1, 1)
        self.network.pump(5)
        channels = {channel for channel, _ in kamailio.got}
        self.assertEqual(channels - {"presence"}, {"notification_peer"})
        self.assertEqual([body for _, body in kamailio.got if b"subscription" in body], [])

    def test_winfo_tells_of_watchers_at_all_nodes(self) -> None:
        owner = Watcher("127.0.1.77", 5060, "bob", BOB, "presence.winfo")
        self.network.watchers[owner.address] = owner
        self.assertEqual(self.network.send(owner, 3), 200)
        self.network.pump(2)
        owner.told()
        self.subscribed(1, 1)
        (told,) = owner.told()
        self.assertIn("sip:w1@localhost", told)


class PublishedTests(ClusterTestCase):
    """
    With what phones publish, and the channel that carries it.
    """

    is_planted = False

    def publish(self, number: int, basic: str, cseq: int, etag: str = "") -> str:
        body = (
            '<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:bob@localhost">'
            f'<tuple id="t1"><status><basic>{basic}</basic></status></tuple></presence>'
        ).encode()
        phone = Watcher("127.0.1.99", 5060)
        self.network.watchers[phone.address] = phone
        headers = ["Event: presence", "Content-Type: application/pidf+xml"]
        if etag:
            headers.append(f"SIP-If-Match: {etag}")
        data = request_bytes(
            "PUBLISH", uri=f"sip:{BOB}", via=f"SIP/2.0/UDP 127.0.1.99;branch=z9hG4bKp{cseq}", to=f"<sip:{BOB}>",
            from_=f"<sip:{BOB}>;tag=p", call_id="p", cseq=f"{cseq} PUBLISH", headers=headers, body=body,
        )  # fmt: skip
        self.network.nodes[address(number)].reactor.ports[0].protocol.datagramReceived(data, phone.address)
        self.network.pump(2)
        (answer,) = phone.responses
        self.assertEqual(answer.status, 200)
        return answer.headers.first["sip-etag"]

    def test_one_notify_for_each_publication(self) -> None:
        watchers = [self.subscribed(number, 1 + number % 3) for number in range(6)]
        etag = self.publish(2, "open", 1)
        told = [watcher.told() for watcher in watchers]
        self.assertEqual([len(each) for each in told], [1] * 6)
        self.assertTrue(all("<basic>open</basic>" in each[0] for each in told), told)
        self.publish(3, "closed", 2, etag)  # at another node
        told = [watcher.told() for watcher in watchers]
        self.assertEqual([len(each) for each in told], [1] * 6)
        self.assertTrue(all("<basic>closed</basic>" in each[0] for each in told), told)


class LossTests(ClusterTestCase):
    timeout = 8.0

    def test_with_every_fifth_datagram_lost(self) -> None:
        self.network.loss = 20
        watchers = [self.subscribed(number, 1 + number % 3) for number in range(6)]
        self.network.pump(20)
        for number, watcher in enumerate(watchers):
            self.assert_owner(watcher, 1 + number % 3)
            watcher.told()
        self.network.publish(2, "<one/>")
        self.network.pump(5)
        self.assertEqual([watcher.told() for watcher in watchers], [["<one/>"]] * 6)


class _Kamailio:
    """
    Answers node lists as Kamailio 5.6.3 does, and 404 to what it has no channel for.
    """

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.reactor = self
        self.ports = [self]
        self.protocol = self
        self._sent: list[tuple[bytes, tuple[str, int]]] = []

    def advance(self, seconds: float) -> None:
        """
        It has no timers.
        """

    def take_sent(self) -> list[tuple[bytes, tuple[str, int]]]:
        sent, self._sent = self._sent, []
        return sent

    def say_so(self, host: str) -> None:
        body = b"sip:127.0.0.9:5060;status=active\r\n"
        self._sent.append(
            (
                (
                    f"KDMQ sip:notification_peer@{host}:5060 SIP/2.0\r\n"
                    "Via: SIP/2.0/UDP 127.0.0.9;branch=z9hG4bKk1\r\n"
                    f"To: <sip:notification_peer@{host}:5060>\r\n"
                    "From: <sip:notification_peer@127.0.0.9:5060>;tag=k\r\nCSeq: 10 KDMQ\r\nCall-ID: k1\r\n"
                    f"Content-Length: {len(body)}\r\nUser-Agent: kamailio (5.6.3 (x86_64/linux))\r\n"
                    "Max-Forwards: 1\r\nContent-Type: text/plain\r\n\r\n"
                ).encode()
                + body,
                (host, 5060),
            )
        )

    def datagramReceived(self, data: bytes, address: tuple[str, int]) -> None:
        message = parse_message(data)
        if not isinstance(message, Request):
            return
        channel = message.uri_text[4:].partition("@")[0]
        self.got.append((channel, message.body))
        is_list = channel == "notification_peer"
        body = b"sip:127.0.0.9:5060;status=active\r\nsip:127.0.0.1:5060;status=active\r\n" if is_list else b""
        first = message.headers.first
        head = f"SIP/2.0 {'200 OK' if is_list else '404 User Not Found'}\r\n" + "".join(
            f"{name}: {first[name.lower()]}\r\n" for name in ("Via", "From", "To", "Call-ID", "CSeq")
        )
        head += f"Server: kamailio (5.6.3 (x86_64/linux))\r\nContent-Length: {len(body)}\r\n\r\n"
        self._sent.append((head.encode() + body, address))


class TakeoverTests(ClusterTestCase):
    def test_a_survivor_goes_on_in_the_same_dialog(self) -> None:
        watcher = self.subscribed(1, 1)
        dialog = (watcher.call_id, watcher.to)
        self.network.kill(1)
        self.network.pump(20)  # two ping intervals
        (notify,) = watcher.notifies
        host = notify.contacts[0].uri.host  # type: ignore[union-attr]
        self.assertIn(host, ("127.0.0.2", "127.0.0.3"))
        self.assertEqual((notify.call_id, notify.headers.first["from"]), dialog)
        self.assertEqual(notify.cseq.number, 1001)
        watcher.told()
        self.network.publish(2, "<later/>")
        self.network.pump(2)
        self.assertEqual(watcher.numbers(), [1002])
        self.assertEqual(watcher.told(), ["<later/>"])
        self.assertEqual(self.network.send(watcher, int(host[-1])), 200)
        self.network.pump(1)
        self.assertEqual(watcher.numbers(), [1003])

    def test_each_survivor_takes_its_share(self) -> None:
        watchers = [self.subscribed(number, 1) for number in range(40)]
        self.network.kill(1)
        self.network.pump(20)
        self.assertEqual([len(watcher.notifies) for watcher in watchers], [1] * 40)
        hosts = [watcher.notifies[0].contacts[0].uri.host for watcher in watchers]  # type: ignore[union-attr]
        self.assertGreater(min(hosts.count("127.0.0.2"), hosts.count("127.0.0.3")), 8)

    def test_the_last_one_takes_all_the_others(self) -> None:
        watchers = [self.subscribed(number, 1) for number in range(5)]
        self.network.kill(1)
        self.network.kill(2)
        self.network.pump(25)
        for watcher in watchers:
            self.assert_owner(watcher, 3)
            watcher.told()
        self.network.publish(3, "<alone/>")
        self.network.pump(2)
        self.assertEqual([watcher.told() for watcher in watchers], [["<alone/>"]] * 5)

    def test_a_node_that_says_farewell(self) -> None:
        watcher = self.subscribed(1, 1)
        self.network.nodes[address(1)].service.stopService()
        self.network.pump(1)
        self.network.kill(1)
        self.network.pump(1)
        self.assertEqual(watcher.numbers(), [1001])
        self.assertRegex(watcher.states()[0], "^active;")

    def test_the_last_one_that_says_farewell_ends_them(self) -> None:
        watcher, ended = self.subscribed(1, 1), self.subscribed(2, 3)
        self.network.send(ended, 3, 0)
        last = self.network.nodes[address(3)].node
        for number in (1, 2, 3):
            watcher.told()
            ended.told()
            self.network.nodes[address(number)].service.stopService()
            self.network.pump(2)
            self.network.kill(number)
            self.network.pump(5)
        self.assertEqual(watcher.states(), ["terminated;reason=probation;retry-after=10"])
        self.assertEqual((ended.states(), last.snapshot()["notify.unreachable"]), ([], 0))

    def test_an_heir_that_had_not_heard_of_it(self) -> None:
        for number in range(4):
            watcher = self.subscribed(number, 1)
            tag = watcher.to.rpartition("tag=")[2]
            self.network.nodes[address(2)].node.watching.table.remove(tag)
        self.network.kill(1)
        self.network.pump(45)
        for watcher in self.network.watchers.values():
            self.assertEqual(len(watcher.notifies), 1)

    def test_the_owner_comes_back_and_has_forgotten(self) -> None:
        watcher = self.subscribed(1, 1)
        self.network.kill(1)
        self.network.pump(20)
        self.network.restart(1, 2)
        self.network.pump(20)
        owners = self.network.owners(watcher)
        self.assertEqual(len(set(owners.values())), 1, owners)
        self.assertNotIn(self.uri(1), owners.values())
        watcher.told()
        self.network.publish(1, "<back/>")
        self.network.pump(2)
        self.assertEqual(watcher.told(), ["<back/>"])

    def test_the_owner_is_back_before_anybody_has_noticed(self) -> None:
        watcher = self.subscribed(1, 1)
        self.network.restart(1, 2)
        self.network.pump(20)
        owners = self.network.owners(watcher)
        self.assertEqual(len(set(owners.values())), 1, owners)
        self.assertGreaterEqual(min(watcher.numbers()), 1001)
        watcher.told()
        self.network.publish(2, "<back/>")
        self.network.pump(2)
        self.assertEqual(watcher.told(), ["<back/>"])

    def test_a_refresh_at_another_node_moves_it_there(self) -> None:
        watcher = self.subscribed(1, 1)
        self.assertEqual(self.network.send(watcher, 2), 200)
        self.network.pump(1)
        self.assert_owner(watcher, 2)
        self.assertEqual(watcher.numbers(), [1001])
        self.assertEqual(watcher.target, "sip:127.0.0.2:5060")
        watcher.told()
        self.network.publish(1, "<moved/>")
        self.network.pump(2)
        self.assertEqual(watcher.told(), ["<moved/>"])

    def test_its_end_at_another_node(self) -> None:
        watcher = self.subscribed(1, 1)
        self.assertEqual(self.network.send(watcher, 2, 0), 200)
        self.network.pump(1)
        self.assertEqual(watcher.states(), ["terminated;reason=timeout"])
        self.assertEqual(watcher.numbers(), [1001])
        self.network.publish(1, "<moved/>")
        self.network.pump(2)
        self.assertEqual(len(watcher.told()), 1)

    def test_a_newcomer_learns_of_all(self) -> None:
        watchers = [self.subscribed(number, 1 + number % 3) for number in range(6)]
        before = [self.network.owners(watcher)[address(1)] for watcher in watchers]
        self.network.start(4, 1)
        self.network.pump(15)
        self.assertEqual([self.network.owners(watcher)[address(4)] for watcher in watchers], before)


class PartitionTests(ClusterTestCase):
    nodes = 2

    def setUp(self) -> None:
        super().setUp()
        self.bob = self.subscribed(1, 1)
        self.network.cut.add(frozenset((address(1), address(2))))
        self.network.pump(25)

    def heal(self) -> None:
        self.network.cut.clear()
        self.network.pump(30)
        owners = self.network.owners(self.bob)
        self.assertEqual(len(set(owners.values())), 1, owners)
        self.bob.told()

    def test_doubles_are_possible_while_it_lasts(self) -> None:
        self.bob.told()
        for at in (1, 2):
            self.network.publish(at, "<both/>")
        self.network.pump(2)
        self.assertEqual(self.bob.told(), ["<both/>"] * 2)

    def test_then_there_is_one_owner_again(self) -> None:
        self.heal()
        self.network.publish(1, "<healed/>")
        self.network.pump(2)
        self.assertEqual(self.bob.told(), ["<healed/>"])

    def test_the_watcher_s_own_word_decides(self) -> None:
        self.bob.target = self.uri(1)
        self.assertEqual(self.network.send(self.bob, 1), 200)
        self.network.pump(2)
        highest = max(self.bob.numbers())
        self.heal()
        self.assert_owner(self.bob, 1)
        self.network.publish(2, "<healed/>")
        self.network.pump(2)
        self.assertEqual(len(self.bob.notifies), 1)
        self.assertGreater(self.bob.numbers()[0], max(highest, 1002))

    def test_an_end_on_one_side_is_the_end(self) -> None:
        self.assertEqual(self.network.send(self.bob, 2, 0), 200)
        self.network.pump(2)
        self.network.cut.clear()
        self.network.pump(30)
        self.bob.told()
        self.network.publish(1, "<healed/>")
        self.network.pump(2)
        self.assertEqual(self.bob.told(), [])
