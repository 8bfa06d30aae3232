"""
What is left to do when a node is lost: its heir is asked, and told. Who that is decides L{sipdmq.dmq.heirs}.

The question goes through the channel C{sipdmq}: C{{"inherit": {"node": "sip:192.0.2.2:5060", "age": 70}}}, and the
answer is C{{"inherit": {"lost": true}}}: whether the heir has lost that node, too. What it has comes as changes, on the
channels that they belong to. Who has not lost the node himself says how many seconds ago (C{"heard"}) he was last told
so by one who had: else nodes that are gone for good would be told on for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from sipdmq.dmq.channels import Channels
from sipdmq.dmq.heirs import Claim, Heirs
from sipdmq.dmq.hello import decode_verb, encode_verb
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.replication import IRepairer, IRestorer, ISynced
from sipdmq.records import ChannelMessage, ClusterNode, NodeName, NodeStatus
from sipdmq.sip.message import Response

__all__ = ["VERB", "Repairs"]

log = Logger()

VERB: Final = "inherit"
REACH: Final = 10.0
"""Seconds, beside C{[dmq] timeout}, that a change may have been under way when a node last answered us."""
_MAX_AGE: Final = 10 * 86_400
_MAX_NAME: Final = 128


class Repairs:
    """
    Brings what lost nodes told to all that are left.

    @ivar reach: seconds for which a change may be under way.
    """

    def __init__(
        self,
        clock: IReactorTime,
        local: NodeName,
        channels: Channels,
        send: Callable[[NodeName, bytes], Deferred[Response]],
        nodes: Callable[[], Iterable[ClusterNode]],
        timeout: float,
        forget_after: float = inf,
    ) -> None:
        """
        @param send: sends a body on the channel C{sipdmq}.
        @param nodes: all in the list.
        @param timeout: C{[dmq] timeout}.
        @param forget_after: seconds after which a node that is away is forgotten.
        """
        self._clock = IReactorTime(clock)
        self._channels = channels
        self._send = send
        self._nodes = nodes
        self.reach = timeout + REACH
        self.heirs = Heirs(local, forget_after)
        self._up_at: dict[NodeName, float] = {}

    def lost(self, node: ClusterNode, answered_at: float) -> None:
        """
        A node is active no more.

        @param answered_at: when it last answered a notification.
        """
        self.heirs.lost(self._clock.seconds(), node.name, self._lost_since(node, answered_at))
        self.look()

    def returned(self, node: ClusterNode) -> None:
        """
        A node is active, perhaps again.
        """
        self._up_at.setdefault(node.name, self._clock.seconds())
        self.heirs.returned(self._clock.seconds(), node.name)
        self.look()

    def restarted(self, node: ClusterNode, answered_at: float) -> None:
        """
        A node was started anew; perhaps we had not noticed that it was gone. What it had told lately goes back to it,
        too: whoever tells it everything may have missed that.
        """
        log.info("{node} was started anew", node=str(node.name))
        since = self._lost_since(node, answered_at)
        known = self.heirs.lost_since(node.name)  # it may have been away, and have answered again meanwhile
        if known is not None:
            since = min(since, known)
        self._hand_over(node, str(node.name), self._clock.seconds() - since)
        self.lost(node, answered_at)
        self.returned(node)

    def _lost_since(self, node: ClusterNode, answered_at: float) -> float:
        return max(answered_at, self._up_at.get(node.name, self._clock.seconds())) - self.reach

    def overslept(self, late: float) -> None:
        """
        This process was stopped for so many seconds. Nodes of ours repeat what it has not answered; Kamailios have
        given up. What this node knows of these is old until the others have told it more: it tells nobody of it before
        that, least of all them, who take it for new.
        """
        log.warn("this process was stopped for {late:.0f} s", late=late)
        for node in tuple(self._nodes()):
            if node.status is NodeStatus.ACTIVE and not node.is_local and not node.is_sipdmq:
                self.missed(node, late)
                self._channels.tell(partial(self._restore, node, late), IRestorer)

    def missed(self, node: ClusterNode, age: float) -> None:
        """
        What an active Kamailio has told in the last C{age} seconds has not come here. It is asked itself, too, but does
        not say what it has removed: who has heard that does.
        """
        now = self._clock.seconds()
        self.heirs.missed(now, node.name, now - age - self.reach)
        self.look()

    def recheck(self, node: ClusterNode, age: float) -> None:
        """
        An active Kamailio may have missed what we have told in the last C{age} seconds, and we what it has.
        """
        self.missed(node, age)

        def tell(peer: Any) -> None:
            if IRestorer.providedBy(peer):
                self._restore(node, age, peer)
            else:
                peer.taken_back(node)

        self._channels.tell(tell, ISynced)

    def _restore(self, node: ClusterNode, age: float, peer: Any) -> None:
        peer.restore(node, age + self.reach)

    def _hand_over_to_other(self, node: ClusterNode, lost: str, age: float) -> None:
        """
        A Kamailio is told what a lost node has told. It may know more of that than anybody who is left, and would not
        mind: where it can be, it is asked first.
        """

        def tell(peer: Any) -> None:
            if IRestorer.providedBy(peer):
                peer.restore(node, age, True)
            else:
                peer.hand_over(node, lost, age)

        self._channels.tell(tell, IRepairer)

    def lost_for(self, node: ClusterNode) -> float:
        """
        How old the oldest change is that a lost node may lack, whoever has made it: seconds, 0 for a node not lost.
        """
        since = self.heirs.lost_since(node.name)
        return 0.0 if since is None else self._clock.seconds() - since

    def forgotten(self, name: NodeName) -> None:
        """
        Nothing is known of a node any more.
        """
        self.heirs.forgotten(name)
        self._up_at.pop(name, None)

    def look(self, again: bool = False) -> None:
        """
        Ask whom there is to ask.

        @param again: as for L{Heirs.elect}.
        """
        active = [node for node in self._nodes() if node.status is NodeStatus.ACTIVE and not node.is_local]
        ours = [node.name for node in active if node.is_sipdmq]
        others = [node for node in active if not node.is_sipdmq]
        now = self._clock.seconds()
        for each in self.heirs.elect(now, ours, [node.name for node in others], again):
            age = now - each.since
            if isinstance(each, Claim):
                self._claim(each, age, next(node for node in active if node.name == each.heir))
            else:
                for node in others:
                    self._hand_over_to_other(node, each.lost, age)

    def _claim(self, claim: Claim, age: float, heir: ClusterNode) -> None:
        age = min(age, _MAX_AGE - 1.0)
        self._hand_over(heir, claim.lost, age)
        question: dict[str, Any] = {"node": claim.lost, "age": int(age) + 1}
        if claim.heard_at is not None:
            question["heard"] = int(self._clock.seconds() - claim.heard_at)
        asking = self._send(claim.heir, encode_verb(VERB, question))

        def answered(response: Response) -> None:
            found = decode_verb(response.body) if response.status == 200 else None
            if found is None or found[0] != VERB:
                self.heirs.unanswered(claim.heir, claim.lost)
            else:
                self.heirs.answered(claim.heir, claim.lost, found[1].get("lost") is True)

        def failed(failure: Failure) -> None:
            failure.trap(UnreachableError)
            self.heirs.unanswered(claim.heir, claim.lost)

        asking.addCallbacks(answered, failed)
        asking.addErrback(lambda failure: log.failure("an heir was not asked", failure))

    def _hand_over(self, node: ClusterNode, lost: str, age: float) -> None:
        self._channels.tell(lambda peer: peer.hand_over(node, lost, age), IRepairer)

    def asked(self, value: dict[str, Any], message: ChannelMessage) -> dict[str, Any] | None:
        """
        Another node asks for what a lost one has told; see L{PrivateChannel.add_verb
        <sipdmq.dmq.hello.PrivateChannel.add_verb>}.
        """
        lost, age, sender = value.get("node"), value.get("age"), message.sender
        if not isinstance(lost, str) or not lost.startswith("sip:") or len(lost) > _MAX_NAME:
            return None
        heard = value.get("heard", 0)
        if type(age) is not int or not 0 <= age <= _MAX_AGE or type(heard) is not int or not 0 <= heard <= _MAX_AGE:
            return None
        if sender is None or sender.is_local:
            return None
        now = self._clock.seconds()
        has_lost = self.heirs.asked(now, lost, now - age, now - heard)
        if self.heirs.concerns(lost):
            self._hand_over(sender, lost, age)
        self.look()
        return {"lost": has_lost}
