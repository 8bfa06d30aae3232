"""
What other nodes are to be told on channel C{usrloc}: the changes in their outboxes. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from sipdmq.records import Binding, ClusterNode

__all__ = ["UsrlocChange", "key_of", "told_of"]


class UsrlocChange(NamedTuple):
    """
    What is put into an outbox.

    @ivar ruid: the name of the record at the receiver.
    @ivar is_gone: it is to be removed.
    @ivar by: to a node of ours: who changed it last, where that is another node than this.
    """

    binding: Binding
    ruid: str
    is_gone: bool
    by: str = ""


def key_of(binding: Binding, ruid: str) -> str:
    return f"{binding.aor} {ruid}"


def told_of(binding: Binding, is_gone: bool, node: ClusterNode | None = None) -> list[tuple[str, UsrlocChange]]:
    """
    A record as what goes into an outbox: a removal names it as each of the others may know it.

    @param node: whom it is for, where it is for one.
    @return: with the key of each.
    """
    ruids = (binding.ruid, *binding.other_ruids) if is_gone else (binding.ruid,)
    by = binding.told_by if node is not None and node.is_sipdmq else ""
    return [(key_of(binding, ruid), UsrlocChange(binding, ruid, is_gone, by)) for ruid in ruids]
