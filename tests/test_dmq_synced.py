"""
What all channels have in common whose records every node keeps, on the smallest one that there can be: words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sipdmq.core.read_ahead import ReadAhead
from sipdmq.dmq.donor import Donor
from sipdmq.dmq.errands import SyncEnd, SyncRequest
from sipdmq.dmq.newcomer import Readiness
from sipdmq.dmq.synced import BAD, OK, SyncedPeer
from sipdmq.errors import DecodeError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import INodeListener, IRepairer
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, Protocol, Source
from tests.fakes import UDP
from tests.location_store_tests import EPOCH
from tests.usrloc_node import HERE, KAMAILIO, OURS, FakeCluster, FakeResponse

ASK, ASK_OURS = b"?", b"? ours"


class Word(NamedTuple):
    text: str
    told_by: str = ""
    last_modified: int = int(EPOCH)
    removed: bool = False
    is_hidden: bool = False


def decode(body: bytes) -> Word | SyncRequest | SyncEnd:
    if not body:
        raise DecodeError("no word")
    text = body.decode()
    if text.startswith("."):
        return SyncEnd(int(text[1:]))
    return SyncRequest(body == ASK_OURS) if text.startswith("?") else Word(text)


class WordDonor(Donor):
    store_interface = dict
    what = "words"

    def _page(self, cursor: Any) -> Deferred[Any]:
        return succeed(({text: [word] for text, word in self._store.items()}, None))


@implementer(IRepairer, INodeListener, IInspectable)
class WordsPeer(SyncedPeer):
    channel = "words"
    numbers = "words"
    record = "a word"
    sync_request = ASK
    sync_request_of_ours = ASK_OURS

    def __init__(self, clock: Clock, cluster: FakeCluster, words: Sequence[Word], asks: bool = True) -> None:
        super().__init__(
            clock, lambda: EPOCH + clock.seconds(), Readiness("words"), cluster, cluster, cluster, asks
        )  # fmt: skip
        self.words = {word.text: word for word in words}
        self._bodies = ReadAhead(decode)
        self._donor = WordDonor(
            clock, self.words, self._wants, self._put_record, self._put_end, self._owe, self._is_active
        )

    def _put_record(self, node: ClusterNode, word: Word, age: float) -> Any:
        return self._replicator.put_for(node.name, self.channel, word.text, word, age)

    def encode(self, change: Word | SyncEnd) -> bytes:
        return f".{change.records}".encode() if isinstance(change, SyncEnd) else change.text.encode()

    def join(self, fragments: Iterable[bytes]) -> tuple[str, bytes]:
        (fragment,) = fragments
        return "text/plain", fragment

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        try:
            found = self._bodies.read(message.body)
        except DecodeError:
            return ("",)
        return (found.text if isinstance(found, Word) else "",)

    def message_received(self, message: ChannelMessage) -> ChannelReply:
        try:
            found = self._bodies.take(message.body)
        except DecodeError as error:
            self._refused(message, error.reason)
            return BAD
        if isinstance(found, Word):
            self._counts["received"] += 1
            self._records_received(message.sender)
            self.words[found.text] = found._replace(told_by=str(message.sender and message.sender.name))
        else:
            self._sync_received(found, message.sender)
        return OK


class RestoredWordsPeer(WordsPeer):
    is_restored = True


class SyncedTestCase(SynchronousTestCase):
    words: Sequence[Word] = (
        Word("here"), Word("gone", removed=True), Word("old", last_modified=int(EPOCH) - 500),
        Word("of-theirs", told_by=str(OURS.name)),
    )  # fmt: skip

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster()
        self.cluster.members = [KAMAILIO, OURS]
        self.peer = self.make_peer()
        self.peer.start(True)
        self.addCleanup(lambda: self.peer.stop())

    def make_peer(self) -> WordsPeer:
        return WordsPeer(self.clock, self.cluster, self.words)

    def receive(self, body: bytes, sender: ClusterNode | None = OURS) -> int:
        message = ChannelMessage("words", sender, Source(Protocol.UDP, "192.0.2.12", 5060, UDP), "text/plain", body, 1)
        self.peer.keys_of(message)
        return self.peer.message_received(message).status

    def put(self, node: ClusterNode) -> list[bytes]:
        """
        What was put for a node since this was asked last.
        """
        self.clock.pump([0.01] * 10)
        put, self.cluster.put_ones = self.cluster.put_ones, []
        return [self.peer.encode(change) for name, _, change in put if name == node.name]


class SyncedTests(SyncedTestCase):
    def test_interfaces(self) -> None:
        for interface in (IRepairer, INodeListener, IInspectable):
            verifyObject(interface, self.peer)

    def test_a_node_that_asks_gets_all(self) -> None:
        self.assertEqual(self.receive(ASK, KAMAILIO), 200)
        self.assertEqual(self.put(KAMAILIO), [b"here", b"old", b"of-theirs"])
        for body, release in ((ASK, "sipdmq 0.1"), (ASK_OURS, "")):
            self.receive(body, OURS._replace(is_sipdmq=False, release=release))
            self.assertEqual(self.put(OURS), [b"here", b"gone", b"old", b"of-theirs", b".4"])

    def test_a_kamailio_that_asks_may_have_been_started_anew(self) -> None:
        self.receive(ASK, KAMAILIO)
        for body, node in ((ASK_OURS, OURS._replace(is_sipdmq=False)), (ASK, OURS), (b"word", KAMAILIO)):
            self.receive(body, node)
        self.assertEqual(self.cluster.want_all, [KAMAILIO.name])

    def test_nobody_else_does(self) -> None:
        for sender in (None, ClusterNode(HERE, KAMAILIO.status, is_local=True)):
            self.assertEqual(self.receive(ASK, sender), 200)
        self.clock.pump([0.01] * 10)
        self.assertEqual(self.cluster.put_ones, [])

    def test_of_a_node_that_is_in_the_list_no_more_nothing_is_kept(self) -> None:
        self.peer.node_joined(OURS)
        self.receive(ASK, KAMAILIO)
        self.cluster.members = [OURS]
        self.clock.pump([0.01] * 10)  # it went away meanwhile, and would get everything when it is back
        self.receive(ASK, OURS)
        self.clock.pump([0.01] * 10)
        donor, newcomer = self.peer._donor, self.peer.newcomer
        assert isinstance(donor, Donor)
        kept = (donor._postponed, donor._served_at, newcomer._owed, newcomer._asked)
        self.assertEqual([len(each) for each in kept], [1, 2, 1, 1])
        for node in (KAMAILIO, OURS):
            self.peer.forgotten(node.name)
        self.assertEqual([len(each) for each in kept], [0, 0, 0, 0])

    def test_a_repair_is_of_what_this_node_answers_for(self) -> None:
        self.peer.repair(OURS, 60)
        self.assertEqual(self.put(OURS), [b"here", b"gone"])
        self.peer.repair(KAMAILIO, 1000)
        self.assertEqual(self.put(KAMAILIO), [b"here", b"gone", b"old"])
        self.cluster.inherited = {str(OURS.name)}
        self.peer.repair(KAMAILIO, 60)
        self.assertEqual(self.put(KAMAILIO), [b"here", b"gone", b"of-theirs"])

    def test_what_a_lost_node_told_is_handed_over(self) -> None:
        self.peer.hand_over(KAMAILIO, str(OURS.name), 60)
        self.assertEqual(self.put(KAMAILIO), [b"of-theirs"])

    def test_a_repair_of_one_that_went_away_is_owed(self) -> None:
        self.cluster.members = [OURS]
        self.peer.repair(KAMAILIO, 60)
        self.assertEqual(self.put(KAMAILIO), [])
        ((name, age),) = self.cluster.owed
        self.assertEqual((name, round(age)), (KAMAILIO.name, 60))

    def test_a_sync_that_was_cut_short_begins_again(self) -> None:
        self.cluster.members = [OURS]
        self.receive(ASK, KAMAILIO)
        self.assertEqual(self.put(KAMAILIO), [])
        self.cluster.members = [OURS, KAMAILIO]
        self.peer.node_up(KAMAILIO)
        self.assertEqual(self.put(KAMAILIO), [b"here", b"old", b"of-theirs"])

    def test_it_asks_one_of_ours_first(self) -> None:
        self.peer.node_joined(KAMAILIO)
        ((_, node, body, answer),) = self.cluster.asked
        self.assertEqual((node, body), (OURS.name, ASK_OURS))
        answer.callback(FakeResponse(200))
        self.assertFalse(self.peer.readiness.is_ready)
        for body in (b"one", b"two", b".2"):
            self.assertEqual(self.receive(body), 200)
        self.assertTrue(self.peer.readiness.is_ready)
        self.assertEqual(self.peer.words["two"].told_by, str(OURS.name))
        numbers = {"words.received": 2, "words.refused": 0, "words.syncs": 0, "words.is_ready": 1}
        self.assertEqual(self.peer.snapshot(), numbers)

    def test_it_may_be_told_to_ask_nobody(self) -> None:
        self.peer.stop()
        self.peer = WordsPeer(self.clock, self.cluster, self.words, asks=False)
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.assertEqual((self.cluster.asked, self.peer.readiness.is_ready), ([], True))

    def test_bodies_are_read_once_and_few_are_kept(self) -> None:
        read: list[bytes] = []

        def reading(body: bytes) -> Word | SyncRequest | SyncEnd:
            read.append(body)
            return decode(body)

        bodies = self.peer._bodies = ReadAhead(reading)
        self.receive(b"one")
        self.assertEqual((read, len(bodies)), ([b"one"], 0))
        for number in range(100):
            bodies.read(b"w%d" % number)
        self.assertEqual(len(bodies), 64)
        self.assertEqual(bodies.take(b"w0"), Word("w0"), "it is read again")
        self.assertEqual(self.receive(b""), 400)
        self.assertEqual(self.peer.snapshot()["words.refused"], 1)


class RestoredTests(SyncedTestCase):
    """
    Where a Kamailio takes for true what it hears last.
    """

    def make_peer(self) -> WordsPeer:
        return RestoredWordsPeer(self.clock, self.cluster, self.words)

    def test_one_node_repairs_a_kamailio_that_was_lost_and_asks_it_first(self) -> None:
        self.cluster.restorers[KAMAILIO.name] = HERE
        self.peer.repair(KAMAILIO, 60)
        self.assertEqual(self.put(KAMAILIO), [])
        self.peer.node_joined(KAMAILIO)
        self.assertEqual([(node, body) for _, node, body, _ in self.cluster.asked], [(KAMAILIO.name, ASK)])
        self.clock.advance(5)
        self.assertEqual(self.put(KAMAILIO), [], "it has not answered yet")
        self.cluster.asked[0][3].callback(FakeResponse(200))
        self.clock.advance(1.5)
        self.receive(b"news", KAMAILIO)
        self.clock.advance(1.5)
        self.assertEqual(self.put(KAMAILIO), [], "it is still speaking")
        self.clock.advance(1)
        self.assertEqual(self.put(KAMAILIO), [b"here", b"gone"])

    def test_another_node_does(self) -> None:
        self.cluster.restorers[KAMAILIO.name] = OURS.name
        self.peer.repair(KAMAILIO, 60)
        self.clock.advance(60)
        self.assertEqual(self.put(KAMAILIO), [])

    def test_nodes_of_ours_are_repaired_by_each(self) -> None:
        self.cluster.restorers[OURS.name] = HERE
        self.peer.repair(OURS, 60)
        self.assertEqual(self.put(OURS), [b"here", b"gone"])

    def test_one_that_is_lost_again_is_owed(self) -> None:
        self.cluster.restorers[KAMAILIO.name] = HERE
        self.peer.repair(KAMAILIO, 60)
        self.clock.advance(5)
        self.peer.node_disabled(KAMAILIO)
        self.assertEqual(self.cluster.owed, [(KAMAILIO.name, 65.0)])
        self.clock.advance(60)
        self.assertEqual(self.put(KAMAILIO), [])
