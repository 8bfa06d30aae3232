"""
Phones that register at the front door of the nodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from tests.cluster.clock import HeapClock
from tests.cluster.machine import DOMAIN, PORT
from tests.cluster.network import Address, Network

__all__ = ["Operation", "Phone"]

_STATUS = re.compile(rb"SIP/2\.0 (\d{3}) ")
_CSEQ = re.compile(rb"\nCSeq: (\d+) ")
_CALL_ID = re.compile(rb"\nCall-ID: (\S+)")


class Operation(NamedTuple):
    """
    One REGISTER.

    @ivar kind: C{"add"}, C{"change"}, C{"remove"}, C{"wildcard"}.
    @ivar contacts: C{(URI, expires)}, of a wildcard none.
    """

    time: float
    aor: str
    node: str
    kind: str
    call_id: str
    cseq: int
    contacts: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        what = ", ".join(f"{uri} for {expires} s" for uri, expires in self.contacts)
        return f"{self.kind} of {self.aor} at {self.node}, {self.call_id} {self.cseq}: {what or '*'}"


class Phone:
    """
    A phone of a user, with one contact.

    @ivar confirmed: C{(Call-ID, CSeq)} to the time of the 200.
    @ivar operations: all REGISTERs sent.
    """

    def __init__(
        self,
        clock: HeapClock,
        network: Network,
        random: Random,
        number: int,
        user: str,
        is_outbound: bool,
        tell: Callable[[str], object],
    ) -> None:
        """
        @param is_outbound: it names its instance and a reg-id (RFC 5626): its contact may change.
        @param tell: called with what it does.
        """
        self._clock = clock
        self._network = network
        self._random = random
        self._number = number
        self._user = user
        self.aor = f"{user}@{DOMAIN}"
        self._address = f"10.0.0.{number}"
        self._is_outbound = is_outbound
        self._tell = tell
        self._port = 5060
        self._calls = 1
        self._cseq = 0
        self.confirmed: dict[tuple[str, int], float] = {}
        self.operations: list[Operation] = []
        network.attach(self._address, self, is_node=False)

    @property
    def _call_id(self) -> str:
        return f"{self._user}{self._number}.{self._calls}"

    @property
    def _contact(self) -> str:
        return f"sip:{self._user}@{self._address}:{self._port}"

    def reboot(self) -> None:
        """
        It begins a new Call-ID.
        """
        self._calls += 1
        self._cseq = 0

    def act(self, node: str, kind: str, expires: int = 3600) -> Operation:
        """
        Send a REGISTER.

        @param node: the address of the node.
        @param kind: see L{Operation}.
        """
        self._cseq += 1
        before = self._contact
        contacts: tuple[tuple[str, int], ...] = ()
        if kind == "change":
            self._port += 1
            contacts = ((self._contact, expires),)
            if not self._is_outbound:
                contacts = ((before, 0), *contacts)
        elif kind == "add":
            contacts = ((before, expires),)
        elif kind == "remove":
            contacts = ((before, 0),)
        operation = Operation(self._clock.now, self.aor, node, kind, self._call_id, self._cseq, contacts)
        self.operations.append(operation)
        self._tell(str(operation))
        self._network.send(self._request(operation), (self._address, PORT), (node, PORT))
        return operation

    def _request(self, operation: Operation) -> bytes:
        params = f';+sip.instance="<urn:uuid:{self._number}>";reg-id=1' if self._is_outbound else ""
        contacts = "".join(
            f"Contact: <{uri}>{params};expires={expires}\r\n" for uri, expires in operation.contacts
        ) or "Contact: *\r\nExpires: 0\r\n"
        return (
            f"REGISTER sip:{DOMAIN} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self._address}:{PORT};branch=z9hG4bK{operation.call_id}-{operation.cseq}\r\n"
            f"Max-Forwards: 70\r\n"
            f"To: <sip:{self.aor}>\r\n"
            f"From: <sip:{self.aor}>;tag={operation.call_id}\r\n"
            f"Call-ID: {operation.call_id}\r\n"
            f"CSeq: {operation.cseq} REGISTER\r\n"
            f"{contacts}"
            f"Content-Length: 0\r\n\r\n"
        ).encode()

    def datagram_arrived(self, data: bytes, sender: Address) -> None:
        """
        See L{tests.cluster.network.Host}.
        """
        status, cseq, call_id = (_found(pattern, data) for pattern in (_STATUS, _CSEQ, _CALL_ID))
        if status == "200":
            self.confirmed.setdefault((call_id, int(cseq)), self._clock.now)
        else:
            self._tell(f"{sender[0]} answers {call_id} {cseq} with {status}")


def _found(pattern: re.Pattern[bytes], data: bytes) -> str:
    found = pattern.search(data)
    assert found is not None, data
    return found[1].decode()
