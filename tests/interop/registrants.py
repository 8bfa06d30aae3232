"""
Many phones that register, refresh, change and remove their contacts at several nodes, and know what was confirmed.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import re
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tests.interop.cluster import Kamailio, Member
from tests.interop.records import ROUNDING, Key, Record

__all__ = ["Registrants"]

#: Seconds after which a request is sent again, and after which it is given up (RFC 3261 timers E, and a short F).
RESEND_AFTER = (0.5, 1.5, 3.0)
GIVEN_UP_AFTER = 5.0

#: Seconds between two requests of a phone: times are told in seconds, and of two changes within one that are made at
#: different nodes either may count.
PAUSE = 2.5

#: Shares: of requests that are sent to another node than usual, and of what a registered phone does.
ROAMING = 0.1
REMOVED, CHANGED = 0.2, 0.3

#: Requests of each phone that are remembered.
REMEMBERED = 5

#: Where phones behind a proxy or a NAT say that they are.
PATH = "<sip:198.18.0.77:5070;lr>"
PRIVATE = "10.0.0.9"


@dataclass
class Registrant:
    """
    One phone.

    @ivar home: the node where it usually registers.
    @ivar confirmed: its contact after the last 200; L{None}: it has none.
    @ivar rounding: seconds, how well it is known when that expires.
    @ivar doubtful: what it may be instead, and because of which node: that has not answered, and may have done it, or
        do it still, when others have long done more; or it has answered, and is gone.
    @ivar before: what was confirmed before that.
    @ivar confirmed_at: and when, by the monotonic clock.
    @ivar confirmed_by: and by which node.
    @ivar history: the last requests.
    """

    user: str
    contact: str
    call_id: str
    home: str
    is_far: bool
    cseq: int = 0
    confirmed: Record | None = None
    rounding: int = ROUNDING
    doubtful: list[tuple[str, Record | None]] = field(default_factory=list)
    before: Record | None = None
    confirmed_at: float = 0.0
    confirmed_by: str = ""
    ready_at: float = 0.0
    history: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def note(self, request: _Request, outcome: str) -> None:
        """
        Remember what came of a request, for who asks how it came to this.
        """
        what = "removal" if request.meant is None else "contact"
        waited = time.monotonic() - request.sent_at
        at = time.strftime("%M:%S", time.localtime(time.time() - waited))
        self.history.append(f"{at} {what} CSeq {self.cseq} at {request.node} {outcome} after {waited:.1f} s")

    def is_doubted(self, name: str) -> bool:
        """
        Whether a node has let it down.
        """
        return any(node == name for node, _ in self.doubtful)

    def allows(self, found: Record | None) -> bool:
        """
        Whether this can be what a node has of it.
        """
        return any(
            found is None if each is None else found is not None and not each.differs(found, self.rounding)
            for each in (self.confirmed, *(record for _, record in self.doubtful))
        )


@dataclass
class _Request:
    """
    One that waits for its answer.
    """

    registrant: Registrant
    node: str
    data: bytes
    meant: Record | None
    sent_at: float
    resends: int = 0


class Registrants:
    """
    The phones, in a thread of their own. They are beside the nodes, in the same L{namespaces<ServerProcess.inside>}:
    what the network does to the nodes does not befall them.

    @ivar counts: of requests: sent, confirmed, unanswered (by each node, too), and answers other than 200 by code.
    @ivar absent: names of nodes that no phone turns to any more.
    @ivar lasting: names of nodes where no contact is removed.
    @ivar is_split: nodes may not know what others confirm: a Kamailio, which does not remember the removal of what it
        does not know, removes only what it was the last to confirm.
    """

    def __init__(self, nodes: Mapping[str, Kamailio | Member], number: int, seed: int) -> None:
        """
        @param number: of phones. Every fourth user has two of them.
        """
        self._random = random.Random(seed)
        self._nodes = dict(nodes)
        self.counts: Counter[str] = Counter()
        self.absent: set[str] = set()
        self.lasting: set[str] = set()
        self.is_split = False
        names = list(nodes)
        self.all = [
            Registrant(
                f"u{index - (index % 4 == 3):05d}",
                f"sip:u{index:05d}@10.{index >> 16}.{index >> 8 & 255}.{index & 255}:5062",
                f"{seed:x}-{index:05d}",
                names[index // 4 % len(names)],
                index % 5 == 0,
            )
            for index in range(number)
        ]
        self._sockets: dict[str, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        for name, node in nodes.items():
            with node.inside():
                opened = self._sockets[name] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.bind((node.host, 0))
            opened.setblocking(False)
            self._selector.register(opened, selectors.EVENT_READ, name)
        self._waiting: dict[str, _Request] = {}
        self._timers: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()
        self._interval = 0.0
        self._is_over = False
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """
        They are gone.
        """
        self._is_over = True
        self._thread.join()
        for opened in self._sockets.values():
            opened.close()
        self._selector.close()

    @property
    def users(self) -> list[str]:
        """
        All of them, each once.
        """
        return list(dict.fromkeys(each.user for each in self.all))

    def begin(self, rate: float) -> None:
        """
        @param rate: requests in a second, from now on.
        """
        self._interval = 1 / rate

    def cease(self) -> None:
        """
        No more; return when all is answered or given up.
        """
        self._interval = 0.0
        time.sleep(0.05)
        while self._waiting and self._failure is None:
            time.sleep(0.01)
        if self._failure is not None:
            raise self._failure

    def died(self, name: str, seconds: float) -> None:
        """
        A node was killed: what it confirmed within the last C{seconds} it may have told nobody.
        """
        now = time.monotonic()
        with self._lock:
            for each in self.all:
                if each.confirmed_by == name and each.confirmed_at > now - seconds:
                    each.doubtful.append((name, each.before))

    def wrong(self, found: Mapping[Key, Record], users: Iterable[str]) -> dict[Key, str]:
        """
        @param found: what a node has of these users.
        @return: what it should not have, or should.
        """
        told = {}
        known = set()
        users = frozenset(users)
        for each in self.all:
            if each.user not in users:
                continue
            key = (each.user, each.contact)
            known.add(key)
            has = found.get(key)
            if each.allows(has):
                continue
            wanted = each.confirmed
            if has is None:
                what = "missing"
            elif wanted is None:
                what = f"not removed, has CSeq {has.cseq}"
            else:
                what = f"confirmed / found: {wanted.differs(has, each.rounding)}"
            told[key] = f"{what}; {'; '.join(each.history)}"
        told.update(dict.fromkeys(found.keys() - known, "nobody has registered it"))
        return told

    # the thread

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._is_over:
                for key, _ in self._selector.select(0.001 if self._interval else 0.02):
                    self._hear(key.data)
                now = time.monotonic()
                self._resend(now)
                if not self._interval:
                    due = now
                due = max(due, now - 0.1)  # no burst after a pause
                while self._interval and due <= now:
                    due += self._interval
                    self._act(now)
        except BaseException as failure:
            self._failure = failure
            raise

    def _act(self, now: float) -> None:
        """
        A phone does something.
        """
        start = self._random.randrange(len(self.all))
        for index in range(start, start + len(self.all)):
            each = self.all[index % len(self.all)]
            if each.ready_at <= now:
                break
        else:
            return  # all are busy
        present = [name for name in self._nodes if name not in self.absent]
        name = each.home
        if name not in present or self._random.random() < ROAMING or each.is_doubted(name):
            name = self._random.choice(present)
        each.ready_at = float("inf")
        each.cseq += 1
        number = next(self._numbers)
        request = _Request(each, name, b"", self._wanted(each, name), now)
        request.data = self._register(request, number)
        self._waiting[str(number)] = request
        self._send(request, str(number), now)
        self.counts["sent"] += 1

    def _wanted(self, each: Registrant, name: str) -> Record | None:
        """
        What a phone wants its contact to be.
        """
        chance = self._random.random()
        record = each.confirmed
        is_blind = self.is_split and self._nodes[name].program == "kamailio" and name != each.confirmed_by
        may_go = name not in self.lasting and not is_blind
        if record is not None and chance < REMOVED and may_go:
            return None
        expires = self._random.randrange(600, 3600)
        if record is None or chance < REMOVED + CHANGED:
            q = self._random.choice((-1, *range(100, 1001, 100)))
            path = self._random.choice(("", PATH))
            record = Record(each.contact, q, expires, each.call_id, 0, path, f"phone/{each.cseq}", "")
        host, port = self._sockets[name].getsockname()
        received = f"sip:{host}:{port}" if each.is_far else ""
        return replace(record, expires_at=expires, cseq=each.cseq, received=received)

    def _register(self, request: _Request, number: int) -> bytes:
        each, meant = request.registrant, request.meant
        host, port = self._sockets[request.node].getsockname()
        sent_by = f"{PRIVATE if each.is_far else host}:{port}"
        contact = f"<{each.contact}>;expires=0"
        lines = []
        if meant is not None:
            q = f";q={meant.q / 1000:.1f}" if meant.q >= 0 else ""
            contact = f"<{each.contact}>{q};expires={meant.expires_at}"
            lines = [f"User-Agent: {meant.user_agent}"]
            if meant.path:
                lines += ["Supported: path", f"Path: {meant.path}"]
        if each.is_far:
            lines.append("X-Nat: yes")  # what tests/interop/kamailio/node.cfg wants to be told
        return "\r\n".join(
            [
                "REGISTER sip:localhost SIP/2.0",
                f"Via: SIP/2.0/UDP {sent_by};branch=z9hG4bK{number}.{each.call_id};rport",
                "Max-Forwards: 70",
                f"From: <sip:{each.user}@localhost>;tag={each.cseq}",
                f"To: <sip:{each.user}@localhost>",
                f"Call-ID: {each.call_id}",
                f"CSeq: {each.cseq} REGISTER",
                f"Contact: {contact}",
                *lines,
                "Content-Length: 0",
                "",
                "",
            ]
        ).encode()

    def _send(self, request: _Request, number: str, now: float) -> None:
        node = self._nodes[request.node]
        with contextlib.suppress(OSError):  # nobody is there at the moment
            self._sockets[request.node].sendto(request.data, (node.host, node.port))
        after = (*RESEND_AFTER, GIVEN_UP_AFTER)[request.resends]
        heapq.heappush(self._timers, (request.sent_at + after, int(number), number))

    def _resend(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, _, number = heapq.heappop(self._timers)
            request = self._waiting.get(number)
            if request is None:
                continue
            if request.resends < len(RESEND_AFTER) and request.node not in self.absent:
                request.resends += 1
                self._send(request, number, now)
                continue
            del self._waiting[number]
            self.counts["unanswered"] += 1
            self.counts[f"unanswered by {request.node}"] += 1
            request.registrant.note(request, "unanswered")
            self._doubt(request, now)

    def _doubt(self, request: _Request, now: float) -> None:
        each = request.registrant
        meant = request.meant
        if meant is not None:
            meant = replace(meant, expires_at=int(time.time()) + meant.expires_at)
            each.rounding = int(GIVEN_UP_AFTER) + ROUNDING
        with self._lock:
            each.doubtful.append((request.node, meant))
        each.ready_at = now + PAUSE

    def _hear(self, name: str) -> None:
        for _ in range(50):
            try:
                data = self._sockets[name].recv(65535)
            except OSError:
                return
            self._answered(data.decode("utf-8", "replace"))

    def _answered(self, text: str) -> None:
        branch = re.search(r"branch=z9hG4bK(\d+)\.", text)
        status = text[8:11]
        request = self._waiting.pop(branch[1], None) if branch and not status.startswith("1") else None
        if request is None:
            return
        now = time.monotonic()
        each = request.registrant
        if status != "200":
            self.counts[status] += 1
            each.note(request, f"refused with {status}")
            self._doubt(request, now)
            return
        self.counts["confirmed"] += 1
        each.note(request, "confirmed")
        meant = request.meant
        if meant is not None:
            meant = replace(meant, expires_at=int(time.time()) + meant.expires_at)
        with self._lock:
            each.before, each.confirmed = each.confirmed, meant
            each.doubtful = [doubt for doubt in each.doubtful if doubt[0] != request.node]
            each.rounding = ROUNDING + int(now - request.sent_at + 1)
            each.confirmed_at, each.confirmed_by = now, request.node
        each.ready_at = now + PAUSE
