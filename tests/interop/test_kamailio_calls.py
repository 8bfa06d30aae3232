"""
Calls between phones at sipdmq and phones at Kamailio, which know each other by replicated location only.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence

from tests.interop.cluster import ClusterTestCase, Kamailio, Member, wait_until
from tests.interop.phone import Answer, Phone, make_response
from tests.interop.programs import ServerProcess


class Callee:
    """
    A phone that is called: it answers everything with 200.

    @ivar seen: the first lines of the requests that it got.
    @ivar invite: the last INVITE.
    """

    def __init__(self, node: ServerProcess, protocol: str) -> None:
        """
        @param protocol: C{udp}: anybody reaches it. C{tcp}: only its node does, over its connection.
        """
        self.protocol = protocol
        self._node = (node.host, node.port)
        if protocol == "udp":
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind((node.host, 0))
        else:
            self._socket = socket.create_connection(self._node, 5.0)
            self._socket.settimeout(None)
        host, port = self._socket.getsockname()
        self.uri = f"sip:bob@{host}:{port};transport={protocol}"
        self.seen: list[str] = []
        self.answers: list[str] = []
        self.invite = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """
        Gone.
        """
        if self.protocol == "udp":
            self._socket.sendto(b"over", self._socket.getsockname())
        else:
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def send(self, request: bytes) -> None:
        """
        To its node.
        """
        if self.protocol == "udp":
            self._socket.sendto(request, self._node)
        else:
            self._socket.sendall(request)

    def hang_up(self) -> None:
        """
        C{BYE}, along the routes that the call has taken.
        """
        head = self.invite.decode().split("\r\n")

        def field(name: str) -> str:
            return next(line.partition(": ")[2] for line in head if line.startswith(f"{name}:"))

        target = re.search(r"<([^>]+)>", field("Contact"))
        assert target is not None
        host, port = self._socket.getsockname()
        routes = [line.replace("Record-Route", "Route") for line in head if line.startswith("Record-Route:")]
        lines = [
            f"BYE {target[1]} SIP/2.0",
            f"Via: SIP/2.0/{self.protocol.upper()} {host}:{port};branch=z9hG4bKhangup;rport",
            "Max-Forwards: 70",
            *routes,
            f"From: {field('To')};tag=callee",
            f"To: {field('From')}",
            f"Call-ID: {field('Call-ID')}",
            "CSeq: 1 BYE",
            "Content-Length: 0",
        ]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def _serve(self) -> None:
        buffer = b""
        while True:
            sender = self._node
            if self.protocol == "udp":
                buffer, sender = self._socket.recvfrom(65535)
                if buffer == b"over":
                    return
            else:
                received = self._socket.recv(65535)
                if not received:
                    return
                buffer += received
            while b"\r\n\r\n" in buffer:  # no body in these tests
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                head = head.lstrip() + b"\r\n\r\n"
                first = head.split(b"\r\n")[0].decode()
                if first.startswith("SIP/2.0"):
                    self.answers.append(first)
                    continue
                self.seen.append(first.split()[0])
                if first.startswith("ACK "):
                    continue
                if first.startswith("INVITE "):
                    self.invite = head
                response = make_response(head, "200 OK").replace(
                    b"Content-Length", f"Contact: <{self.uri}>\r\nContent-Length".encode()
                )
                if first.startswith("INVITE "):
                    response = re.sub(rb"(?m)^(To: [^\r]*;tag=)[^\r]*", rb"\1callee", response)
                if self.protocol == "udp":
                    self._socket.sendto(response, sender)
                else:
                    self._socket.sendall(response)


class CallTestCase(ClusterTestCase):
    """
    C{kam} is a Kamailio and C{own} a node of ours.
    """

    kam: Kamailio
    own: Member

    def callee(self, node: Kamailio | Member, protocol: str) -> Callee:
        """
        Bob, registered, and known at both nodes.
        """
        callee = Callee(node, protocol)
        self.addCleanup(callee.close)
        phone = self.phone(node, "bob")
        register = phone.make("REGISTER", f"sip:{phone.domain}", (f"Contact: <{callee.uri}>",))
        callee.send(register.replace(b"SIP/2.0/UDP", f"SIP/2.0/{protocol.upper()}".encode()))
        wait_until(lambda: self.kam.contacts() and self.own.users("bob")["bob"], self.own.log)
        self.assertIn("SIP/2.0 200 OK", callee.answers)
        return callee

    def within(self, phone: Phone, invite: bytes, answer: Answer, method: str) -> bytes:
        """
        @return: a request of the caller in the dialog.
        """
        contact = answer.all("contact")[0].strip("<>")
        routes = [f"Route: {route}" for route in reversed(answer.all("record-route"))]
        head = phone.make(method, contact, self.reversed_values(routes)).decode().split("\r\n")
        kept = {line.partition(":")[0]: line for line in invite.decode().split("\r\n")}
        lines = [f"To: {answer.all('to')[0]}" if line.startswith("To:") else line for line in head]
        lines = [kept[line.partition(":")[0]] if line.startswith(("From:", "Call-ID:")) else line for line in lines]
        number = 1 if method == "ACK" else 2
        lines = [f"CSeq: {number} {method}" if line.startswith("CSeq:") else line for line in lines]
        return "\r\n".join(lines).encode()

    def reversed_values(self, routes: Sequence[str]) -> list[str]:
        """
        Values that stand in one line are in its order, too.
        """
        values = []
        for route in routes:
            values.extend(f"Route: {each.strip()}" for each in reversed(route.partition(": ")[2].split(",")))
        return values


class CallTests(CallTestCase):
    """
    The caller knows his own node, the callee his.
    """

    network = "127.104.9"

    def setUp(self) -> None:
        super().setUp()
        self.kam = self.kamailio(1)
        self.own = self.member(2, 1)
        self.assert_nodes([self.kam, self.own])

    def call(self, node: Kamailio | Member, callee: Callee, callee_hangs_up: bool = False) -> None:
        """
        Alice calls bob; the call is taken and ended.
        """
        alice = self.phone(node, "alice")
        invite = alice.make("INVITE", f"sip:bob@{alice.domain}")
        answer = alice.send(invite)
        self.assertEqual(answer.status, 200, f"{answer.text}\n{self.own.log()}\n{self.kam.log()}")
        alice.transmit(self.within(alice, invite, answer, "ACK"))
        wait_until(lambda: "ACK" in callee.seen, lambda: callee.seen)
        if callee_hangs_up:
            self.addCleanup(alice.close)
            callee.answers.clear()
            callee.hang_up()
            data = alice._socket.recv(65535)
            self.assertTrue(data.startswith(b"BYE "), data)
            alice.transmit(make_response(data, "200 OK"))
            wait_until(lambda: callee.answers == ["SIP/2.0 200 OK"], lambda: callee.answers)
        else:
            answer = alice.send(self.within(alice, invite, answer, "BYE"))
            self.assertEqual(answer.status, 200, answer.text)
            self.assertEqual(callee.seen, ["INVITE", "ACK", "BYE"])

    def test_from_kamailio_to_a_phone_here(self) -> None:
        self.call(self.kam, self.callee(self.own, "udp"))

    def test_from_kamailio_to_a_phone_here_over_tcp(self) -> None:
        callee = self.callee(self.own, "tcp")
        ((_, contact),) = self.kam.contacts().items()
        self.assertRegex(contact["Path"], f"^<sip:[^@]+@{self.own.host}:5060;lr>$")  # through its owner
        self.call(self.kam, callee, callee_hangs_up=True)

    def test_from_here_to_a_phone_at_kamailio(self) -> None:
        self.call(self.own, self.callee(self.kam, "udp"))

    def test_from_another_node_to_a_phone_here_over_tcp(self) -> None:
        other = self.member(3, 1)
        self.assert_nodes([self.kam, self.own, other])
        callee = self.callee(self.own, "tcp")
        wait_until(lambda: other.count == 1, other.log)
        self.call(other, callee)
