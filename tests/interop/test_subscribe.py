"""
Watchers: sipp, baresip, and phones of our own that see a node die.
"""

from __future__ import annotations

import os
import re
import socket
import time

from tests.interop.background import Background
from tests.interop.baresip import MODULE_PATHS
from tests.interop.cluster import ClusterTestCase, Member
from tests.interop.phone import make_response
from tests.interop.programs import InteropTestCase, require
from tests.interop.sipp import SippTestCase

PRESENCE = {"presence": {"enable": "1"}}

PIDF = (
    '<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:{user}@localhost">'
    '<tuple id="t1"><status><basic>{basic}</basic></status></tuple></presence>'
)
DIALOG = (
    '<?xml version="1.0"?><dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="0" state="full"'
    ' entity="sip:{user}@localhost"><dialog id="d1"><state>{basic}</state></dialog></dialog-info>'
)


class SippTests(SippTestCase):
    """
    RFC 6665, over UDP and TCP.
    """

    host = "127.81.21.1"
    settings = PRESENCE

    def watch(self, scenario: str, transport: str = "u1", calls: int = 1) -> None:
        self.assert_passed(self.sipp(scenario, "-s", "bob", transport=transport, calls=calls, rate=50))

    def test_a_subscription(self) -> None:
        self.watch("watcher", calls=20)
        self.watch("watcher", "t1")
        self.assertEqual(self.server.snapshot()["subscriptions.live"], 0)

    def test_a_fetch(self) -> None:
        self.watch("watcher_fetches")

    def test_a_watcher_that_has_forgotten(self) -> None:
        self.watch("watcher_forgets")

    def test_refused(self) -> None:
        for scenario in ("watcher_too_brief", "watcher_bad_event", "watcher_no_dialog"):
            self.watch(scenario)


class BaresipTests(InteropTestCase):
    """
    A real phone that watches its contacts.
    """

    programs = ("baresip", "stdbuf")
    host = "127.81.22.1"
    settings = PRESENCE

    def test_it_sees_a_contact_come_and_go(self) -> None:
        modules = next((path for path in MODULE_PATHS if os.path.exists(f"{path}/presence.so")), None)
        if modules is None:
            require("baresip-modules")
        (self.directory / "config").write_text(
            f"sip_listen 127.81.22.7:0\nmodule_path {modules}\nmodule g711.so\nmodule_tmp account.so\n"
            "module_app contact.so\nmodule_app menu.so\nmodule_app presence.so\n"
        )
        account = f"<sip:alice@{self.host};transport=udp>;regint=60;auth_pass=none\n"
        (self.directory / "accounts").write_text(account)
        (self.directory / "contacts").write_text(f'"Bob" <sip:bob@{self.host}>;presence=p2p\n')
        command = ["stdbuf", "-oL", "baresip", "-4", "-f", str(self.directory), "-s", "-t", "40"]
        phone = Background(command, self.directory / "output")
        self.addCleanup(phone.kill)
        phone.wait_for(r"^\S+@\S+: .*200 OK", 10.0)
        deadline = time.monotonic() + 10
        while not self.server.snapshot().get("subscriptions.live"):
            self.assertLess(time.monotonic(), deadline, phone.text)
            time.sleep(0.1)
        publisher = Publisher(self.host, "127.81.22.8", "bob", self.host)
        self.addCleanup(publisher.close)
        for basic, seen in (("open", "Online"), ("closed", "Offline")):
            self.assertEqual(publisher.publish(PIDF.format(user="bob", basic=basic)), 200)
            phone.wait_for(rf"sip:bob@\S+ changed status from .* to {seen}", 5.0)
        self.assert_well()


class Publisher:
    """
    Publishes for one user, over UDP.
    """

    def __init__(self, node: str, host: str, user: str, domain: str = "localhost") -> None:
        self._node = node
        self._user = f"{user}@{domain}"
        self._etags: dict[str, str] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.settimeout(5)
        self._count = 0

    def close(self) -> None:
        self._socket.close()

    def publish(self, body: str, event: str = "presence", content_type: str = "application/pidf+xml") -> int:
        """
        @return: the status of the answer.
        """
        self._count += 1
        host, port = self._socket.getsockname()
        match = f"SIP-If-Match: {self._etags[event]}\r\n" if event in self._etags else ""
        self._socket.sendto(
            (
                f"PUBLISH sip:{self._user} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{os.urandom(6).hex()}\r\n"
                f"From: <sip:{self._user}>;tag=p\r\nTo: <sip:{self._user}>\r\nCall-ID: p-{event}-{host}\r\n"
                f"CSeq: {self._count} PUBLISH\r\nMax-Forwards: 70\r\nEvent: {event}\r\nExpires: 600\r\n{match}"
                f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            ).encode(),
            (self._node, 5060),
        )
        answer = self._socket.recv(65535).decode()
        etag = re.search(r"^SIP-ETag: *(\S+)", answer, re.MULTILINE)
        if etag:
            self._etags[event] = etag[1]
        return int(answer[8:11])


class Watcher:
    """
    A phone that watches, over UDP: it answers each NOTIFY.
    """

    def __init__(self, host: str, presentity: str, event: str = "presence") -> None:
        self._host = host
        self._presentity = presentity
        self._event = event
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 5060))

    def close(self) -> None:
        self._socket.close()

    def subscribe(self, node: str) -> str:
        """
        @return: the answer.
        """
        self._socket.settimeout(5)
        self._socket.sendto(
            (
                f"SUBSCRIBE sip:{self._presentity} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {self._host};branch=z9hG4bK{os.urandom(6).hex()}\r\n"
                f"From: <sip:watcher@localhost>;tag=w\r\nTo: <sip:{self._presentity}>\r\n"
                f"Call-ID: w-{self._event}-{self._host}\r\nCSeq: 1 SUBSCRIBE\r\nMax-Forwards: 70\r\n"
                f"Contact: <sip:watcher@{self._host}>\r\nEvent: {self._event}\r\nExpires: 600\r\n"
                "Content-Length: 0\r\n\r\n"
            ).encode(),
            (node, 5060),
        )
        return self._socket.recv(65535).decode()

    def notified(self, seconds: float = 5.0) -> str:
        """
        @return: the next NOTIFY; empty if none comes in that time.
        """
        self._socket.settimeout(seconds)
        try:
            data, source = self._socket.recvfrom(65535)
        except TimeoutError:
            return ""
        self._socket.sendto(make_response(data, "200 OK"), source)
        return data.decode()


class TakeoverTests(ClusterTestCase):
    """
    Three real nodes.
    """

    network = "127.81.23"

    def cluster(self, count: int) -> list[Member]:
        nodes = [self.member(1, presence=PRESENCE["presence"])]
        nodes += [self.member(number, 1, presence=PRESENCE["presence"]) for number in range(2, count + 1)]
        self.assert_nodes(nodes)
        return nodes

    def watcher(self, number: int, event: str) -> Watcher:
        watcher = Watcher(self.address(number), "bob@localhost", event)
        self.addCleanup(watcher.close)
        return watcher

    def test_when_the_node_of_a_watcher_is_killed_he_is_told_by_another_one(self) -> None:
        nodes = self.cluster(3)
        lamp = self.watcher(20, "dialog")
        answer = lamp.subscribe(nodes[0].host)
        self.assertTrue(answer.startswith("SIP/2.0 200 "), answer)
        first = lamp.notified()
        time.sleep(0.5)
        nodes[0].kill()
        taken = lamp.notified(15.0)
        contact = re.search(r"^Contact: <sip:(127[0-9.]+):5060>", taken, re.MULTILINE)
        assert contact is not None, (taken, nodes[1].log(), nodes[2].log())
        self.assertIn(contact[1], (nodes[1].host, nodes[2].host))
        for name in ("From", "To", "Call-ID"):
            pattern = rf"^{name}: .*$"
            self.assertEqual(re.findall(pattern, first, re.MULTILINE), re.findall(pattern, taken, re.MULTILINE))
        self.assertIn("CSeq: 1001 NOTIFY", taken)
        phone = Publisher(nodes[1].host, self.address(30), "bob")
        self.addCleanup(phone.close)
        time.sleep(1.2)  # min_notify_interval
        status = phone.publish(DIALOG.format(user="bob", basic="confirmed"), "dialog", "application/dialog-info+xml")
        self.assertEqual(status, 200)
        told = lamp.notified()
        self.assertIn("<state>confirmed</state>", told)
        self.assertRegex(told, r'<dialog-info [^>]*version="[1-9]')
        self.assertEqual(lamp.notified(1.0), "")
