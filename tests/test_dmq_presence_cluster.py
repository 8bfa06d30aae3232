"""
Whole nodes in a cluster in memory: publications by channel presence, and by copies of the PUBLISH requests.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.config import PresenceConfig
from sipdmq.core.policy import DefaultPolicy
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.publications import IPublisher
from sipdmq.sip.message import Request, Response
from sipdmq.sip.parser import parse_message
from tests.dmq_network import DMQNetwork, address
from tests.fakes import request_bytes
from tests.publication_tools import pidf

PHONE = ("198.51.100.7", 5062)
OWN = "x-sipdmq-published"
AOR = "alice@localhost"
CHANNEL = PresenceConfig(enable=True)
COPIES = PresenceConfig(enable=True, enable_dmq=False)


class PresenceNetworkTestCase(SynchronousTestCase):
    presence = CHANNEL
    replicate: tuple[str, ...] = ()
    policy: Any = None

    def setUp(self) -> None:
        self.network = DMQNetwork(self)
        self._sent = 0

    def nodes(self, *numbers: int) -> None:
        for number in numbers:
            peers = [each for each in numbers if each < number]
            self.network.add(number, *peers, presence=self.presence, replicate=self.replicate, policy=self.policy)
        self.network.pump(2)
        self.network.seen.clear()

    def publish(self, number: int, *headers: str, body: bytes = b"", etag: str = "", vias: str = "",
                source: tuple[str, int] = PHONE, uri: str = f"sip:{AOR}") -> Response:  # fmt: skip
        """
        A phone publishes at a node, and all gets where it goes.

        @return: the answer.
        """
        self._sent += 1
        lines = ["Event: presence", *headers, *([f"SIP-If-Match: {etag}"] if etag else [])]
        lines += ["Content-Type: application/pidf+xml"] if body else []
        data = request_bytes(
            "PUBLISH", uri=uri, via=f"{vias}SIP/2.0/UDP {PHONE[0]}:{PHONE[1]};branch=z9hG4bK{self._sent}",
            call_id=f"c{self._sent}", headers=lines, body=body,
        )  # fmt: skip
        port = self.network.nodes[address(number)].reactor.ports[0]
        port.protocol.datagramReceived(data, source)
        answers = [message for message in (parse_message(sent) for sent, _ in port.opened.sent)
                   if isinstance(message, Response) and message.call_id == f"c{self._sent}"]  # fmt: skip
        self.network.deliver()
        return answers[0]

    def etag(self, *arguments: Any, **keys: Any) -> str:
        response = self.publish(*arguments, **keys)
        self.assertEqual(response.status, 200, response.reason)
        return str(response.headers.get("sip-etag"))

    def records(self, number: int) -> list[tuple[str, bytes]]:
        store = self.network.nodes[address(number)].node.publications
        return [(each.etag, each.body) for each in store.records(AOR, "presence") if not each.removed]

    def assert_all(self, *expected: tuple[str, bytes]) -> None:
        for host in self.network.nodes:
            self.assertEqual(self.records(int(host.rpartition(".")[2])), list(expected), host)


class ChannelTests(PresenceNetworkTestCase):
    def test_a_phone_that_goes_from_node_to_node(self) -> None:
        """
        Its entity tag is good at each.
        """
        self.nodes(1, 2, 3)
        first = self.etag(1, body=pidf())
        self.network.pump(0.1)
        self.assert_all((first, pidf()))
        second = self.etag(2, etag=first)
        self.network.pump(0.1)
        self.assert_all((second, pidf()))
        third = self.etag(3, etag=second, body=pidf("closed"))
        self.network.pump(0.1)
        self.assert_all((third, pidf("closed")))
        self.etag(1, "Expires: 0", etag=third)
        self.network.pump(0.1)
        self.assert_all()

    def test_all_compose_the_same_document(self) -> None:
        self.nodes(1, 2)
        self.etag(1, body=pidf("open", "a"))
        self.network.pump(1)
        self.etag(2, body=pidf("closed", "b"))
        self.network.pump(1)
        documents = {node.node.publications.document(AOR, "presence") for node in self.network.nodes.values()}
        ((_, body, _),) = documents
        self.assertEqual(body.count(b"<tuple"), 2)

    def test_several_changes_while_one_is_on_its_way(self) -> None:
        """
        What a Kamailio is told follows from the tag that it was told last.
        """
        self.nodes(1, 2)
        self.network.dead.add(address(2))
        tag = self.etag(1, body=pidf())
        for _ in range(3):
            tag = self.etag(1, etag=tag)
        self.network.dead.clear()
        self.network.pump(2)
        self.assert_all((tag, pidf()))

    def test_a_newcomer_gets_all(self) -> None:
        self.nodes(1, 2)
        tag = self.etag(1, body=pidf())
        self.network.pump(1)
        self.network.add(3, 1, presence=CHANNEL)
        self.network.pump(5)
        self.assert_all((tag, pidf()))
        self.assertEqual(self.network.nodes[address(3)].node.snapshot()["presence.is_ready"], 1)

    def test_a_node_that_was_cut_off_is_repaired(self) -> None:
        self.nodes(1, 2)
        kept, gone = self.etag(1, body=pidf("open", "a")), self.etag(1, body=pidf("open", "b"))
        self.network.pump(1)
        self.network.dead.add(address(2))
        kept = self.etag(1, etag=kept, body=pidf("closed", "a"))
        self.etag(1, "Expires: 0", etag=gone)
        here = self.etag(2, body=pidf("open", "c"))
        self.network.pump(60)
        self.network.dead.clear()
        self.network.pump(90)
        for number in (1, 2):
            self.assertEqual(
                sorted(self.records(number)), sorted([(kept, pidf("closed", "a")), (here, pidf("open", "c"))]), number
            )

    def test_stopping_leaves_no_timer(self) -> None:
        self.nodes(1, 2)
        self.etag(1, body=pidf())
        node = self.network.nodes[address(1)]
        node.service.stopService()
        self.network.pump(3)
        left = [call for call in node.reactor.getDelayedCalls() if "Deadlines" not in str(call)]
        self.assertEqual(left, [], "but for the transactions, which nobody waits for")


class CopyTests(PresenceNetworkTestCase):
    """
    C{[dmq] replicate = PUBLISH}
    """

    presence = COPIES
    replicate = ("PUBLISH",)

    def copies(self) -> list[tuple[str, str | None]]:
        found = [
            (to, message.headers.get(OWN))
            for _, to, message in self.network.seen
            if isinstance(message, Request) and message.method == "PUBLISH" and len(message.vias) > 1
        ]
        self.network.seen.clear()
        return found

    def test_the_interfaces(self) -> None:
        self.nodes(1)
        receiver = self.network.nodes[address(1)].node.cluster.publisher
        for interface in (IPublisher, IInspectable):
            verifyObject(interface, receiver)
        self.assertIsNotNone(receiver.published)

    def test_refreshes_at_any_node(self) -> None:
        """
        Kamailio's fail with 412.
        """
        self.nodes(1, 2, 3)
        first = self.etag(1, body=pidf())
        self.assert_all((first, pidf()))
        self.assertEqual([to for to, told in self.copies() if told], [address(2), address(3)])
        second = self.etag(2, etag=first)
        self.assert_all((second, pidf()))
        third = self.etag(3, etag=second, body=pidf("closed"))
        self.assert_all((third, pidf("closed")))
        self.etag(1, "Expires: 0", etag=third)
        self.assert_all()
        self.assertEqual(self.network.nodes[address(1)].node.snapshot()["presence.copies_received"], 2)

    def test_what_is_refused_is_not_copied(self) -> None:
        self.nodes(1, 2)
        self.assertEqual(self.publish(1, etag="x.1").status, 412)
        self.assertEqual(self.publish(1, body=b"<a/>").status, 400)
        self.assertEqual(self.copies(), [])

    def test_nobody_else_may_say_what_was_made_of_it(self) -> None:
        self.nodes(1, 2)
        presentity = '{"domain":"x","user":"y","etag":"z.7","expires":600,"recv":1,"event":"presence"}'
        told = f'{{"action":1,"presentity":{presentity}}}'
        tag = self.etag(1, f"X-Sipdmq-Published: {told}", body=pidf())
        self.assertNotEqual(tag, "z.7")
        self.assert_all((tag, pidf()))

    def from_node(self, *headers: str, **keys: Any) -> Response:
        """
        A copy from node 2 at node 1.
        """
        vias = f"SIP/2.0/UDP {address(2)}:5060;branch=z9hG4bKn{self._sent}, "
        return self.publish(1, *headers, vias=vias, source=(address(2), 5060), **keys)

    def test_a_kamailio_s_copy(self) -> None:
        """
        It says nothing more than a phone would.
        """
        self.nodes(1, 2)
        response = self.from_node(body=pidf())
        self.assertEqual(response.status, 200)
        self.assertEqual([body for _, body in self.records(1)], [pidf()])
        self.assertEqual((self.records(2), self.copies()), ([], []), "it is not sent on")
        self.assertEqual(self.from_node(etag="a.1.2.3").status, 412)

    def test_our_limits_are_for_phones(self) -> None:
        """
        How long a publication lives, the node has agreed on with its phone.
        """
        self.nodes(1, 2)
        self.assertEqual(self.publish(1, "Expires: 30", body=pidf()).status, 423)
        self.assertEqual(self.from_node("Expires: 30", body=pidf()).status, 200)

    def test_published_by_the_address_of_a_node(self) -> None:
        self.nodes(1, 2)
        for host in (address(1), address(2)):
            self.assertEqual(self.from_node(uri=f"sip:alice@{host}", body=pidf()).status, 200, host)
        self.assertEqual(len(self.records(1)), 2)

    def test_an_extension_that_we_do_not_have(self) -> None:
        self.nodes(1, 2)
        self.assertEqual(self.from_node("Require: x", body=pidf()).status, 420)

    def test_a_copy_from_a_day_that_has_not_come(self) -> None:
        """
        Stored, it would be the newest for ever.
        """
        self.nodes(1, 2)
        presentity = '"domain":"localhost","user":"alice","etag":"n.0","expires":9,"event":"presence","recv":9999999999'
        told = f'{{"action":1,"presentity":{{{presentity}}},"t_new":1}}'
        self.assertEqual(self.from_node(f"X-Sipdmq-Published: {told}", body=pidf()).status, 403)
        self.assertEqual(self.records(1), [])

    def test_a_copy_that_tells_nonsense_is_one_like_any_other(self) -> None:
        self.nodes(1, 2)
        for number, told in enumerate(("x", "{}", "[]", '{"action":1}', '{"action":2}'), 1):
            self.assertEqual(self.from_node(f"X-Sipdmq-Published: {told}", body=pidf()).status, 200)
            self.assertEqual(len(self.records(1)), number)

    def test_a_refresh_of_what_never_came(self) -> None:
        self.nodes(1, 2)
        tag = self.etag(1, body=pidf())
        self.network.nodes[address(2)].node.publications.update(AOR, "presence", lambda _: (), 2)
        self.etag(1, etag=tag)
        seen = [(to, message) for _, to, message in self.network.seen if isinstance(message, Response)]
        statuses = [message.status for to, message in seen if to == address(1)]
        self.assertEqual((statuses, self.records(2)), ([200, 412], []))

    def test_not_for_strangers(self) -> None:
        self.nodes(1, 2)
        response = self.from_node(body=pidf())
        self.assertEqual(response.status, 200)
        network = self.network
        network.seen.clear()
        data = request_bytes("PUBLISH", uri="sip:alice@elsewhere.example", headers=["Event: presence"],
                             via=f"SIP/2.0/UDP {address(2)}:5060;branch=z9hG4bKx, SIP/2.0/UDP 192.0.2.7")  # fmt: skip
        network.nodes[address(1)].reactor.ports[0].protocol.datagramReceived(data, (address(2), 5060))
        network.deliver()
        self.assertEqual([m.status for _, _, m in network.seen if isinstance(m, Response)], [404])


class PolicyCopyTests(CopyTests):
    """
    The same by a policy that calls C{t_replicate} itself, and C{handle_publish} on what comes from nodes.
    """

    replicate = ()

    class Policy(DefaultPolicy):
        def route(self, request: Any, node: Any) -> None:  # type: ignore[override]
            if node.takes_publish(request) or node.dmq.is_from_node(request):
                node.handle_publish(request)
                if not node.dmq.is_from_node(request):
                    node.dmq.t_replicate(request)
                return
            from sipdmq.core import refuse

            raise refuse.not_found()

    policy = Policy()

    def test_the_interfaces(self) -> None:
        self.nodes(1)
        self.assertIsNone(self.network.nodes[address(1)].node.cluster.publisher.published)
