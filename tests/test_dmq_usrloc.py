"""
Channel usrloc: outward, inward, and how a binding looks on the wire.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.core.contacts import PERMANENT
from sipdmq.core.domains import Domains
from sipdmq.dmq.owner import FlowTokens
from sipdmq.dmq.usrloc_form import UsrlocForm, methods_of, methods_text
from sipdmq.dmq.usrloc_json import decode
from sipdmq.dmq.usrloc_records import ALL_METHODS, UsrlocRecord
from sipdmq.errors import DecodeError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.location import IBindingListener
from sipdmq.interfaces.replication import IChannelPeer, INodeListener, IRepairer
from sipdmq.records import Binding, NodeName, Origin, Protocol
from tests.location_store_tests import EPOCH, make_binding
from tests.usrloc_node import HERE, KAMAILIO, KEY, OURS, UsrlocTestCase, update


class OutwardTests(UsrlocTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.peer.start(False)

    def test_the_interfaces(self) -> None:
        for interface in (IChannelPeer, IRepairer, IBindingListener, INodeListener, IInspectable):
            verifyObject(interface, self.peer)

    def test_only_what_was_changed_here_leaves(self) -> None:
        for origin, count in ((Origin.LOCAL, 1), (Origin.REPLICATED, 0), (Origin.LOADED, 0)):
            self.put(make_binding("r1", cseq=10 + int(origin)), origin=origin)
            self.assertEqual(len(self.told()), count, origin)

    def test_an_update(self) -> None:
        self.put(make_binding("r1"))
        ((node, key, change),) = self.cluster.put_ones
        self.assertEqual((node, key), (None, "alice@example.org r1"))
        self.assertEqual(
            self.peer.encode(change),
            b'{"action":1,"aor":"alice","ruid":"r1","c":"sip:r1@192.0.2.7:5062","received":"","path":"","callid":'
            b'"r1@192.0.2.7","user_agent":"n/a","instance":"","expires":1700000060,"cseq":1,"flags":0,"cflags":0,"q":-1,'
            b'"last_modified":1700000000,"methods":4294967295,"reg_id":0,"server_id":0}',
        )

    def test_a_removal_names_the_record_as_each_may_know_it(self) -> None:
        self.put(make_binding("r1", other_ruids=("k1", "k2")))
        self.told()
        self.put(make_binding("r1", other_ruids=("k1", "k2"), removed=True, known_until=EPOCH + 500))
        found = [decode(fragment)[0] for _, fragment in self.told()]
        self.assertEqual(
            [(each.removed, each.ruid) for each in found],  # type: ignore[union-attr]
            [(True, "r1"), (True, "k1"), (True, "k2")],
        )
        self.assertEqual(found[0].expires, EPOCH + 500)  # type: ignore[union-attr]

    def test_an_expiry_stays_here(self) -> None:
        self.put(make_binding("r1"))
        self.told()
        self.clock.advance(60)
        self.assertEqual(self.told(), [])

    def test_the_body(self) -> None:
        self.assertEqual(self.peer.join([b"{}"]), ("application/json", b"{}"))
        self.assertEqual(self.peer.join([b"1", b"2"])[1], b'{"multi":{"1":1,"2":2}}')


class OtherSettingsTests(UsrlocTestCase):
    settings = {"usrloc_delete": False, "usrloc_delete_expired": True, "dmq_peer_id": "ul2"}

    def test_deletions_and_expiries(self) -> None:
        self.peer.start(False)
        self.assertEqual(self.peer.channel, "ul2")
        self.put(make_binding("r1"))
        self.told()
        self.put(make_binding("r1", removed=True))
        self.assertEqual(self.told(), [])
        self.put(make_binding("r2"))
        self.told()
        self.clock.advance(60)
        ((_, fragment),) = self.told()
        self.assertTrue(fragment.startswith(b'{"action":2,"aor":"alice","ruid":"r2"'))


class InwardTests(UsrlocTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.peer.start(False)

    def test_an_update_a_refresh_and_a_removal(self) -> None:
        self.assertEqual(self.receive(update(self.form)), 200)
        self.assertEqual(self.live(), ["k1"])
        self.assertEqual(self.receive(update(self.form, cseq=2)), 200)
        self.assertEqual(self.receive(self.form.encode_remove(make_binding("k1", cseq=2), "k1")), 200)
        self.assertEqual((self.live(), self.told()), ([], []))

    def test_a_contact_expires_when_our_clock_says_what_the_others_did(self) -> None:
        """
        Where that one is ahead by 5 s, it lives so much longer here.
        """
        their_now = int(self.now()) + 5
        self.receive(update(self.form, expires_at=their_now + 60, last_modified=their_now), OURS)
        self.clock.advance(64)
        self.assertEqual(self.live(), ["k1"])
        self.clock.advance(1)
        self.assertEqual(self.live(), [])

    def test_what_cannot_be_read_is_400_and_changes_nothing(self) -> None:
        for body in (b"", b"{}", b"[]", b"x", b'{"action":99}', update(self.form).replace(b'"cseq":1', b'"cseq":-1')):
            self.assertEqual(self.receive(body), 400, body)
        self.assertEqual((self.live(), self.peer.snapshot()["usrloc.refused"]), ([], 6))

    def test_nothing_to_do_is_200(self) -> None:
        for body in (b'{"action":0,"x":1}', b'{"multi":{}}', b'{"action":"1"}'):
            self.assertEqual(self.receive(body), 200, body)

    def test_an_unknown_removal_is_200(self) -> None:
        self.assertEqual(self.receive(b'{"action":2,"aor":"nobody","ruid":"r"}'), 200)

    def test_one_bad_record_of_several(self) -> None:
        bad = update(self.form, "k2", contact="tel:1")
        body = b'{"multi":[%b,%b,%b]}' % (update(self.form), bad, update(self.form, "k3"))
        self.assertEqual(self.receive(body), 200)
        self.assertEqual(sorted(self.live()), ["k1", "k3"])

    def test_the_hard_bound(self) -> None:
        for number in range(25):
            self.assertEqual(self.receive(update(self.form, f"k{number}")), 200)
        self.assertEqual(len(self.live()), 20)

    def test_the_loser_is_told_the_winner(self) -> None:
        """
        A Kamailio by the name that it used, a node of ours as we have it.
        """
        self.put(make_binding("r1", contact="sip:a@h", cseq=5, last_modified=EPOCH + 5))
        self.told()
        old = update(self.form, "k1", contact="sip:a@h", call_id="r1@192.0.2.7", last_modified=EPOCH - 5)
        for sender, ruid in ((KAMAILIO, b"k1"), (OURS, b"r1")):
            self.assertEqual(self.receive(old, sender), 200)
            ((node, fragment),) = self.told()
            self.assertEqual(node, sender.name)
            self.assertIn(b'{"action":1,"aor":"alice","ruid":"%b","c":"sip:a@h"' % ruid, fragment)
        self.receive(old, None)
        self.assertEqual(self.told(), [])

    def test_the_loser_is_told_of_a_removal(self) -> None:
        self.put(make_binding("r1", contact="sip:a@h", removed=True, last_modified=EPOCH + 5))
        self.told()
        self.receive(update(self.form, "k1", contact="sip:a@h"))
        ((_, fragment),) = self.told()
        self.assertIn(b'{"action":2,"aor":"alice","ruid":"k1"', fragment)

    def test_what_this_node_had_told_before_its_start_it_passes_on(self) -> None:
        """
        Others give it back; it had reached some of them only.
        """
        third = OURS._replace(name=OURS.name._replace(host="192.0.2.13"))
        self.cluster.members = [OURS, third]

        def mine(ruid: str, age: int, by: str = str(HERE)) -> bytes:
            binding = make_binding(ruid, contact=f"sip:a@{ruid}", last_modified=int(self.now()) - age)
            return self.form.encode_update(binding, ruid, by)

        for _ in range(2):
            self.receive(mine("r1", 3), OURS)
        ((node, _),) = self.told()
        self.assertEqual(node, third.name)
        self.cluster.put_ones.clear()
        self.receive(mine("r2", 90), OURS)
        self.receive(mine("r3", 3, by=""), OURS)
        self.assertEqual(self.told(), [])

    def test_a_kamailio_is_not_told_of_another_name(self) -> None:
        self.put(make_binding("r1", contact="sip:a@h", call_id="c"))
        self.told()
        other = update(self.form, "k1", contact="sip:a@h", call_id="c")
        self.receive(other, KAMAILIO)
        self.assertEqual(self.told(), [])
        self.receive(other, OURS)
        self.assertEqual(len(self.told()), 1)
        self.put(make_binding("r1", contact="sip:a@h", removed=True, other_ruids=("k1",), last_modified=EPOCH + 9))
        self.assertEqual(len(self.told()), 2)

    def test_messages_about_one_user_have_one_key(self) -> None:
        message: Any = type("M", (), {"body": b'{"multi":[%b,%b]}' % (update(self.form), update(self.form, "k2"))})
        self.assertEqual(self.peer.keys_of(message), ("alice",))
        message.body = b"x"
        self.assertEqual(self.peer.keys_of(message), ("",))

    def test_what_comes_back_to_its_owner_is_still_his(self) -> None:
        self.put(make_binding("r1", flow="f1", received="sip:192.0.2.7:4444;transport=tcp"))
        ((_, fragment),) = self.told()
        self.receive(fragment)
        (binding,) = self.successResultOf(self.store.lookup("alice@example.org"))
        self.assertEqual((binding.flow, binding.path, self.told()), ("f1", "", []))


class FormTests(UsrlocTestCase):
    """
    A binding on the wire, and back.
    """

    def there(self, binding: Binding) -> Binding:
        """
        What another node of ours makes of it.
        """
        node = NodeName(Protocol.UDP, "192.0.2.12", 5060)
        other = UsrlocForm(Domains(["example.org"], {}, []), FlowTokens(KEY, node))
        ((one),) = decode(self.form.encode_update(binding))
        return other.binding(one)  # type: ignore[arg-type]

    def test_methods(self) -> None:
        for params, methods in (
            ("", ALL_METHODS), (';methods="INVITE, BYE"', 9), (";x=1;methods=\"INVITE\"", 1), (';methods="FOO"', 0),
            (";methods", ALL_METHODS), (';METHODS="options"', 512),
        ):  # fmt: skip
            self.assertEqual(methods_of(params), methods, params)
        for methods in (1, 9, 527, 2**15 - 1):
            self.assertEqual(methods_of(methods_text(methods)), methods)

    def test_what_a_phone_said_of_itself(self) -> None:
        binding = make_binding(
            params=';+sip.instance="<urn:1>";reg-id=3;methods="INVITE"', instance="<urn:1>", reg_id=3, q=0,
            expires_at=PERMANENT,
        )  # fmt: skip
        there = self.there(binding)
        self.assertEqual(
            (there.params, there.instance, there.reg_id, there.q, there.methods, there.expires_at),
            (binding.params, "<urn:1>", 3, 0, 1, PERMANENT),
        )

    def test_a_contact_that_only_we_reach_goes_through_us(self) -> None:
        there = self.there(make_binding(flow="f1", path="<sip:edge;lr>"))
        self.assertEqual((there.owner, there.flow), (str(HERE), ""))
        self.assertRegex(there.path, r"^<sip:f1\.[^@]+@192\.0\.2\.1:5060;lr>, <sip:edge;lr>$")

    def test_the_owner_gets_its_connection_back(self) -> None:
        """
        After a restart, from a node that remembers: the connection is gone, but nobody routes in a circle.
        """
        path = FlowTokens(KEY, HERE).with_owner("f1", "<sip:edge;lr>")
        back = self.form.binding(UsrlocRecord("alice", "r", "sip:a@h", path=path))
        self.assertEqual((back.flow, back.path, back.owner), ("f1", "<sip:edge;lr>", ""))

    def test_the_aor(self) -> None:
        for text, aor in (("alice", "alice@example.org"), ("%61lice", "alice@example.org"),
                          ("alice@EXAMPLE.org", "alice@example.org"), ("\udcff", "\udcff@example.org")):
            self.assertEqual(self.form.binding(UsrlocRecord(text, "r", "sip:a@h")).aor, aor)
        for text in ("a@elsewhere.org", "a b", "<x>", "@example.org", "a@", "a@b@example.org"):
            self.assertRaises(DecodeError, self.form.binding, UsrlocRecord(text, "r", "sip:a@h"))

    def test_what_nobody_can_be_called_at(self) -> None:
        for values in (
            {"c": ""}, {"c": "tel:1"}, {"c": "sip:a b"}, {"received": "x"}, {"path": "<"}, {"path": "<tel:1>"},
        ):  # fmt: skip
            values = {"c": "sip:a@h"} | values
            self.assertRaises(DecodeError, self.form.binding, UsrlocRecord("a", "r", **values))  # type: ignore[arg-type]
        self.form.binding(UsrlocRecord("a", "r", c="x y", removed=True))

    def test_the_parameters(self) -> None:
        def form(**settings: Any) -> UsrlocForm:
            return UsrlocForm(
                Domains(["example.org"], {}, []), FlowTokens(KEY, HERE), sockets=["udp:1:1"], dmq_socket="udp:9:9",
                **settings,
            )  # fmt: skip

        record = UsrlocRecord("alice", "r", "sip:a@h", cflags=64, sock="udp:1:1")
        self.assertEqual([form(replicate_cflags=n).binding(record).cflags for n in (0, 1, 5)], [0, 64, 5])
        self.assertEqual([form(replicate_socket_info=n).binding(record).socket for n in (0, 3)], ["udp:1:1", "udp:9:9"])
        self.assertEqual(form().binding(record._replace(sock="udp:2:2")).socket, "")
        self.assertIn(b'"sock":"udp:192.0.2.1:5060"', form(replicate_socket_info=1).encode_update(make_binding()))
        self.assertIn(b'"aor":"alice@example.org"', form(use_domain=True).encode_update(make_binding()))
