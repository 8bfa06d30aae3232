"""
Transcripts: what is done to a cluster, and every message that follows, in a file.

A line above C{---} is a command: the second, what happens, to whom. Below it stands what is to be seen: the messages,
each where it was sent first, and at the end what each node knows. C{python -m tests.cluster.transcript} writes all of
C{tests/transcripts} anew: then C{git diff} shows what is different.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.cluster.clock import HeapClock
from tests.cluster.kamailio import Kamailio
from tests.cluster.machine import Machine
from tests.cluster.messages import channel_of, is_request, summary
from tests.cluster.network import Datagram, Network
from tests.cluster.parties import CALLS, SECTIONS, Party, call, known
from tests.cluster.phones import Phone
from tests.location_store_tests import EPOCH

__all__ = ["DIRECTORY", "Transcript", "transcripts"]

DIRECTORY: Final = Path(__file__).parent.parent / "transcripts"
RULE: Final = "---"


class _Copies:
    """
    One message, and how often it was sent.
    """

    def __init__(self, line: int, first: Datagram) -> None:
        self.line = line
        self._fate = first.fate
        self._count = 1
        self._arrived = ""

    def sent(self, again: Datagram) -> None:
        self._count += 1
        if self._fate and not again.fate and not self._arrived:
            self._arrived = f", then arrives at {again.time:.3f}"

    def note(self) -> str:
        """
        What is to be added to the line.
        """
        times = f"{self._count} times" if self._count > 1 else ""
        words = " ".join(word for word in (self._fate, times) if word)
        return f"  [{words}{self._arrived}]" if words else ""


class Transcript:
    """
    One file at work.

    @ivar lines: what was seen.
    """

    def __init__(self, text: str) -> None:
        """
        @param text: of the file.
        @raise ValueError: a line that is no command.
        """
        self.head, _, self.expected = text.partition(f"{RULE}\n")
        self.lines: list[str] = []
        self._clock = HeapClock()
        self._network = Network(self._clock, Random(0))
        self._network.watch = self._sent
        self._machines: dict[str, Any] = {}
        self._phones: dict[str, Phone] = {}
        self._parties: dict[str, Party] = {}
        self._sections: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._is_quiet = False
        self._hidden: tuple[str, ...] = ()
        self._copies: dict[tuple[bytes, str], _Copies] = {}

    def run(self) -> str:
        """
        Do all of it.

        @return: what is seen, as it is to be in the file.
        """
        for number, line in enumerate(self.head.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                self._command(words)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(f"line {number}: {line!r}: {error!r}") from None
        for copies in self._copies.values():
            self.lines[copies.line] += copies.note()
        self.lines += self._state()
        for machine in self._machines.values():
            machine.kill()
        return "".join(f"{line}\n" for line in self.lines)

    # commands

    def _command(self, words: list[str]) -> None:
        if words[0] == "with":
            self._sections = {name: SECTIONS[name] for name in words[1:]}
            return
        if words[0] == "nodes":
            self._nodes(words[1:])
            return
        time, verb, *rest = words
        self._clock.advance(float(time) - self._clock.now)
        commands: dict[str, Callable[..., object]] = {
            "start": lambda *names: [self._machines[name].start() for name in names],
            "kill": lambda name: self._machines[name].kill(),
            "stop": lambda name: self._machines[name].stop(),
            "halt": lambda name: self._machines[name].halt(),
            "continue": lambda name: self._machines[name].go_on(),
            "cut": self._cut,
            "heal": self._network.heal,
            "loss": self._loss,
            "hide": self._hide,
            "quiet": lambda: self._be_quiet(True),
            "loud": lambda: self._be_quiet(False),
            "end": lambda: None,
        }
        if verb in commands:
            if verb not in ("hide", "quiet", "loud", "end"):
                self._say(" ".join([verb, *rest]))
            commands[verb](*rest)
        elif rest[0] in CALLS:
            self._call(verb, *rest)
        elif rest[0] in ("publish", "watch"):
            self._tell_party(verb, *rest)
        else:
            self._register(verb, *rest)

    def _nodes(self, words: list[str]) -> None:
        """
        C{a b+2 k:kamailio}: of b the clock is two seconds ahead. All join through all others. C{with presence dialog}
        in the line above: that is on at all of them that are no Kamailio.
        """
        for number, word in enumerate(words, 1):
            name, _, kind = word.partition(":")
            name, sign, skew = name.partition("+")
            peers = tuple(peer for peer in range(1, len(words) + 1) if peer != number)
            place = (self._clock, self._network, number, peers, "transcript", float(skew) if sign else 0.0)
            made: Any = Kamailio(*place) if kind == "kamailio" else Machine(*place, sections=self._sections)
            self._machines[name] = made
            self._names[made.address] = name

    def _register(self, user: str, kind: str, at: str, node: str, expires: str = "3600") -> None:
        """
        C{alice add at b 60}
        """
        if at != "at":
            raise ValueError("must be: SECOND USER add|change|remove|wildcard at NODE [EXPIRES]")
        phone = self._phones.get(user)
        if phone is None:
            number = len(self._phones) + 1
            phone = Phone(self._clock, self._network, Random(number), number, user, False, lambda text: None)
            self._phones[user] = phone
        self._say(f"{user}: {kind} at {node}" + ("" if expires == "3600" else f" for {expires} s"))
        phone.act(self._machines[node].address, kind, int(expires))

    def _tell_party(self, user: str, kind: str, at: str, node: str, what: str, expires: str = "3600") -> None:
        """
        C{bob publish at b open 600}, C{alice watch at a bob}
        """
        if at != "at":
            raise ValueError("must be: SECOND USER publish|watch at NODE BASIC|USER [EXPIRES]")
        party = self._parties.get(user)
        if party is None:
            party = Party(self._network, len(self._parties) + 1, user, self._heard)
            self._parties[user] = party
        self._say(f"{user}: {kind} {what} at {node}" + ("" if expires == "3600" else f" for {expires} s"))
        address = self._machines[node].address
        if kind == "publish":
            party.publish(address, what, int(expires))
        else:
            party.watch(address, what, int(expires))

    def _heard(self, text: str) -> None:
        """
        By a party, from a node, whose address comes first.
        """
        address, _, rest = text.partition(" ")
        if not self._is_quiet:
            self._say(f"    {self._names[address]} {rest}")

    def _call(self, call_id: str, event: str, at: str, node: str) -> None:
        """
        C{call1 begin at a}
        """
        if at != "at":
            raise ValueError(f"must be: SECOND CALL {'|'.join(CALLS)} at NODE")
        self._say(f"{call_id}: {event} at {node}")
        call(self._machines[node], call_id, event)

    def _cut(self, *words: str) -> None:
        """
        C{a b | c}
        """
        at = words.index("|")
        one, other = ([self._machines[name].address for name in side] for side in (words[:at], words[at + 1 :]))
        self._network.cut(one, other)
        self._network.cut(other, one)

    def _loss(self, share: str) -> None:
        self._network.faults.loss = float(share)

    def _hide(self, *words: str) -> None:
        """
        Messages that are not shown: C{hello}, C{lists}, C{answers}.
        """
        meant = {"hello": "sipdmq  hello", "lists": "notification_peer", "answers": "notification_peer  200"}
        self._hidden = tuple(meant[word] for word in words)

    def _be_quiet(self, is_quiet: bool) -> None:
        if is_quiet:
            self._say("...")
        self._is_quiet = is_quiet

    # what is seen

    def _say(self, text: str) -> None:
        self.lines.append(f"{self._clock.now:8.3f}  {text}")

    def _sent(self, sent: Datagram) -> None:
        """
        Answers are shown where they say more than "well".
        """
        copies = self._copies.get((sent.data, sent.receiver[0]))
        if copies is not None:
            copies.sent(sent)
            return
        text = summary(sent.data, self._names)
        if self._is_quiet or text.startswith(self._hidden or ("\0",)):
            return
        if not is_request(sent.data) and (text.endswith(" 200") or channel_of(sent.data) == "sipdmq"):
            return
        one, other = self._names[sent.sender[0]], self._names[sent.receiver[0]]
        self._say(f"    {one} → {other}  {text}")
        self._copies[sent.data, sent.receiver[0]] = _Copies(len(self.lines) - 1, sent)

    def _state(self) -> Iterator[str]:
        yield ""
        for name, machine in self._machines.items():
            if not machine.is_up:
                yield f"{name}: down"
                continue
            others = " ".join(sorted(self._names[address] for address in machine.active() - {machine.address}))
            contacts = [
                f"{record.contact.removeprefix('sip:')} {record.call_id} {record.cseq} "
                f"@{record.last_modified - int(EPOCH)}"
                for phone in self._phones.values()
                for record in machine.records(phone.aor)
                if not record.removed
            ]
            if self._sections and isinstance(machine, Machine):
                contacts += known(machine, self._name_of)
            empty = "nothing" if self._sections else "no contacts"
            yield f"{name}: with {others or 'nobody'}; " + ("; ".join(contacts) or empty)

    def _name_of(self, uri: str) -> str:
        return self._names.get(uri.removeprefix("sip:").rpartition(":")[0], "")


def transcripts() -> list[Path]:
    """
    All files.
    """
    return sorted(DIRECTORY.glob("*.txt"))


def main() -> int:
    """
    Write the expected part of each file anew.
    """
    for path in transcripts():
        transcript = Transcript(path.read_text())
        path.write_text(f"{transcript.head}{RULE}\n{transcript.run()}")
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
