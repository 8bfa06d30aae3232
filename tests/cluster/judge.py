"""
What is to hold after a schedule of faults, and who says whether it does.

  - B{Equal.} All nodes have the same live bindings; of a record everything but its ruid counts. What a Kamailio has
    removed by the exception below, it alone lacks until the phone's next REGISTER.
  - B{Nothing lost, nothing back.} What is there of a contact is what the last change of it left that a 200 has
    confirmed: a later one wins. Later is what was applied after the other had been seen by that node, or later than it
    by the greatest difference of two clocks and two seconds: C{last_modified} has whole seconds, and a change that
    follows another by L{hybrid time<sipdmq.dmq.conflict>} may be one ahead. What no 200 has confirmed may count or not.
  - B{The exception.} A change that a node had confirmed, and that is in the store of no other node, halted or cut off
    as it may be, at the moment when the last node that had it is killed. It may be lost, or not: it may be on its way.
    And a removal at a Kamailio that did not know the contact, or of which no sipdmq node has heard when the Kamailio
    gives up telling it. It undoes what that Kamailio knew: its message says when that was made, and not when it was
    removed, so a change that it had not heard of counts, if it was made before.
  - B{Silence.} When all are equal, nobody sends any change.
  - B{Few messages.} See L{tests.cluster.schedule.Schedule.bound}.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from zope.interface import implementer

from sipdmq.core.contacts import identity
from sipdmq.interfaces.location import IBindingListener
from sipdmq.records import Binding, BindingChange, Origin
from tests.cluster.clock import HeapClock
from tests.cluster.phones import Operation, Phone
from tests.location_store_tests import EPOCH

__all__ = ["Judge", "Write"]

Key = tuple[str, str]
"""AoR and L{identity<sipdmq.core.contacts.identity>}."""

Place = tuple[int, str, int, bool]


class Write(NamedTuple):
    """
    A change of one contact, made by the node where a phone has registered.

    @ivar saw: C{last_modified} of what it replaced; -1: nothing.
    @ivar name: Call-ID and CSeq of the REGISTER that made it; of a removal at a Kamailio the record has others.
    @ivar is_blind: it undoes only what it saw: a removal at a Kamailio.
    """

    time: float
    node: str
    record: Binding
    saw: int
    name: tuple[str, int]
    is_blind: bool = False

    @property
    def place(self) -> Place:
        """
        The beginning of its rank.
        """
        return _place(self.record)

    def replaces(self, other: Write, slack: float) -> bool:
        """
        Whether what another change has left is undone by this one.

        @param slack: seconds between two changes from which on the later one counts, had it not seen the other one.
        """
        if self.time <= other.time:
            return False
        return self.saw >= other.record.last_modified or (not self.is_blind and self.time >= other.time + slack)

    def __str__(self) -> str:
        record = self.record
        what = "removal" if record.removed else record.contact
        call_id, cseq = self.name
        return f"{call_id} {cseq} @{record.last_modified - int(EPOCH)} at {self.node}, {what}"


@implementer(IBindingListener)
class _Ear:
    """
    Hears of what is registered at one node.
    """

    def __init__(self, judge: Judge, node: str) -> None:
        self._judge = judge
        self._node = node

    def binding_changed(self, change: BindingChange) -> None:
        if change.origin is Origin.LOCAL:
            self._judge.written(self._node, change.binding, change.previous)


class Judge:
    """
    Remembers what happened, and judges what is there in the end.

    @ivar excused: changes that may be lost.
    """

    def __init__(self, clock: HeapClock, machines: Sequence[Any], phones: Sequence[Phone], skew: float) -> None:
        """
        @param machines: L{Machine<tests.cluster.machine.Machine>}s and such.
        @param skew: the greatest difference of two clocks, seconds.
        """
        self._clock = clock
        self._machines = machines
        self._phones = phones
        self._skew = skew
        self._writes: dict[Key, list[Write]] = {}
        self.excused: set[tuple[Key, Write]] = set()

    def started(self, machine: Any) -> None:
        """
        There is a new process.
        """
        if machine.is_sipdmq:
            machine.process.node.store.watch(_Ear(self, machine.address))
        else:
            machine.heard = self._written_at_kamailio

    def written(
        self,
        node: str,
        record: Binding,
        previous: Binding | None,
        name: tuple[str, int] | None = None,
        is_blind: bool = False,
    ) -> Write:
        """
        A node has stored what a phone asked for.
        """
        saw = -1 if previous is None else previous.last_modified
        write = Write(self._clock.now, node, record, saw, name or (record.call_id, record.cseq), is_blind)
        self._writes.setdefault(_key(record), []).append(write)
        return write

    def _written_at_kamailio(
        self, machine: Any, record: Binding, previous: Binding | None, name: tuple[str, int]
    ) -> None:
        if previous is not None and previous.last_modified > record.last_modified:
            previous = None  # its clock is behind, and it writes what that says
        write = self.written(machine.address, record, previous, name, record.removed)
        if record.removed:
            self._clock.callLater(machine.fr_timer + 2, self._gave_up, write)

    def _gave_up(self, write: Write) -> None:
        """
        A Kamailio tells a removal once, and remembers it no longer.
        """
        key = _key(write.record)
        ours = [machine for machine in self._machines if machine.is_sipdmq]
        if max(_holds(machine, key) for machine in ours) < write.place:
            self.excused.add((key, write))

    @property
    def changes(self) -> int:
        """
        How many there were.
        """
        return sum(map(len, self._writes.values()))

    @property
    def contacts(self) -> int:
        """
        How many contacts there ever were.
        """
        return len(self._writes)

    def killing(self, machine: Any) -> None:
        """
        A process is about to lose what it knows.
        """
        others = [other for other in self._machines if other is not machine and other.is_up]
        for key, writes in self._writes.items():
            there = _holds(machine, key)
            elsewhere = max((_holds(other, key) for other in others), default=_NOTHING)
            if there <= elsewhere:
                continue
            self.excused.update((key, write) for write in writes if elsewhere < write.place <= there)

    # the judgement

    def equal(self) -> list[str]:
        """
        A sentence for each contact that not all nodes see alike.
        """
        tables = [(machine.address, self._table(machine)) for machine in self._machines if machine.is_up]
        first, expected = tables[0]
        forgotten = {key for key, write in self.excused if write.is_blind}
        problems = []
        for other, table in tables[1:]:
            for key in sorted((expected.keys() | table.keys()) - forgotten):
                if expected.get(key) != table.get(key):
                    problems.append(
                        f"not equal: {_name(key)} is {_brief(expected.get(key))} on {first} "
                        f"and {_brief(table.get(key))} on {other}"
                    )
        return problems

    def _table(self, machine: Any) -> dict[Key, Binding]:
        """
        What is comparable of the live records that do not expire just now.
        """
        soon = EPOCH + self._clock.now + self._skew + 3
        return {
            _key(record): _comparable(record)
            for aor in sorted({aor for aor, _ in self._writes})
            for record in machine.records(aor)
            if not record.removed and record.expires_at > soon
        }

    def right(self) -> list[str]:
        """
        A sentence for each contact that is not as a phone was told.
        """
        confirmed = {name for phone in self._phones for name in phone.confirmed}
        problems = []
        for machine in self._machines:
            if machine.is_up:
                table = self._table(machine)
                for key, writes in sorted(self._writes.items()):
                    problem = self._wrong(key, writes, table.get(key), confirmed)
                    if problem:
                        problems.append(f"{problem} on {machine.address}: {_name(key)}")
                problems += self._back(machine.address, table, confirmed)
        return problems

    def _wrong(
        self, key: Key, writes: Sequence[Write], found: Binding | None, confirmed: set[tuple[str, int]]
    ) -> str:
        counting = [write for write in writes if write.name in confirmed and (key, write) not in self.excused]
        slack = self._skew + 2.1
        admissible = [write for write in writes if not any(later.replaces(write, slack) for later in counting)]
        if found is None:
            soon = EPOCH + self._clock.now + self._skew + 3
            if not counting or any(write.record.removed or write.record.expires_at <= soon for write in admissible):
                return ""
            return f"missing: {_all(admissible)}"
        name = (found.call_id, found.cseq)
        if any(write.name == name and not write.record.removed for write in admissible):
            return ""
        word = "back" if any(write.record.removed for write in admissible) else "old"
        return f"{word}: {found.call_id} {found.cseq}, should be {_all(admissible)},"

    def _back(self, node: str, table: dict[Key, Binding], confirmed: set[tuple[str, int]]) -> Iterable[str]:
        """
        What a phone was told to be removed where nobody knew of it.
        """
        for operation in self._removals(confirmed):
            for (aor, name), record in table.items():
                if aor != operation.aor or record.contact not in dict(operation.contacts):
                    continue
                writes = self._writes[aor, name]
                known = any(write.name == (operation.call_id, operation.cseq) for write in writes)
                mine = [write for write in writes if write.name == (record.call_id, record.cseq)]
                if not known and mine and mine[-1].time + self._skew + 2.1 < operation.time:
                    yield f"back: {record.contact} on {node}, whose removal was confirmed: {operation}"

    def _removals(self, confirmed: set[tuple[str, int]]) -> list[Operation]:
        kamailios = {machine.address for machine in self._machines if not machine.is_sipdmq}
        return [
            operation
            for phone in self._phones
            for operation in phone.operations
            if operation.kind == "remove"
            and (operation.call_id, operation.cseq) in confirmed
            and operation.node not in kamailios  # they forget what they do not know
        ]


_NOTHING: Place = (0, "", 0, False)


def _key(record: Binding) -> Key:
    return record.aor, identity(record)


def _place(record: Binding) -> Place:
    return record.last_modified, record.call_id, record.cseq, record.removed and not record.is_hidden


def _holds(machine: Any, key: Key) -> Place:
    """
    The place of what a node has of a contact.
    """
    return next((_place(record) for record in machine.records(key[0]) if _key(record) == key), _NOTHING)


def _comparable(record: Binding) -> Binding:
    """
    A record without what a node knows of it for itself.
    """
    return Binding(
        record.aor, "", record.contact, "", record.q, record.expires_at, record.call_id, record.cseq, record.instance,
        record.reg_id, record.path, record.received, "", "", record.user_agent, record.last_modified,
        record.server_id,
    )  # fmt: skip


def _name(key: Key) -> str:
    return f"{key[0]} {key[1].strip()}"


def _brief(record: Binding | None) -> str:
    if record is None:
        return "missing"
    return f"{record.contact} ({record.call_id} {record.cseq} @{record.last_modified - int(EPOCH)})"


def _all(writes: Sequence[Write]) -> str:
    return " or ".join(map(str, writes))
