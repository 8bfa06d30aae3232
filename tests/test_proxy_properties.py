"""
Whatever a peer answers, in whatever order, with timeouts and failures: every response context ends and is freed.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sipdmq.errors import ParseError
from sipdmq.proxy.context import ResponseContext
from sipdmq.records import Destination, Protocol, Source, Target
from sipdmq.sip.message import Request, response_to
from tests.fakes import PHONE, TCP, UDP
from tests.proxy_network import BOB, CAROL, DAVE, ProxyTestCase, to

HOSTS = (BOB, CAROL, DAVE, "nowhere.example.net")

destinations = st.lists(
    st.builds(
        lambda host, q, timeout, tcp: to(f"{host};transport=tcp" if tcp else host, q=q, timeout=timeout),
        st.sampled_from(HOSTS),
        st.sampled_from((1000, 500, 0)),
        st.sampled_from((0, 0, 3, 20, 400)),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)
statuses = st.sampled_from((100, 100, 180, 183, 199, 200, 200, 202, 302, 401, 407, 408, 480, 486, 487, 500, 503, 603))
steps = st.one_of(
    st.tuples(st.just("answer"), st.integers(0, 5), statuses, st.sampled_from("xyz")),
    st.tuples(st.just("answer"), st.integers(0, 5), statuses, st.sampled_from("xyz")),
    st.tuples(st.just("mangle"), st.integers(0, 5), statuses, st.sampled_from(("via", "to", "cseq", "vias"))),
    st.tuples(st.just("fail"), st.integers(0, 8)),
    st.tuples(st.just("fail upstream")),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("again")),
    st.tuples(st.just("ack")),
    st.tuples(st.just("wait"), st.sampled_from((0.5, 4, 33, 120, 190))),
)


class EndTests(ProxyTestCase):
    """
    RFC 3261 §16.7: one final response, and nothing left.
    """

    def _answer(self, number: int, status: int, tag: str, mangled: str = "") -> None:
        """
        Somebody answers a request that was sent; C{mangled} says what is wrong with it.
        """
        requests = [message for message, _ in self.transport.sent if isinstance(message, Request)]
        if not requests:
            return
        request = requests[number % len(requests)]
        if request.method == "ACK":
            return
        response = response_to(request, status, "" if status == 100 else tag)
        if mangled == "via":
            response.headers.replace("Via", response.headers.get_all("via")[0])
        elif mangled == "to":
            response.headers.replace("To", "<sip:x@y>")
        elif mangled == "cseq":
            response.headers.replace("CSeq", f"77 {request.method}")
        elif mangled == "vias":
            response.headers.add("Via", "nonsense")
        try:
            self.receive(response, Source(Protocol.UDP, BOB, 5060, UDP))
        except ParseError:
            pass

    def _play(self, method: str, step: tuple[Any, ...]) -> None:
        kind = step[0]
        if kind == "answer":
            self._answer(*step[1:])
        elif kind == "mangle":
            self._answer(step[1], step[2], "t", step[3])
        elif kind == "fail" and self.transport.sent:
            self.layer.transport_failed(self.transport.sent[step[1] % len(self.transport.sent)][1], "no route")
        elif kind == "fail upstream":
            self.layer.transport_failed(Target(Protocol.UDP, PHONE.host, PHONE.port, True, "", False, UDP), "gone")
        elif kind == "cancel":
            self.cancel()
        elif kind == "again":
            self.request(method)
        elif kind == "ack":
            self.request("ACK", headers=())
        elif kind == "wait":
            self.pump(step[1])

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(("INVITE", "INVITE", "MESSAGE")), destinations, st.lists(steps, max_size=14))
    def test_every_context_ends(
        self, method: str, target_set: list[Destination], given_steps: list[tuple[Any, ...]]
    ) -> None:
        self.setUp()
        self.listeners = (UDP, TCP)
        contexts: list[weakref.ref[ResponseContext]] = []
        self.route_to(*target_set)
        gc.disable()
        try:
            self.request(method)
            contexts += [weakref.ref(context) for context in self.proxy._contexts.values()]
            started = len(self.transport.sent)
            for step in given_steps:
                self._play(method, step)
            # each of three q at most: timer C or 400 s, 64 × T1 for the CANCEL, as long for strays
            self.pump(3 * (400 + 33) + 70, 1)
        finally:
            gc.enable()
        self.assertGreater(started, 0)
        self.assert_nothing_left()
        finals = {status for status in self.upstream() if status >= 300}
        answers = [
            message for message, target in self.transport.sent
            if not isinstance(message, Request) and target.host == PHONE.host and message.cseq.method == method
        ]
        if method == "INVITE":
            self.assertTrue([message for message in answers if message.status >= 200])
            # one that came again after its transaction was over is another one
            self.assertLessEqual(len({m.status for m in answers if m.status >= 300}), len(self.user.verdicts), finals)
        self.user.verdicts.clear()
        self.transport.sent.clear()
        self.assertEqual([context() for context in contexts if context() is not None], [])
