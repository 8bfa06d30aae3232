"""
REGISTERs with a password over UDP (digest, MD5, qop=auth): the first of each user, 401 and then 200, and the refreshes
that use its nonce again, with a count that goes up.

Refreshes are built beforehand, as all load of L{load}. For a first REGISTER the second request cannot be: its response
is computed, and the rest of it was built, while the server waits for nothing, as a window of others is open.

    python bench/digest_load.py --server sipdmq --count 20000
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import sys
import time
from array import array
from collections import deque

from clocks import Clocks, Cost
from load import BRANCH_COOKIE, MAX_SENDINGS, NUMBER_DIGITS, RESEND_AFTER, LoadResult, Messages, UserAgents, run_load
from programs import SERVERS
from servers import Server, own_host

__all__ = ["PASSWORD", "DigestPhones", "measure", "users"]

#: Of all users.
PASSWORD = "right-horse-battery"

CNONCE = b"0a4f113b8d2e6c71"

#: How each request that L{UserAgents} builds ends.
END = b"Content-Length: 0\r\n\r\n"

#: Users that register before anything is measured.
WARM_USERS = 500


def users(count: int) -> list[str]:
    """
    @return: the names of those that L{measure} registers.
    """
    return [f"user{number:06d}" for number in range(count + WARM_USERS)]


class DigestPhones:
    """
    Phones that know a password, behind one socket. Each keeps its nonce.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        """
        @param server: host, which is the realm, too, and port.
        """
        self.agents = UserAgents(server)
        self._domain = self.agents.domain
        self._ha2 = _md5(f"REGISTER:sip:{self._domain}".encode())
        #: By user: MD5 of name, realm and password, and the nonce.
        self._ha1: dict[int, bytes] = {}
        self._nonces: dict[int, bytes] = {}

    def close(self) -> None:
        """
        Give the port back.
        """
        self.agents.close()

    def _credentials(self, user: int, count: int) -> tuple[bytes, bytes, bytes]:
        """
        @param count: of the nonce.
        @return: what stands before the nonce in the header field, and before and behind it in what is hashed.
        """
        name = f"user{user:06d}"
        ha1 = self._ha1.get(user)
        if ha1 is None:
            ha1 = self._ha1[user] = _md5(f"{name}:{self._domain}:{PASSWORD}".encode())
        head = (
            f'Authorization: Digest username="{name}", realm="{self._domain}", uri="sip:{self._domain}", '
            f'algorithm=MD5, qop=auth, nc={count:08x}, cnonce="{CNONCE.decode()}", nonce="'
        )
        return head.encode(), ha1 + b":", b":%08x:%b:auth:%b" % (count, CNONCE, self._ha2)

    def refreshes(self, count: int, turn: int, first_user: int = 0) -> Messages:
        """
        One REGISTER for each user, with the nonce that he has. Everybody has to have registered.

        @param turn: 1, 2, ...: of these refreshes.
        """
        plain = self.agents.registers(count, cseq=2 + turn, first_user=first_user).datagrams
        datagrams = []
        for user, request in enumerate(plain, first_user):
            head, before, behind = self._credentials(user, 1 + turn)
            nonce = self._nonces[user]
            datagrams.append(
                b'%b%b%b", response="%b"\r\n%b'
                % (request[: -len(END)], head, nonce, _md5(before + nonce + behind), END)
            )
        return Messages(datagrams)

    def register(self, count: int, window: int = 50, first_user: int = 0, timeout: float = 120.0) -> LoadResult:
        """
        The first REGISTER of each user, without a password and, when it was challenged, with it.

        @param window: so many users are on their way at most.
        @return: of users, not of requests; latencies from the first request to the 200.
        """
        first = self.agents.registers(count, 1, first_user=first_user).datagrams
        parts = []
        for number, request in enumerate(self.agents.registers(count, 2, first_user=first_user).datagrams):
            head, before, behind = self._credentials(first_user + number, 1)
            parts.append((request[: -len(END)] + head, before, behind))
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self._register(first, parts, window, first_user, timeout)
        finally:
            if collecting:
                gc.enable()

    def _register(
        self,
        requests: list[bytes],
        parts: list[tuple[bytes, bytes, bytes]],
        window: int,
        first_user: int,
        timeout: float,
    ) -> LoadResult:
        """
        The loop itself. What was sent last for a user stands in C{requests}.
        """
        send, receive, now_of, md5 = self.agents.socket.send, self.agents.socket.recv, time.perf_counter, hashlib.md5
        nonces = self._nonces
        count = len(requests)
        second = bytearray(count)  # whether the one with the password was sent
        over = bytearray(count)
        sendings = bytearray(count)
        started_at = array("d", bytes(8 * count))
        latencies = array("d")
        waiting: deque[tuple[float, int]] = deque()
        cookie_length = len(BRANCH_COOKIE)
        length = NUMBER_DIGITS + 6  # of a number and the mark of its batch, which differ for both requests of a user
        following = succeeded = refused = lost = resent = 0
        example = b""

        start = now = last_answer = now_of()
        deadline = start + timeout
        while succeeded + refused + lost < count and now < deadline:
            until = min(count, following + window - (following - succeeded - refused - lost))
            while following < until:
                started_at[following] = now = now_of()
                waiting.append((now + RESEND_AFTER, following))
                send(requests[following])
                following += 1
            while True:
                try:
                    answer = receive(65535)
                except (BlockingIOError, ConnectionRefusedError):
                    break
                at = answer.find(BRANCH_COOKIE) + cookie_length
                mark = answer[at : at + length]
                if not mark[:NUMBER_DIGITS].isdigit() or answer[8:9] == b"1":
                    continue
                number = int(mark[:NUMBER_DIGITS])
                if number >= following or over[number] or requests[number].find(mark, 0, 200) < 0:
                    continue  # of an earlier run, or the first request's for the second time
                if not second[number] and answer.startswith(b"SIP/2.0 401 "):
                    at = answer.index(b'nonce="') + 7
                    nonce = answer[at : answer.index(b'"', at)]
                    nonces[first_user + number] = nonce
                    head, before, behind = parts[number]
                    response = md5(before + nonce + behind).hexdigest().encode()
                    requests[number] = request = b'%b%b", response="%b"\r\n%b' % (head, nonce, response, END)
                    second[number] = 1
                    send(request)
                    continue
                over[number] = 1
                last_answer = now_of()
                latencies.append(last_answer - started_at[number])
                if second[number] and answer.startswith(b"SIP/2.0 200 "):
                    succeeded += 1
                else:
                    refused += 1
                    example = example or answer
            now = now_of()
            while waiting and (waiting[0][0] <= now or over[waiting[0][1]]):
                number = waiting.popleft()[1]
                if over[number]:
                    continue
                if sendings[number] >= MAX_SENDINGS:
                    over[number] = 1
                    lost += 1
                    continue
                sendings[number] += 1
                resent += 1
                waiting.append((now + RESEND_AFTER, number))
                send(requests[number])
        return LoadResult(
            count=count,
            succeeded=succeeded,
            refused=refused,
            lost=count - succeeded - refused,
            resent=resent,
            seconds=max(1e-9, last_answer - start),
            latencies=array("d", sorted(latencies)),
            example=example,
        )


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data).hexdigest().encode()


def measure(
    server: Server, count: int, turns: int, window: int = 50
) -> tuple[tuple[LoadResult, Cost], list[tuple[LoadResult, Cost]]]:
    """
    @param server: running, with L{users} of this count and their L{PASSWORD}.
    @param count: users.
    @param turns: how often each of them refreshes.
    @return: what the first REGISTERs gave, and each turn of refreshes, with the cost of all their requests together.
    @raise LoadFailed: a user was not registered.
    """
    phones = DigestPhones(server.address)
    try:
        phones.register(WARM_USERS, window, first_user=count).check()
        run_load(phones.agents, phones.refreshes(WARM_USERS, 1, first_user=count), window).check()
        clocks = Clocks(server)
        result = phones.register(count, window).check()
        # Building the requests is part of the generator's time here, not of the server's.
        first = (result, clocks.read())
        refreshes = []
        for turn in range(1, turns + 1):
            messages = phones.refreshes(count, turn)
            clocks = Clocks(server)
            result = run_load(phones.agents, messages, window).check()
            refreshes.append((result, clocks.read()))
        return first, refreshes
    finally:
        phones.close()


def main(arguments: list[str]) -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="REGISTER with digest over UDP: CPU time of a server.")
    parser.add_argument(
        "--server", choices=[n for n, s in SERVERS.items() if "digest-first" in s.works], default="sipdmq"
    )
    parser.add_argument("--count", type=int, default=20_000, help="users (default %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="refreshes of each (default %(default)s)")
    parser.add_argument("--window", type=int, default=50, help="users on their way at most (default %(default)s)")
    options = parser.parse_args(arguments)
    with SERVERS[options.server](own_host(1)).with_passwords(users(options.count), PASSWORD) as server:
        first, refreshes = measure(server, options.count, options.turns, options.window)
    for title, (result, cost) in (("first", first), *((f"refresh {n}", each) for n, each in enumerate(refreshes, 1))):
        print(f"{server.title}: {title}: {cost.cpu / result.count * 1e6:.1f} µs of CPU each, {result.rate:.0f}/s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
