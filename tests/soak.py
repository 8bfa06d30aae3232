"""
A running node under thousands of bad messages: it goes on answering, logs no traceback, and forgets them all.

C{python -m tests.soak [--seed N] [--messages 10000]}; C{make soak} calls it. Prints its seed, so that a run can be
repeated, and every number that it judged. Exit status 1 when one of them is wrong.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.interop.programs import NodeProcess, ProgramFailed
from tests.mutations import Mutations

__all__ = ["Soak", "SoakResult"]

SETTINGS: Mapping[str, Mapping[str, str]] = {
    # What a mutated REGISTER rightly registers is gone soon, too.
    "registrar": {"min_expires": "1", "default_expires": "2", "max_expires": "3"},
}

MUST_BE_EMPTY = (
    "location.aors", "location.bindings", "location.tombstones", "transaction.clients", "transaction.completed",
    "transaction.completed_bytes", "transaction.servers", "transport.connections", "transport.opening",
    "transport.stalled",
)  # fmt: skip

MAX_ANSWER_TIME = 0.25
"""Seconds that OPTIONS may take when all is over."""

MAX_GROWTH = 5 * 2**20
"""Bytes of resident memory above the baseline."""

PACE = 25
"""Messages between two OPTIONS that are waited for: more at once, and the kernel would drop what the node shall see."""


@dataclass
class SoakResult:
    """
    What was measured.

    @ivar answers: how many answers there were, by status code.
    @ivar slowest: the longest wait for an OPTIONS between the bad messages, seconds.
    @ivar answer_time: the wait for the one behind the last, seconds.
    @ivar left: the numbers of the node that should be zero and are not.
    @ivar baseline: resident bytes after the warming up.
    @ivar resident: resident bytes at the end.
    @ivar log: what the node wrote, as far as it is wrong.
    """

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest: float = 0.0
    answer_time: float = 0.0
    left: dict[str, float] = field(default_factory=dict)
    baseline: int = 0
    resident: int = 0
    log: str = ""

    def problems(self) -> list[str]:
        """
        @return: a sentence for each number that is wrong.
        """
        problems = []
        if self.answer_time > MAX_ANSWER_TIME:
            problems.append(f"OPTIONS took {self.answer_time:.3f} s, must take {MAX_ANSWER_TIME} s at most")
        if self.left:
            problems.append(f"the tables are not empty: {self.left}")
        if self.resident > self.baseline + MAX_GROWTH:
            problems.append(f"the memory grew by {(self.resident - self.baseline) / 2**20:.1f} MB")
        if self.log:
            problems.append(f"the log has a traceback:\n{self.log}")
        return problems


class Soak:
    """
    One node and those who wish it ill.
    """

    def __init__(self, host: str, seed: int, settings: Mapping[str, Mapping[str, str]], quiet: float) -> None:
        """
        @param host: the node's address.
        @param settings: more of its INI file.
        @param quiet: seconds after the last message until it must have forgotten everything.
        """
        merged = {section: dict(SETTINGS.get(section, {})) for section in {*SETTINGS, *settings, "node"}}
        merged["node"]["domains"] = f"{host} localhost example.com"
        for section, keys in settings.items():
            merged[section].update(keys)
        self.node = NodeProcess(host, settings=merged)
        self._quiet = quiet
        self._random = random.Random(seed)
        self._mutations = Mutations(seed, host)
        self._address = (host, self.node.port)
        self._result = SoakResult()

    def run(self, messages: int) -> SoakResult:
        """
        Start the node, two rounds of bad messages, judge the second against the first.
        """
        try:
            self.node.start()
            self._round(messages)
            time.sleep(self._quiet)
            self._result.baseline = self._resident()
            self._result.answers.clear()
            self._round(messages)
            self._result.answer_time = self._ping()
            time.sleep(self._quiet)
            numbers = self._snapshot()
            self._result.left = {name: numbers.get(name, -1) for name in MUST_BE_EMPTY if numbers.get(name) != 0}
            self._result.resident = self._resident()
            self._result.log = "\n".join(itertools.islice(self._faults(), 40))
        finally:
            self.node.clean_up()
        return self._result

    # sending

    def _round(self, messages: int) -> None:
        phones = []
        for port in (5999, 0):  # the Vias of most messages point to the first
            phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            phone.bind((self.node.host, port))
            phone.setblocking(False)
            phones.append(phone)
        streams: list[socket.socket] = []
        try:
            for count in range(messages):
                message = next(self._mutations)
                if self._random.random() < 0.7:
                    self._random.choice(phones).sendto(message, self._address)
                else:
                    self._send_by_stream(streams, message)
                if count % PACE == 0:
                    self._result.slowest = max(self._result.slowest, self._ping())
                    for phone in phones:
                        self._count_answers(phone)
        finally:
            for opened in (*phones, *streams):
                opened.close()

    def _send_by_stream(self, streams: list[socket.socket], message: bytes) -> None:
        if len(streams) < 5:
            stream = socket.create_connection(self._address, 5)
            stream.settimeout(1)
            streams.append(stream)
        stream = self._random.choice(streams)
        try:
            cut = self._random.randrange(len(message) + 1)
            stream.sendall(message[:cut])
            stream.sendall(message[cut:])
            self._count_answers(stream)
        except (OSError, EOFError):  # it was closed for what it had brought
            stream.close()
            streams.remove(stream)
            return
        if self._random.random() < 0.1:  # out of step by now, perhaps
            stream.close()
            streams.remove(stream)

    def _count_answers(self, opened: socket.socket) -> None:
        """
        @raise EOFError: the peer has closed the stream.
        """
        opened.setblocking(False)
        try:
            while True:
                data = opened.recv(65535)
                if not data and opened.type == socket.SOCK_STREAM:
                    raise EOFError
                codes = re.findall(rb"^SIP/2\.0 ([1-6][0-9]{2}) ", data, re.MULTILINE)
                self._result.answers.update(code.decode() for code in codes)
        except BlockingIOError:
            pass
        finally:
            if opened.type == socket.SOCK_STREAM:
                opened.settimeout(1)

    # asking

    def _ping(self) -> float:
        start = time.monotonic()
        answer = self.node.ask(self.node.options(), 5.0)
        if not answer.startswith(b"SIP/2.0 200 "):
            raise ProgramFailed(f"OPTIONS was answered {answer!r} after {time.monotonic() - start:.1f} s")
        return time.monotonic() - start

    @property
    def _pid(self) -> int:
        process = self.node._process
        assert process is not None
        return process.pid

    def _resident(self) -> int:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _lines(self) -> list[str]:
        return (self.node.directory / "log").read_text(errors="replace").splitlines()

    def _snapshot(self) -> dict[str, float]:
        """
        The node's numbers, as it writes them into its log when it is asked.
        """
        os.kill(self._pid, signal.SIGUSR2)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            lines = [line for line in self._lines() if "snapshot: " in line]
            if lines:
                pairs = (pair.partition("=") for pair in lines[-1].partition("snapshot: ")[2].split())
                return {name: float(value) for name, _, value in pairs}
            time.sleep(0.05)
        raise ProgramFailed("SIGUSR2 brought no snapshot")

    def _faults(self) -> Iterator[str]:
        """
        Tracebacks and unhandled errors in the log, and what follows them.
        """
        until = 0
        for number, line in enumerate(self._lines()):
            if "Traceback" in line or "Unhandled" in line or "broke" in line:
                until = number + 25
            if number < until:
                yield line


def main() -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; random when not given")
    parser.add_argument("--messages", type=int, default=10_000, help="in each of the two rounds")
    parser.add_argument("--quiet", type=float, default=35.0, help="seconds to wait behind the last message")
    parser.add_argument("--host", default="127.0.31.1", help="the address on which the node listens")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"seed {seed}: {options.messages} messages to warm up, {options.messages} to be judged", flush=True)
    result = Soak(options.host, seed, {}, options.quiet).run(options.messages)
    print("answers:", ", ".join(f"{count} × {status}" for status, count in sorted(result.answers.items())))
    print(f"OPTIONS: {result.slowest * 1000:.0f} ms at worst among them, {result.answer_time * 1000:.1f} ms behind")
    print(f"memory: {result.baseline / 2**20:.1f} MB before, {result.resident / 2**20:.1f} MB behind")
    problems = result.problems()
    print("\n".join(problems) or "tables empty, no traceback: well")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
