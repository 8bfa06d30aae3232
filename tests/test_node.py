"""
The composition root: ports are bound first and told when they cannot, everything is joined, numbers add up.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq import node, service
from sipdmq.config import AuthConfig, DMQConfig, NodeConfig, NodeSection
from sipdmq.errors import ConfigError, UnreachableError
from sipdmq.records import Listener, Protocol
from sipdmq.sip.uri import parse_sip_uri
from sipdmq.transport import bind
from tests.memory_node import FakeSocket, MemoryNode, MemoryReactor

UDP = Listener(Protocol.UDP, "127.0.31.9", 5060, "127.0.31.9", 5060)
TCP = UDP._replace(protocol=Protocol.TCP)
CONFIG = NodeConfig("etc/node.ini", NodeSection(listen=(UDP, TCP), domains=("example.org",)))

REGISTER = (
    b"REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5062;branch=z9hG4bK1\r\n"
    b"From: <sip:alice@example.org>;tag=1\r\nTo: <sip:alice@example.org>\r\nCall-ID: c1\r\nCSeq: 1 REGISTER\r\n"
    b"Contact: <sip:alice@192.0.2.7:5062>\r\nContent-Length: 0\r\n\r\n"
)


class PortInUseTests(SynchronousTestCase):
    """
    A port that cannot be bound is an error of the configuration, told before the node counts as started.
    """

    def fail_to_bind(self, number: int) -> ConfigError:
        """
        @param number: the bind system call of which listener fails; the error number.
        """
        self.opened: list[FakeSocket] = []

        def open_listener(listener: Listener) -> FakeSocket:
            if listener.protocol is Protocol.TCP:
                raise UnreachableError(f"{listener}: {bind._cure(OSError(number, os.strerror(number)))}")
            self.opened.append(FakeSocket(listener))
            return self.opened[-1]

        self.patch(node, "bind_listener", open_listener)
        error = self.assertRaises(ConfigError, node.makeNode, CONFIG, MemoryReactor())
        assert isinstance(error, ConfigError)
        return error

    def test_it_names_file_key_listener_and_cure(self) -> None:
        elsewhere = "this machine has no such address; listen on one that it has, or on 0.0.0.0"
        for number, expected in (
            (
                errno.EADDRINUSE,
                "Address already in use; stop the program that has it (see 'ss -lnptu'), or choose another port",
            ),
            (errno.EADDRNOTAVAIL, f"Cannot assign requested address; {elsewhere}"),
            (errno.EACCES, "Permission denied; ports below 1024 need privileges; choose another port"),
            (errno.ENOBUFS, "No buffer space available"),
        ):
            self.assertEqual(
                str(self.fail_to_bind(number)), f"etc/node.ini: [node] listen: tcp:127.0.31.9:5060: {expected}"
            )

    def test_the_other_sockets_are_closed_again(self) -> None:
        self.fail_to_bind(errno.EADDRINUSE)
        self.assertEqual([opened.is_closed for opened in self.opened], [True])

    def test_the_port_is_really_in_use(self) -> None:
        """
        The same with the kernel: who asks twice for a UDP or TCP address of this machine is told so.
        """
        for protocol in (Protocol.UDP, Protocol.TCP):
            first = bind.bind_listener(UDP._replace(protocol=protocol, host="127.0.0.1", port=0))
            self.addCleanup(first.close)
            port = first.getsockname()[1]
            taken = Listener(protocol, "127.0.0.1", port, "127.0.0.1", port)
            config = NodeConfig("x.ini", NodeSection(listen=(taken,)))
            error = self.assertRaises(ConfigError, node.makeNode, config, MemoryReactor())
            self.assertIn(f"x.ini: [node] listen: {taken}: Address already in use; stop", str(error))


class NodeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory = MemoryNode(self, CONFIG)

    def test_it_is_a_service(self) -> None:
        verifyObject(IService, self.memory.service)
        verifyObject(IService, self.memory.node)

    def test_sockets_are_handed_to_the_reactor_and_closed(self) -> None:
        self.assertEqual([port.opened.listener for port in self.memory.reactor.ports], [UDP, TCP])
        self.assertTrue(all(port.opened.is_closed for port in self.memory.reactor.ports))

    def test_a_register_goes_all_the_way(self) -> None:
        ((answer, address),) = self.memory.receive(REGISTER, "192.0.2.7", 5062)
        self.assertEqual(address, ("192.0.2.7", 5062))
        self.assertTrue(answer.startswith(b"SIP/2.0 200 OK\r\n"), answer)
        (binding,) = self.successResultOf(self.memory.node.store.lookup("alice@example.org"))
        self.assertEqual((binding.contact, binding.socket), ("sip:alice@192.0.2.7:5062", "udp:127.0.31.9:5060"))

    def test_a_retransmission_gets_the_same_answer(self) -> None:
        first = self.memory.receive(REGISTER, "192.0.2.7", 5062)
        self.assertEqual(self.memory.receive(REGISTER, "192.0.2.7", 5062), first)

    def test_a_binding_expires_by_itself(self) -> None:
        self.memory.receive(REGISTER, "192.0.2.7", 5062)
        self.memory.reactor.pump([100] * 36)
        self.assertEqual(self.memory.node.store.count(), 0)

    def test_the_numbers_of_all_parts(self) -> None:
        stream = self.memory.connect("192.0.2.8", 40000)
        self.memory.receive(REGISTER, "192.0.2.7", 5062)
        self.memory.receive(b"OPTIONS nonsense", "192.0.2.7", 5062)
        self.assertFalse(stream.is_closed)
        numbers = self.memory.node.snapshot()
        for name, expected in (
            ("location.aors", 1), ("location.bindings", 1), ("location.tombstones", 0), ("transaction.servers", 0),
            ("transaction.clients", 0), ("transaction.completed", 1), ("transport.connections", 1),
            ("transport.malformed", 1), ("transport.opening", 0), ("transport.stalled", 0), ("policy.waiting", 0),
            ("policy.broken", 0), ("proxy.relayed", 0), ("calls.open", 0), ("gateways.all", 0),
        ):  # fmt: skip
            self.assertEqual(numbers[name], expected, name)
        self.assertTrue(all(isinstance(number, (int, float)) for number in numbers.values()))

    def test_sigusr2_writes_them_into_the_log(self) -> None:
        events = []
        self.patch(service, "log", type("Log", (), {"info": lambda _, text, **fields: events.append((text, fields))})())
        os.kill(os.getpid(), signal.SIGUSR2)
        ((text, fields),) = events
        line = text.format(**fields)
        self.assertTrue(line.startswith("snapshot: calls."), line)
        self.assertIn(" location.aors=0 location.bindings=0 ", line)
        pairs = [pair.partition("=") for pair in line.partition(": ")[2].split()]
        self.assertEqual({name: float(value) for name, _, value in pairs}, self.memory.node.snapshot())

    def test_stopping_leaves_no_timer_and_no_port(self) -> None:
        before = signal.getsignal(signal.SIGUSR2)
        self.memory.receive(REGISTER, "192.0.2.7", 5062)
        self.memory.connect("192.0.2.8", 40000)
        self.successResultOf(self.memory.service.stopService())  # type: ignore[no-untyped-call]
        self.assertEqual(self.memory.reactor.getDelayedCalls(), [])
        self.assertEqual([port.is_listening for port in self.memory.reactor.ports], [False, False])
        self.assertNotEqual(signal.getsignal(signal.SIGUSR2), before)


class WarningTests(SynchronousTestCase):
    """
    What the operator is told at the start.
    """

    def warnings(self, **changes: Any) -> list[str]:
        """
        @param changes: other sections.
        @return: what the log says in earnest while the node starts.
        """
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        try:
            MemoryNode(self, replace(CONFIG, **changes))
        finally:
            globalLogPublisher.removeObserver(events.append)
        return [str(formatEvent(event)) for event in events if event["log_level"] >= LogLevel.warn]

    def guarded(self, secret: str = "") -> AuthConfig:
        users = Path(self.mktemp())
        users.touch()
        return AuthConfig(enable=True, users=str(users.absolute()), secret=secret)

    def test_without_authentication(self) -> None:
        (warning,) = self.warnings()
        self.assertIn("[auth] enable = no: whoever reaches this node can register as any user", warning)
        self.assertEqual(self.warnings(auth=self.guarded()), [])

    def test_a_cluster_without_a_secret(self) -> None:
        dmq = DMQConfig(server_address=parse_sip_uri("sip:127.0.31.9:5060"))
        (warning,) = self.warnings(auth=self.guarded(), dmq=dmq)
        self.assertIn("[auth] secret is empty", warning)
        self.assertEqual(self.warnings(auth=self.guarded("0" * 64), dmq=dmq), [])


class SteadyEpochTests(SynchronousTestCase):
    def test_it_starts_at_the_wall_clock_and_never_jumps(self) -> None:
        wall, monotonic = [1_700_000_000.0], [50.0]
        self.patch(node, "time", type("Time", (), {"time": lambda: wall[0], "monotonic": lambda: monotonic[0]}))
        now = node.steady_epoch()
        self.assertEqual(now(), 1_700_000_000.0)
        wall[0] -= 86400  # somebody sets the clock
        self.assertEqual(now(), 1_700_000_000.0)
        monotonic[0] += 1.5
        self.assertEqual(now(), 1_700_000_001.5)

    def test_the_real_one(self) -> None:
        self.assertApproximates(node.steady_epoch()(), time.time(), 1.0)
