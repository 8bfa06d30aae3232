"""
A cluster whose nodes are machines apart: three sipdmq nodes and a Kamailio in network namespaces of their own, many
phones beside them, and a network between them that can be as bad as any.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from tests.interop.cluster import Kamailio, Member, wait_until
from tests.interop.namespaces import Network
from tests.interop.records import Key, Record, differences, records_of
from tests.interop.registrants import Registrants

__all__ = ["ClusterApart", "Different"]

#: RFC 2544 §C.2.2: for tests of networks.
PREFIX = "198.18.0"

#: Differences that are shown of each node.
SHOWN = 6

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "dmq": {"allow": f"{PREFIX}.0/24", "ping_interval": "5", "timeout": "8"},
    "registrar": {"min_expires": "1", "max_contacts": "10"},
}


class Different(AssertionError):
    """
    The nodes have not come to have the same.
    """


class ClusterApart:
    """
    The nodes C{a}, C{b}, C{c} of sipdmq, and C{k}, a Kamailio.

    @ivar nodes: by their names; all run.
    @ivar phones: nobody acts before L{Registrants.begin}.
    @ivar network: what is between them.
    """

    MEMBERS = ("a", "b", "c")
    NAMES = (*MEMBERS, "k")

    def __init__(self, seed: int, phones: int = 2000, settings: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """
        @param seed: of the faults and of what the phones do.
        @param settings: more of the sipdmq nodes' INI files.
        """
        self.seed = seed
        self.phones: Registrants | None = None
        hosts = {name: f"{PREFIX}.{number}" for number, name in enumerate(self.NAMES, 1)}
        self.network = Network({name: f"{host}/24" for name, host in hosts.items()}, seed)
        self.nodes: dict[str, Kamailio | Member] = {}
        sections = {name: dict(keys) for name, keys in SETTINGS.items()}
        for name, keys in (settings or {}).items():
            sections.setdefault(name, {}).update(keys)
        try:
            for name, host in hosts.items():
                others = [f"sip:{other}:5060" for other in hosts.values() if other != host]
                node = Member(host, *others, settings=sections) if name != "k" else self._kamailio(host, *others)
                machine = self.network.namespaces[name]
                machine.add_address(f"{PREFIX}.250/32", "lo")  # of those who ask it
                node.inside = machine.entered
                self.nodes[name] = node
            at_once(*(node.start for node in self.nodes.values()))
            wait_until(self.is_joined, lambda: {name: self.listed(name) for name in self.NAMES}, 15.0)
            wait_until(self.is_ready, "not all of the nodes say that they know everything", 15.0)
            self.phones = Registrants(self.nodes, phones, seed)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _kamailio(host: str, *others: str) -> Kamailio:
        # As patient as the others are: with less, it gives up what a few lost packets have delayed, and for good.
        return Kamailio(host, *others, definitions="FR_TIMER=8000 UL_BATCH=50")

    def close(self) -> None:
        """
        All is over.

        @raise AssertionError: a node of sipdmq has logged an error.
        """
        if self.phones is not None:
            self.phones.close()
        for node in self.members:
            node.resume()
        try:
            at_once(*(node.clean_up for node in self.nodes.values()))
        finally:
            self.network.close()
        for name in self.MEMBERS:
            node = self.nodes.get(name)
            if isinstance(node, Member) and "Traceback" in node.written:
                raise AssertionError(f"{name} has logged an error:\n{node.written[-4000:]}")

    @property
    def members(self) -> list[Member]:
        """
        The nodes of sipdmq.
        """
        return [node for node in self.nodes.values() if isinstance(node, Member)]

    def member(self, name: str) -> Member:
        """
        One of them.
        """
        node = self.nodes[name]
        assert isinstance(node, Member)
        return node

    # who sees whom

    def listed(self, name: str) -> set[str]:
        """
        @return: the names of the nodes that one of them has as active.
        """
        names = {node.host: other for other, node in self.nodes.items()}
        return {names[host] for host, status in self.nodes[name].nodes().items() if status == "active"}

    def is_joined(self) -> bool:
        """
        Whether all have all.
        """
        return all(self.listed(name) == set(self.NAMES) for name in self.NAMES)

    def is_ready(self) -> bool:
        """
        Whether each node of sipdmq believes that it knows everything: before that it does not say what it knows.
        """
        return all(node.snapshot()["usrloc.is_ready"] for node in self.members)

    # what they have

    def records(self, names: Sequence[str], users: Iterable[str]) -> dict[str, dict[Key, Record]]:
        """
        What each of these nodes has of these users.
        """
        found: dict[str, dict[Key, Record]] = {}
        users = list(users)

        def ask(name: str) -> None:
            found[name] = records_of(self.nodes[name], users)

        at_once(*(partial(ask, name) for name in names))
        return {name: found[name] for name in names}

    def wait_until_equal(self, names: Iterable[str], limit: float, is_confirmed: bool = True) -> float:
        """
        @param limit: seconds.
        @param is_confirmed: it must be what was confirmed to the phones, too.
        @return: after how many seconds all these nodes had the same of all users, each question counted.
        @raise Different: they had not in that time; the text says in what.
        """
        assert self.phones is not None
        names = list(names)
        start = time.monotonic()
        users = everybody = self.phones.users
        while True:
            asked_at = time.monotonic()
            found = self.records(names, users)
            wrong = self._wrong(found, users if is_confirmed else None)
            if not any(wrong.values()):
                if users is everybody:
                    return asked_at - start
                users = everybody  # once more all of them: they may have changed meanwhile
                continue
            if asked_at - start > limit:
                raise Different(self._report(wrong, limit))
            users = sorted({user for each in wrong.values() for user, _ in each})
            time.sleep(0.1)

    def _wrong(
        self, found: Mapping[str, Mapping[Key, Record]], users: Iterable[str] | None
    ) -> dict[str, dict[Key, str]]:
        """
        @param users: those of C{found}, if it is to be held against what was confirmed.
        @return: for each node what is wrong there: other than at the first one, or other than confirmed.
        """
        assert self.phones is not None
        first = next(iter(found.values()))
        wrong = {}
        for name, records in found.items():
            wrong[name] = differences(first, records)
            if users is not None:
                wrong[name] = {**wrong[name], **self.phones.wrong(records, users)}
        return wrong

    def _report(self, wrong: Mapping[str, Mapping[Key, str]], limit: float) -> str:
        lines = [f"not equal after {limit:.0f} s, seed {self.seed}:"]
        for name, each in wrong.items():
            lines.append(f"  {name}: {len(each)} contacts differ from {next(iter(wrong))} or from what was confirmed")
            lines += [f"    {user} {contact}: {what}" for (user, contact), what in list(each.items())[:SHOWN]]
        return "\n".join(lines)

    # what happens to nodes

    def crash(self, name: str, told: float) -> None:
        """
        End a node without a word.

        @param told: seconds in which it has told the others what it confirmed before.
        """
        assert self.phones is not None
        self.nodes[name].kill()
        self.phones.died(name, told)

    def messages(self) -> int:
        """
        @return: KDMQ requests that the nodes of sipdmq have sent since they started.
        """
        return sum(int(node.snapshot()["dmq.sent"]) for node in self.members)


def at_once(*jobs: Callable[[], object]) -> None:
    """
    Do them all at the same time.

    @raise Exception: what the first one that failed did.
    """
    failures: list[BaseException] = []

    def work(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as failure:  # noqa: BLE001 - handed to the caller's thread
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
