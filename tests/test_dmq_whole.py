"""
Whole nodes with the channel usrloc, and what the keys of the configuration do there.
"""

from __future__ import annotations

import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.names.hosts import Resolver as HostsResolver

from sipdmq.config import NodeConfig, UsrlocConfig
from sipdmq.config.sections import RegistrarConfig
from sipdmq.dmq.events import load_event_callback
from sipdmq.errors import ConfigError
from sipdmq.records import ClusterNode, NodeName, NodeStatus, Protocol
from sipdmq.sip.message import Request, Response
from sipdmq.sip.parser import parse_message
from sipdmq.sip.uri import parse_sip_uri
from tests import memory_node
from tests.dmq_network import address
from tests.test_dmq_service import ServiceTestCase, kdmq

KAMAILIO = "127.0.0.9"
PHONE = "127.0.0.77"
RECORD = (
    b'{"action":1,"aor":"alice","ruid":"k","c":"sip:a@10.0.0.4","received":"","path":"","callid":"c",'
    b'"user_agent":"","instance":"","expires":0,"cseq":1,"flags":0,"cflags":0,"q":-1,"last_modified":0,'
    b'"methods":4294967295,"reg_id":0,"server_id":0}'
)


class WholeTestCase(ServiceTestCase):
    """
    @ivar told: the bodies of what the Kamailio at KAMAILIO was sent, by channel.
    @ivar longest: bytes of the longest datagram among that.
    @ivar answers: what the phone at PHONE got.
    @ivar listed: whom the Kamailio has; L{None}: itself and all nodes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[str, bytes]] = []
        self.longest = 0
        self.answers: list[Response] = []
        self.listed: list[str] | None = None
        self._count = 0

    def kamailio(self, channel: str, body: bytes, to: int = 1) -> None:
        """
        It sends a message.
        """
        self._count += 1
        data = kdmq(channel, body, f"k{self._count}", f"{KAMAILIO}:5060").replace(
            b"Max-Forwards", b"User-Agent: kamailio (6.1.4 (x86_64/Linux))\r\nMax-Forwards"
        )
        self.network.nodes[address(to)].reactor.ports[0].protocol.datagramReceived(data, (KAMAILIO, 5060))
        self.pump(0)

    def pump(self, seconds: float) -> None:
        """
        Let time pass; the Kamailio answers.
        """
        for _ in range(max(1, round(seconds * 10))):
            self.network.pump(0.1 if seconds else 0)
            while self.network.outside:
                outside, self.network.outside = self.network.outside, []
                for data, to in outside:
                    self._arrived(data, to[0])
                self.network.deliver()

    def _arrived(self, data: bytes, host: str) -> None:
        message = parse_message(data)
        if host == PHONE and isinstance(message, Response):
            self.answers.append(message)
        if host != KAMAILIO or not isinstance(message, Request):
            return
        channel = message.uri_text.partition("@")[0].removeprefix("sip:")
        self.told.append((channel, message.body))
        self.longest = max(self.longest, len(data))
        sender = re.search(r"@([0-9.]+)", message.from_.uri.text)
        assert sender is not None
        status, body = "200 OK", b""
        if channel == "notification_peer":
            hosts = self.listed or (KAMAILIO, *self.network.nodes)
            body = b"".join(f"sip:{each}:5060;status=active\r\n".encode() for each in hosts)
        elif channel == "sipdmq":
            status = "404 User Not Found"
        head = data.decode(errors="replace").partition("\r\n\r\n")[0].split("\r\n")
        kept = [line for line in head if line.startswith(("Via:", "From:", "To:", "Call-ID:", "CSeq:"))]
        lines = [f"SIP/2.0 {status}", *kept, "Server: kamailio (6.1.4 (x86_64/Linux))", f"Content-Length: {len(body)}"]
        node = self.network.nodes[sender[1]]
        node.reactor.ports[0].protocol.datagramReceived("\r\n".join([*lines, "", ""]).encode() + body, (KAMAILIO, 5060))

    def kamailio_joins(self, to: int = 1) -> None:
        lines = f"sip:{KAMAILIO}:5060;status=active\r\nsip:{address(to)}:5060;status=active\r\n"
        self.kamailio("notification_peer", lines.encode(), to)

    def request(self, number: int, method: str, user: str, *fields: str) -> Response:
        """
        A phone asks a node.
        """
        self._count += 1
        target = "sip:localhost" if method == "REGISTER" else f"sip:{user}@localhost"
        lines = [
            f"{method} {target} SIP/2.0",
            f"Via: SIP/2.0/UDP {PHONE}:5070;branch=z9hG4bKp{self._count}",
            "Max-Forwards: 70",
            f"From: <sip:{user}@{'localhost' if method == 'REGISTER' else 'elsewhere.example'}>;tag=1",
            f"To: <sip:{user}@localhost>",
            f"Call-ID: p{self._count}",
            f"CSeq: 1 {method}",
            *fields,
            "Content-Length: 0",
        ]
        self.answers.clear()
        port = self.network.nodes[address(number)].reactor.ports[0]
        port.protocol.datagramReceived("\r\n".join([*lines, "", ""]).encode(), (PHONE, 5070))
        self.pump(0)
        while not self.answers:
            self.pump(0.1)
        return self.answers[0]

    def register(self, number: int, user: str, *contacts: str, fields: tuple[str, ...] = ()) -> int:
        lines = [f"Contact: <{contact}>" for contact in contacts]
        return self.request(number, "REGISTER", user, *lines, "Expires: 3600", *fields).status

    def count(self, number: int) -> int:
        count: int = self.network.nodes[address(number)].node.store.count()
        return count


class SizeTests(WholeTestCase):
    """
    Nothing is built that the receiver will not read, and no more than is configured.
    """

    def fill(self, **keys: Any) -> None:
        usrloc = replace(UsrlocConfig(), **keys)
        self.network.add(1, sections={"usrloc": usrloc})
        for number in range(300):
            path = f"Path: <sip:edge{'x' * 600}.example.org;lr>"
            status = self.register(1, f"user{number}", f"sip:u@10.0.0.9:{number + 1}", fields=("Supported: path", path))
            self.assertEqual(status, 200)

    def synced(self) -> list[bytes]:
        self.pump(90)  # what was changed lately is told to a newcomer unasked
        self.kamailio_joins()
        self.pump(1)
        self.told.clear()
        self.kamailio("usrloc", b'{"action":3}')
        self.pump(3)
        bodies = [body for channel, body in self.told if channel == "usrloc" and b'"aor"' in body]
        self.assertEqual(sum(body.count(b'"aor"') for body in bodies), 300)
        return bodies

    def test_of_messages_to_a_kamailio(self) -> None:
        self.fill(batch_msg_contacts=150)
        bodies = self.synced()
        self.assertGreater(max(body.count(b'"aor"') for body in bodies), 20)
        self.assertGreater(self.longest, 25_000)
        self.assertLess(self.longest, 32_000)

    def test_batch_msg_contacts(self) -> None:
        self.fill()
        self.assertLessEqual(max(body.count(b'"aor"') for body in self.synced()), 50)

    def test_batch_msg_size(self) -> None:
        self.fill(batch_msg_size=5000)
        self.assertLess(max(map(len, self.synced())), 5000)

    def test_among_ourselves(self) -> None:
        self.fill(batch_msg_contacts=150)
        self.network.seen.clear()
        self.network.add(2, 1, sections={"usrloc": UsrlocConfig()})
        self.pump(3)
        self.assertEqual(self.count(2), 300)
        longest = max(len(body) for _, _, body in self.network.take_requests("usrloc"))
        self.assertGreater(longest, 32_000)
        self.assertLess(longest, 60_000)


class TurnTests(WholeTestCase):
    """
    A Kamailio that is nearly full is joined by one after the other.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(random, "random", lambda: 0.5)
        self.listed = [KAMAILIO, *(f"127.0.1.{number}" for number in range(1, 24))]
        self.network.add(1, addresses=(f"sip:{KAMAILIO}:5060",))
        self.pump(0.2)

    def lists(self) -> set[bool]:
        """
        Of the lists that it was sent since this was asked last: whether this node is in them.
        """
        told, self.told = self.told, []
        own = f"sip:{address(1)}:5060;status=active".encode()
        return {own in body for channel, body in told if channel == "notification_peer"}

    def test_it_asks_waits_for_its_turn_and_asks_again(self) -> None:
        self.assertEqual(self.lists(), {False})
        self.pump(2)
        self.assertEqual(self.lists(), set())
        self.pump(1)
        self.assertEqual(self.lists(), {False, True})


class KeyTests(WholeTestCase):
    def test_max_contacts_counts_what_other_nodes_have(self) -> None:
        for number in (1, 2):
            limited = {"registrar": RegistrarConfig(max_contacts=2)}
            self.network.add(number, *([1] if number == 2 else []), usrloc=True, sections=limited)
        self.pump(2)
        self.assertEqual(self.register(1, "alice", "sip:a@10.0.0.1", "sip:a@10.0.0.2"), 200)
        self.pump(1)
        self.assertEqual(self.count(2), 2)
        self.assertEqual(self.register(2, "alice", "sip:a@10.0.0.3"), 403)
        self.kamailio_joins()
        self.kamailio("usrloc", RECORD)  # what another node has accepted is stored beyond it
        self.assertEqual(self.count(1), 3)

    def test_a_user_who_is_not_known_yet(self) -> None:
        self.network.add(1, usrloc=True, addresses=(f"sip:{KAMAILIO}:5060",))
        ready = self.network.nodes[address(1)].node.cluster.usrloc.readiness
        answer = self.request(1, "MESSAGE", "nobody")
        self.assertEqual((answer.status, answer.headers.get("retry-after")), (480, "5"))
        self.kamailio_joins()
        self.pump(0.5)
        self.assertEqual(ready.state.value, "syncing")
        answer = self.request(1, "MESSAGE", "nobody")
        self.assertEqual((answer.status, answer.headers.get("retry-after")), (480, "5"))
        self.pump(5)
        self.assertTrue(ready.is_ready)
        answer = self.request(1, "MESSAGE", "nobody")
        self.assertEqual((answer.status, answer.headers.get("retry-after")), (480, None))  # there is no such user

    def test_a_user_whom_the_donor_knows(self) -> None:
        self.network.add(1, usrloc=True)
        self.assertEqual(self.register(1, "alice", "sip:alice@10.0.0.1:5060"), 200)
        self.network.add(2, 1, usrloc=True)
        self.pump(0)  # it has joined and asked for everything, and nothing came yet
        node = self.network.nodes[address(2)]
        self.assertEqual((self.count(2), node.node.cluster.usrloc.readiness.state.value), (0, "syncing"))
        self.network.seen.clear()
        self.assertEqual(self.request(2, "INVITE", "alice").status, 100)
        self.assertEqual(len(self.network.take_requests("sipdmq")), 1)
        self.assertEqual(self.count(2), 1)

    def test_the_node_list_follows_the_configuration(self) -> None:
        keys: dict[str, Any] = {
            "ping_interval": 7.0, "timeout": 3.0, "remove_inactive": False, "fail_count_enabled": True,
            "fail_count_threshold_not_active": 4, "fail_count_threshold_disabled": 9, "forget_after": 600.0,
            "init_with_single": True, "farewell": "none",
        }  # fmt: skip
        self.network.add(1, **keys)
        settings = self.network.nodes[address(1)].node.cluster.service.membership.nodelist._settings._asdict()
        self.assertEqual({key: settings[key] for key in keys}, keys)

    def test_with_worker_usleep_messages_wait_for_the_next_look(self) -> None:
        self.network.add(1, usrloc=True, worker_usleep=500_000)
        self.kamailio_joins()
        self.pump(1.2)
        self.kamailio("usrloc", RECORD)
        self.assertEqual(self.count(1), 0)
        self.pump(0.5)
        self.assertEqual(self.count(1), 1)

    def test_a_notification_channel_of_another_name(self) -> None:
        for number in (1, 2):
            self.network.add(number, *([1] if number == 2 else []), notification_channel="mynodes")
        self.pump(1)
        self.assertEqual(self.network.statuses(1), ["ACTIVE"])
        self.assertEqual(self.network.take_requests("notification_peer"), [])
        response = self.ask(1, kdmq("notification_peer", b""))
        assert response is not None
        self.assertEqual(response.status, 404)

    def test_the_times_of_retransmissions(self) -> None:
        for keys, expected in (({}, 11), ({"t1": 0.5, "t2": 4.0, "timeout": 2.0}, 3)):
            self.network.nodes.clear()
            self.network.add(1, addresses=("sip:127.0.0.99:5060",), **keys)
            self.network.outside.clear()
            first: list[bytes] = []
            for _ in range(90):
                self.network.pump(0.1)
                first += [data for data, to in self.network.outside if to[0] == "127.0.0.99"]
                self.network.outside.clear()
            self.assertEqual(first.count(first[0]), expected)
            self.assertEqual(self.network.statuses(1), ["NOT_ACTIVE"])

    def test_an_address_that_others_know_us_by(self) -> None:
        self.network.add(
            1,
            addresses=("sip:127.0.0.2:5060",),
            server_address=parse_sip_uri("sip:198.51.100.1:5060"),
            server_socket="udp:127.0.0.1:5060",
        )
        self.assertEqual(str(self.network.dmq(1).nodes()[0].name), "sip:198.51.100.1:5060")
        ((data, _),) = self.network.nodes[address(1)].take_sent()
        self.assertIn(b"From: <sip:notification_peer@198.51.100.1:5060>", data)

    def test_nodes_by_host_name(self) -> None:
        hosts = Path(self.mktemp())
        hosts.write_text("127.0.0.1 one.example all.example\n")
        shared = ("sip:one.example:5060", "sip:127.0.0.2:5060")  # all nodes may have the same list
        for number in (1, 2):
            self.network.add(number, addresses=shared, hosts=str(hosts).encode())
        self.pump(2)
        for number in (1, 2):
            self.assertEqual(self.network.statuses(number), ["ACTIVE"])
        line = b"sip:one.example:5060;status=active\r\nsip:127.0.0.2:5060;status=active\r\n"
        self.ask(2, kdmq("notification_peer", line, "h", "127.0.0.1:5060"), address(1))
        self.pump(1)
        self.assertEqual(len(self.network.dmq(2).nodes()), 2)

    def test_all_addresses_of_a_name(self) -> None:
        self.patch(memory_node, "HostsResolver", lambda path: HostsResolver(path, ttl=30))
        hosts = Path(self.mktemp())
        hosts.write_text("")
        self.network.add(1)
        self.network.add(3)
        self.network.add(2, addresses=("sip:all.example:5060",), hosts=str(hosts).encode(), multi_notify=True)
        self.pump(5)
        self.assertEqual(self.network.statuses(2), [])
        hosts.write_text("127.0.0.1 all.example\n")
        self.pump(3)  # while it is alone it asks again
        self.assertEqual(self.network.statuses(2), ["ACTIVE"])
        hosts.write_text("127.0.0.1 all.example\n127.0.0.3 all.example\n")
        self.pump(40)
        self.assertEqual(self.network.statuses(2), ["ACTIVE"])
        self.pump(21)  # a ping is due
        self.assertEqual(self.network.statuses(2), ["ACTIVE", "ACTIVE"])


class EventCallbackTests(WholeTestCase):
    """
    C{[dmq] event_callback}
    """

    def load(self, name: str) -> Any:
        self.patch(sys, "path", [*sys.path])
        self.addCleanup(sys.modules.pop, "dmq_events_of_a_test", None)
        folder = Path(self.mktemp())
        folder.mkdir()
        module = "SEEN = []\nWRONG = 1\ndef told(*what):\n    SEEN.append(what)\n"
        (folder / "dmq_events_of_a_test.py").write_text(module)
        config = NodeConfig()
        path = str(folder / "node.ini")
        return load_event_callback(replace(config, path=path, dmq=replace(config.dmq, event_callback=name)))

    def test_a_function_beside_the_configuration(self) -> None:
        told = self.load("dmq_events_of_a_test:told")
        node = ClusterNode(NodeName(Protocol.UDP, "192.0.2.1", 5060), NodeStatus.ACTIVE)
        told("dmq:peer-up", node)
        self.assertEqual(told.__globals__["SEEN"], [("dmq:peer-up", node)])
        self.assertIsNone(self.load(""))

    def test_what_is_none(self) -> None:
        for name in ("dmq_events_of_a_test:nothing", "no_such_module_at_all:told", "dmq_events_of_a_test:WRONG"):
            self.assertRaises(ConfigError, self.load, name)

