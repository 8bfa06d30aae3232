"""
What can follow from an event in the node list, and the settings that it follows. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from sipdmq.records import ClusterNode, NodeName

__all__ = [
    "AskLater",
    "Effect",
    "NodeDisabled",
    "NodeDown",
    "NodeForgotten",
    "NodeListSettings",
    "NodeRestarted",
    "NodeUp",
    "Recheck",
    "SayHello",
    "SendList",
    "Sync",
    "Warn",
]


class NodeListSettings(NamedTuple):
    """
    The keys of C{[dmq]} that the node list follows. Times in seconds.

    @ivar timeout: how long an answer is waited for.
    @ivar probe_interval: a node that is in trouble is not asked more often.
    @ivar init_with_single: a sync is asked of one node only.
    @ivar farewell: who is told when this node stops: C{"sipdmq"}, C{"all"} or C{"none"}.
    @ivar max_nodes: how many others are remembered.
    """

    ping_interval: float = 60.0
    timeout: float = 8.0
    probe_interval: float = 2.0
    remove_inactive: bool = True
    fail_count_enabled: bool = False
    fail_count_threshold_not_active: int = 0
    fail_count_threshold_disabled: int = 1
    forget_after: float = 86_400.0
    init_with_single: bool = False
    farewell: str = "sipdmq"
    max_nodes: int = 512


class SendList(NamedTuple):
    """
    Send a notification. Its outcome belongs into C{NodeList.answered}, C{refused} or C{timed_out}.

    @ivar hops: Max-Forwards.
    @ivar body: empty where the receiver may not be told anything yet: it only asks.
    """

    name: NodeName
    hops: int
    body: bytes


class AskLater(NamedTuple):
    """
    Call C{NodeList.ask_again} in C{delay} seconds.
    """

    name: NodeName
    delay: float


class NodeUp(NamedTuple):
    """
    A node is active, for the first time or again: outboxes send to it.

    @ivar is_newcomer: it has just started, and asks for everything.
    """

    node: ClusterNode
    is_newcomer: bool = False


class NodeDown(NamedTuple):
    """
    It is no longer active, but not given up.
    """

    node: ClusterNode


class NodeDisabled(NamedTuple):
    """
    It said farewell, or did not answer for long.
    """

    node: ClusterNode


class NodeRestarted(NamedTuple):
    """
    It was active, and still is, but it was started anew meanwhile: what it had not told the others, it has forgotten.
    """

    node: ClusterNode


class NodeForgotten(NamedTuple):
    """
    Nothing is known of it any more: what was kept for it can go.
    """

    name: NodeName


class SayHello(NamedTuple):
    """
    Ask what it is, through the channel C{sipdmq}. The outcome belongs into C{NodeList.hello} or C{no_hello}.
    """

    name: NodeName


class Sync(NamedTuple):
    """
    Ask a node for all that it has: it knows us, so its answer comes to us.

    @ivar is_repair: it is a Kamailio that was lost for a while, and cannot repair anybody: its heir asks it.
    @ivar is_again: it is a Kamailio that took us for gone, and has taken us back: what it told meanwhile did not come
        here, whoever else has told us everything.
    @ivar is_mutual: it is a Kamailio that will not ask for what we have: it asks when it first hears of anybody, and
        that was our empty question, which told it of nobody. So it is given everything, when it has told what it has.
    """

    node: ClusterNode
    is_repair: bool = False
    is_mutual: bool = False
    is_again: bool = False


class Recheck(NamedTuple):
    """
    A Kamailio was cut off from us, and may have taken us for gone once more afterwards: ask it again for all that it
    has, and tell it what counts of that time.

    @ivar age: seconds since when.
    """

    node: ClusterNode
    age: float


class Warn(NamedTuple):
    """
    Something that the operator should know: to be logged.
    """

    text: str


Effect = (
    SendList
    | AskLater
    | NodeUp
    | NodeDown
    | NodeDisabled
    | NodeRestarted
    | NodeForgotten
    | SayHello
    | Sync
    | Recheck
    | Warn
)
