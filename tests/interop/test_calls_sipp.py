"""
Calls through the node, with sipp at both ends.
"""

from __future__ import annotations

import re
import socket

from tests.interop.sipp import CallTestCase

RECORDS = {"calls": {"record_file": "calls.jsonl"}}


class TransportTests(CallTestCase):
    """
    INVITE–180–200–ACK–BYE–200 over all ways.
    """

    host = "127.84.1.1"
    settings = RECORDS

    def calls_between(self, caller: str, callee: str, calls: int = 20) -> None:
        """
        Alice calls Bob, who answers, and hangs up after a tenth of a second.
        """
        bob = self.callee("callee", transport=callee, calls=calls)
        self.call("caller", transport=caller, calls=calls)
        bob.finish()
        for method in ("INVITE", "ACK", "BYE"):
            self.assertEqual(len(bob.seen(method)), calls, method)
        # RFC 3261 §16.6 step 4: one Record-Route, or one for each side where the transports differ.
        routes = re.findall(r"^Record-Route:.*", bob.seen("INVITE")[0], re.MULTILINE)
        self.assertEqual(len(routes), 1 if caller == callee else 2, routes)
        for record in self.records(calls):
            self.assertEqual((record["status"], record["ended_by"]), (200, "caller"))
            self.assertEqual(record["from"], f"sip:alice@{self.host}")
            self.assertEqual(record["dialled"], f"sip:bob@{self.host}:5060")
            self.assertEqual(record["contact"].partition(";")[0], bob.uri.partition(";")[0])
            self.assertTrue(record["source"].startswith(f"{caller}:{self.phone_host}:"), record["source"])
            self.assertTrue(0.05 < record["duration"] < 5, record["duration"])
            self.assertTrue(record["start"] <= record["ring"] <= record["answer"] < record["end"], record)

    def test_udp(self) -> None:
        """
        Both over UDP.
        """
        self.calls_between("udp", "udp")

    def test_tcp(self) -> None:
        """
        Both over TCP, the callee at its contact: it keeps no connection.
        """
        self.calls_between("tcp", "tcp")

    def test_from_udp_to_tcp(self) -> None:
        """
        The caller's transport is not the callee's.
        """
        self.calls_between("udp", "tcp")

    def test_from_tcp_to_udp(self) -> None:
        """
        The other way round.
        """
        self.calls_between("tcp", "udp")


class EndTests(CallTestCase):
    """
    How calls end, and what the record says.
    """

    host = "127.84.2.1"
    settings = RECORDS

    def one_record(self) -> tuple[int, str, bool]:
        """
        The final code, who ended it, and whether it was answered.
        """
        (record,) = self.records(1)
        self.assertEqual(record["answer"] is not None, record["duration"] > 0)
        return record["status"], record["ended_by"], record["answer"] is not None

    def test_the_callee_hangs_up(self) -> None:
        """
        His BYE follows the route set.
        """
        bob = self.callee("callee_hangs_up", "-d", "100")
        self.call("caller_hung_up")
        bob.finish()
        self.assertEqual(self.one_record(), (200, "callee", True))

    def test_the_callee_hangs_up_between_transports(self) -> None:
        """
        His BYE comes over TCP and leaves over UDP.
        """
        bob = self.callee("callee_hangs_up", "-d", "100", transport="tcp")
        self.call("caller_hung_up")
        bob.finish()
        self.assertEqual(self.one_record(), (200, "callee", True))

    def test_the_caller_gives_up(self) -> None:
        """
        CANCEL while it rings: the callee gets one, the caller 487.
        """
        bob = self.callee("callee_silent")
        self.call("caller_cancels")
        bob.finish()
        self.assertEqual(len(bob.seen("CANCEL")), 1)
        self.assertEqual(self.one_record(), (487, "caller", False))

    def test_the_caller_gives_up_over_tcp(self) -> None:
        """
        The same, from UDP to TCP.
        """
        bob = self.callee("callee_silent", transport="tcp")
        self.call("caller_cancels")
        bob.finish()
        self.assertEqual(len(bob.seen("CANCEL")), 1)
        self.assertEqual(self.one_record(), (487, "caller", False))

    def test_busy(self) -> None:
        """
        486 comes through; the node acknowledges it to the callee.
        """
        bob = self.callee("callee_busy")
        self.call("caller_busy")
        bob.finish()
        self.assertEqual(len(bob.seen("ACK")), 1)
        self.assertEqual(self.one_record(), (486, "callee", False))


class NoAnswerTests(CallTestCase):
    """
    Nobody answers; the times are short.
    """

    host = "127.84.3.1"
    settings = {**RECORDS, "timers": {"t1": "0.02", "c": "1"}}

    def test_it_rings_for_too_long(self) -> None:
        """
        RFC 3261 §16.8: timer C, then CANCEL to the callee and 408 to the caller.
        """
        bob = self.callee("callee_silent")
        self.call("caller_no_answer")
        bob.finish()
        self.assertEqual(len(bob.seen("CANCEL")), 1)
        (record,) = self.records(1)
        self.assertEqual((record["status"], record["ended_by"]), (408, "timeout"))
        self.assertIsNotNone(record["ring"])

    def test_the_callee_is_silent(self) -> None:
        """
        RFC 3261 §16.7 step 1: a branch without any answer counts as 408 after 64 × T1.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dead:
            dead.bind((self.address(11), 0))
            self.register("bob", f"sip:bob@{self.address(11)}:{dead.getsockname()[1]}")
            self.call("caller_no_answer")
        (record,) = self.records(1)
        self.assertEqual((record["status"], record["ended_by"], record["ring"]), (408, "timeout", None))


class ForkTests(CallTestCase):
    """
    A user with two phones (RFC 3261 §16.7).
    """

    host = "127.84.4.1"
    settings = RECORDS

    def test_one_answers_and_the_other_is_cancelled(self) -> None:
        """
        Both ring. What each of them saw is counted.
        """
        answers = self.callee("callee")
        rings = self.callee("callee_silent", transport="tcp")
        self.call("caller")
        answers.finish()
        rings.finish()
        seen = {method: (len(answers.seen(method)), len(rings.seen(method))) for method in ("INVITE", "CANCEL", "BYE")}
        self.assertEqual(seen, {"INVITE": (1, 1), "CANCEL": (0, 1), "BYE": (1, 0)})
        self.assertEqual(len(answers.seen("ACK")), 1)
        self.assertEqual(len(rings.seen("ACK")), 1)  # the node's, for the 487
        branches = {re.search(r"branch=([^;\s]+)", each.seen("INVITE")[0])[1] for each in (answers, rings)}  # type: ignore[index]
        self.assertEqual(len(branches), 2)
        (record,) = self.records(1)
        self.assertEqual((record["status"], record["ended_by"]), (200, "caller"))
        self.assertTrue(record["contact"].startswith(answers.uri.partition(";")[0]), record["contact"])

    def test_the_caller_gives_up_both(self) -> None:
        """
        Each is cancelled.
        """
        phones = [self.callee("callee_silent"), self.callee("callee_silent")]
        # sipp gives up by itself when the second 180 comes while it waits.
        self.call("caller_cancels", "-default_behaviors", "all,-abortunexp")
        for phone in phones:
            phone.finish()
            self.assertEqual((len(phone.seen("INVITE")), len(phone.seen("CANCEL"))), (1, 1))
        (record,) = self.records(1)
        self.assertEqual((record["status"], record["ended_by"]), (487, "caller"))

    def test_one_is_busy_and_the_other_answers(self) -> None:
        """
        A busy phone does not end the call.
        """
        phones = [self.callee("callee_busy"), self.callee("callee_late")]
        self.call("caller")
        for phone in phones:
            phone.finish()
        (record,) = self.records(1)
        self.assertEqual((record["status"], record["ended_by"]), (200, "caller"))


class LossTests(CallTestCase):
    """
    Every fifth message of the caller gets lost, in both directions.
    """

    host = "127.84.5.1"
    settings = RECORDS

    def test_calls_take_place_all_the_same(self) -> None:
        """
        40 calls; one INVITE each reaches the callee, however often the caller sent it.
        """
        # All in time for sipp's 30 seconds, and often enough that five lost answers in a row do not end a call.
        bob = self.callee("callee", "-T2", "400", "-max_invite_retrans", "20", calls=40)
        output = self.call("caller_lossy", "-T2", "400", calls=40)
        bob.finish()
        repeated = re.findall(r"(?:INVITE|BYE) -+>(?: +[0-9]+) +([0-9]+)", output.text)
        self.assertEqual(len(repeated), 2, output.text)
        self.assertGreater(sum(map(int, repeated)), 0, "nothing was sent again, so nothing was tested")
        self.assertEqual(len(bob.seen("INVITE")), 40)
        for record in self.records(40):
            self.assertEqual((record["status"], record["ended_by"]), (200, "caller"))


class RefusalTests(CallTestCase):
    """
    Calls that go nowhere.
    """

    host = "127.84.6.1"
    is_guarded = True
    settings = {**RECORDS, "auth": {"enable": "yes"}}

    def prepare(self) -> None:
        """
        Alice and Bob.
        """
        self.write_users("alice", "bob")

    def test_a_user_is_told_who_does_not_exist_and_who_is_not_there(self) -> None:
        """
        404 and 480.
        """
        alice = self.phone("alice")
        self.assertEqual(alice.ask_challenged("INVITE", f"sip:nobody@{self.host}").status, 404)
        self.assertEqual(alice.ask_challenged("INVITE", f"sip:bob@{self.host}").status, 480)
        self.assert_well()

    def test_a_stranger_is_not_told(self) -> None:
        """
        480 for both.
        """
        stranger = self.phone("eve", "elsewhere.example")
        for user in ("nobody", "bob"):
            self.assertEqual(stranger.send(stranger.make("INVITE", f"sip:{user}@{self.host}")).status, 480, user)
        self.assert_well()

    def test_no_open_relay(self) -> None:
        """
        403 for a stranger who wants to go elsewhere: by the Request-URI, or by a Route; and nothing arrives there.
        """
        stranger = self.phone("eve", "elsewhere.example")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
            victim.bind((self.address(11), 0))
            victim.settimeout(0.2)
            there = f"{self.address(11)}:{victim.getsockname()[1]}"
            for method in ("INVITE", "MESSAGE", "OPTIONS", "BYE"):
                self.assertEqual(stranger.send(stranger.make(method, f"sip:bob@{there}")).status, 403, method)
                route = (f"Route: <sip:{there};lr>",)
                self.assertEqual(stranger.send(stranger.make(method, f"sip:bob@{self.host}", route)).status, 403)
            with self.assertRaises(TimeoutError):
                victim.recv(65535)
        self.assert_well()

    def test_nobody_speaks_for_another_user(self) -> None:
        """
        Alice, by her own password, as Bob: 403.
        """
        alice = self.phone("alice")
        alice.register()
        assert alice.digest is not None
        uri = f"sip:bob@{self.host}"
        answer = alice.send(alice.make("INVITE", uri, from_=f"sip:bob@{self.host}"))
        self.assertEqual(answer.status, 407)
        alice.digest.take(answer.challenges)
        signed = (f"Proxy-Authorization: {alice.digest.credentials('INVITE', uri)}",)
        self.assertEqual(alice.send(alice.make("INVITE", uri, signed, from_=f"sip:bob@{self.host}")).status, 403)
