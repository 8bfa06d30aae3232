"""
A generator of SIP load over UDP that is not the bottleneck: messages built beforehand, one socket, one tight loop.

It sends either with a bounded window of unanswered requests (how fast is the server?) or at a fixed rate (how long
does an answer take?), finds the request of an answer by the number in its branch, sends again what was not answered
in time, and counts that. One request and its answer cost it about 10 microseconds, so one core of it
feeds any server measured here; L{run} prints what they did cost.

As a program::

    python bench/load.py 127.0.0.1:5060 --mode register --count 100000 --window 50
    python bench/load.py 127.0.0.1:5060 --mode register --count 100000 --rate 5000
"""

from __future__ import annotations

import argparse
import gc
import os
import select
import socket
import sys
import time
from array import array
from collections import deque
from dataclasses import dataclass

__all__ = ["LoadFailed", "LoadResult", "Messages", "UserAgents", "percentile", "run_load"]

#: What every branch begins with: RFC 3261 §8.1.1.7. The number of the request follows in eight digits.
BRANCH_COOKIE = b"z9hG4bK"

#: Digits of the number of a request in its branch.
NUMBER_DIGITS = 8

#: Seconds after which an unanswered request is sent again: RFC 3261's T1.
RESEND_AFTER = 0.5

#: A request that was sent this often without an answer is lost.
MAX_SENDINGS = 8

#: Bytes asked for as receive buffer of the generator, so that answers are not lost on its side.
RECEIVE_BUFFER = 4 * 1024 * 1024


class LoadFailed(Exception):
    """
    The server did not do the work: it answered wrongly, too little, or not in the time given.
    """


@dataclass(frozen=True)
class LoadResult:
    """
    What one run gave.

    @ivar count: requests asked for.
    @ivar succeeded: requests answered with the status that was expected.
    @ivar refused: requests answered with another final status.
    @ivar lost: requests that were never answered.
    @ivar resent: messages sent a second time or more often, because the answer was not there in time.
    @ivar seconds: wall clock time from the first message to the last answer.
    @ivar latencies: seconds from sending (at a fixed rate: from the instant at which sending was due) to the answer,
        sorted, one for each answered request.
    @ivar example: the first unexpected answer, for the error message; empty when there was none.
    """

    count: int
    succeeded: int
    refused: int
    lost: int
    resent: int
    seconds: float
    latencies: array[float]
    example: bytes

    @property
    def rate(self) -> float:
        """
        Answered requests per second.
        """
        return (self.succeeded + self.refused) / self.seconds

    def check(self) -> LoadResult:
        """
        @return: itself, when every request was answered as expected.
        @raise LoadFailed: otherwise.
        """
        if self.succeeded != self.count:
            raise LoadFailed(
                f"of {self.count} requests {self.succeeded} succeeded, {self.refused} were refused, "
                f"{self.lost} never answered; first unexpected answer: {self.example[:300]!r}"
            )
        return self


def percentile(latencies: array[float], percent: float) -> float:
    """
    @param latencies: seconds, sorted.
    @param percent: 0 to 100.
    @return: the one that this share of them does not exceed.
    """
    if not latencies:
        return float("nan")
    return latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))]


@dataclass(frozen=True)
class Messages:
    """
    Requests ready to be sent.

    @ivar datagrams: whole messages; the branch of C{datagrams[i]} carries C{i}.
    @ivar size: bytes of an average one.
    """

    datagrams: list[bytes]

    @property
    def size(self) -> float:
        return sum(map(len, self.datagrams)) / max(1, len(self.datagrams))


class UserAgents:
    """
    The phones: one socket stands for all of them, as a NAT or an outbound proxy does.

    Every batch of messages has new branches, and each user's CSeq grows by one with each of its REGISTERs, so that
    no message is the retransmission of an earlier one.
    """

    def __init__(self, server: tuple[str, int], local_host: str = "127.0.0.1", domain: str | None = None) -> None:
        """
        @param server: host and port that the load is sent to.
        @param local_host: the address to send from.
        @param domain: the host of the addresses-of-record; by default the server's address.
        """
        self.domain = domain or server[0]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.bind((local_host, 0))
        self.socket.connect(server)
        self.socket.setblocking(False)
        self._local = f"{local_host}:{self.socket.getsockname()[1]}"
        self._batch = int.from_bytes(os.urandom(3), "big")
        self._seed = os.urandom(5).hex()

    def close(self) -> None:
        """
        Give the port back.
        """
        self.socket.close()

    def _next_batch(self) -> str:
        self._batch = (self._batch + 1) & 0xFFFFFF
        return f"{self._batch:06x}"

    def registers(self, count: int, cseq: int = 1, users: int | None = None, first_user: int = 0) -> Messages:
        """
        Build REGISTER requests of about 480 bytes each, as a softphone sends them.

        @param count: how many requests.
        @param cseq: CSeq of a user's first request of this batch: 1 for new bindings, more for a refresh.
        @param users: how many different users take turns; by default each request has a user of its own.
        @param first_user: number of the first user.
        """
        batch = self._next_batch()
        local, domain, seed = self._local, self.domain, self._seed
        datagrams = []
        for number in range(count):
            turn, user = divmod(number, users or count)
            user += first_user
            contact = f"sip:user{user:06d}@127.{user >> 16 & 255}.{user >> 8 & 255}.{user & 255}:5062;transport=udp"
            datagrams.append(
                f"REGISTER sip:{domain} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {local};branch=z9hG4bK{number:08d}{batch};rport\r\n"
                f"Max-Forwards: 70\r\n"
                f'From: "User {user}" <sip:user{user:06d}@{domain}>;tag={seed}{user:06d}\r\n'
                f"To: <sip:user{user:06d}@{domain}>\r\n"
                f"Call-ID: {seed}-8f14e45fceea167a-{user:06d}\r\n"
                f"CSeq: {cseq + turn} REGISTER\r\n"
                f"Contact: <{contact}>\r\n"
                f"Expires: 3600\r\n"
                f"Allow: INVITE,ACK,BYE,CANCEL,OPTIONS,NOTIFY\r\n"
                f"User-Agent: Softphone/4.2.1 (Linux; x86_64)\r\n"
                f"Content-Length: 0\r\n\r\n".encode()
            )
        return Messages(datagrams)

    def query(self, user: int, cseq: int) -> bytes:
        """
        @return: a REGISTER without Contact: the answer lists what there is (RFC 3261 §10.3 step 8).
        """
        mark = os.urandom(8).hex()
        return (
            f"REGISTER sip:{self.domain} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self._local};branch=z9hG4bK{mark};rport\r\n"
            f"Max-Forwards: 70\r\n"
            f"From: <sip:user{user:06d}@{self.domain}>;tag={mark}\r\n"
            f"To: <sip:user{user:06d}@{self.domain}>\r\n"
            f"Call-ID: {mark}\r\n"
            f"CSeq: {cseq} REGISTER\r\n"
            f"Content-Length: 0\r\n\r\n"
        ).encode()

    def options(self, count: int) -> Messages:
        """
        Build OPTIONS requests of about 350 bytes each to the server itself.
        """
        batch = self._next_batch()
        local, domain, seed = self._local, self.domain, self._seed
        return Messages(
            [
                f"OPTIONS sip:{domain} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {local};branch=z9hG4bK{number:08d}{batch};rport\r\n"
                f"Max-Forwards: 70\r\n"
                f"From: <sip:ping@{domain}>;tag={seed}{number:08d}\r\n"
                f"To: <sip:{domain}>\r\n"
                f"Call-ID: {seed}-{batch}-{number:08d}\r\n"
                f"CSeq: 1 OPTIONS\r\n"
                f"Accept: application/sdp\r\n"
                f"User-Agent: Softphone/4.2.1 (Linux; x86_64)\r\n"
                f"Content-Length: 0\r\n\r\n".encode()
                for number in range(count)
            ]
        )


def run_load(
    agents: UserAgents,
    messages: Messages,
    window: int = 50,
    rate: float | None = None,
    expected: bytes = b"SIP/2.0 200 ",
    timeout: float = 120.0,
    is_alone: bool = True,
) -> LoadResult:
    """
    Send every message and wait for the answers.

    @param agents: the socket to send from; what still lies in it from before is thrown away.
    @param messages: built by the same C{agents}.
    @param window: at most so many requests are unanswered; a socket holds some 150 datagrams of this size with
        Linux' default buffer, so more would be lost before the server has seen them. Ignored with a C{rate}.
    @param rate: messages per second, sent when they are due whether or not the server keeps up.
    @param expected: what a good answer begins with; empty for a server that only echoes.
    @param timeout: seconds after which the run ends, whatever is unanswered counting as lost.
    @param is_alone: nothing else has to do on this processor core: if something has, it gets it whenever there is no
        answer to take in.
    """
    collecting = gc.isenabled()
    gc.disable()  # a collection here would be measured as latency of the server
    try:
        return _run(agents.socket, messages.datagrams, window, rate, expected, timeout, is_alone)
    finally:
        if collecting:
            gc.enable()


def _run(
    sock: socket.socket,
    datagrams: list[bytes],
    window: int,
    rate: float | None,
    expected: bytes,
    timeout: float,
    is_alone: bool,
) -> LoadResult:
    """
    The loop itself; everything it touches is local, as this is the part that must be fast.
    """
    send, receive, now_of, wait = sock.send, sock.recv, time.perf_counter, select.select
    count = len(datagrams)
    started_at = array("d", bytes(8 * count))
    sendings = bytearray(count)
    answered = bytearray(count)
    latencies = array("d")
    waiting: deque[tuple[float, int]] = deque()  # (instant at which to send again, number), in order of time
    socks = [sock]
    cookie_length = len(BRANCH_COOKIE)
    batch = _batch_of(datagrams[0]) if datagrams else b""
    succeeded = refused = lost = resent = 0
    following = 0  # number of the next message that was never sent
    example = b""

    while True:  # answers to an earlier run that came late
        try:
            receive(65535)
        except BlockingIOError:
            break

    start = now = now_of()
    deadline = start + timeout
    last_answer = start
    while succeeded + refused + lost < count:
        # Send what may be sent now.
        if rate is None:
            until = min(count, following + window - (following - succeeded - refused - lost))
        else:
            until = min(count, int((now - start) * rate) + 1)
        while following < until:
            now = now_of()
            started_at[following] = now if rate is None else start + following / rate
            sendings[following] = 1
            try:
                send(datagrams[following])
            except BlockingIOError:
                break  # our own buffer is full: the messages stay due
            waiting.append((now + RESEND_AFTER, following))
            following += 1
        # Take in all answers that are there.
        while True:
            try:
                answer = receive(65535)
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                continue  # ICMP: the server is gone or not there yet; the deadline decides
            at = answer.find(BRANCH_COOKIE) + cookie_length
            if answer[at + NUMBER_DIGITS : at + NUMBER_DIGITS + 6] != batch or answer[8:9] == b"1":
                continue  # of an earlier run, or provisional
            number = int(answer[at : at + NUMBER_DIGITS])
            if answered[number]:
                continue  # a retransmission crossed with the answer
            answered[number] = 1
            last_answer = now_of()
            latencies.append(last_answer - started_at[number])
            if answer.startswith(expected):
                succeeded += 1
            else:
                refused += 1
                example = example or answer
        # Send again what was not answered in time.
        now = now_of()
        while waiting and (waiting[0][0] <= now or answered[waiting[0][1]]):
            number = waiting.popleft()[1]
            if answered[number]:
                continue
            if sendings[number] >= MAX_SENDINGS:
                answered[number] = 1
                lost += 1
                continue
            sendings[number] += 1
            resent += 1
            waiting.append((now + RESEND_AFTER, number))
            try:
                send(datagrams[number])
            except BlockingIOError:
                pass
        if now > deadline:
            break
        # Sleep until an answer, or the next message, is due. With a window there is always one about to come, and to
        # wake a sleeper on another core, for a virtual machine an expensive interrupt, would be charged to the server.
        if rate is None:
            if not is_alone:
                os.sched_yield()
            continue
        if following < count:
            pause = min(0.05, max(0.0, start + following / rate - now))
        else:
            pause = 0.05
        if succeeded + refused + lost < count:
            wait(socks, (), (), pause)
            now = now_of()
    lost = count - succeeded - refused
    return LoadResult(
        count=count,
        succeeded=succeeded,
        refused=refused,
        lost=lost,
        resent=resent,
        seconds=max(1e-9, last_answer - start),
        latencies=array("d", sorted(latencies)),
        example=example,
    )


def _batch_of(datagram: bytes) -> bytes:
    """
    @return: the six hexadecimal digits in the branch that all messages of one batch share.
    """
    at = datagram.find(BRANCH_COOKIE) + len(BRANCH_COOKIE) + NUMBER_DIGITS
    return datagram[at : at + 6]


def main(arguments: list[str]) -> int:
    """
    Run one load against a server that is already there, and print what it gave.

    @return: the exit status, 1 when a request was not answered with 200.
    """
    parser = argparse.ArgumentParser(description="SIP load over UDP.")
    parser.add_argument("server", help="address and port, 127.0.0.1:5060")
    parser.add_argument("--mode", choices=("register", "refresh", "options"), default="register")
    parser.add_argument("--count", type=int, default=100_000, help="requests (default %(default)s)")
    parser.add_argument("--window", type=int, default=50, help="unanswered requests at most (default %(default)s)")
    parser.add_argument("--rate", type=float, default=None, help="requests per second instead of a window")
    parser.add_argument("--domain", default=None, help="host of the addresses-of-record (default: the server's)")
    parser.add_argument("--local", default="127.0.0.1", help="address to send from (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds at most (default %(default)s)")
    parser.add_argument("--core", type=int, default=None, help="run on this processor core only")
    options = parser.parse_args(arguments)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    host, _, port = options.server.partition(":")
    agents = UserAgents((host, int(port or 5060)), options.local, options.domain)
    if options.mode == "options":
        rounds = [agents.options(options.count)]
    elif options.mode == "register":
        rounds = [agents.registers(options.count)]
    else:
        rounds = [agents.registers(options.count), agents.registers(options.count, cseq=2)]
    for messages in rounds:
        result = run_load(agents, messages, options.window, options.rate, timeout=options.timeout)
    print(
        f"{options.mode}: {result.count} of {messages.size:.0f} bytes in {result.seconds:.2f} s, {result.rate:.0f}/s, "
        f"p50 {percentile(result.latencies, 50) * 1e3:.2f} ms, p99 {percentile(result.latencies, 99) * 1e3:.2f} ms, "
        f"200: {result.succeeded}, refused: {result.refused}, lost: {result.lost}, sent again: {result.resent}"
    )
    if result.example:
        print(f"first unexpected answer: {result.example!r}", file=sys.stderr)
    return 0 if result.succeeded == result.count else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
