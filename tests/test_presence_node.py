"""
Subscriptions at a whole node: requests in, NOTIFYs out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from sipdmq import node as composition
from sipdmq.config import NodeConfig, NodeSection, PresenceConfig
from sipdmq.interfaces.routing import IRoutingPolicy
from sipdmq.sip.parser import parse_message
from tests.fakes import TCP, UDP, request_bytes
from tests.memory_node import MemoryNode
from tests.watchers import PRESENCE, FakeState, Watcher, plant


class WatchingTestCase(SynchronousTestCase):
    """
    @ivar presence: its configuration.
    @ivar policy: in place of the default one.
    """

    presence: PresenceConfig = PRESENCE
    policy: Any = None

    def setUp(self) -> None:
        if self.policy is not None:
            self.patch(composition, "load_policy", lambda config: self.policy)
        config = NodeConfig(
            node=NodeSection(listen=(UDP, TCP), domains=("example.org",)), presence=self.presence
        )
        self.memory = MemoryNode(self, config)
        self.state = plant(self.memory, FakeState("presence", "dialog"))
        self.watchers: dict[tuple[str, int], Watcher] = {}
        self.others: list[tuple[bytes, tuple[str, int]]] = []

    def watcher(self, *args: Any, **kwargs: Any) -> Watcher:
        watcher = Watcher(*args, **kwargs)
        self.watchers[watcher.address] = watcher
        return watcher

    def number(self, name: str) -> float:
        return self.memory.node.snapshot()[name]

    def send(self, watcher: Watcher, expires: int | None = 600, **changes: Any) -> int:
        """
        Send its next SUBSCRIBE.

        @return: the status of the answer.
        """
        before = len(watcher.responses)
        self._carry(self.memory.receive(watcher.subscribe(expires, **changes), *watcher.address))
        self.pump(0)
        self.assertEqual(len(watcher.responses), before + 1)
        return watcher.responses[-1].status

    def pump(self, seconds: float, step: float = 0.25) -> None:
        """
        Let time pass; watchers answer.
        """
        self.memory.reactor.advance(0)
        self._carry(self.memory.take_sent())
        for _ in range(round(seconds / step)):
            self.memory.reactor.advance(step)
            self._carry(self.memory.take_sent())

    def _carry(self, sent: list[tuple[bytes, tuple[str, int]]]) -> None:
        while sent:
            data, address = sent.pop(0)
            watcher = self.watchers.get(address)
            if watcher is None:
                self.others.append((data, address))
                continue
            answer = watcher.receive(data)
            if answer is not None:
                sent += self.memory.receive(answer, *address)


class LifeTests(WatchingTestCase):
    """
    RFC 6665 §4.2.1, §4.2.2.
    """

    def test_a_subscription_from_its_beginning_to_its_end(self) -> None:
        self.state.set("<home/>")
        watcher = self.watcher()
        self.assertEqual(self.send(watcher), 200)
        answer = watcher.responses[-1]
        self.assertEqual(answer.headers.first["expires"], "600")
        self.assertEqual(answer.headers.first["contact"], "<sip:192.0.2.1:5060>")
        (notify,) = watcher.notifies
        self.assertEqual(notify.uri_text, "sip:alice@198.51.100.7:5062")
        self.assertEqual(notify.headers.first["event"], "presence")
        self.assertEqual(notify.headers.first["subscription-state"], "active;expires=600")
        self.assertEqual(notify.headers.first["content-type"], "application/pidf+xml")
        self.assertEqual(notify.headers.first["contact"], "<sip:192.0.2.1:5060>")
        self.assertEqual(notify.headers.first["from"], answer.headers.first["to"])
        self.assertEqual(notify.headers.first["to"], answer.headers.first["from"])
        self.assertEqual(notify.cseq, (1, "NOTIFY"))
        self.assertEqual(watcher.told(), ["<home/>"])
        self.pump(2)
        self.state.set("<away/>")
        self.pump(1)
        self.assertEqual(watcher.states(), ["active;expires=598"])
        self.assertEqual(watcher.told(), ["<away/>"])
        self.assertEqual(self.send(watcher, 0), 200)
        self.assertEqual(watcher.states(), ["terminated;reason=timeout"])
        self.assertEqual(watcher.told(), ["<away/>"])
        self.state.set("<home/>")
        self.pump(2)
        self.assertEqual(watcher.told(), [])
        self.assertEqual(self.number("subscriptions.live"), 0)
        self.assertEqual(self.number("notify.watchers"), 0)

    def test_a_refresh_goes_on_and_is_told_the_state_at_once(self) -> None:
        watcher = self.watcher()
        self.send(watcher)
        self.pump(500)
        self.assertEqual(self.send(watcher, 300), 200)
        self.assertEqual(watcher.states(), ["active;expires=600", "active;expires=300"])
        self.assertEqual(watcher.numbers(), [1, 2])
        self.assertEqual(self.number("subscriptions.live"), 1)
        self.pump(299)
        self.assertEqual(self.number("subscriptions.live"), 1)

    def test_it_expires(self) -> None:
        watcher = self.watcher()
        self.send(watcher, 60)
        self.pump(62)
        self.assertEqual(watcher.states(), ["active;expires=60", "terminated;reason=timeout"])
        self.assertEqual(self.number("subscriptions.records"), 0)
        self.assertEqual(self.send(watcher), 481)

    def test_a_fetch_is_told_once_and_leaves_nothing(self) -> None:
        self.state.set("<home/>")
        watcher = self.watcher()
        self.assertEqual(self.send(watcher, 0), 200)
        self.assertEqual(watcher.states(), ["terminated;reason=timeout"])
        self.assertEqual(watcher.told(), ["<home/>"])
        self.assertEqual(self.number("subscriptions.records"), 0)
        self.pump(40)
        self.assertEqual(self.number("notify.watchers"), 0)

    def test_an_old_request_changes_nothing(self) -> None:
        watcher = self.watcher()
        self.send(watcher)
        watcher.cseq = 0
        self.assertEqual(self.send(watcher, via=f"SIP/2.0/UDP {watcher.address[0]}:5062;branch=z9hG4bKold"), 500)

    def test_default_and_greatest_expires(self) -> None:
        for given, got in ((None, "3600"), (10**6, "7200")):
            watcher = self.watcher(port=6000 + len(self.watchers))
            self.send(watcher, given)
            self.assertEqual(watcher.responses[-1].headers.first["expires"], got)


class RefusedTests(WatchingTestCase):
    def test_too_brief(self) -> None:
        watcher = self.watcher()
        self.assertEqual(self.send(watcher, 59), 423)
        self.assertEqual(watcher.responses[-1].headers.first["min-expires"], "60")

    def test_no_such_dialog(self) -> None:
        watcher = self.watcher()
        self.assertEqual(self.send(watcher, uri="sip:192.0.2.1:5060", to="<sip:bob@example.org>;tag=no"), 481)

    def test_another_dialog_with_our_tag(self) -> None:
        watcher = self.watcher()
        self.send(watcher)
        self.assertEqual(self.send(watcher, call_id="another"), 481)
        self.assertEqual(self.send(watcher, from_="<sip:alice@example.org>;tag=another"), 481)
        watcher.event = "dialog"
        self.assertEqual(self.send(watcher), 481)
        watcher.event = "presence;id=7"
        self.assertEqual(self.send(watcher), 481)

    def test_an_unknown_package_at_our_contact(self) -> None:
        watcher = self.watcher()
        self.send(watcher)
        watcher.event = "weather"
        self.assertEqual(self.send(watcher), 489)
        offered = watcher.responses[-1].headers.first["allow-events"]
        self.assertEqual(offered, "presence.winfo, reg, message-summary, presence, dialog")

    def test_an_unknown_package_is_for_the_phone(self) -> None:
        watcher = self.watcher(event="weather")
        self.assertEqual(self.send(watcher), 480)

    def test_the_server_itself_is_nobody_to_watch(self) -> None:
        watcher = self.watcher()
        self.assertEqual(self.send(watcher, uri="sip:example.org"), 404)

    def test_an_extension_that_we_do_not_have(self) -> None:
        watcher = self.watcher()
        for _ in range(2):  # outside of a dialog, then within it
            self.assertEqual(self.send(watcher, headers=["Require: eventlist"]), 420)
            self.assertEqual(watcher.responses[-1].headers.first["unsupported"], "eventlist")
            self.assertEqual(self.send(watcher), 200)

    def test_who_takes_no_such_documents(self) -> None:
        watcher = self.watcher()
        self.assertEqual(self.send(watcher, headers=["Accept: text/plain"]), 406)
        self.assertEqual(self.send(watcher, headers=["Accept: text/plain, application/*;q=0.1"]), 200)

    def test_what_breaks_the_grammar(self) -> None:
        for headers in (
            ["Event: presence"],  # no Contact
            ["Event: presence", "Contact: *"],
            ["Event: presence", "Contact: <tel:+1>"],
            ["Event: presence", "Contact: <sip:a@192.0.2.9>, <sip:b@192.0.2.9>"],
            ["Event: presence", "Event: presence", "Contact: <sip:a@192.0.2.9>"],
            ["Event: presence;id", "Contact: <sip:a@192.0.2.9>"],
            ["Event: presence presence", "Contact: <sip:a@192.0.2.9>"],
            ["Event: ;;", "Contact: <sip:a@192.0.2.9>"],
            ["Event: presence", "Contact: <sip:a@192.0.2.9>", "Expires: soon"],
        ):
            watcher = self.watcher(port=6000 + len(self.watchers))
            given = {"headers": headers}
            data = watcher.subscribe(**given)
            self._carry(self.memory.receive(data, *watcher.address))
            self.assertEqual([each.status for each in watcher.responses], [400], headers)

    def test_a_caller_without_a_tag(self) -> None:
        watcher = self.watcher()
        self.assertEqual(self.send(watcher, from_="<sip:alice@example.org>"), 400)

    def test_record_route_monsters(self) -> None:
        watcher = self.watcher()
        for routes in ([f"<sip:p{n}.example.org;lr>" for n in range(17)], ["<sip:" + "p" * 2100 + ".example.org;lr>"]):
            headers = [f"Record-Route: {route}" for route in routes]
            self.assertEqual(self.send(watcher, headers=headers), 513)
        self.assertEqual(self.send(watcher, headers=["Record-Route: nonsense <"]), 400)

    def test_a_dialog_that_is_too_large_to_remember(self) -> None:
        watcher = self.watcher(user="a" * 1000)
        self.assertEqual(self.send(watcher), 513)

    def test_another_domain_may_not_watch(self) -> None:
        watcher = self.watcher()
        self.assertEqual(self.send(watcher, from_="<sip:carol@elsewhere.example>;tag=c"), 403)

    def test_only_oneself_sees_his_watchers_and_contacts(self) -> None:
        for event in ("presence.winfo", "reg"):
            watcher = self.watcher(port=6000 + len(self.watchers), event=event)
            self.assertEqual(self.send(watcher), 403)
            watcher = self.watcher(port=6000 + len(self.watchers), event=event, presentity="alice@example.org")
            self.assertEqual(self.send(watcher), 200)


class LimitTests(WatchingTestCase):
    presence = replace(PRESENCE, subscriptions=6, watchers_per_presentity=3, subscriptions_per_watcher=2)

    def test_of_one_watcher(self) -> None:
        got = [self.send(self.watcher(port=6000 + n, call_id=f"c{n}")) for n in range(3)]
        self.assertEqual(got, [200, 200, 403])

    def test_of_one_presentity(self) -> None:
        got = [self.send(self.watcher(port=6000 + n, user=f"u{n}")) for n in range(4)]
        self.assertEqual(got, [200, 200, 200, 403])

    def test_in_all(self) -> None:
        got = [self.send(self.watcher(port=6000 + n, user=f"u{n}", presentity=f"p{n}@example.org")) for n in range(7)]
        self.assertEqual(got, [200] * 6 + [503])
        self.assertEqual(self.watchers["198.51.100.7", 6006].responses[-1].headers.first["retry-after"], "60")


class NotifyTests(WatchingTestCase):
    """
    RFC 6665 §4.2.2, and the pace.
    """

    def setUp(self) -> None:
        super().setUp()
        self.bob = self.watcher()
        self.send(self.bob)
        self.pump(2)
        self.bob.told()

    def test_the_first_change_goes_out_at_once_then_the_newest_after_the_interval(self) -> None:
        self.state.set("1")
        self.pump(0)
        self.assertEqual(self.bob.told(), ["1"])
        for body in "234":
            self.state.set(body)
            self.pump(0.25)
        self.assertEqual(self.bob.told(), [])
        self.pump(0.5)
        self.assertEqual(self.bob.told(), ["4"])

    def test_one_unanswered_at_a_time(self) -> None:
        self.bob.answer = 0
        self.state.set("1")
        self.pump(3)
        self.state.set("2")
        self.pump(3)
        self.assertEqual(self.bob.told(), ["1"])
        self.bob.answer = 200
        self.pump(5)
        self.assertEqual(self.bob.told(), ["2"])

    def test_who_knows_of_nothing_is_dropped(self) -> None:
        for status in (481, 404, 489, 500, 401):
            watcher = self.watcher(port=6000 + status)
            self.send(watcher)
            live = self.number("subscriptions.live")
            watcher.answer = status
            self.pump(2)
            self.state.set(f"for {status}")
            self.pump(2)
            self.assertEqual(self.number("subscriptions.live"), live - 1)
            watcher.told()
            self.state.set("more")
            self.pump(2)
            self.assertEqual(watcher.told(), [])

    def test_who_does_not_answer_is_dropped(self) -> None:
        self.bob.answer = 0
        self.state.set("1")
        self.pump(33)
        self.assertEqual(self.number("subscriptions.live"), 0)
        self.assertEqual(self.number("notify.unanswered"), 1)
        self.assertEqual(self.number("notify.watchers"), 0)

    def test_who_has_no_time_is_told_the_newest_later(self) -> None:
        self.bob.answer, self.bob.extra = 503, (("Retry-After", "10"),)
        self.state.set("1")
        self.pump(2)
        self.state.set("2")
        self.pump(7)
        self.assertEqual(self.bob.told(), ["1"])
        self.bob.answer = 200
        self.pump(2)
        self.assertEqual(self.bob.told(), ["2"])

    def test_many_watchers_are_told_in_slices(self) -> None:
        crowd = [self.watcher(port=7000 + n, user=f"u{n}") for n in range(60)]
        for watcher in crowd:
            self.send(watcher)
        self.pump(3)
        for watcher in crowd:
            watcher.told()
        self.state.set("1")
        seen: list[int] = []  # by whatever else has its turn
        port = self.memory.reactor.ports[0].opened
        self.memory.reactor.callLater(0, lambda: seen.append(len(port.sent)))
        self.pump(1)
        self.assertEqual(seen, [25])
        self.assertEqual([watcher.told() for watcher in crowd], [["1"]] * 60)

    def test_a_state_that_breaks_drops_only_its_watcher(self) -> None:
        self.patch(self.state, "document", lambda aor, package: 1 / 0)
        self.state.set("1")
        self.pump(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.number("subscriptions.live"), 0)


class RouteTests(WatchingTestCase):
    """
    RFC 3261 §12.1.1, §12.2.1.1: the way of NOTIFYs.
    """

    def notify(self, **changes: Any) -> tuple[Any, tuple[str, int]]:
        watcher = self.watcher()
        self.send(watcher, **changes)
        if watcher.notifies:
            return watcher.notifies[0], watcher.address
        data, address = self.others[0]
        return parse_message(data), address

    def test_a_loose_route(self) -> None:
        routes = ["<sip:203.0.113.5;lr>", "<sip:203.0.113.6;lr>"]
        notify, address = self.notify(headers=[f"Record-Route: {route}" for route in routes])
        self.assertEqual(address, ("203.0.113.5", 5060))
        self.assertEqual(notify.headers.first["route"], ", ".join(routes))
        self.assertEqual(notify.uri_text, "sip:alice@198.51.100.7:5062")
        answer = self.watchers["198.51.100.7", 5062].responses[-1]
        self.assertEqual(answer.headers.get_all("record-route"), routes)

    def test_a_strict_route(self) -> None:
        notify, address = self.notify(headers=["Record-Route: <sip:203.0.113.5>, <sip:203.0.113.6;lr>"])
        self.assertEqual(address, ("203.0.113.5", 5060))
        self.assertEqual(notify.uri_text, "sip:203.0.113.5")
        self.assertEqual(notify.headers.first["route"], "<sip:203.0.113.6;lr>, <sip:alice@198.51.100.7:5062>")

    def test_behind_a_nat_it_goes_where_the_subscribe_came_from(self) -> None:
        watcher = self.watcher()
        data = watcher.subscribe().replace(b"<sip:alice@198.51.100.7:5062>", b"<sip:alice@10.0.0.9:5060>")
        self._carry(self.memory.receive(data, *watcher.address))
        self.pump(1)
        (notify,) = watcher.notifies
        self.assertEqual(notify.uri_text, "sip:alice@10.0.0.9:5060")

    def test_over_the_connection_that_the_subscribe_came_by(self) -> None:
        watcher = Watcher()
        stream = self.memory.connect("198.51.100.7", 40000)
        data = watcher.subscribe(via="SIP/2.0/TCP 10.0.0.9:5060;branch=z9hG4bKt")
        watcher.receive(stream.receive(data))
        self.assertEqual(watcher.target, "sip:192.0.2.1:5060;transport=tcp")
        stream.transport.clear()
        self.pump(0)
        watcher.receive(stream.transport.value())
        self.assertEqual(len(watcher.notifies), 1)
        self.assertEqual(self.others, [])


class PendingPolicy:
    """
    Bob has not decided on alice, unless a test says otherwise; others he lets watch.
    """

    alice: Any = "pending"

    async def route(self, request: Any, node: Any) -> None:
        node.handle_subscribe(request)

    def may_watch(self, watcher: str, presentity: str, event: str) -> Any:
        return self.alice if watcher == "alice@example.org" else watcher != "mallory@example.org"


class PolicyTests(WatchingTestCase):
    def setUp(self) -> None:
        self.policy = PendingPolicy()
        directlyProvides(self.policy, IRoutingPolicy)
        super().setUp()

    def test_pending_is_told_nothing(self) -> None:
        self.state.set("<home/>")
        watcher = self.watcher()
        self.assertEqual(self.send(watcher), 200)
        self.assertEqual(watcher.states(), ["pending;expires=600"])
        self.assertEqual(watcher.told(), [""])
        self.pump(3)
        self.state.set("<away/>")
        self.pump(3)
        self.assertEqual(watcher.told(), [])

    def test_a_refresh_gets_what_was_granted_meanwhile(self) -> None:
        self.state.set("<home/>")
        watcher = self.watcher()
        self.send(watcher)
        self.policy.alice = True
        self.assertEqual(self.send(watcher), 200)
        self.assertEqual(watcher.states(), ["pending;expires=600", "active;expires=600"])
        self.assertEqual(watcher.told(), ["", "<home/>"])
        self.pump(3)
        self.state.set("<away/>")
        self.pump(1)
        self.assertEqual(watcher.told(), ["<away/>"])

    def test_a_refresh_loses_what_was_taken_back(self) -> None:
        self.policy.alice = True
        self.state.set("<home/>")
        watcher = self.watcher()
        self.send(watcher)
        self.policy.alice = False
        self.state.set("<secret/>")
        self.assertEqual(self.send(watcher), 403)
        self.assertEqual(watcher.states(), ["active;expires=600", "terminated;reason=rejected"])
        self.assertEqual(watcher.told(), ["<home/>", ""])
        self.assertEqual(self.number("subscriptions.live"), 0)
        self.assertEqual(self.send(watcher), 481)

    def test_who_may_not_watch_any_more_may_end_it(self) -> None:
        watcher = self.watcher()
        self.send(watcher)
        self.policy.alice = False
        self.assertEqual(self.send(watcher, 0), 200)
        self.assertEqual(watcher.states()[1:], ["terminated;reason=timeout"])

    def test_no(self) -> None:
        self.assertEqual(self.send(self.watcher(user="mallory")), 403)

    def test_489_where_the_policy_hands_over_whatever_comes(self) -> None:
        self.assertEqual(self.send(self.watcher(event="weather")), 489)
        watcher = self.watcher(port=6000)
        data = watcher.subscribe().replace(b"Event: presence\r\n", b"")
        self._carry(self.memory.receive(data, *watcher.address))
        self.assertEqual(watcher.responses[-1].status, 489)


class StopTests(WatchingTestCase):
    presence = replace(PRESENCE, subscriptions_per_watcher=1000, watchers_per_presentity=1000)

    def test_watchers_are_told_when_to_come_again(self) -> None:
        """
        Nobody goes on with what a lone node had; and they shall not come all at once.
        """
        watchers = [self.watcher(port=6000 + number, call_id=f"c{number}") for number in range(102)]
        for watcher in watchers:
            self.send(watcher)
        gone, *watchers = watchers
        self.send(gone, 0)
        self.pump(3)
        for watcher in (gone, *watchers):
            watcher.told()
        self.state.set("<last/>")
        self.memory.service.stopService()
        self._carry(self.memory.take_sent())
        waits = [10] * 100 + [11]
        self.assertEqual(
            [watcher.states() for watcher in watchers],
            [[f"terminated;reason=probation;retry-after={seconds}"] for seconds in waits],
        )
        self.assertEqual(watchers[0].told(), ["<last/>"])
        self.assertEqual(gone.notifies, [])
        self.assertEqual(self.memory.reactor.getDelayedCalls(), [])


class OwnPackageTests(WatchingTestCase):
    """
    RFC 3680 and RFC 3857 at work.
    """

    def register(self, expires: int, cseq: int, contact: str = "<sip:alice@198.51.100.7:5062>") -> None:
        self.memory.receive(
            request_bytes(
                "REGISTER",
                uri="sip:example.org",
                via=f"SIP/2.0/UDP 198.51.100.9:5062;branch=z9hG4bKr{cseq}",
                to="<sip:alice@example.org>",
                call_id="reg",
                cseq=f"{cseq} REGISTER",
                headers=[f"Contact: {contact};expires={expires}"],
            ),
            "198.51.100.9",
            5062,
        )

    def test_registrations(self) -> None:
        watcher = self.watcher(event="reg", presentity="alice@example.org")
        self.send(watcher, headers=["Accept: application/reginfo+xml"])
        self.assertIn('version="0" state="full"', watcher.told()[0])
        self.pump(2)
        self.register(600, 1)
        self.pump(2)
        (told,) = watcher.told()
        self.assertIn('version="1"', told)
        self.assertIn('state="active" event="registered"', told)
        self.assertIn("<uri>sip:alice@198.51.100.7:5062</uri>", told)
        self.register(600, 2)  # a refresh is no news
        self.pump(2)
        self.assertEqual(watcher.told(), [])
        self.register(0, 3)
        self.pump(2)
        (told,) = watcher.told()
        self.assertIn('state="terminated" event="unregistered"', told)

    def test_a_registration_that_expires(self) -> None:
        self.register(60, 1)
        watcher = self.watcher(event="reg", presentity="alice@example.org")
        self.send(watcher)
        self.assertIn('event="registered" expires="60"', watcher.told()[0])
        self.pump(63)
        self.assertIn('state="terminated" event="expired"', watcher.told()[0])

    def test_watchers(self) -> None:
        owner = self.watcher(event="presence.winfo", user="bob")
        self.send(owner)
        self.assertIn('version="0" state="full"', owner.notifies[0].body.decode())
        self.assertNotIn("<watcher ", owner.told()[0])
        self.pump(2)
        alice = self.watcher(port=6000)
        self.send(alice)
        self.pump(2)
        (told,) = owner.told()
        self.assertIn('version="1"', told)
        self.assertIn('status="active" event="approved">sip:alice@example.org</watcher>', told)
        tag = alice.to.rpartition("tag=")[2]
        self.assertNotIn(tag, told)
        self.send(alice)  # a refresh is no news
        self.pump(2)
        self.assertEqual(owner.told(), [])
        self.send(alice, 0)
        self.pump(2)
        self.assertNotIn("alice", owner.told()[0])
