"""
Clusters of real nodes: sipdmq and Kamailio as processes, and what can be asked of each.

The Kamailios are started by the scripts in C{kamailio/}, each with an address of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.phone import Phone
from tests.interop.programs import ANSWER_TIMEOUT, NodeProcess, ProgramFailed, ServerProcess, lacks, require

__all__ = ["ClusterTestCase", "Contact", "Kamailio", "Member", "wait_until"]

SCRIPTS = Path(__file__).parent / "kamailio"

#: Seconds until what one node was told is known to the others.
PATIENCE = 10.0

#: What a Kamailio knows of a contact and has from the wire; all else is its own.
KEYS = (
    *("Address", "Call-ID", "CSeq", "CFlags", "Flags", "Instance", "Last-Modified", "Methods", "Path", "Q"),
    *("Received", "Reg-Id", "Ruid", "Server-Id", "User-Agent"),
)

Contact = dict[str, Any]


def wait_until(condition: Callable[[], object], what: str | Callable[[], object], seconds: float = PATIENCE) -> None:
    """
    @param what: was waited for; or what tells how it is instead.
    @raise AssertionError: it did not come true in that time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what if isinstance(what, str) else f"still {what()}")
        time.sleep(0.02)


class _Asked(ServerProcess):
    """
    What can be sent to a node of either kind.

    @ivar params: of its URI, C{";transport=tcp"}.
    """

    params = ""

    def notify(self, body: str = "", sender: str = "") -> str:
        """
        Send a node list.

        @param sender: whose address it comes from.
        @return: the answer's list.
        """
        return self.kdmq("notification_peer", body, sender).partition("\r\n\r\n")[2]

    def kdmq(self, channel: str, body: str, sender: str = "", content_type: str = "text/plain") -> str:
        """
        Send a message as another node would.

        @param sender: its address; by default one that is no node's.
        @return: the whole answer.
        """
        sender = sender or self.host.rpartition(".")[0] + ".250"
        mark = os.urandom(6).hex()
        data = body.encode()
        head = (
            f"KDMQ sip:{channel}@{self.host}:5060 SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {sender};branch=z9hG4bK{mark};rport\r\n"
            f"To: <sip:{channel}@{self.host}:5060>\r\n"
            # A node lists to others those of their transport.
            f"From: <sip:{channel}@{sender}:5060{self.params}>;tag={mark}\r\n"
            f"CSeq: 10 KDMQ\r\nCall-ID: {mark}\r\n"
            f"Content-Length: {len(data)}\r\nMax-Forwards: 1\r\nContent-Type: {content_type}\r\n\r\n"
        )
        return self.ask_from(sender, head.encode() + data).decode(errors="replace")

    def ask_from(self, host: str, request: bytes, port: int = 0) -> bytes:
        """
        As L{ask}, from another address.
        """
        with self.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((host, port))
            client.settimeout(ANSWER_TIMEOUT)
            client.connect((self.host, self.port))
            client.send(request)
            try:
                return client.recv(65535)
            except TimeoutError:
                return b""


class Kamailio(_Asked):
    """
    A Kamailio with dmq, dmq_usrloc and all that C{kamailio/node.cfg} loads.

    @ivar environment: more variables for C{kamailio/start-node.sh}.
    """

    program = "kamailio"

    def __init__(self, host: str, *peers: str, definitions: str = "", params: str = "") -> None:
        """
        @param peers: addresses of nodes to join through, or their URIs.
        @param definitions: for C{node.cfg}, as its head says.
        @param params: of its URI, C{";transport=tcp"}.
        """
        super().__init__(host)
        self.definitions = definitions
        self._peers = [peer if ":" in peer else f"{peer}:{self.port}" for peer in peers]
        self.params = params
        self._pid = ""
        self.environment: dict[str, str] = {}

    def start(self) -> None:
        """
        See L{ServerProcess.start}.
        """
        with self.inside():
            done = subprocess.run(
                [str(SCRIPTS / "start-node.sh"), self.host, str(self.port), *self._peers],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={
                    **os.environ,
                    "RUNDIR": str(self.directory),
                    "KAM_DEFS": f"PING_INTERVAL=5 {self.definitions}",
                    "DMQ_PARAMS": self.params,
                    **self.environment,
                },
                check=False,
            )
        if done.returncode:
            if re.search(r"could not find module|failed to load module", done.stderr):
                lacks(f"Kamailio lacks modules: {done.stderr}")
            raise ProgramFailed(done.stderr)
        self._pid = done.stdout.split()[0]

    def stop(self) -> int:
        """
        End it in order; harmless when it does not run.
        """
        return self._end("term")

    def kill(self) -> None:
        """
        Let it crash.
        """
        self._end("kill")

    def _end(self, how: str) -> int:
        pid, self._pid = self._pid, ""
        if pid:
            subprocess.run([str(SCRIPTS / "stop-node.sh"), pid, how], check=True, stdin=subprocess.DEVNULL)
        return 0

    def log(self) -> str:
        """
        @return: the last lines that it wrote.
        """
        path = self.directory / "kamailio.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-60:]) if path.exists() else ""

    def kamcmd(self, *command: str) -> str:
        """
        @return: what Kamailio's own tool says.
        """
        arguments = [str(SCRIPTS / "kamcmd.sh"), str(self.directory), *command]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=5, check=True).stdout

    def rpc(self, method: str, *arguments: str) -> Any:
        """
        The same for programs: its replies may be long.
        """
        question = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(arguments)})
        url = f"http://{self.host}:{self.port}/RPC"
        with self.inside(), urllib.request.urlopen(url, question.encode(), timeout=5) as reply:
            return json.load(reply).get("result")

    def nodes(self) -> dict[str, str]:
        """
        @return: the status of each node in its list, by its address.
        """
        return {node["host"]: node["status"] for node in self.rpc("dmq.list_nodes")}

    def contacts(self) -> dict[tuple[str, str], Contact]:
        """
        @return: what is registered, by user and URI: as it came by the wire, with C{Expires} in seconds from now.
        """
        found: dict[tuple[str, str], Contact] = {}
        for domain in self.rpc("ul.dump")["Domains"]:
            for entry in domain["Domain"]["AoRs"]:
                for each in entry["Info"]["Contacts"]:
                    contact = each["Contact"]
                    if contact["Expires"] not in ("expired", "deleted"):
                        found[entry["Info"]["AoR"], contact["Address"]] = contact
        return found

    def records(self) -> dict[tuple[str, str], Contact]:
        """
        @return: the same, only what all nodes shall have alike.
        """
        return {key: {name: each[name] for name in KEYS} for key, each in self.contacts().items()}


class Member(_Asked, NodeProcess):
    """
    A sipdmq node that is in a cluster.

    @ivar written: its log, when it has been cleaned up.
    """

    def __init__(
        self,
        host: str,
        *peers: str,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        params: str = "",
    ) -> None:
        """
        @param peers: as for L{Kamailio}.
        @param params: of its URI.
        """
        addresses = [peer if peer.startswith("sip:") else f"sip:{peer}:5060{params}" for peer in peers]
        sections: dict[str, dict[str, str]] = {
            "node": {"domains": "localhost"},
            "auth": {"secret": "the secret of the interop tests"},
            "registrar": {"min_expires": "1", "max_contacts": "100"},
            "dmq": {
                "server_address": f"sip:{host}:5060{params}",
                "notification_address": " ".join(addresses),
                "ping_interval": "3",
                "timeout": "2",
            },
        }
        for section, keys in (settings or {}).items():
            sections.setdefault(section, {}).update(keys)
        super().__init__(host, settings=sections)
        self.params = params
        self.written = ""

    def start(self) -> None:
        """
        See L{ServerProcess.start}.
        """
        self._keep_log()
        super().start()

    def clean_up(self) -> None:
        """
        See L{ServerProcess.clean_up}.
        """
        try:
            self.stop()
        finally:
            self._keep_log()
            super().clean_up()

    def _keep_log(self) -> None:
        path = self.directory / "log"
        if path.exists():
            self.written += path.read_text(errors="replace")

    def kill(self) -> None:
        """
        Let it crash.
        """
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def pause(self) -> None:
        """
        It does nothing any more until L{resume}; its sockets stay open.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """
        The inverse; harmless when it runs, or does not exist.
        """
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def nodes(self) -> dict[str, str]:
        """
        @return: the status of each node that it lists to strangers, by its address.
        """
        return dict(re.findall(r"^sip:([0-9.]+):\d+.*;status=(\w+)\r$", self.notify(), re.MULTILINE))

    def users(self, *names: str) -> dict[str, list[str]]:
        """
        @return: what these users have registered: contacts without their C{expires}.
        """
        return {
            name: sorted(re.sub(r";expires=\d+", "", contact) for contact in self.bindings(name)) for name in names
        }

    @property
    def count(self) -> int:
        """
        How many contacts are registered.
        """
        return int(self.snapshot()["location.bindings"])


class ClusterTestCase(SynchronousTestCase):
    """
    @cvar network: the first three numbers of the addresses of this class.
    """

    network = ""

    def setUp(self) -> None:
        if os.environ.get("SIPDMQ_INTEROP_AGAINST") == "kamailio":
            raise SkipTest("Kamailio: it is in these tests anyway")
        require("kamailio", "kamcmd", "ps")

    def address(self, number: int) -> str:
        """
        @return: one of this class's addresses.
        """
        return f"{self.network}.{number}"

    def kamailio(self, number: int, *peers: int, definitions: str = "", params: str = "") -> Kamailio:
        """
        Start one.

        @param number: of its address.
        @param peers: numbers of nodes to join through.
        """
        uris = [f"sip:{self.address(peer)}:5060{params}" for peer in peers]
        node = Kamailio(self.address(number), *uris, definitions=definitions, params=params)
        self.addCleanup(node.clean_up)
        node.start()
        return node

    def member(self, number: int, *peers: int, params: str = "", **settings: Mapping[str, str]) -> Member:
        """
        Start a sipdmq node.

        @param settings: sections of its INI file.
        """
        addresses = [self.address(peer) for peer in peers]
        node = Member(self.address(number), *addresses, params=params, settings=settings)
        self.addCleanup(self.assert_calm, node)
        self.addCleanup(node.clean_up)
        node.start()
        return node

    def assert_calm(self, node: Member) -> None:
        """
        A node that was stopped has logged no error.
        """
        self.assertNotIn("Traceback", node.written)

    def phone(self, node: ServerProcess, user: str, protocol: str = "udp") -> Phone:
        """
        @return: a phone of our own at a node.
        """
        domain = node.host if node.program == "kamailio" else "localhost"
        phone = Phone((node.host, node.port), user, domain, protocol=protocol)
        self.addCleanup(phone.close)
        return phone

    def register(self, node: ServerProcess, user: str, *contacts: str, fields: Sequence[str] = ()) -> Phone:
        """
        Register over UDP.

        @param contacts: whole values of Contact.
        @return: the phone that did it.
        """
        phone = self.phone(node, user)
        fields = [*(f"Contact: {contact}" for contact in contacts), *fields]
        answer = phone.send(phone.make("REGISTER", f"sip:{phone.domain}", fields))
        self.assertEqual(answer.status, 200, answer.text)
        return phone

    def assert_nodes(self, nodes: Iterable[Kamailio | Member], also: Iterable[str] = ()) -> None:
        """
        Soon all of them list all of them as active, and nobody else.

        @param also: further addresses.
        """
        nodes = list(nodes)
        expected = dict.fromkeys([*(node.host for node in nodes), *also], "active")
        for node in nodes:
            wait_until(lambda node=node: node.nodes() == expected, lambda node=node: (node.host, node.nodes()))
