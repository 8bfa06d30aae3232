"""
sipp, as one side of a test or as both.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

from sipdmq.core.userfile import with_user
from tests.interop.background import Background, wait_until_bound
from tests.interop.phone import Phone
from tests.interop.programs import InteropTestCase, Output, ProgramFailed, run_program

__all__ = ["REALM", "CallTestCase", "Callee", "SippTestCase", "read_messages", "users_file"]

SCENARIOS = Path(__file__).resolve().parent / "scenarios"

#: What the node's address stands for: the first name among its domains.
REALM = "localhost"

#: Seconds after which sipp gives up, and after which sipp itself is given up.
SIPP_TIMEOUT = 30
KILL_TIMEOUT = 45.0

#: Seconds until a callee must have seen the end of its calls, once the callers have.
CALLEE_TIMEOUT = 10.0

#: Seconds until a call record must be in its file: it is written once a second.
RECORD_TIMEOUT = 5.0


def users_file(*users: str) -> str:
    """
    A file of users, each with his password, C{alice-secret} and so on.
    """
    text = ""
    for user in users:
        text = with_user(text, user, REALM, f"{user}-secret")
    return text


def read_messages(path: Path) -> list[str]:
    """
    @param path: what sipp wrote by C{-trace_msg}.
    @return: every message that it sent or received, as its log shows it: the first line says which.
    """
    return re.split(r"-{20,} [-0-9]+ [0-9:.]+\n", path.read_text(errors="replace"))[1:]


class SippTestCase(InteropTestCase):
    """
    Runs a scenario to its end.

    @ivar phone_host: sipp's own address, for SIP and for its remote control.
    """

    programs = ("sipp",)

    def setUp(self) -> None:
        self.phone_host = self.host
        super().setUp()

    def command(self, scenario: str, host: str, transport: str, label: str, options: Sequence[str]) -> list[str]:
        """
        @param scenario: name of a file in C{scenarios/}, without C{.xml}.
        @param label: of the files that it writes.
        @return: what runs it.
        """
        return [
            "sipp",
            f"{self.server.host}:{self.server.port}",
            *("-sf", str(SCENARIOS / f"{scenario}.xml")),
            *("-i", host, "-ci", host),
            *("-t", transport),
            *("-nostdin", "-timeout", f"{SIPP_TIMEOUT}s", "-timeout_error"),
            *("-trace_err", "-error_file", str(self.directory / f"{label}errors")),
            *("-trace_msg", "-message_file", str(self.directory / f"{label}messages")),
            *options,
        ]

    def sipp(self, scenario: str, *options: str, transport: str = "u1", calls: int = 1, rate: int = 10) -> Output:
        """
        @param scenario: name of a file in C{scenarios/}, without C{.xml}.
        @param transport: sipp's C{-t}: u1 one UDP socket, t1 one TCP connection, tn one for each call.
        @param calls: how often the scenario is run, each time for another user.
        @param rate: calls begun per second.
        """
        options = ("-m", str(calls), "-r", str(rate), *options)
        return run_program(
            self.command(scenario, self.phone_host, transport, "", options),
            timeout=KILL_TIMEOUT,
            cwd=str(self.directory),
        )

    def assert_passed(self, output: Output) -> None:
        """
        Every call of sipp ended as its scenario says.
        """
        errors = self.directory / "errors"
        told = errors.read_text(errors="replace")[:3000] if errors.exists() else ""
        self.assertEqual(output.status, 0, f"{output.text[-3000:]}\n{told}\n{self.server.log()}")
        self.assert_well()

    def messages(self) -> list[str]:
        """
        @return: see L{read_messages}.
        """
        return read_messages(self.directory / "messages")


class Callee:
    """
    sipp that waits for calls.

    @ivar uri: where it is reached.
    """

    def __init__(self, program: Background, uri: str, messages: Path, errors: Path) -> None:
        self.program = program
        self.uri = uri
        self._messages = messages
        self._errors = errors

    def seen(self, method: str) -> list[str]:
        """
        @return: the requests of that method that it received; a retransmission, which a slow machine may bring about,
            does not count.
        """
        found: dict[str, str] = {}
        for message in read_messages(self._messages):
            branch = re.search(r"^Via:.*;branch=([^;\s]+)", message, re.MULTILINE)
            is_received = " received " in message.split("\n")[0]
            if is_received and branch and re.search(rf"^{method} \S+ SIP/2\.0", message, re.MULTILINE):
                found.setdefault(branch[1], message)
        return list(found.values())

    def finish(self) -> None:
        """
        Wait until all its calls are over.

        @raise ProgramFailed: they are not, or one did not go as its scenario says.
        """
        status = self.program.wait(CALLEE_TIMEOUT)
        if status:
            told = self._errors.read_text(errors="replace")[:3000] if self._errors.exists() else ""
            raise ProgramFailed(f"the callee's sipp ended with status {status}:\n{told}\n{self.program.text[-3000:]}")


class CallTestCase(SippTestCase):
    """
    Calls between two programs, through the node.

    The addresses: the node has the one that ends in .1, the caller's sipp .2, those of the callees end in .11 and more.

    @cvar is_guarded: whether users have passwords: C{alice-secret} and so on.
    """

    is_guarded = False

    def setUp(self) -> None:
        if os.environ.get("SIPDMQ_INTEROP_AGAINST") == "kamailio":
            raise SkipTest("Kamailio: configured as a plain registrar")
        self._callees = 0
        super().setUp()
        self.phone_host = self.address(2)

    def address(self, number: int) -> str:
        """
        @return: one of this test's addresses.
        """
        return f"{self.host.rpartition('.')[0]}.{number}"

    def callee(
        self, scenario: str, *options: str, user: str = "bob", transport: str = "udp", calls: int = 1, port: int = 5060
    ) -> Callee:
        """
        Have sipp wait for calls, at an address of its own, and register it.

        @param user: it is registered as; nothing is registered if empty.
        @param transport: C{udp} or C{tcp}.
        @param calls: after which it ends.
        """
        self._callees += 1
        host = self.address(10 + self._callees)
        label = f"callee{self._callees}-"
        extra = ("-p", str(port), "-m", str(calls), "-s", user or "gateway", *options)
        program = Background(
            self.command(scenario, host, "u1" if transport == "udp" else "t1", label, extra),
            self.directory / f"{label}output",
        )
        self.addCleanup(program.kill)
        wait_until_bound(program, host, port, transport)
        uri = f"sip:{user or 'gateway'}@{host}:{port};transport={transport}"
        if user:
            self.register(user, uri)
        return Callee(program, uri, self.directory / f"{label}messages", self.directory / f"{label}errors")

    def write_users(self, *users: str) -> None:
        """
        Write the file of users, each with his password.
        """
        (self.server.directory / "users").write_text(users_file(*users))

    def register(self, user: str, contact: str) -> None:
        """
        Register a contact, over UDP.
        """
        phone = self.phone(user)
        answer = phone.register(contact)
        self.assertEqual(answer.status, 200, f"{answer.text}\n{self.server.log()}")

    def phone(self, user: str, domain: str = "", password: str = "") -> Phone:
        """
        @param domain: by default the node's address.
        @param password: by default the right one.
        @return: a phone of our own, over UDP.
        """
        secret = password or (f"{user}-secret" if self.is_guarded else "")
        phone = Phone((self.server.host, self.server.port), user, domain or self.server.host, secret)
        self.addCleanup(phone.close)
        return phone

    def call(self, scenario: str, *options: str, user: str = "bob", transport: str = "udp", calls: int = 1) -> Output:
        """
        Have alice call a user, once or more often, at a pace of 50 a second; and see that all went as the scenario
        says.

        @param transport: C{udp} or C{tcp}.
        @return: what sipp said of it.
        """
        if self.is_guarded:
            # By itself sipp leaves the user out of the digest's uri.
            uri = f"{user}@{self.server.host}:{self.server.port}"
            options = ("-au", "alice", "-ap", "alice-secret", "-auth_uri", uri, *options)
        output = self.sipp(
            scenario,
            *("-s", user, "-key", "caller", "alice", "-d", "100"),
            *options,
            transport="u1" if transport == "udp" else "t1",
            calls=calls,
            rate=50,
        )
        self.assert_passed(output)
        return output

    def records(self, count: int) -> list[dict[str, Any]]:
        """
        Wait for call records.

        @return: those that are there, the first ended first.
        """
        path = self.server.directory / "calls.jsonl"
        deadline = time.monotonic() + RECORD_TIMEOUT
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= count or time.monotonic() > deadline:
                self.assertEqual(len(lines), count, self.server.log())
                return [json.loads(line) for line in lines]
            time.sleep(0.05)
