"""
Whole calls through a proxy, from one process: INVITE, 180, 200, ACK, BYE, 200, over UDP, along the route set.

One socket is the caller, one the callee, who answers at once with 180 and 200. The callee copies Via and Record-Route
of the INVITE that reaches it, the caller follows the Record-Route of the 200 with ACK and BYE, and hangs up when the
ACK has arrived. So a call is done only when the proxy passed on each of its messages. What may be lost is sent again,
and counted.

Nothing sleeps here, not even at a fixed rate: to wake a sleeper on another core is charged to the server, and is dear
on a virtual machine. (By sipp, which sleeps between messages, a call costs sipdmq several times as much.) All that does
not depend on what the proxy writes is built beforehand.

As a program::

    python bench/calls.py 127.0.0.1:5060 --count 10000 --window 20
    python bench/calls.py 127.0.0.1:5060 --count 5000 --rate 500
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from array import array
from collections import deque
from dataclasses import dataclass

from call_script import Script, copied_of, values_of
from clocks import Clocks, Cost
from load import MAX_SENDINGS, RESEND_AFTER, LoadFailed, Messages, UserAgents, percentile, run_load
from servers import Server

__all__ = ["CallResult", "Phones", "measure"]

#: Who is called, in turns.
CALLEES = 1000

#: Open calls at most: each may have two messages of a kilobyte in a receive buffer, which holds some 90 of these with
#: Linux' default.
WINDOW = 20

#: Digits of the number of a call in its Call-ID.
NUMBER_DIGITS = 8

#: Where a call stands. Later is greater.
INVITED, ANSWERED, CONFIRMED, ENDED = 1, 2, 3, 4


@dataclass(frozen=True)
class CallResult:
    """
    What one run gave.

    @ivar count: calls asked for.
    @ivar completed: calls that were hung up and answered with 200 to the BYE.
    @ivar refused: calls that were answered with another final status, or whose answers lacked what is needed.
    @ivar resent: messages sent a second time or more often, because nothing came in time.
    @ivar seconds: wall clock time from the first INVITE to the last answer.
    @ivar waited: those of them in which there was nothing to do but to look for messages.
    @ivar trying: seconds from sending (at a fixed rate: from the instant at which sending was due) to the 100, sorted.
    @ivar answered: the same to the 200.
    @ivar example: the first unexpected answer; empty when there was none.
    """

    count: int
    completed: int
    refused: int
    resent: int
    seconds: float
    waited: float
    trying: array[float]
    answered: array[float]
    example: bytes

    @property
    def rate(self) -> float:
        """
        Completed calls per second.
        """
        return self.completed / self.seconds

    @property
    def own(self) -> float:
        """
        Seconds that each call took here, the spinning not counted: what the generator costs at least.
        """
        return (self.seconds - self.waited) / self.count

    def check(self) -> CallResult:
        """
        @return: itself, when every call was completed, and 100s came at all: one that is lost is not sent again.
        @raise LoadFailed: otherwise.
        """
        if self.completed != self.count or not self.trying:
            raise LoadFailed(
                f"of {self.count} calls {self.completed} were completed, {self.refused} were refused; "
                f"{len(self.trying)} had their 100; "
                f"{self.resent} messages sent again; first unexpected answer: {self.example[:300]!r}"
            )
        return self


class Phones:
    """
    The caller, a stranger from another domain, and the callees: users of the server, who share one socket.
    """

    def __init__(self, server: tuple[str, int], local_host: str = "127.0.0.1", domain: str | None = None) -> None:
        """
        @param server: host and port.
        @param domain: the host of the callees' addresses-of-record; by default the server's address.
        """
        self._caller = UserAgents(server, local_host, domain)
        self._callee = UserAgents(server, local_host, domain)
        self._domain = self._caller.domain
        self._caller_at, self._callee_at = (
            f"{local_host}:{agents.socket.getsockname()[1]}" for agents in (self._caller, self._callee)
        )
        self._run = int.from_bytes(os.urandom(4), "big")

    def close(self) -> None:
        """
        Give the ports back.
        """
        self._caller.close()
        self._callee.close()

    def register(self) -> None:
        """
        Register all callees. Without it nobody can be called.

        @raise LoadFailed: not all of them could be.
        """
        mark = os.urandom(3).hex()
        datagrams = [
            f"REGISTER sip:{self._domain} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self._callee_at};branch=z9hG4bK{user:08d}{mark};rport\r\n"
            f"Max-Forwards: 70\r\n"
            f"From: <sip:callee{user:04d}@{self._domain}>;tag={mark}{user}\r\n"
            f"To: <sip:callee{user:04d}@{self._domain}>\r\n"
            f"Call-ID: {mark}-{user:04d}-callee\r\n"
            f"CSeq: 1 REGISTER\r\n"
            f"Contact: <{self._contact(user)}>\r\n"
            f"Expires: 3600\r\n"
            f"Content-Length: 0\r\n\r\n".encode()
            for user in range(CALLEES)
        ]
        run_load(self._callee, Messages(datagrams)).check()

    def _contact(self, user: int) -> str:
        return f"sip:callee{user:04d}@{self._callee_at}"

    def call(
        self, count: int, window: int = WINDOW, rate: float | None = None, timeout: float = 60.0
    ) -> CallResult:
        """
        Make calls, and wait until all are over.

        @param window: at most so many are open. Ignored with a C{rate}.
        @param rate: calls per second, begun when they are due whether or not the server keeps up.
        @param timeout: seconds after which the run ends.
        """
        self._run = (self._run + 1) & 0xFFFFFFFF
        script = Script(
            f"{self._run:08x}", count, self._domain, self._caller_at, [self._contact(user) for user in range(CALLEES)]
        )
        collecting = gc.isenabled()
        gc.disable()  # a collection here would be measured as latency of the server
        try:
            return self._call(script, count, window, rate, timeout)
        finally:
            if collecting:
                gc.enable()

    def _call(self, script: Script, count: int, window: int, rate: float | None, timeout: float) -> CallResult:
        """
        The loop itself; everything it touches is local.
        """
        caller_send, caller_receive = self._caller.socket.send, self._caller.socket.recv
        callee_send, callee_receive = self._callee.socket.send, self._callee.socket.recv
        now_of = time.perf_counter
        key, key_length = script.key, len(script.key)
        invites, dialogs, acks, byes = script.invites, script.dialogs, script.acks, script.byes
        ringing, ok, ok_bye = script.ringing, script.ok, script.ok_bye
        states = bytearray(count)
        sendings = bytearray(count)
        tried = bytearray(count)
        started_at = array("d", bytes(8 * count))
        latest: list[bytes] = [b""] * count  # what is to be sent again: the callee's 200, then the caller's BYE
        trying, answered = array("d"), array("d")
        waiting: deque[tuple[float, int]] = deque()  # (instant at which to look after it, number), in order of time
        following = completed = refused = resent = 0
        example = b""

        for receive in caller_receive, callee_receive:  # what came late for an earlier run
            while True:
                try:
                    receive(65535)
                except BlockingIOError:
                    break

        start = now = last_end = now_of()
        deadline = start + timeout
        waited = 0.0
        while completed + refused < count:
            is_busy = False
            if rate is None:
                until = min(count, following + window - (following - completed - refused))
            else:
                until = min(count, int((now - start) * rate) + 1)
            while following < until:
                is_busy = True
                now = now_of()
                started_at[following] = now if rate is None else start + following / rate
                states[following] = INVITED
                waiting.append((now + RESEND_AFTER, following))
                following += 1
                try:
                    caller_send(invites[following - 1])
                except (BlockingIOError, ConnectionRefusedError):
                    break  # as if it had been lost
            # An error of sending ends a loop of receiving as well: the message is lost then, and comes again.
            try:
                while True:  # the callee
                    data = callee_receive(65535)
                    is_busy = True
                    at = data.find(key) + key_length
                    if at < key_length:
                        continue  # of an earlier run
                    number = int(data[at : at + NUMBER_DIGITS])
                    if data.startswith(b"INVITE "):
                        if states[number] == INVITED:
                            states[number] = ANSWERED
                            copied = copied_of(data) + dialogs[number]
                            callee_send(b"SIP/2.0 180 Ringing\r\n" + copied + ringing[number % CALLEES])
                            latest[number] = b"SIP/2.0 200 OK\r\n" + copied + ok[number % CALLEES]
                        callee_send(latest[number])
                    elif data.startswith(b"BYE "):
                        callee_send(b"SIP/2.0 200 OK\r\n" + copied_of(data) + dialogs[number] + ok_bye)
                    elif data.startswith(b"ACK ") and states[number] == ANSWERED:
                        states[number] = CONFIRMED
                        route = acks[number]  # of which the caller has made the routes
                        latest[number] = byes[number] + route[route.index(b"\r\nRoute:") + 2 : route.index(b"CSeq: ")]
                        latest[number] += b"CSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n"
                        caller_send(latest[number])
            except (BlockingIOError, ConnectionRefusedError):
                pass
            try:
                while True:  # the caller
                    data = caller_receive(65535)
                    is_busy = True
                    at = data.find(key) + key_length
                    if at < key_length:
                        continue
                    number = int(data[at : at + NUMBER_DIGITS])
                    status = data[8:11]
                    if status == b"100":
                        if not tried[number]:
                            tried[number] = 1
                            trying.append(now_of() - started_at[number])
                    elif status == b"180":
                        pass
                    elif status == b"200" and data.find(b" BYE\r\n") >= 0:
                        if states[number] == CONFIRMED:
                            states[number] = ENDED
                            latest[number] = b""
                            last_end = now_of()
                            completed += 1
                    elif status == b"200" and states[number] >= ANSWERED:
                        if acks[number].find(b"\r\nRoute:") < 0:
                            answered.append(now_of() - started_at[number])
                            routes = values_of(data, b"\r\nRecord-Route: ")
                            if not routes:
                                refused += 1
                                states[number] = ENDED
                                example = example or data
                                continue
                            lines = b"".join([b"Route: %b\r\n" % route for route in reversed(routes)])
                            acks[number] += (
                                lines + b"Max-Forwards: 70\r\n" + dialogs[number] + b"CSeq: 1 ACK\r\n"
                                b"Content-Length: 0\r\n\r\n"
                            )
                        caller_send(acks[number])
                    elif states[number] != ENDED:
                        refused += 1
                        states[number] = ENDED
                        example = example or data
            except (BlockingIOError, ConnectionRefusedError):
                pass
            # Send again what was not answered in time.
            before, now = now, now_of()
            if not is_busy:
                waited += now - before
            while waiting and (waiting[0][0] <= now or states[waiting[0][1]] == ENDED):
                number = waiting.popleft()[1]
                state = states[number]
                if state == ENDED or sendings[number] >= MAX_SENDINGS:
                    continue  # over, or given up: the deadline ends the run then
                sendings[number] += 1
                waiting.append((now + RESEND_AFTER, number))
                if state == INVITED and tried[number]:
                    continue  # the proxy has it, and repeats it
                resent += 1
                try:
                    if state == ANSWERED:
                        callee_send(latest[number])
                    else:
                        caller_send(invites[number] if state == INVITED else latest[number])
                except (BlockingIOError, ConnectionRefusedError):
                    pass
            if now > deadline:
                break
        return CallResult(
            count=count,
            completed=completed,
            refused=refused,
            resent=resent,
            seconds=max(1e-9, last_end - start),
            waited=waited,
            trying=array("d", sorted(trying)),
            answered=array("d", sorted(answered)),
            example=example,
        )


def measure(
    server: Server, count: int, rated: int, rate: float, window: int = WINDOW
) -> tuple[CallResult, Cost, CallResult, Cost]:
    """
    @param server: running.
    @param count: calls as fast as the server can.
    @param rated: calls at a fixed rate.
    @param rate: calls per second.
    @return: what both gave, each with its cost.
    @raise LoadFailed: a call was not completed.
    """
    phones = Phones(server.address)
    try:
        phones.register()
        phones.call(500, window).check()  # warms up
        clocks = Clocks(server)
        fast = phones.call(count, window, timeout=60 + count / 100).check() if count else phones.call(1).check()
        fast_cost = clocks.read()
        clocks = Clocks(server)
        # That the server cannot keep up, and calls are not over in time, is then what was to be found out.
        steady = phones.call(rated, rate=rate, timeout=20 + rated / rate) if rated else fast
        if steady.refused or not steady.completed:
            steady.check()
        return fast, fast_cost, steady, clocks.read()
    finally:
        phones.close()


def main(arguments: list[str]) -> int:
    """
    Make calls through a server that is already there, and print what they gave.

    @return: the exit status, 1 when a call was not completed.
    """
    parser = argparse.ArgumentParser(description="Calls over UDP through a proxy with Record-Route.")
    parser.add_argument("server", help="address and port, 127.0.0.1:5060")
    parser.add_argument("--count", type=int, default=10_000, help="calls (default %(default)s)")
    parser.add_argument("--window", type=int, default=WINDOW, help="open calls at most (default %(default)s)")
    parser.add_argument("--rate", type=float, default=None, help="calls per second instead of a window")
    parser.add_argument("--domain", default=None, help="host of the addresses-of-record (default: the server's)")
    parser.add_argument("--local", default="127.0.0.1", help="address to send from (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds at most (default %(default)s)")
    parser.add_argument("--core", type=int, default=None, help="run on this processor core only")
    options = parser.parse_args(arguments)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    host, _, port = options.server.partition(":")
    phones = Phones((host, int(port or 5060)), options.local, options.domain)
    phones.register()
    result = phones.call(options.count, options.window, options.rate, options.timeout)
    tried, answered = (
        f"p50 {percentile(times, 50) * 1e3:.2f} ms, p99 {percentile(times, 99) * 1e3:.2f} ms"
        for times in (result.trying, result.answered)
    )
    print(
        f"{result.completed} of {result.count} calls in {result.seconds:.2f} s, {result.rate:.0f}/s; "
        f"100 after {tried}; 200 after {answered}; "
        f"refused: {result.refused}, sent again: {result.resent}; generator {result.own * 1e6:.0f} µs a call"
    )
    if result.example:
        print(f"first unexpected answer: {result.example!r}", file=sys.stderr)
    return 0 if result.completed == result.count else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
