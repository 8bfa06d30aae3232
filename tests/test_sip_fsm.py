"""
The transition tables, each row and each hole held against the figures of RFC 3261 §17, RFC 6026 §8 and RFC 4320.

The figures are written here once more, one line an arrow, in the words of the figure: C{event; actions; next state}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.sip.fsm import (
    INVITE_CLIENT,
    INVITE_SERVER,
    NON_INVITE_CLIENT,
    NON_INVITE_SERVER,
    USER_EVENTS,
    Action,
    Event,
    State,
    Table,
    step,
)

INVITE_CLIENT_FIGURE = """
    CALLING      TIMER_A          SEND_REQUEST RESTART_A            CALLING
    CALLING      TIMER_B          TELL_TIMEOUT                      TERMINATED
    CALLING      TRANSPORT_ERROR  TELL_TRANSPORT_ERROR              TERMINATED
    CALLING      RESPONSE_1XX     TELL_RESPONSE                     PROCEEDING
    CALLING      RESPONSE_2XX     START_M TELL_RESPONSE             ACCEPTED
    CALLING      RESPONSE_FINAL   SEND_ACK START_D TELL_RESPONSE    COMPLETED
    PROCEEDING   RESPONSE_1XX     TELL_RESPONSE                     PROCEEDING
    PROCEEDING   RESPONSE_2XX     START_M TELL_RESPONSE             ACCEPTED
    PROCEEDING   RESPONSE_FINAL   SEND_ACK START_D TELL_RESPONSE    COMPLETED
    PROCEEDING   TIMER_CANCEL     TELL_TIMEOUT                      TERMINATED
    ACCEPTED     RESPONSE_2XX     TELL_RESPONSE                     ACCEPTED
    ACCEPTED     TIMER_M          -                                 TERMINATED
    COMPLETED    RESPONSE_FINAL   SEND_ACK                          COMPLETED
    COMPLETED    TRANSPORT_ERROR  TELL_TRANSPORT_ERROR              TERMINATED
    COMPLETED    TIMER_D          -                                 TERMINATED
"""

NON_INVITE_CLIENT_FIGURE = """
    TRYING       TIMER_E          SEND_REQUEST RESTART_E            TRYING
    TRYING       TIMER_F          TELL_TIMEOUT                      TERMINATED
    TRYING       TRANSPORT_ERROR  TELL_TRANSPORT_ERROR              TERMINATED
    TRYING       RESPONSE_1XX     TELL_RESPONSE                     PROCEEDING
    TRYING       RESPONSE_2XX     START_K TELL_RESPONSE             COMPLETED
    TRYING       RESPONSE_FINAL   START_K TELL_RESPONSE             COMPLETED
    PROCEEDING   TIMER_E          SEND_REQUEST RESTART_E_T2         PROCEEDING
    PROCEEDING   TIMER_F          TELL_TIMEOUT                      TERMINATED
    PROCEEDING   TRANSPORT_ERROR  TELL_TRANSPORT_ERROR              TERMINATED
    PROCEEDING   RESPONSE_1XX     TELL_RESPONSE                     PROCEEDING
    PROCEEDING   RESPONSE_2XX     START_K TELL_RESPONSE             COMPLETED
    PROCEEDING   RESPONSE_FINAL   START_K TELL_RESPONSE             COMPLETED
    COMPLETED    TIMER_K          -                                 TERMINATED
"""

INVITE_SERVER_FIGURE = """
    PROCEEDING   REQUEST          RESEND_RESPONSE                   PROCEEDING
    PROCEEDING   TIMER_100        SEND_TRYING                       PROCEEDING
    PROCEEDING   USER_1XX         SEND_RESPONSE                     PROCEEDING
    PROCEEDING   USER_2XX         SEND_RESPONSE START_L             ACCEPTED
    PROCEEDING   USER_FINAL       SEND_RESPONSE START_G START_H     COMPLETED
    PROCEEDING   TRANSPORT_ERROR  TELL_TRANSPORT_ERROR              PROCEEDING
    ACCEPTED     REQUEST          -                                 ACCEPTED
    ACCEPTED     USER_2XX         SEND_RESPONSE                     ACCEPTED
    ACCEPTED     ACK              TELL_ACK                          ACCEPTED
    ACCEPTED     TRANSPORT_ERROR  TELL_TRANSPORT_ERROR              ACCEPTED
    ACCEPTED     TIMER_L          -                                 TERMINATED
    COMPLETED    REQUEST          RESEND_RESPONSE                   COMPLETED
    COMPLETED    TIMER_G          RESEND_RESPONSE RESTART_G         COMPLETED
    COMPLETED    ACK              START_I                           CONFIRMED
    COMPLETED    TRANSPORT_ERROR  TELL_TRANSPORT_ERROR              COMPLETED
    COMPLETED    TIMER_H          TELL_TIMEOUT                      TERMINATED
    CONFIRMED    TIMER_I          -                                 TERMINATED
"""

NON_INVITE_SERVER_FIGURE = """
    TRYING       TIMER_100        SEND_TRYING                       PROCEEDING
    TRYING       TIMER_F          -                                 TERMINATED
    TRYING       USER_1XX         SEND_RESPONSE                     PROCEEDING
    TRYING       USER_2XX         SEND_RESPONSE START_J             COMPLETED
    TRYING       USER_FINAL       SEND_RESPONSE START_J             COMPLETED
    PROCEEDING   REQUEST          RESEND_RESPONSE                   PROCEEDING
    PROCEEDING   USER_1XX         SEND_RESPONSE                     PROCEEDING
    PROCEEDING   USER_2XX         SEND_RESPONSE START_J             COMPLETED
    PROCEEDING   USER_FINAL       SEND_RESPONSE START_J             COMPLETED
    PROCEEDING   TIMER_F          -                                 TERMINATED
    PROCEEDING   TRANSPORT_ERROR  TELL_TRANSPORT_ERROR              PROCEEDING
    COMPLETED    REQUEST          RESEND_RESPONSE                   COMPLETED
    COMPLETED    TIMER_J          -                                 TERMINATED
"""

TABLES = {
    "INVITE client": INVITE_CLIENT,
    "non-INVITE client": NON_INVITE_CLIENT,
    "INVITE server": INVITE_SERVER,
    "non-INVITE server": NON_INVITE_SERVER,
}


def read_figure(figure: str) -> Table:
    table = {}
    for line in figure.strip().splitlines():
        state, event, *actions, following = line.split()
        row = State[following], tuple(Action[action] for action in actions if action != "-")
        table[State[state], Event[event]] = row
    return table


class FigureTests(SynchronousTestCase):
    """
    RFC 3261 figures 5 to 8, with the Accepted state of RFC 6026 §8.4 and §8.5.
    """

    maxDiff = None

    def assert_figure(self, table: Table, figure: str) -> None:
        expected = read_figure(figure)
        self.assertEqual(len(expected), len(figure.strip().splitlines()))
        self.assertEqual(dict(table), expected)

    def test_figure_5_invite_client(self) -> None:
        self.assert_figure(INVITE_CLIENT, INVITE_CLIENT_FIGURE)

    def test_figure_6_non_invite_client(self) -> None:
        self.assert_figure(NON_INVITE_CLIENT, NON_INVITE_CLIENT_FIGURE)

    def test_figure_7_invite_server(self) -> None:
        self.assert_figure(INVITE_SERVER, INVITE_SERVER_FIGURE)

    def test_figure_8_non_invite_server(self) -> None:
        self.assert_figure(NON_INVITE_SERVER, NON_INVITE_SERVER_FIGURE)


class HoleTests(SynchronousTestCase):
    """
    What has no row means nothing: the holes that keep a late or repeated message from doing harm.
    """

    def assert_hole(self, table: Table, state: State, *events: Event) -> None:
        for event in events:
            self.assertIsNone(step(table, state, event), f"{state.name} {event.name}")

    def test_an_invite_in_proceeding_is_not_sent_again_and_does_not_time_out(self) -> None:
        """
        §17.1.1.2: "In the Proceeding state, the client transaction SHOULD NOT retransmit the request any longer."
        Timer B is for Calling only.
        """
        self.assert_hole(INVITE_CLIENT, State.PROCEEDING, Event.TIMER_A, Event.TIMER_B, Event.TRANSPORT_ERROR)

    def test_after_a_final_response_a_provisional_one_is_too_late(self) -> None:
        self.assert_hole(INVITE_CLIENT, State.COMPLETED, Event.RESPONSE_1XX, Event.TIMER_A, Event.TIMER_B)
        self.assert_hole(INVITE_CLIENT, State.ACCEPTED, Event.RESPONSE_1XX, Event.TIMER_B, Event.TIMER_CANCEL)
        self.assert_hole(NON_INVITE_CLIENT, State.COMPLETED, Event.RESPONSE_1XX)

    def test_a_2xx_after_another_final_response_is_not_passed_up(self) -> None:
        self.assert_hole(INVITE_CLIENT, State.COMPLETED, Event.RESPONSE_2XX, Event.TIMER_CANCEL)

    def test_another_final_response_after_a_2xx_is_not_passed_up(self) -> None:
        """
        RFC 6026 §8.4: in Accepted only 2xx responses are for the TU.
        """
        self.assert_hole(INVITE_CLIENT, State.ACCEPTED, Event.RESPONSE_FINAL, Event.TRANSPORT_ERROR)

    def test_an_invite_that_has_no_provisional_response_is_not_given_up_for_its_cancel(self) -> None:
        self.assert_hole(INVITE_CLIENT, State.CALLING, Event.TIMER_CANCEL)

    def test_retransmitted_final_responses_are_absorbed(self) -> None:
        """
        §17.1.2.2: "The Completed state exists to buffer any additional response retransmissions that may be received".
        """
        self.assert_hole(
            NON_INVITE_CLIENT, State.COMPLETED, Event.RESPONSE_2XX, Event.RESPONSE_FINAL, Event.TIMER_E, Event.TIMER_F
        )

    def test_an_ack_before_a_final_response_is_nobodys(self) -> None:
        self.assert_hole(INVITE_SERVER, State.PROCEEDING, Event.ACK, Event.TIMER_G, Event.TIMER_H)

    def test_in_confirmed_everything_is_absorbed_but_timer_i(self) -> None:
        """
        §17.2.1: "The purpose of the Confirmed state is to absorb any additional ACK messages that arrive".
        """
        for event in Event:
            if event is not Event.TIMER_I:
                self.assert_hole(INVITE_SERVER, State.CONFIRMED, event)

    def test_no_2xx_is_repeated_by_the_transaction(self) -> None:
        """
        §17.2.1, kept by RFC 6026: "It is not retransmitted by the server transaction; retransmissions of 2xx
        responses are handled by the TU."
        """
        self.assert_hole(INVITE_SERVER, State.ACCEPTED, Event.TIMER_G, Event.TIMER_H, Event.TIMER_I)

    def test_100_comes_before_the_final_response_or_never(self) -> None:
        for state in (State.ACCEPTED, State.COMPLETED, State.CONFIRMED):
            self.assert_hole(INVITE_SERVER, state, Event.TIMER_100)
        self.assert_hole(NON_INVITE_SERVER, State.PROCEEDING, Event.TIMER_100)
        self.assert_hole(NON_INVITE_SERVER, State.COMPLETED, Event.TIMER_100)

    def test_a_retransmission_in_trying_is_discarded(self) -> None:
        """
        §17.2.2: "Once in the Trying state, any further request retransmissions are discarded."
        """
        self.assert_hole(NON_INVITE_SERVER, State.TRYING, Event.REQUEST)

    def test_an_answer_outlives_timer_f_of_its_request(self) -> None:
        self.assert_hole(NON_INVITE_SERVER, State.COMPLETED, Event.TIMER_F, Event.TRANSPORT_ERROR)

    def test_a_second_final_response_of_the_user_has_no_row(self) -> None:
        for table, state, events in (
            (NON_INVITE_SERVER, State.COMPLETED, USER_EVENTS),
            (INVITE_SERVER, State.COMPLETED, USER_EVENTS),
            (INVITE_SERVER, State.CONFIRMED, USER_EVENTS),
            (INVITE_SERVER, State.ACCEPTED, {Event.USER_1XX, Event.USER_FINAL}),
        ):
            self.assert_hole(table, state, *events)

    def test_nothing_leaves_terminated(self) -> None:
        for name, table in TABLES.items():
            self.assertEqual([key for key in table if key[0] is State.TERMINATED], [], name)


class ReachTests(SynchronousTestCase):
    """
    From the first state of each machine all states can be reached, and Terminated from each of them.
    """

    def reach(self, table: Table, start: State) -> set[State]:
        reached, fresh = {start}, [start]
        while fresh:
            state = fresh.pop()
            for (before, _), (after, _) in table.items():
                if before is state and after not in reached:
                    reached.add(after)
                    fresh.append(after)
        return reached

    def test_every_state_is_reached_and_ends(self) -> None:
        first = dict(zip(TABLES, (State.CALLING, State.TRYING, State.PROCEEDING, State.TRYING)))
        for name, table in TABLES.items():
            states = {before for before, _ in table} | {State.TERMINATED}
            self.assertEqual(self.reach(table, first[name]), states, name)
            for state in states:
                self.assertIn(State.TERMINATED, self.reach(table, state), name)


class StepTests(SynchronousTestCase):
    """
    L{step} looks up and does nothing else; states and events are small integers.
    """

    def test_a_row(self) -> None:
        self.assertEqual(step(INVITE_SERVER, State.CONFIRMED, Event.TIMER_I), (State.TERMINATED, ()))

    def test_no_two_events_or_actions_are_one(self) -> None:
        """
        Two names with one number would be aliases, and their rows one row.
        """
        for enum in (State, Event, Action):
            self.assertEqual(list(enum.__members__.values()), list(enum))
