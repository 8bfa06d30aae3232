"""
Who publishes, watches and calls by way of the nodes of a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from sipdmq.config import DialogConfig, PresenceConfig
from sipdmq.presence.subscriptions import State
from sipdmq.sip.message import Response
from sipdmq.sip.parser import parse_message
from tests.cluster.machine import DOMAIN, PORT, Machine
from tests.cluster.network import Address, Network
from tests.fakes import request_bytes
from tests.publication_tools import pidf
from tests.test_dialog_service import SOURCE, answer, request
from tests.watchers import Watcher

__all__ = ["CALLS", "SECTIONS", "Party", "call", "known"]

SECTIONS: Final = {"presence": PresenceConfig(enable=True), "dialog": DialogConfig(enable=True)}
"""What C{with} in a transcript adds to the configuration of each node."""
CALLS: Final = ("begin", "ring", "answer", "ack", "fail", "bye")
"""What can happen to a call."""

_BASIC: Final = re.compile(rb"<basic>(\w+)</basic>")


def _basic(body: bytes) -> str:
    found = _BASIC.search(body)
    return found[1].decode() if found else "nothing"


class Party:
    """
    A phone that publishes the state of its user, and watches that of others. What it sends always arrives.
    """

    def __init__(self, network: Network, number: int, user: str, say: Callable[[str], object]) -> None:
        """
        @param say: called with every NOTIFY, and every answer that is no 200.
        """
        self._network = network
        self._user = user
        self._say = say
        self._address = f"10.0.1.{number}"
        self._etag = ""
        self._cseq = 0
        self._watcher: Watcher | None = None
        network.attach(self._address, self, is_node=False)

    def publish(self, node: str, basic: str, expires: int = 3600) -> None:
        """
        PUBLISH: initial at first, then what changes it; C{expires} 0 removes it.

        @param node: the address of the node.
        """
        self._cseq += 1
        headers = ["Event: presence", f"Expires: {expires}"]
        if self._etag:
            headers.append(f"SIP-If-Match: {self._etag}")
        if expires:
            headers.append("Content-Type: application/pidf+xml")
        self._send(node, request_bytes(
            "PUBLISH", uri=f"sip:{self._user}@{DOMAIN}", to=f"<sip:{self._user}@{DOMAIN}>",
            via=f"SIP/2.0/UDP {self._address}:{PORT};branch=z9hG4bKp{self._user}{self._cseq}",
            from_=f"<sip:{self._user}@{DOMAIN}>;tag=p", call_id=f"p-{self._user}", cseq=f"{self._cseq} PUBLISH",
            headers=headers, body=pidf(basic) if expires else b"",
        ))  # fmt: skip

    def watch(self, node: str, presentity: str, expires: int = 3600) -> None:
        """
        SUBSCRIBE: to begin with, then within the dialog; C{expires} 0 ends it.
        """
        if self._watcher is None:
            self._watcher = Watcher(
                self._address, PORT, self._user, f"{presentity}@{DOMAIN}", call_id=f"{self._user}-{presentity}"
            )
        self._send(node, self._watcher.subscribe(expires, from_=f"<sip:{self._user}@{DOMAIN}>;tag=w{self._user}"))

    def _send(self, node: str, data: bytes) -> None:
        self._network.send(data, (self._address, PORT), (node, PORT))

    def datagram_arrived(self, data: bytes, sender: Address) -> None:
        """
        See L{tests.cluster.network.Host}.
        """
        message = parse_message(data)
        if isinstance(message, Response):
            self._etag = message.headers.first.get("sip-etag", self._etag)
            if message.status != 200:
                self._say(f"{sender[0]} → {self._user}  {message.status} to {message.cseq.method}")
        if self._watcher is None:
            return
        told = len(self._watcher.notifies)
        reply = self._watcher.receive(data)
        if len(self._watcher.notifies) > told:
            first = message.headers.first
            state = re.sub(r";expires=\d+", "", first["subscription-state"])
            self._say(f"{sender[0]} → {self._user}  NOTIFY {message.cseq.number} {state}  {_basic(message.body)}")
        if reply is not None:
            self._send(sender[0], reply)


def call(machine: Machine, call_id: str, event: str) -> None:
    """
    Something happens to a call that a node relays.

    @param event: one of L{CALLS}.
    """
    assert machine.process is not None
    dialogs: Any = machine.process.node.dialogs
    invite = request(call=call_id)
    if event == "begin":
        dialogs.request_relayed(invite, "", SOURCE)
    elif event == "ring":
        dialogs.call_ringing(invite, answer(invite, status=180))
    elif event == "answer":
        dialogs.call_answered(invite, answer(invite))
    elif event == "ack":
        dialogs.ack_relayed(request("ACK", call=call_id, to_tag="t2"))
    elif event == "fail":
        dialogs.call_failed(invite, 486)
    else:
        dialogs.bye_relayed(request("BYE", call=call_id, to_tag="t2", cseq=2))


def known(machine: Machine, name_of: Callable[[str], str]) -> Iterator[str]:
    """
    What a node knows of publications, subscriptions and calls, in words.

    @param name_of: gives the name of a node for its URI; empty for this node itself.
    """
    assert machine.process is not None
    node: Any = machine.process.node
    if node.publications is not None:
        for aor, event in sorted(node.publications.page(None).presentities):
            for each in node.publications.records(aor, event):
                if not each.removed:
                    yield f"{each.user} is {_basic(each.body)} .{each.version}"
    if node.watching is not None:
        for each in sorted(node.watching.table.records(), key=lambda each: each.call_id):
            if each.state is not State.TERMINATED:
                yield f"{each.call_id} by {name_of(each.owner)} {each.local_cseq}"
    if node.dialogs is not None:
        for each in sorted(node.dialogs.all(), key=lambda each: each.call_id):
            if not each.is_over:
                yield f"{each.call_id} in state {int(each.state)} of {name_of(each.told_by) or 'its own'}"
