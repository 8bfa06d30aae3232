"""
Nodes of a cluster, as they are measured in L{replication}: each on a loopback address of its own, the first one on a
processor core of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from load import UserAgents, run_load
from programs import CompiledSipdmqNode, KamailioTlsf, SipdmqNode
from servers import BENCH, Server, ServerFailed, own_host

__all__ = ["DOMAIN", "KINDS", "Replica", "joined", "network", "replica", "wait_until"]

#: The domain of all nodes.
DOMAIN = "bench.example"

#: Seconds for what one node knows to be known by all.
PATIENCE = 30.0

#: Users with which a cluster is tried, and far from those that are measured.
FIRST_WARM_USER = 900_000
WARM_USERS = 1000


class Replica(Server):
    """
    A node that can say how many contacts it has.
    """

    def contacts(self) -> int:
        """
        @raise ServerFailed: it does not say.
        """
        raise NotImplementedError

    def pause(self) -> None:
        """
        Stop all its processes (SIGSTOP), until L{resume}.
        """
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)


class _SipdmqReplica(SipdmqNode, Replica):
    def contacts(self) -> int:
        before = self._log.stat().st_size
        os.kill(self.pid, signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            text = self._log.read_bytes()[before:].decode(errors="replace")
            found = re.search(r"location\.bindings=(\d+) ", text)
            if found:
                return int(found[1])
            time.sleep(0.02)
        raise ServerFailed(f"{self.name} writes no numbers")


class _CompiledReplica(CompiledSipdmqNode, _SipdmqReplica):
    pass


class _KamailioReplica(KamailioTlsf, Replica):
    peer = ""

    def missing(self) -> str:
        return super().missing() or ("" if shutil.which("kamcmd") else "kamcmd is not installed")

    def command(self, directory: Path) -> list[str]:
        place = f"{self.address[0]}:{self.address[1]}"
        return [
            shutil.which("kamailio") or "kamailio",
            *("-f", str(BENCH / "kamailio-dmq.cfg"), "-DD", "-E"),
            *("-w", str(directory), "-Y", str(directory), "-P", str(directory / "pid")),
            *("-m", "4096", "-M", "64"),
            *self.allocator,
            *("-A", f"LISTEN_UDP=udp:{place}", "-A", f'NODE="sip:{place}"', "-A", f'CTL="unix:{directory}/ctl"'),
            *(("-A", f'PEER="sip:{self.peer}:5060"') if self.peer else ()),
        ]

    def contacts(self) -> int:
        asked = ["kamcmd", "-s", f"unix:{self._directory}/ctl", "stats.get_statistics", "usrloc:"]
        run = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=False)
        found = re.search(r"location_contacts =\s*(\d+)", run.stdout)
        if found is None:
            raise ServerFailed(f"{self.name}: {run.stdout}{run.stderr}")
        return int(found[1])


#: What a node may be, by the names of L{programs.SERVERS}.
KINDS: dict[str, type[Replica]] = {
    "sipdmq": _SipdmqReplica,
    "sipdmq-compiled": _CompiledReplica,
    "kamailio-tlsf": _KamailioReplica,
}


def replica(
    kind: str, number: int, core: int | None, peer: str = "", settings: Mapping[str, Mapping[str, str]] | None = None
) -> Replica:
    """
    @param number: of its address.
    @param peer: the address of a node to join through; empty: it waits for others.
    @param settings: more of the INI of a sipdmq node.
    @return: a node, not yet started.
    """
    host = own_host(number)
    if kind == "kamailio-tlsf":
        node = _KamailioReplica(host, core=core)
        node.peer = peer
        return node
    sections: dict[str, dict[str, str]] = {
        "node": {"listen": f"udp:{host}:5060", "domains": DOMAIN},
        "dmq": {"server_address": f"sip:{host}:5060"},
    }
    if peer:
        sections["dmq"]["notification_address"] = f"sip:{peer}:5060"
    for section, keys in (settings or {}).items():
        sections.setdefault(section, {}).update(keys)
    made = KINDS[kind](host, core=core, settings=sections)  # type: ignore[call-arg]
    return made


def network() -> str:
    """
    @return: what the addresses of this process's nodes begin with, for L{tap.tapped}.
    """
    return own_host(0).rpartition(".")[0]


@contextlib.contextmanager
def joined(
    kinds: Sequence[str],
    core: int | None,
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[tuple[list[Replica], UserAgents]]:
    """
    A cluster in which each node has what the first one is told.

    @param kinds: of each node; the first one has the core for itself, the others share that of the generator.
    @return: its nodes, and the phones of the first one.
    """
    others = None if core is None else min(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        nodes = [replica(kinds[0], 1, core, settings=settings)]
        for number, kind in enumerate(kinds[1:], 2):
            nodes.append(replica(kind, number, others, nodes[0].address[0], settings))
        for node in nodes:
            stack.enter_context(node)
        agents = stack.enter_context(contextlib.closing(UserAgents(nodes[0].address, domain=DOMAIN)))
        _meet(nodes, agents)
        for cseq in (1001, 1002):
            run_load(agents, agents.registers(WARM_USERS, cseq, first_user=FIRST_WARM_USER), 20).check()
        wait_until(
            lambda: all(node.contacts() == WARM_USERS for node in nodes),
            lambda: f"the nodes have {[node.contacts() for node in nodes]} contacts",
        )
        yield nodes, agents


def _meet(nodes: Sequence[Replica], agents: UserAgents) -> None:
    """
    Register a user until all nodes hear of it.
    """
    for cseq in range(1, 100):
        run_load(agents, agents.registers(1, cseq, first_user=FIRST_WARM_USER)).check()
        time.sleep(0.3)
        if all(node.contacts() for node in nodes):
            return
    raise ServerFailed("the nodes do not find one another")


def wait_until(condition: Callable[[], object], what: str | Callable[[], str], seconds: float = PATIENCE) -> None:
    """
    @param what: was waited for; or what says how it is instead.
    @raise ServerFailed: it did not come true in that time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(what if isinstance(what, str) else what())
        time.sleep(0.1)
