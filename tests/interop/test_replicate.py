"""
C{[dmq] replicate = REGISTER} between nodes, and with a Kamailio that calls C{dmq_t_replicate()} (WIRE §12).
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable

from tests.interop.phone import Phone, make_response
from tests.interop.programs import (
    CHECKOUT,
    InteropTestCase,
    NodeProcess,
    ProgramFailed,
    ServerProcess,
    require,
    run_program,
)
from tests.interop.sipp import users_file

SCRIPTS = CHECKOUT / "tests" / "interop" / "kamailio"
SECRET = "0123456789abcdef" * 4

#: Seconds until nodes have found each other, or a copy has arrived.
PATIENCE = 15.0


class ReplicatingKamailio(ServerProcess):
    """
    A Kamailio in the cluster that copies REGISTERs, and stores what is copied to it.
    """

    program = "kamailio"

    def __init__(self, host: str, *peers: str) -> None:
        super().__init__(host)
        self._peers = peers

    def _run(self, name: str, *arguments: str) -> str:
        os.environ["RUNDIR"] = str(self.directory)
        os.environ["KAM_DEFS"] = "WITH_TREPL WITH_NO_PRES WITH_NO_DLG PING_INTERVAL=5"
        try:
            # What stays behind must not hold our pipe.
            output = self.directory / "output"
            command = ["bash", "-c", '"$0" "$@" >"$RUNDIR/output" 2>&1', str(SCRIPTS / name), *arguments]
            done = run_program(command, 30)
        finally:
            del os.environ["RUNDIR"], os.environ["KAM_DEFS"]
        text = output.read_text(errors="replace")
        if done.status:
            raise ProgramFailed(f"{name}: {text}")
        return text

    def start(self) -> None:
        """
        Start it, and return when it answers.
        """
        self._run("start-node.sh", self.host, str(self.port), *self._peers)

    def stop(self) -> int:
        """
        End it.
        """
        if (self.directory / "pid").exists():
            self._run("stop-node.sh", str(self.directory))
            (self.directory / "pid").unlink()
        return 0

    def dump(self) -> str:
        """
        Its location table.
        """
        return self._run("kamcmd.sh", str(self.directory), "ul.dump")

    def log(self) -> str:
        """
        The last lines that it wrote.
        """
        return "\n".join((self.directory / "kamailio.log").read_text(errors="replace").splitlines()[-40:])


class ReplicateTestCase(InteropTestCase):
    """
    @cvar other_host: of the second server.
    @ivar other: it.
    """

    other_host = ""

    def setUp(self) -> None:
        self.settings = self.dmq(self.host, self.other_host)
        super().setUp()

    def dmq(self, host: str, *peers: str) -> dict[str, dict[str, str]]:
        return {
            "auth": {"enable": "yes", "secret": SECRET, "users": "users"},
            "dmq": {
                "server_address": f"sip:{host}:5060",
                "notification_address": " ".join(f"sip:{peer}:5060" for peer in peers),
                "ping_interval": "2",
                "replicate": "REGISTER",
            },
            "usrloc": {"enable": "0"},
        }

    def prepare(self) -> None:
        """
        Users.
        """
        (self.server.directory / "users").write_text(users_file("alice", "bob"))

    def wait(self, is_so: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > deadline:
                self.fail(f"{what}\n{self.server.log()}\n{self.other.log()}")
            time.sleep(0.1)

    other: ServerProcess

    def join(self) -> None:
        self.other.start()
        self.addCleanup(self.other.clean_up)
        self.wait(lambda: self.server.snapshot()["dmq.nodes_active"] == 1, "they did not find each other")

    def phone(self, server: ServerProcess, user: str, password: str = "", protocol: str = "udp") -> Phone:
        phone = Phone((server.host, 5060), user, "localhost", password or f"{user}-secret", protocol=protocol)
        self.addCleanup(phone.close)
        return phone

    def contacts(self, server: ServerProcess, user: str) -> list[str]:
        """
        What a node that asks for passwords says.
        """
        answer = self.phone(server, user).ask_challenged("REGISTER", "sip:localhost")
        self.assertEqual(answer.status, 200, answer.text)
        return answer.all("contact")

    def listen(self, host: str) -> tuple[socket.socket, str]:
        """
        A phone that anybody may call, and its contact.
        """
        callee = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(callee.close)
        callee.bind((host, 0))
        callee.settimeout(5)
        return callee, f"sip:alice@{host}:{callee.getsockname()[1]}"

    def reach(self, server: ServerProcess, callee: socket.socket, domain: str = "localhost") -> None:
        """
        A MESSAGE from Bob to Alice by one server reaches her phone, wherever it has registered.
        """
        bob = self.phone(server, "bob")
        uri = f"sip:alice@{domain}"
        bob.transmit(bob.make("MESSAGE", uri))
        if domain == "localhost":
            answer = bob.receive()
            self.assertEqual(answer.status, 407)
            assert bob.digest is not None
            bob.digest.take(answer.challenges)
            signed = f"Proxy-Authorization: {bob.digest.credentials('MESSAGE', uri)}"
            bob.transmit(bob.make("MESSAGE", uri, (signed,)))
        request, source = callee.recvfrom(65535)
        self.assertTrue(request.startswith(b"MESSAGE "), request)
        self.assertNotIn(b"x-sipdmq", request.lower())
        answer_bytes = make_response(request, "200 OK")
        if callee.type is socket.SOCK_DGRAM:
            callee.sendto(answer_bytes, source)
        else:
            callee.sendall(answer_bytes)
        self.assertEqual(bob.final().status, 200)


class TwoNodesTests(ReplicateTestCase):
    """
    Nodes of ours that ask for passwords.
    """

    host = "127.105.1.1"
    other_host = "127.105.1.2"

    def test_one_record(self) -> None:
        self.not_kamailio("has a test case of its own")
        self.other = NodeProcess(self.other_host, settings=self.dmq(self.other_host, self.host))
        (self.other.directory / "users").write_text(users_file("alice", "bob"))
        self.join()
        callee, contact = self.listen(self.host)
        alice = self.phone(self.server, "alice")
        self.assertEqual(alice.register(contact).status, 200)
        self.wait(lambda: self.other.snapshot()["location.bindings"] == 1, "the copy did not arrive")
        (here,), (there,) = (self.contacts(each, "alice") for each in (self.server, self.other))
        self.assertEqual(here.partition(";expires")[0], there.partition(";expires")[0])
        self.reach(self.other, callee)
        # refreshed and removed there
        again = self.phone(self.other, "alice")
        self.assertEqual(again.register(contact, 7200).status, 200)
        longer = re.compile("expires=7[0-9]{3}$")
        self.wait(lambda: longer.search(self.contacts(self.server, "alice")[0]), "the refresh did not arrive")
        self.assertEqual(again.register(contact, 0).status, 200)
        self.wait(lambda: not self.contacts(self.server, "alice"), "the removal did not arrive")
        self.assertEqual(self.other.snapshot()["location.tombstones"], 1)
        # TCP: only one node has the connection
        stream = self.phone(self.server, "alice", protocol="tcp")
        self.assertEqual(stream.register().status, 200)
        self.wait(lambda: self.other.snapshot()["location.bindings"] == 1, "the copy did not arrive")
        self.reach(self.other, stream._socket)
        numbers = self.server.snapshot()
        self.assertEqual((numbers["dmq.copies_sent"], numbers["dmq.copies_received"]), (2, 2))
        self.assertEqual((numbers["dmq.copies_unanswered"], numbers["dmq.copies_refused"]), (0, 0))
        for each in (self.server, self.other):
            self.assertNotIn("Traceback", each.log())


class KamailioTests(ReplicateTestCase):
    """
    With a real Kamailio, both ways.
    """

    host = "127.105.2.1"
    other_host = "127.105.2.2"

    def setUp(self) -> None:
        require("kamailio", "kamcmd")
        super().setUp()
        self.not_kamailio("is in it")
        self.kamailio = ReplicatingKamailio(self.other_host, f"{self.host}:5060")
        self.other = self.kamailio
        self.join()

    def test_from_us(self) -> None:
        """
        Stored by Kamailio, refreshed, removed; what came from it is not sent back.
        """
        callee, contact = self.listen(self.host)
        alice = self.phone(self.server, "alice")
        self.assertEqual(alice.register(contact).status, 200)
        self.wait(lambda: f"Address: {contact}" in self.kamailio.dump(), "the copy did not arrive")
        self.reach(self.kamailio, callee, self.kamailio.host)
        self.assertEqual(alice.register(contact, 0).status, 200)
        self.wait(lambda: f"Address: {contact}" not in self.kamailio.dump(), "the removal did not arrive")
        numbers = self.server.snapshot()
        self.assertEqual((numbers["dmq.copies_sent"], numbers["dmq.copies_received"]), (2, 0))
        self.assertIn("replicated REGISTER from", (self.kamailio.directory / "kamailio.log").read_text())
        self.assert_well()

    def test_from_kamailio(self) -> None:
        """
        Stored by us without a password, refreshed, removed, and not passed on.
        """
        callee, contact = self.listen(self.host)
        alice = self.phone(self.kamailio, "alice")
        self.assertEqual(alice.register(contact).status, 200)
        self.wait(lambda: self.server.snapshot()["location.bindings"] == 1, "the copy did not arrive")
        (found,) = self.contacts(self.server, "alice")
        self.assertTrue(found.startswith(f"<{contact}>"), found)
        self.reach(self.server, callee)
        self.assertEqual(alice.register(contact, 0).status, 200)
        self.wait(lambda: self.server.snapshot()["location.bindings"] == 0, "the removal did not arrive")
        numbers = self.server.snapshot()
        self.assertEqual(numbers["dmq.copies_sent"], 0)
        self.assertEqual(numbers["dmq.copies_received"], 2)
        self.assert_well()

    def test_registered_at_both(self) -> None:
        """
        Two phones of one user, one at each, and one that knows Kamailio by its address only: both have all.
        """
        phones = [self.phone(each, "alice") for each in (self.server, self.kamailio)]
        phones.append(Phone((self.kamailio.host, 5060), "alice", self.kamailio.host))
        self.addCleanup(phones[-1].close)
        for phone in phones:
            self.assertEqual(phone.register().status, 200)
        self.wait(lambda: self.server.snapshot()["location.bindings"] == 3, "a copy did not arrive")
        self.assertEqual(len(self.contacts(self.server, "alice")), 3)
        self.wait(lambda: all(phone.contact in self.kamailio.dump() for phone in phones), "a copy did not arrive")
