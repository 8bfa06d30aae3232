"""
Which node has a subscription: whose record of it counts, and who goes on with it when a node is gone. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sipdmq.presence.subscriptions import CSEQ_STEP, State, Subscription, stepped

__all__ = ["after_rival", "end", "heir", "is_newer", "taken_over"]


def heir(tag: str, nodes: Iterable[str]) -> str:
    """
    The node that a subscription falls to, by rendezvous hashing: all nodes that know of the same nodes name the same
    one, each gets its share, and when one of them goes nothing moves but what was its own.

    @param nodes: those that are alive, C{"sip:192.0.2.1:5060"}; not empty.
    """
    return max(nodes, key=lambda node: (_weight(tag, node), node))


def _weight(tag: str, node: str) -> bytes:
    return hashlib.blake2b(f"{tag} {node}".encode("utf-8", "surrogateescape"), digest_size=8).digest()


def taken_over(record: Subscription, owner: str) -> Subscription:
    """
    A subscription whose node is gone, or has forgotten it: this node goes on with it, in the same dialog.
    """
    return stepped(record)._replace(owner=owner, term=record.term + 1)


def end(record: Subscription, remember_until: int) -> Subscription:
    """
    What is remembered of a subscription that is over, so that no older record brings it back: only what names and
    orders it.
    """
    return Subscription(
        record.tag, "", "", "", "", State.TERMINATED, remember_until, "", "", "", "", "", record.remote_cseq,
        record.local_cseq, record.version, "", "", "", record.owner, record.term + 1,
    )  # fmt: skip


def _rank(record: Subscription) -> tuple[int, int, bool, str, int, int]:
    return (
        record.remote_cseq,
        record.term,
        record.state is State.TERMINATED,
        record.owner,
        record.local_cseq,
        record.expires_at,
    )


def is_newer(one: Subscription, other: Subscription) -> bool:
    """
    Whether C{one} counts, of two records of a subscription: a total order, the same on all nodes.

    What the watcher has sent last comes first: that is where he is. Then how often nodes have decided on it since, an
    end before everything else; then the owner's name.
    """
    return _rank(one) > _rank(other)


def after_rival(stored: Subscription, incoming: Subscription) -> Subscription | None:
    """
    An owner hears of a record that does not count, of a node that took itself for the owner, too. The watcher may have
    got NOTIFYs with its numbers, so ours go on behind them.

    @return: the record to store and to tell; L{None}: ours is fine.
    """
    if (
        incoming.owner == stored.owner
        or incoming.state is State.TERMINATED
        or incoming.local_cseq + CSEQ_STEP // 2 <= stored.local_cseq
    ):
        return None
    higher = stepped(incoming)
    return stored._replace(
        local_cseq=higher.local_cseq, version=max(stored.version, higher.version), term=stored.term + 1
    )
