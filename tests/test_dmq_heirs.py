"""
Who answers for a lost node.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.heirs import HINT_LIFETIME, LATE, OVERLAP, SETTLED, Claim, Heirs, Inherit
from sipdmq.records import NodeName
from tests.dmq_nodes import udp

A, B, C, D, E = map(udp, range(1, 6))
EVERYBODY = (A, B, C, D, E)


def seen_by(local: NodeName, active: tuple[NodeName, ...] = EVERYBODY) -> Heirs:
    heirs = Heirs(local)
    heirs.elect(0, [name for name in active if name != local], [])
    return heirs


class ChoiceTests(SynchronousTestCase):
    def test_all_who_see_the_same_choose_alike(self) -> None:
        for lost in map(str, (*EVERYBODY, udp(9))):
            chosen = {seen_by(local).heir_of(lost) for local in EVERYBODY if str(local) != lost}
            self.assertEqual(len(chosen), 1, lost)
            self.assertNotIn(lost, map(str, chosen))

    def test_few_change_their_heir_when_one_goes(self) -> None:
        lost = [str(udp(number)) for number in range(20, 60)]
        before, after = seen_by(A), seen_by(A, (A, B, C, D))
        for name in lost:
            if before.heir_of(name) != E:
                self.assertEqual(after.heir_of(name), before.heir_of(name))
        self.assertGreater(len({before.heir_of(name) for name in lost}), 2)

    def test_one_that_is_alone_is_the_heir_of_all(self) -> None:
        heirs = seen_by(A, (A,))
        self.assertEqual(heirs.heir_of(str(B)), A)
        self.assertTrue(heirs.answers_for(str(B)))

    def test_a_node_answers_for_itself(self) -> None:
        heirs = seen_by(A)
        self.assertTrue(heirs.answers_for(""))
        self.assertFalse(any(heirs.answers_for(str(name)) for name in (B, C, D, E)))

    def test_exactly_one_of_those_left_answers_for_a_lost_one(self) -> None:
        left = (A, B, C, D)
        self.assertEqual([seen_by(local, left).answers_for(str(E)) for local in left].count(True), 1)

    def test_a_kamailio_is_nobodys_heir_and_answers_for_itself_while_it_is_there(self) -> None:
        heirs = Heirs(A)
        heirs.elect(0, [], [B])
        self.assertEqual(heirs.heir_of(str(C)), A)
        self.assertFalse(heirs.answers_for(str(B)))


    def test_a_name_that_is_no_text(self) -> None:
        for name in ("sip:\ud800", "sip:\udcff"):
            self.assertEqual(len({seen_by(local).heir_of(name) for local in EVERYBODY}), 1)


class HeardTests(SynchronousTestCase):
    """
    What others say of nodes that are not in the list here.
    """

    def setUp(self) -> None:
        self.heirs = Heirs(A, forget_after=100)
        self.heirs.elect(0, [B], [])

    def lost_now(self) -> list[str]:
        return [each.lost for each in self.heirs.elect(self.now, [B], [], again=True) if isinstance(each, Claim)]

    now = 1000.0

    def test_it_is_told_on_with_the_time_when_one_said_so_who_had_lost_it(self) -> None:
        self.assertTrue(self.heirs.asked(self.now, str(E), 900, 980))
        self.assertEqual(
            [each for each in self.heirs.elect(self.now, [B], []) if isinstance(each, Claim)],
            [Claim(B, str(E), 900, 980)],
        )

    def test_it_is_forgotten_as_who_has_lost_it_forgets_it(self) -> None:
        """
        Else nodes that are gone for good would be told on for ever.
        """
        self.heirs.asked(self.now, str(E), 900, 980)
        self.heirs.asked(self.now, str(D), 900)
        self.heirs.lost(self.now, C, 900)
        self.now = 1081
        self.lost_now()
        self.assertEqual(sorted(filter(self.heirs.concerns, map(str, (C, D, E)))), [str(C), str(D)])
        self.assertFalse(self.heirs.asked(self.now, str(E), 900, 980))
        self.assertFalse(self.heirs.concerns(str(E)))

    def test_so_many_at_once(self) -> None:
        said = [self.heirs.asked(self.now, str(udp(number)), 900) for number in range(10, 80)]
        self.assertEqual((sum(said), len(self.heirs)), (64, 64))
        self.heirs.lost(self.now, C, 900)  # one that is really lost is no question of room
        self.assertTrue(self.heirs.asked(self.now, str(C), 900))


class LossTests(SynchronousTestCase):
    def setUp(self) -> None:
        """
        A and B have lost C: one of them is the heir.
        """
        self.heir = seen_by(A, (A, B)).heir_of(str(C))
        self.other = B if self.heir == A else A
        self.heirs = seen_by(self.other, (A, B, C))

    def lose(self, now: float = 100, since: float = 70) -> list[Claim | Inherit]:
        self.heirs.lost(now, C, since)
        return self.heirs.elect(now, [self.heir], [])

    def test_the_heir_is_asked_once(self) -> None:
        self.assertEqual(self.lose(), [Claim(self.heir, str(C), 70)])
        self.heirs.answered(self.heir, str(C), has_lost=True)
        self.assertEqual(self.heirs.elect(101, [self.heir], [], again=True), [])

    def test_it_is_asked_again_while_it_has_not_lost_that_node(self) -> None:
        """
        And then for what has come since.
        """
        self.lose()
        self.heirs.answered(self.heir, str(C), has_lost=False)
        self.assertEqual(self.heirs.elect(110, [self.heir], []), [])
        self.assertEqual(self.heirs.elect(160, [self.heir], [], again=True), [Claim(self.heir, str(C), 100 - OVERLAP)])
        self.heirs.answered(self.heir, str(C), has_lost=False)
        self.assertEqual(self.heirs.elect(220, [self.heir], [], again=True), [Claim(self.heir, str(C), 160 - OVERLAP)])

    def test_it_is_asked_for_the_same_when_it_did_not_answer(self) -> None:
        self.lose()
        self.heirs.unanswered(self.heir, str(C))
        self.assertEqual(self.heirs.elect(160, [self.heir], [], again=True), [Claim(self.heir, str(C), 70)])

    def test_another_heir_is_asked_too(self) -> None:
        self.lose()
        self.heirs.answered(self.heir, str(C), has_lost=True)
        self.assertEqual(self.heirs.elect(105, [], []), [Inherit(str(C), 100 - OVERLAP)])

    def test_the_heir_itself_tells_the_kamailios_and_asks_the_next_one(self) -> None:
        heirs = seen_by(self.heir, (A, B, C))
        heirs.lost(100, C, 70)
        self.assertEqual(heirs.elect(100, [self.other], [D]), [Inherit(str(C), 70), Claim(self.other, str(C), 70)])
        heirs.answered(self.other, str(C), has_lost=True)
        self.assertEqual(heirs.elect(130, [self.other], [D], again=True), [])
        self.assertTrue(heirs.passes_on(str(C)))
        self.assertFalse(heirs.passes_on(str(B)))

    def test_who_comes_back_is_looked_after_for_a_while(self) -> None:
        heirs = seen_by(self.heir, (A, B, C))
        heirs.lost(100, C, 70)
        heirs.elect(100, [self.other], [])
        heirs.returned(110, C)
        heirs.elect(110, [self.other, C], [])
        self.assertTrue(heirs.passes_on(str(C)))
        self.assertFalse(heirs.answers_for(str(C)), "it does so itself")
        heirs.elect(110 + SETTLED + 1, [self.other, C], [])
        self.assertFalse(heirs.passes_on(str(C)))

    def test_what_it_says_late_goes_to_its_heir(self) -> None:
        """
        Also right after it was started anew: a message of the process before may still have been on its way.
        """
        self.assertIsNone(self.heirs.teller_to_all(90, str(C)), "it is there")
        self.lose()
        self.assertEqual(self.heirs.teller_to_all(105, str(C)), self.heir)
        self.heirs.returned(110, C)
        self.heirs.elect(110, [self.heir, C], [])
        self.assertEqual(self.heirs.teller_to_all(110 + LATE, str(C)), self.heir)
        self.assertIsNone(self.heirs.teller_to_all(111 + LATE, str(C)))

    def test_the_heir_tells_all_itself(self) -> None:
        heirs = seen_by(self.heir, (A, B, C))
        heirs.lost(100, C, 70)
        heirs.elect(100, [self.other], [])
        self.assertIsNone(heirs.teller_to_all(105, str(C)))

    def test_who_goes_again_before_that_owes_what_he_owed(self) -> None:
        self.lose(100, 70)
        self.heirs.returned(110, C)
        self.heirs.elect(110, [self.heir, C], [])
        self.assertEqual(self.lose(120, 115), [Claim(self.heir, str(C), 70)])

    def test_a_heir_that_had_not_lost_it_is_asked_when_it_is_back(self) -> None:
        """
        For what it told meanwhile.
        """
        self.lose()
        self.heirs.answered(self.heir, str(C), has_lost=False)
        self.heirs.returned(110, C)
        self.assertEqual(self.heirs.elect(110, [self.heir, C], []), [Claim(self.heir, str(C), 100 - OVERLAP)])

    def test_what_somebody_else_lacks_the_heir_remembers_until_it_loses_that_node(self) -> None:
        heirs = seen_by(self.heir, (A, B, C))
        self.assertFalse(heirs.asked(100, str(C), 70))
        self.assertFalse(heirs.asked(160, str(C), 130))
        heirs.lost(170, C, 150)
        self.assertEqual(heirs.elect(170, [self.other], [])[0], Inherit(str(C), 70))
        self.assertTrue(heirs.asked(180, str(C), 70))

    def test_but_not_for_ever(self) -> None:
        heirs = seen_by(self.heir, (A, B, C))
        heirs.asked(100, str(C), 70)
        heirs.lost(101 + HINT_LIFETIME, C, 390)
        self.assertEqual(heirs.elect(101 + HINT_LIFETIME, [self.other], [])[0], Inherit(str(C), 390))

    def test_who_was_stopped_itself_asks_and_is_no_heir(self) -> None:
        """
        It may be the one that would be: what it has of that node is old.
        """
        local = seen_by(A, (A, B, C)).heir_of(str(D))
        others = [name for name in (A, B, C) if name != local]
        heirs = seen_by(local, (A, B, C))
        heirs.elect(1, others, [D])
        heirs.missed(20, D, 3)
        found = heirs.elect(20, others, [D])
        self.assertEqual([(type(each), each.lost, each.since) for each in found], [(Claim, str(D), 3)])
        self.assertFalse(heirs.passes_on(str(D)))
        heirs.missed(21, D, 2)
        self.assertEqual([each.since for each in heirs.elect(21, others, [D])], [2])
        heirs.lost(30, D, 25)
        self.assertEqual([type(each) for each in heirs.elect(30, others, [])], [Inherit, Claim])
        self.assertTrue(heirs.passes_on(str(D)))
        heirs.missed(40, D, 5)
        self.assertEqual(heirs.elect(40, others, []), [], "one that is away")

    def test_a_forgotten_one(self) -> None:
        self.lose()
        self.heirs.forgotten(C)
        self.assertEqual(self.heirs.elect(200, [], []), [])
        self.assertFalse(self.heirs.passes_on(str(C)))

    def test_names_that_others_make_up_take_no_room(self) -> None:
        heirs = seen_by(A)
        for number in range(2500):
            heirs.answers_for(f"sip:{number}")
            heirs.asked(1, f"sip:{number}", 0)
        self.assertLessEqual(len(heirs._heirs), 1000)
        self.assertEqual(heirs._hints, {})
        self.assertLessEqual(len(heirs._losses), 64)

    def test_one_that_was_lost_before_this_node_was_here(self) -> None:
        """
        It acts for all when that one is back, as the others take it for the heir.
        """
        local = seen_by(A, (A, B)).heir_of(str(C))
        other = B if local == A else A
        heirs = seen_by(local, (A, B))
        self.assertIsNone(heirs.restorer_of(str(C)))
        self.assertTrue(heirs.asked(5, str(C), 2))
        found = heirs.elect(5, [other], [])
        self.assertEqual(
            [(type(each), each.lost, each.since) for each in found], [(Inherit, str(C), 2), (Claim, str(C), 2)]
        )
        heirs.returned(9, C)
        self.assertEqual(heirs.lost_since(C), 2)
        self.assertEqual(heirs.restorer_of(str(C)), local)
        self.assertTrue(heirs.passes_on(str(C)))
        self.assertIsNone(heirs.lost_since(D))

    def test_one_that_is_back_here_is_not_lost_any_more(self) -> None:
        """
        What this node had to do for it is done; who has lost it again acts itself.
        """
        heirs = seen_by(A, (A, B))
        heirs.lost(10, C, 5)
        self.assertTrue(heirs.asked(11, str(C), 4))
        heirs.returned(20, C)
        self.assertFalse(heirs.asked(25, str(C), 15))
