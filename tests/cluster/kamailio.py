"""
A model of Kamailio 5.6.3 with the modules dmq and dmq_usrloc, after WIRE §1 to §6 and nothing else: an old message
wins, nothing is repeated or repaired, and whoever does not answer is forgotten. What would kill or hang it (§14) raises
L{Crashed}.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

from sipdmq.records import Binding
from sipdmq.sip.message import Request, Response
from sipdmq.sip.parser import parse_message
from tests.cluster.clock import HeapCall, HeapClock
from tests.cluster.machine import BUFFER, DOMAIN, PORT, node_address
from tests.cluster.network import Address, Network
from tests.location_store_tests import EPOCH

__all__ = ["Crashed", "Kamailio"]

T1: Final = 0.5
T2: Final = 4.0
WORKING: Final = 0.004
"""Seconds that one of the DMQ processes may take longer than another: no order holds between two requests."""
_STRINGS: Final = ("aor", "ruid", "c", "received", "path", "callid", "user_agent", "instance")
_NUMBERS: Final = (
    "expires", "cseq", "flags", "cflags", "q", "last_modified", "methods", "reg_id", "server_id",
)  # fmt: skip

Record = dict[str, Any]
"""As on the wire, without C{action}."""
Heard = Callable[["Kamailio", Binding, "Binding | None", tuple[str, int]], object]


class Crashed(Exception):
    """
    A message that a real one does not survive.
    """


class _Life:
    """
    One process: what is in its memory.

    @ivar nodes: C{"host:port"} to C{"active"}, C{"pending"} or C{"disabled"}, this node not among them.
    @ivar table: by user and ruid.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_dead = False
        self.is_halted = False
        self.nodes: dict[str, str] = {}
        self.table: dict[str, dict[str, Record]] = {}
        self.is_first_contact = True
        self.count = 0
        self.open: dict[str, tuple[Callable[[Response | None], object], bytes]] = {}
        self.late: list[HeapCall] = []
        self.buffer: list[tuple[bytes, Address]] = []

    def is_late(self, call: HeapCall) -> bool:
        """
        See L{tests.cluster.clock.Owner.is_late}.
        """
        if self.is_halted:
            self.late.append(call)
        return self.is_halted


class Kamailio:
    """
    A machine with a Kamailio; the same as L{Machine<tests.cluster.machine.Machine>} for whoever looks at it.

    @ivar heard: called with this, a record, the one before, Call-ID and CSeq of each change that a phone makes here.
    """

    is_sipdmq = False

    def __init__(
        self, clock: HeapClock, network: Network, number: int, peers: tuple[int, ...], seed: str, skew: float = 0.0,
        ping_interval: float = 5.0, fr_timer: float = 15.0,
    ) -> None:
        self.clock = clock
        self.network = network
        self.number = number
        self.skew = skew
        self.address = node_address(number)
        self.heard: Heard = lambda machine, record, previous, name: None
        self.fr_timer = fr_timer
        self._ping_interval = ping_interval
        self._configured = [f"{node_address(peer)}:{PORT}" for peer in peers]
        self._own = f"{self.address}:{PORT}"
        self._random = Random(f"kamailio {seed} {number}")
        self._lives = 0
        self.process: _Life | None = None
        network.attach(self.address, self)

    # the process

    @property
    def is_up(self) -> bool:
        """
        Whether there is a process, halted or not.
        """
        return self.process is not None

    @property
    def is_halted(self) -> bool:
        """
        Whether it stands still.
        """
        return self.process is not None and self.process.is_halted

    def start(self) -> None:
        """
        A new process: it joins (§4).
        """
        self._lives += 1
        self.process = _Life(self._lives)
        self._request_lists()
        self._later(self._ping_interval, self._ping)

    def kill(self) -> None:
        """
        SIGKILL.
        """
        if self.process is not None:
            self.process.is_dead = True
            self.process = None

    def halt(self) -> None:
        """
        SIGSTOP.
        """
        if self.process is not None:
            self.process.is_halted = True

    def go_on(self) -> None:
        """
        SIGCONT.
        """
        life = self._life
        life.is_halted = False
        late, life.late = life.late, []
        for call in late:
            self.clock.again(call)
        waiting, life.buffer = life.buffer, []
        for data, sender in waiting:
            self._later(0, self._received, data, sender)

    @property
    def _life(self) -> _Life:
        assert self.process is not None
        return self.process

    def _later(self, delay: float, call: Callable[..., object], *args: object) -> None:
        self.clock.call_for(self._life, delay, call, *args)

    def epoch(self) -> int:
        """
        Its time of day.
        """
        return int(EPOCH + self.skew + self.clock.now)

    def records(self, aor: str) -> tuple[Binding, ...]:
        """
        Its live contacts of an AoR.
        """
        if self.process is None:
            return ()
        records = self._live(aor.rpartition("@")[0])
        return tuple(_binding(record) for record in records.values())

    def active(self) -> set[str]:
        """
        The addresses of whom it holds for active, itself included.
        """
        nodes = {} if self.process is None else self.process.nodes
        return {self.address, *(name.partition(":")[0] for name, status in nodes.items() if status == "active")}

    # datagrams

    def datagram_arrived(self, data: bytes, sender: Address) -> None:
        """
        See L{tests.cluster.network.Host}.
        """
        life = self.process
        if life is None:
            return
        if life.is_halted:
            if len(life.buffer) < BUFFER:
                life.buffer.append((data, sender))
        else:
            self._received(data, sender)

    def _received(self, data: bytes, sender: Address) -> None:
        message: Any = parse_message(data)
        if isinstance(message, Request):
            if message.method == "REGISTER":
                self._registered(message, sender)
            else:  # one of two processes works on it, in its own time, however often it comes (§1)
                self._later(self._random.uniform(0, WORKING), self._work, message, sender)
            return
        found = self._life.open.pop(message.top_via.branch, None)
        if found is not None:
            found[0](message)

    def _send(self, data: bytes, receiver: Address) -> None:
        self.network.send(data, (self.address, PORT), receiver)

    def _reply(self, request: Request, receiver: Address, status: str, body: str = "", kind: str = "") -> None:
        first = request.headers.first
        lines = [f"SIP/2.0 {status}", *(f"Via: {via}" for via in request.headers.get_all("via"))]
        lines += [f"From: {first['from']}", f"Call-ID: {first['call-id']}", f"CSeq: {first['cseq']}"]
        lines += [f"To: {first['to']};tag={self._life.number:04d}"]
        if kind:
            lines.append(f"Content-Type: {kind}")
        lines += ["Server: kamailio (5.6.3 (x86_64/linux))", f"Content-Length: {len(body)}", "", body]
        self._send("\r\n".join(lines).encode(), receiver)

    def _request(
        self, channel: str, name: str, body: str, done: Callable[[Response | None], object], hops: int = 1
    ) -> None:
        """
        @param done: called with the answer, or with L{None} when the transaction has timed out.
        """
        life = self._life
        life.count += 1
        branch = f"z9hG4bK{self.number}.{life.number}.{life.count}"
        kind = "text/plain" if channel == "notification_peer" else "application/json"
        data = (
            f"KDMQ sip:{channel}@{name} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self.address};branch={branch}\r\n"
            f"To: <sip:{channel}@{name}>\r\n"
            f"From: <sip:{channel}@{self._own}>;tag={branch[7:]}\r\n"
            f"CSeq: 10 KDMQ\r\n"
            f"Call-ID: {branch[7:]}@{self.address}\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"User-Agent: kamailio (5.6.3 (x86_64/linux))\r\n"
            f"Max-Forwards: {hops}\r\n"
            f"Content-Type: {kind}\r\n\r\n{body}"
        ).encode()
        life.open[branch] = (done, data)
        self._again(branch, name.partition(":")[0], T1)
        self._later(self.fr_timer, self._timed_out, branch)

    def _again(self, branch: str, host: str, wait: float) -> None:
        found = self._life.open.get(branch)
        if found is not None:
            self._send(found[1], (host, PORT))
            self._later(wait, self._again, branch, host, min(2 * wait, T2))

    def _timed_out(self, branch: str) -> None:
        found = self._life.open.pop(branch, None)
        if found is not None:
            found[0](None)

    def _work(self, request: Request, sender: Address) -> None:
        channel = request.uri_text.removeprefix("sip:").partition("@")[0]
        body = request.body.decode()
        if channel == "notification_peer":
            self._notified(request, sender, body)
        elif channel == "usrloc":
            self._told(request, sender, body)
        else:
            self._reply(request, sender, "404 User Not Found")

    # the list of nodes (§3, §4)

    def _request_lists(self) -> None:
        life = self._life
        life.is_first_contact = True
        for name in self._configured:
            life.nodes.setdefault(name, "pending")
        for name in life.nodes:
            self._notify(name, 2)

    def _ping(self) -> None:
        self._later(self._ping_interval, self._ping)
        if self._life.nodes:
            for name in list(self._life.nodes):
                self._notify(name, 1)
        else:
            self._request_lists()

    def _list(self) -> str:
        active = [name for name, status in self._life.nodes.items() if status == "active"]
        return "".join(f"sip:{name};status=active\r\n" for name in [*reversed(active), self._own])

    def _notify(self, name: str, hops: int) -> None:
        self._request("notification_peer", name, self._list(), lambda answer: self._answered(name, answer), hops)

    def _answered(self, name: str, answer: Response | None) -> None:
        nodes = self._life.nodes
        if answer is not None:
            if answer.status == 200:
                nodes[name] = "active"
                self._read(answer.body.decode())
                self._contact()
        elif name in self._configured:
            nodes[name] = "pending"
        elif nodes.get(name) == "disabled":
            del nodes[name]
        elif name in nodes:
            nodes[name] = "disabled"

    def _read(self, body: str) -> bool:
        """
        @return: whether there was news.
        """
        news = False
        if body and not body.endswith("\n"):
            raise Crashed("a list whose last line does not end")
        for line in body.splitlines():
            uri, _, status = line.partition(";status=")
            if not uri.startswith("sip:") or status not in ("active", "disabled"):
                raise Crashed(f"a list with the line {line!r}")
            name = uri.removeprefix("sip:")
            was = self._life.nodes.get(name)
            if name != self._own and was != status and was != "disabled":
                self._life.nodes[name] = status
                news = True
        return news

    def _notified(self, request: Request, sender: Address, body: str) -> None:
        news = self._read(body)
        self._reply(request, sender, "200 OK", self._list(), "text/plain")
        hops = (request.max_forwards or 0) - 1
        if news and hops > 0:
            for name, status in list(self._life.nodes.items()):
                if status == "active":
                    self._notify(name, hops)
        self._contact()

    def _contact(self) -> None:
        if self._life.is_first_contact:
            self._life.is_first_contact = False
            self._broadcast({"action": 3})

    def _broadcast(self, document: Record) -> None:
        for name, status in list(self._life.nodes.items()):
            if status == "active":
                self._tell(name, document)

    def _tell(self, name: str, document: Record) -> None:
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        self._request("usrloc", name, body, lambda answer: None)

    # locations (§6)

    def _live(self, user: str) -> dict[str, Record]:
        records = self._life.table.setdefault(user, {})
        now = self.epoch()
        for ruid in [ruid for ruid, record in records.items() if 0 < record["expires"] <= now]:
            del records[ruid]
        return records

    def _told(self, request: Request, sender: Address, body: str) -> None:
        document = json.loads(body)
        if not isinstance(document, dict) or not document:
            raise Crashed(f"usrloc: {body}")
        actions = document["multi"].values() if next(iter(document)) == "multi" else [document]
        status = "200 OK"
        for action in actions:
            kind = action.get("action", 0)
            if kind in (1, 2):
                self._change(kind, _checked(action))
            elif kind == 3:
                self._sync(request)
            elif kind != 0:
                status = "400 Bad Request"
        self._reply(request, sender, status)

    def _change(self, kind: int, record: Record) -> None:
        records = self._live(record["aor"])
        if kind == 2:
            records.pop(record["ruid"], None)
            return
        stored = records.get(record["ruid"])
        if stored is None:
            stored = next((each for each in records.values() if each["c"] == record["c"]), None)
            if stored is None:
                records[record["ruid"]] = record
                return
            if stored["callid"] == record["callid"] and record["cseq"] <= stored["cseq"]:
                return
        contact = record["c"] if record["instance"] else stored["c"]
        records[stored["ruid"]] = {**record, "ruid": stored["ruid"], "c": contact}

    def _sync(self, request: Request) -> None:
        asking = str(request.from_.uri).partition("@")[2]
        names = [asking] if asking in self._life.nodes else [
            name for name, status in self._life.nodes.items() if status == "active"
        ]
        for user in list(self._life.table):
            records = list(self._live(user).values())
            for begin in range(len(records)):
                for record in records[begin:]:
                    for name in names:
                        self._tell(name, {"action": 1, **record})

    # phones

    def _registered(self, request: Request, sender: Address) -> None:
        user = request.to.uri.user  # type: ignore[union-attr]
        assert isinstance(user, str)
        records = self._live(user)
        call_id, cseq = request.call_id, request.cseq.number
        if request.has_wildcard_contact:
            for record in list(records.values()):
                self._remove(record, call_id, cseq)
            self._reply(request, sender, "200 OK")
            return
        for contact in request.contacts or ():
            uri = str(contact.uri)
            stored = next((each for each in records.values() if each["c"] == uri), None)
            if stored is not None and stored["callid"] == call_id and cseq <= stored["cseq"]:
                self._reply(request, sender, "200 OK" if cseq == stored["cseq"] else "500 Server Internal Error")
                return
        for contact in request.contacts or ():
            uri = str(contact.uri)
            stored = next((each for each in records.values() if each["c"] == uri), None)
            expires = int(contact.params.get("expires") or "3600")
            if expires:
                self._store(user, uri, stored, contact.params, expires, call_id, cseq)
            elif stored is not None:
                self._remove(stored, call_id, cseq)
        self._reply(request, sender, "200 OK")

    def _store(
        self, user: str, uri: str, stored: Record | None, params: Any, expires: int, call_id: str, cseq: int
    ) -> None:
        life = self._life
        life.count += 1
        ruid = f"uloc-{self.number}-{life.number}-{life.count}" if stored is None else stored["ruid"]
        now = self.epoch()
        record = dict.fromkeys(_STRINGS, "") | dict.fromkeys(_NUMBERS, 0) | {
            "aor": user, "ruid": ruid, "c": uri, "callid": call_id, "user_agent": "n/a", "expires": now + expires,
            "instance": (params.get("+sip.instance") or "").strip('"'), "reg_id": int(params.get("reg-id") or "0"),
            "cseq": cseq, "q": -1, "last_modified": now, "methods": 2**32 - 1,
        }  # fmt: skip
        life.table[user][ruid] = record
        self._broadcast({"action": 1, **record})
        self.heard(self, _binding(record), None if stored is None else _binding(stored), (call_id, cseq))

    def _remove(self, record: Record, call_id: str, cseq: int) -> None:
        """
        The rm has the keys of the record as it was.
        """
        del self._life.table[record["aor"]][record["ruid"]]
        self._broadcast({"action": 2, **record})
        was = _binding(record)
        self.heard(self, was._replace(removed=True), was, (call_id, cseq))


def _checked(action: Record) -> Record:
    """
    @raise Crashed: a key that is missing, or of another type than Kamailio reads (§5, §14).
    """
    for name in _STRINGS:
        if not isinstance(action.get(name), str):
            raise Crashed(f"usrloc without the string {name}: {action}")
    for name in _NUMBERS:
        if not isinstance(action.get(name), int):
            raise Crashed(f"usrloc without the number {name}: {action}")
    return {name: action[name] for name in (*_STRINGS, *_NUMBERS)}


def _binding(record: Record) -> Binding:
    return Binding(
        f"{record['aor']}@{DOMAIN}", record["ruid"], record["c"], "", record["q"], record["expires"] or 2**32 - 1,
        record["callid"], record["cseq"], record["instance"], record["reg_id"], record["path"], record["received"],
        "", "", "" if record["user_agent"] == "n/a" else record["user_agent"], record["last_modified"],
        record["server_id"],
    )  # fmt: skip
