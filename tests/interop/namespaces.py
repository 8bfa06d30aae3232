"""
Machines of their own for the nodes: network namespaces of Linux, joined by L{forwarder<tests.interop.forwarder>} in one
more, the hub. What is opened or started inside of one of them has its interfaces and no others.

Needs root, and iproute2. With a file name in the environment variable SIPDMQ_CAPTURE, all that is sent between them
is written there, for Wireshark.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from tests.interop.forwarder import Faults
from tests.interop.programs import CHECKOUT, ProgramFailed, lacks, require

__all__ = ["Namespace", "Network", "require_namespaces"]

#: Names of all namespaces begin with it; the number of the process that made them follows.
PREFIX = "sipdmq-"

FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # linux/sched.h

#: Seconds in which the forwarder must answer.
PATIENCE = 5.0

_libc = ctypes.CDLL(None, use_errno=True)
_made: set[str] = set()


def ip(*arguments: str) -> str:
    """
    @return: what iproute2's C{ip} says.
    @raise ProgramFailed: it failed.
    """
    done = subprocess.run(["ip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProgramFailed(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def require_namespaces() -> None:
    """
    @raise SkipTest: there can be no namespaces here, and there need not be any.
    @raise ProgramFailed: here they must be.
    """
    require("ip")
    if os.geteuid() != 0:
        lacks("network namespaces need root")
    sweep()
    try:
        probe = Namespace(f"{PREFIX}{os.getpid()}-probe")
    except (OSError, ProgramFailed) as error:
        lacks(f"no network namespace can be made here: {error}")
    try:
        ip("-n", probe.name, "link", "add", "one", "type", "veth", "peer", "name", "two")
    except ProgramFailed as error:
        lacks(f"no virtual interface can be made here: {error}")
    finally:
        probe.close()


def sweep() -> None:
    """
    Remove what runs that were killed have left: namespaces whose maker is gone, with the processes inside.
    """
    for path in FOLDER.glob(f"{PREFIX}*-*"):
        maker = path.name[len(PREFIX) :].partition("-")[0]
        if maker.isdigit() and not Path(f"/proc/{maker}").exists():
            remove(path.name)


def remove(name: str) -> None:
    """
    End what runs in a namespace, and give it up; harmless when there is none.
    """
    if not (FOLDER / name).exists():
        return
    for process in ip("netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    ip("netns", "delete", name)


@atexit.register
def _remove_made() -> None:
    """
    For who is interrupted before he has cleaned up.
    """
    for name in tuple(_made):
        with contextlib.suppress(ProgramFailed):
            remove(name)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """
    One of them.

    @ivar name: as C{ip netns} lists it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        ip("netns", "add", name)
        _made.add(name)
        with self.entered():
            for which in ("all", "default"):
                switch = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
                if switch.exists():
                    switch.write_text("1")  # it would talk by itself
        ip("-n", name, "link", "set", "dev", "lo", "up")

    def __repr__(self) -> str:
        return f"<Namespace {self.name}>"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """
        This thread is inside meanwhile, as are processes that it starts; a socket stays where it was opened.
        """
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            inside = os.open(FOLDER / self.name, os.O_RDONLY)
            try:
                _enter(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                _enter(outside)
        finally:
            os.close(outside)

    def add_address(self, address: str, interface: str) -> None:
        """
        @param address: with the length of its prefix.
        """
        ip("-n", self.name, "address", "add", address, "dev", interface)

    def set_link(self, interface: str, is_up: bool) -> None:
        """
        Switch an interface on or off.
        """
        ip("-n", self.name, "link", "set", "dev", interface, "up" if is_up else "down")

    def close(self) -> None:
        """
        It is gone, with all that runs inside.
        """
        remove(self.name)
        _made.discard(self.name)


class Network:
    """
    Namespaces with an address each, and the hub between them.

    @ivar namespaces: by the names of the machines.
    @ivar seed: of the faults.
    """

    def __init__(self, addresses: Mapping[str, str], seed: int | None = None) -> None:
        """
        @param addresses: of each machine, by a name of at most 15 letters; with the length of their common prefix.
        @param seed: random when not given.
        """
        self.seed = random.SystemRandom().randrange(10**9) if seed is None else seed
        self.namespaces: dict[str, Namespace] = {}
        self._switch: subprocess.Popen[bytes] | None = None
        self._faults = Faults()
        maker = f"{PREFIX}{os.getpid()}"
        try:
            self._hub = Namespace(f"{maker}-hub")
            for name, address in addresses.items():
                machine = self.namespaces[name] = Namespace(f"{maker}-{name}")
                ip(
                    *("-n", machine.name, "link", "add", "eth0", "type", "veth"),
                    *("peer", "name", name, "netns", self._hub.name),
                )
                machine.add_address(address, "eth0")
                machine.set_link("eth0", True)
                self._hub.set_link(name, True)
            with self._hub.entered():
                capture = os.environ.get("SIPDMQ_CAPTURE", "")
                arguments = ["--seed", str(self.seed), "--capture", capture, *addresses]
                self._switch = subprocess.Popen(
                    [sys.executable, "-m", "tests.interop.forwarder", *arguments],
                    cwd=CHECKOUT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            self.set()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """
        All of it is gone.
        """
        switch, self._switch = self._switch, None
        if switch is not None:
            switch.kill()
            switch.wait()
            for pipe in (switch.stdin, switch.stdout):
                assert pipe is not None
                pipe.close()
        for machine in self.namespaces.values():
            machine.close()
        with contextlib.suppress(AttributeError):  # there was none yet
            self._hub.close()

    def set(self, faults: Faults | None = None) -> dict[str, int]:
        """
        From now on frames meet with these faults; by default with none.

        @return: how many frames met with what before.
        """
        self._faults = faults or Faults()
        switch = self._switch
        assert switch is not None and switch.stdin is not None and switch.stdout is not None
        try:
            switch.stdin.write(json.dumps(asdict(self._faults)).encode() + b"\n")
            switch.stdin.flush()
        except BrokenPipeError:
            raise ProgramFailed("the forwarder has ended") from None
        if not select.select([switch.stdout], [], [], PATIENCE)[0]:
            raise ProgramFailed("the forwarder does not answer")
        line = switch.stdout.readline()
        if not line:
            raise ProgramFailed("the forwarder has ended")
        counts: dict[str, int] = json.loads(line)
        return counts

    @property
    def counts(self) -> dict[str, int]:
        """
        How many frames met with what so far.
        """
        return self.set(self._faults)

    def pull(self, name: str) -> None:
        """
        Pull the cable of a machine: what it sends is lost, and it does not notice.
        """
        self._hub.set_link(name, False)

    def plug(self, name: str) -> None:
        """
        The inverse of L{pull}.
        """
        self._hub.set_link(name, True)

    def switch_off(self, name: str) -> None:
        """
        Switch off the interface of a machine: nothing can be sent any more, and whoever tries is told.
        """
        self.namespaces[name].set_link("eth0", False)

    def switch_on(self, name: str) -> None:
        """
        The inverse of L{switch_off}; return when it is so.
        """
        self.namespaces[name].set_link("eth0", True)

    def wait_until_plugged(self, name: str, seconds: float = PATIENCE) -> None:
        """
        @raise ProgramFailed: the interface does not come to work.
        """
        deadline = time.monotonic() + seconds
        while "LOWER_UP" not in ip("-n", self.namespaces[name].name, "link", "show", "dev", "eth0"):
            if time.monotonic() > deadline:
                raise ProgramFailed(f"the interface of {name} does not come up")
            time.sleep(0.01)
