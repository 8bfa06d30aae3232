"""
Nonces that carry their own proof, and what is remembered of their use.
"""

from __future__ import annotations

import hmac
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.nonces import RETRANSMISSION, WINDOW, Nonces
from tests.fakes import watch_comparisons
from tests.location_store_tests import EPOCH

KEY = b"k" * 32
LIFETIME = 300.0
MAX = 50


class NonceTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = float(EPOCH)
        self.nonces = self.make_nonces()
        self.requests = 0

    def make_nonces(self, key: bytes = KEY, seed: int = 1) -> Nonces:
        return Nonces(key, LIFETIME, MAX, Random(seed).randbytes, self.now)

    def make(self) -> str:
        return self.nonces.make(self.now)

    def use(self, nonce: str, count: int, request: int = 0) -> str:
        """
        @param request: its hash; a new one if none is given.
        @return: the name of the L{Use}.
        """
        made_at = self.nonces.made_at(nonce)
        assert made_at is not None
        self.requests += 1
        return self.nonces.use(nonce, made_at, count, request or self.requests, self.now).name


class ProofTests(NonceTestCase):
    """
    RFC 7616 §3.3: "For example, a server may choose to include ... a time-stamp ... H(time-stamp ":" ETag ":" secret)".
    """

    def test_it_says_when_it_was_made(self) -> None:
        self.assertEqual(self.nonces.made_at(self.make()), EPOCH)

    def test_each_is_another_one(self) -> None:
        self.assertEqual(len({self.make() for _ in range(2000)}), 2000)

    def test_making_one_leaves_nothing_behind(self) -> None:
        for _ in range(1000):
            self.make()
        self.assertEqual(len(self.nonces), 0)

    def test_it_is_short_and_needs_no_escapes(self) -> None:
        self.assertRegex(self.make(), "^[0-9a-f]{40}$")

    def test_any_change_of_it_is_found(self) -> None:
        nonce = self.make()
        for at, old in enumerate(nonce):
            new = "0" if old != "0" else "1"
            self.assertIsNone(self.nonces.made_at(nonce[:at] + new + nonce[at + 1 :]), at)

    def test_how_much_of_it_is_right_cannot_be_measured(self) -> None:
        """
        The proof is compared in constant time.
        """
        compared = watch_comparisons(self, hmac)
        nonce = self.make()
        for text in (nonce, f"{nonce[:-1]}z"):
            self.nonces.made_at(text)
            self.assertEqual(compared.pop(), text[-20:])

    def test_whatever_a_stranger_writes_is_none(self) -> None:
        nonce = self.make()
        for text in ("", "0", nonce[:-1], nonce + "0", nonce.upper(), "\u0663" * 40, "\udcff" * 40, "z" * 40, "0" * 40):
            self.assertIsNone(self.nonces.made_at(text), ascii(text))

    def test_a_node_with_the_same_key_can_check_it_and_no_other(self) -> None:
        nonce = self.make()
        self.assertEqual(self.make_nonces(seed=2).made_at(nonce), EPOCH)
        self.assertIsNone(self.make_nonces(key=b"x" * 32).made_at(nonce))


class AgeTests(NonceTestCase):
    def test_it_lives_as_long_as_configured(self) -> None:
        used, unused = self.make(), self.make()
        self.use(used, 1)
        self.now += LIFETIME
        self.assertEqual((self.use(used, 2), self.use(unused, 1)), ("ACCEPTED", "ACCEPTED"))
        self.now += 1
        self.assertEqual((self.use(used, 3), self.use(unused, 2)), ("STALE", "STALE"))

    def test_a_clock_that_is_a_little_ahead_does_no_harm(self) -> None:
        ahead = self.nonces.make(self.now + 2)
        far_ahead = self.nonces.make(self.now + 3)
        self.assertEqual((self.use(ahead, 1), self.use(far_ahead, 1)), ("ACCEPTED", "STALE"))

    def test_from_before_the_start_it_is_stale(self) -> None:
        """
        Another process of ours may have accepted it: we cannot know.
        """
        nonce = self.make()
        self.now += 1
        self.nonces = self.make_nonces()
        self.assertEqual(self.use(nonce, 1), "STALE")
        self.assertEqual(self.use(self.make(), 1), "ACCEPTED")


class CountTests(NonceTestCase):
    """
    RFC 7616 §3.4: "The purpose of this parameter is to allow the server to detect request replays by maintaining its
    own copy of this count -- if the same nc value is seen twice, then the request is a replay."
    """

    def setUp(self) -> None:
        super().setUp()
        self.nonce = self.make()

    def assert_uses(self, *uses: tuple[int, str]) -> None:
        self.assertEqual([(count, self.use(self.nonce, count)) for count, _ in uses], list(uses))

    def test_the_same_count_twice_is_a_replay(self) -> None:
        self.assert_uses((1, "ACCEPTED"), (1, "REPLAYED"), (2, "ACCEPTED"), (2, "REPLAYED"), (1, "REPLAYED"))

    def test_counts_may_jump_and_may_begin_anywhere(self) -> None:
        """
        The phone used it at another node of the cluster meanwhile.
        """
        self.assert_uses((7, "ACCEPTED"), (500, "ACCEPTED"), (2**32 - 1, "ACCEPTED"), (2**32 - 1, "REPLAYED"))

    def test_counts_may_overtake_one_another(self) -> None:
        self.assert_uses((3, "ACCEPTED"), (1, "ACCEPTED"), (2, "ACCEPTED"), (1, "REPLAYED"), (2, "REPLAYED"))

    def test_each_count_of_the_window_is_told_apart(self) -> None:
        greatest = 1000
        self.assert_uses((greatest, "ACCEPTED"))
        order = list(range(greatest - WINDOW + 1, greatest))
        Random(3).shuffle(order)
        self.assert_uses(*((count, "ACCEPTED") for count in order))
        self.assert_uses(*((count, "REPLAYED") for count in [*order, greatest]))

    def test_a_count_below_the_window_cannot_be_told_and_is_not_accepted(self) -> None:
        self.assert_uses((1000, "ACCEPTED"), (1000 - WINDOW, "REPLAYED"), (1, "REPLAYED"))

    def test_a_jump_keeps_what_is_still_in_the_window(self) -> None:
        self.assert_uses((1, "ACCEPTED"), (WINDOW, "ACCEPTED"), (1, "REPLAYED"), (2, "ACCEPTED"))
        self.assert_uses((WINDOW + 1, "ACCEPTED"), (2, "REPLAYED"), (3, "ACCEPTED"), (3, "REPLAYED"))

    def test_nonces_are_counted_apart(self) -> None:
        other = self.make()
        self.assert_uses((1, "ACCEPTED"))
        self.assertEqual((self.use(other, 1), self.use(other, 1)), ("ACCEPTED", "REPLAYED"))

    def test_against_a_set_of_all_counts(self) -> None:
        """
        In any order: a count is never accepted twice, and one within the window always once.
        """
        random = Random(4)
        for _ in range(50):
            self.nonce = self.make()
            seen: set[int] = set()
            top = 0
            for _ in range(200):
                count = max(1, top + random.randint(-80, random.choice((3, 100))))
                expected = "ACCEPTED" if count not in seen and count > top - WINDOW else "REPLAYED"
                self.assert_uses((count, expected))
                seen.add(count)
                top = max(top, count)


class RetransmissionTests(NonceTestCase):
    """
    The same request, byte for byte, is no replay while its client may still repeat it.
    """

    def test_it_is_accepted_again_and_again(self) -> None:
        nonce = self.make()
        self.assertEqual(self.use(nonce, 1, 77), "ACCEPTED")
        for _ in range(7):
            self.now += 4
            self.assertEqual(self.use(nonce, 1, 77), "ACCEPTED")

    def test_others_meanwhile_do_not_matter(self) -> None:
        nonce = self.make()
        self.use(nonce, 1, 77)
        for count in range(2, 40):
            self.use(nonce, count)
        self.assertEqual(self.use(nonce, 1, 77), "ACCEPTED")

    def test_with_anything_changed_it_is_a_replay(self) -> None:
        nonce = self.make()
        self.use(nonce, 1, 77)
        self.assertEqual(self.use(nonce, 1, 78), "REPLAYED")
        self.assertEqual(self.use(nonce, 1, 78), "REPLAYED")  # what was refused is not remembered as accepted

    def test_later_than_any_client_repeats_it_is_a_replay(self) -> None:
        nonce = self.make()
        self.use(nonce, 1, 77)
        self.now += RETRANSMISSION
        self.assertEqual(self.use(nonce, 1, 77), "REPLAYED")

    def test_whenever_it_came_first(self) -> None:
        for seconds in range(0, 100, 7):
            nonce = self.make()
            self.use(nonce, 1, 1000 + seconds)
            for count in range(2, 5):
                self.now += RETRANSMISSION / 4
                self.use(nonce, count)
                self.assertEqual(self.use(nonce, 1, 1000 + seconds), "ACCEPTED", seconds)
            self.now += 7

    def test_repeating_does_not_make_it_last_longer(self) -> None:
        nonce = self.make()
        self.use(nonce, 1, 77)
        self.now += RETRANSMISSION - 1
        self.assertEqual(self.use(nonce, 1, 77), "ACCEPTED")
        self.now += 1
        self.assertEqual(self.use(nonce, 1, 77), "REPLAYED")


class MemoryTests(NonceTestCase):
    def use_many(self, number: int) -> list[str]:
        nonces = [self.make() for _ in range(number)]
        for nonce in nonces:
            self.assertEqual(self.use(nonce, 1), "ACCEPTED")
        return nonces

    def test_it_is_bounded_whatever_comes(self) -> None:
        for _ in range(20):
            self.use_many(MAX // 5)
            self.now += 1
            self.assertLessEqual(len(self.nonces), MAX)

    def test_the_oldest_go_first_and_are_stale_then_not_open_to_a_replay(self) -> None:
        old = self.use_many(2)
        unused = self.make()
        self.now += 1
        young = self.use_many(MAX - 2)
        self.now += 1
        fresh = self.make()
        self.assertEqual(self.use(fresh, 1), "ACCEPTED")
        self.assertEqual([self.use(nonce, 1) for nonce in old], ["STALE", "STALE"])
        self.assertEqual(self.use(unused, 1), "STALE")  # nobody can say any more that it was not used
        self.assertEqual({self.use(nonce, 1) for nonce in young}, {"REPLAYED"})
        self.assertEqual({self.use(nonce, 2) for nonce in young}, {"ACCEPTED"})

    def test_more_than_fit_within_one_second(self) -> None:
        """
        The second that goes is the present one: what it gave out is stale, with the next second all is well.
        """
        self.use_many(MAX)
        last = self.make()
        self.assertEqual(self.use(last, 1), "ACCEPTED")
        self.assertEqual((self.use(last, 1), self.use(self.make(), 1)), ("REPLAYED", "STALE"))
        self.now += 1
        self.assertEqual(self.use(self.make(), 1), "ACCEPTED")

    def test_what_nobody_can_use_any_more_is_forgotten(self) -> None:
        self.use_many(10)
        self.now += LIFETIME + 1
        self.use_many(1)
        self.assertEqual(len(self.nonces), 1)

    def test_it_can_be_forgotten_when_nothing_comes_any_more(self) -> None:
        self.use_many(10)
        self.now += LIFETIME + 1
        self.nonces.forget_expired(self.now)
        self.assertEqual((len(self.nonces), self.nonces._used, self.nonces._recent), (0, {}, {}))

    def test_the_memory_of_requests_is_bounded_too(self) -> None:
        nonce = self.make()
        for count in range(1, 10 * MAX):
            self.use(nonce, count)
        self.assertLessEqual(len(self.nonces._recent) + len(self.nonces._older), 2 * MAX)
