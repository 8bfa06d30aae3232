"""
What can befall a cluster while phones register, and how it is afterwards. Each raises
L{Different<tests.interop.apart.Different>} when it does not come to be right, and else says what was measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.interop.apart import ClusterApart
from tests.interop.cluster import wait_until
from tests.interop.forwarder import Faults

__all__ = ["crashes", "cut", "loss", "pause"]

#: REGISTERs a second, all nodes together.
RATE = 500.0

#: Seconds until the nodes of sipdmq are equal after the network has healed.
HEALED = 10.0

#: Seconds between two pings of each node: C{ping_interval} of all of them. Who is silent for three is noticed.
PING_INTERVAL = 5.0

#: Seconds in which a node tells the others what it confirms: C{batch_window}, and that machines are busy.
TOLD = 0.5


def _work(cluster: ClusterApart, seconds: float) -> None:
    """
    Phones are busy for so long.
    """
    assert cluster.phones is not None
    cluster.phones.begin(RATE)
    time.sleep(seconds)
    cluster.phones.cease()


def _told(cluster: ClusterApart, what: str, equal: float, messages: int) -> str:
    assert cluster.phones is not None
    counts = cluster.phones.counts
    frames = ", ".join(f"{count} {name}" for name, count in cluster.network.counts.items() if count)
    return (
        f"{what}: equal {equal:.1f} s afterwards; {counts['confirmed']} of {counts['sent']} REGISTERs confirmed, "
        f"{messages} KDMQ sent by the nodes that lived, frames: {frames}; seed {cluster.seed}"
    )


def loss(cluster: ClusterApart, faults: Faults, seconds: float, limit: float) -> str:
    """
    The network loses, doubles and reorders, and does not stop doing so.

    @param seconds: of work.
    @param limit: seconds until all nodes, the Kamailio too, are equal after the last change.
    """
    cluster.network.set(faults)
    _work(cluster, seconds)
    equal = cluster.wait_until_equal(cluster.NAMES, limit)
    return _told(cluster, f"loss of {faults.loss:.0%}, {seconds:.0f} s", equal, cluster.messages())


def cut(cluster: ClusterApart, names: Sequence[str], seconds: float, limit: float = HEALED) -> str:
    """
    Some nodes are alone for a while, each by itself, and phones go on registering at all of them. Of a Kamailio the
    interface is switched off, of a sipdmq node the cable is pulled: that one notices by itself only.

    @param limit: seconds until the nodes of sipdmq are equal after the heal.
    """
    assert cluster.phones is not None
    network, phones = cluster.network, cluster.phones
    _work(cluster, min(seconds / 4, 4.0))
    cluster.wait_until_equal(cluster.NAMES, limit)
    phones.is_split = True
    # Kamailio: it remembers nothing of what was removed, and so can tell nobody later (WIRE §4).
    phones.lasting = {"k"}
    for name in names:
        (network.switch_off if name == "k" else network.pull)(name)
    phones.begin(RATE)
    time.sleep(seconds)
    for name in names:
        (network.switch_on if name == "k" else network.plug)(name)
    phones.cease()
    equal = cluster.wait_until_equal(cluster.MEMBERS, limit)
    return _told(cluster, f"{' and '.join(names)} cut off for {seconds:.0f} s", equal, cluster.messages())


def crashes(cluster: ClusterApart, names: Sequence[str], away: float, between: float, limit: float = HEALED) -> str:
    """
    Nodes in their turn are killed and started again, under load.

    @param away: seconds for which each is gone.
    @param between: seconds from the return of one to the end of the next one.
    @param limit: seconds until all are equal after the last one's return.
    """
    assert cluster.phones is not None
    phones = cluster.phones
    phones.begin(RATE)
    for name in names:
        time.sleep(between)
        if name == "k":
            # Kamailio: one that starts has nobody to tell of changes yet, and takes older ones for newer (WIRE §6).
            phones.absent = {name}
        cluster.crash(name, TOLD)
        time.sleep(away)
        cluster.nodes[name].start()
    time.sleep(between)
    phones.cease()
    phones.absent = set()
    equal = cluster.wait_until_equal(cluster.NAMES, limit)
    return _told(cluster, f"{len(names)} nodes killed in turn for {away:.0f} s", equal, cluster.messages())


def pause(cluster: ClusterApart, name: str, seconds: float, limit: float = HEALED) -> str:
    """
    A node of sipdmq is stopped for a while, with its sockets open, under load.

    @param limit: seconds until all are equal after it goes on.
    """
    assert cluster.phones is not None
    node = cluster.member(name)
    others = [each for each in cluster.NAMES if each != name]
    cluster.phones.begin(RATE)
    time.sleep(1.0)
    cluster.phones.is_split = True
    cluster.phones.absent = {name}
    node.pause()
    stopped_at = time.monotonic()
    try:
        wait_until(
            lambda: all(name not in cluster.listed(each) for each in others),
            lambda: {each: cluster.listed(each) for each in others},
            3 * PING_INTERVAL,
        )
        noticed = time.monotonic() - stopped_at
        time.sleep(max(0.0, seconds - noticed))
    finally:
        node.resume()
    cluster.phones.cease()
    cluster.phones.absent = set()
    equal = cluster.wait_until_equal(cluster.NAMES, limit)
    what = f"{name} stopped for {seconds:.0f} s, noticed after {noticed:.1f} s"
    return _told(cluster, what, equal, cluster.messages())
