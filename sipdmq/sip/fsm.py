"""
The transaction state machines of RFC 3261 §17 as tables, with RFC 6026 (Accepted) and RFC 4320 (non-INVITE).

Theory of operation
===================

A transaction has a state. An event (a message arrives, the transaction user speaks, a timer fires, the transport
fails) is looked up as C{(state, event)} in the table of its machine; the row gives the next state and the actions
to carry out, in order. L{step} is all there is to it: what an action means in bytes and clocks is the business of
C{sipdmq.transaction}.

No row means nothing happens: the network was late, or repeated itself. From our own transaction user it is a mistake,
and the transaction layer raises L{TransactionStateError<sipdmq.errors.TransactionStateError>} for the events in
L{USER_EVENTS}.

Timers carry the letters of RFC 3261. A timer that a state does not know any more may still fire: there is no row for
it, so nobody has to stop timers but to save memory. On a reliable transport timers D, I, J and K wait for nothing, and
A, E and G never run: the layer that starts them knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

__all__ = [
    "INVITE_CLIENT",
    "INVITE_SERVER",
    "NON_INVITE_CLIENT",
    "NON_INVITE_SERVER",
    "USER_EVENTS",
    "Action",
    "Event",
    "State",
    "Table",
    "step",
]


class State(IntEnum):
    """
    The states of all four machines.
    """

    CALLING = 1
    TRYING = 2
    PROCEEDING = 3
    ACCEPTED = 4
    COMPLETED = 5
    CONFIRMED = 6
    TERMINATED = 7


class Event(IntEnum):
    """
    What can happen to a transaction.
    """

    # to a server transaction
    REQUEST = 1
    """The request again."""
    ACK = 2
    USER_1XX = 3
    USER_2XX = 4
    USER_FINAL = 5
    """The user answers with 3xx to 6xx."""
    # to a client transaction
    RESPONSE_1XX = 6
    RESPONSE_2XX = 7
    RESPONSE_FINAL = 8
    """3xx to 6xx."""
    # to both
    TRANSPORT_ERROR = 9
    TIMER_A = 10
    TIMER_B = 11
    TIMER_D = 12
    TIMER_E = 13
    TIMER_F = 14
    TIMER_G = 15
    TIMER_H = 16
    TIMER_I = 17
    TIMER_J = 18
    TIMER_K = 19
    TIMER_L = 20
    TIMER_M = 21
    TIMER_CANCEL = 22
    """64 × T1 after our CANCEL no final response has come (§9.1)."""
    TIMER_100 = 23
    """The user has said nothing so long that the client should hear 100 (§17.2.1, RFC 4320 §4.1)."""


class Action(IntEnum):
    """
    What a row asks to be done.
    """

    SEND_REQUEST = 1
    """Send, or send again, the request."""
    SEND_ACK = 2
    """Send the ACK for a non-2xx final response."""
    SEND_RESPONSE = 3
    """Send the response that the user gave, and keep it."""
    RESEND_RESPONSE = 4
    """Send the kept response again, if there is one."""
    SEND_TRYING = 5
    TELL_RESPONSE = 6
    TELL_TIMEOUT = 7
    TELL_TRANSPORT_ERROR = 8
    TELL_ACK = 9
    START_A = 10
    START_B = 11
    START_D = 12
    START_E = 13
    START_F = 14
    START_G = 15
    START_H = 16
    START_I = 17
    START_J = 18
    START_K = 19
    START_L = 20
    START_M = 21
    START_100 = 22
    START_CANCEL = 27
    RESTART_A = 23
    """Timer A again, twice as long."""
    RESTART_E = 24
    """Timer E again, twice as long, at most T2."""
    RESTART_E_T2 = 25
    """Timer E again, T2 long: a provisional response has arrived."""
    RESTART_G = 26
    """Timer G again, twice as long, at most T2."""


Table = Mapping[tuple[State, Event], tuple[State, tuple[Action, ...]]]

USER_EVENTS: Final = frozenset((Event.USER_1XX, Event.USER_2XX, Event.USER_FINAL))
"""Events for which a missing row is our own mistake."""

# RFC 3261 figure 5, with RFC 6026 §8.4 (Accepted, timer M). SEND_REQUEST, START_A and START_B come at creation.
INVITE_CLIENT: Final[Table] = {
    (State.CALLING, Event.TIMER_A): (State.CALLING, (Action.SEND_REQUEST, Action.RESTART_A)),
    (State.CALLING, Event.TIMER_B): (State.TERMINATED, (Action.TELL_TIMEOUT,)),
    (State.CALLING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.TELL_TRANSPORT_ERROR,)),
    (State.CALLING, Event.RESPONSE_1XX): (State.PROCEEDING, (Action.TELL_RESPONSE,)),
    (State.CALLING, Event.RESPONSE_2XX): (State.ACCEPTED, (Action.START_M, Action.TELL_RESPONSE)),
    (State.CALLING, Event.RESPONSE_FINAL): (
        State.COMPLETED,
        (Action.SEND_ACK, Action.START_D, Action.TELL_RESPONSE),
    ),
    (State.PROCEEDING, Event.RESPONSE_1XX): (State.PROCEEDING, (Action.TELL_RESPONSE,)),
    (State.PROCEEDING, Event.RESPONSE_2XX): (State.ACCEPTED, (Action.START_M, Action.TELL_RESPONSE)),
    (State.PROCEEDING, Event.RESPONSE_FINAL): (
        State.COMPLETED,
        (Action.SEND_ACK, Action.START_D, Action.TELL_RESPONSE),
    ),
    # A request that was answered provisionally has arrived; its transaction ends by a final response, or some time
    # after its user gave up (timer C of a proxy). What is sent later, a CANCEL, has a transaction of its own.
    (State.PROCEEDING, Event.TIMER_CANCEL): (State.TERMINATED, (Action.TELL_TIMEOUT,)),
    (State.ACCEPTED, Event.RESPONSE_2XX): (State.ACCEPTED, (Action.TELL_RESPONSE,)),
    (State.ACCEPTED, Event.TIMER_M): (State.TERMINATED, ()),
    (State.COMPLETED, Event.RESPONSE_FINAL): (State.COMPLETED, (Action.SEND_ACK,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.TELL_TRANSPORT_ERROR,)),
    (State.COMPLETED, Event.TIMER_D): (State.TERMINATED, ()),
}

# RFC 3261 figure 6. SEND_REQUEST, START_E and START_F come at creation.
NON_INVITE_CLIENT: Final[Table] = {
    (State.TRYING, Event.TIMER_E): (State.TRYING, (Action.SEND_REQUEST, Action.RESTART_E)),
    (State.TRYING, Event.TIMER_F): (State.TERMINATED, (Action.TELL_TIMEOUT,)),
    (State.TRYING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.TELL_TRANSPORT_ERROR,)),
    (State.TRYING, Event.RESPONSE_1XX): (State.PROCEEDING, (Action.TELL_RESPONSE,)),
    (State.TRYING, Event.RESPONSE_2XX): (State.COMPLETED, (Action.START_K, Action.TELL_RESPONSE)),
    (State.TRYING, Event.RESPONSE_FINAL): (State.COMPLETED, (Action.START_K, Action.TELL_RESPONSE)),
    (State.PROCEEDING, Event.TIMER_E): (State.PROCEEDING, (Action.SEND_REQUEST, Action.RESTART_E_T2)),
    (State.PROCEEDING, Event.TIMER_F): (State.TERMINATED, (Action.TELL_TIMEOUT,)),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.TELL_TRANSPORT_ERROR,)),
    (State.PROCEEDING, Event.RESPONSE_1XX): (State.PROCEEDING, (Action.TELL_RESPONSE,)),
    (State.PROCEEDING, Event.RESPONSE_2XX): (State.COMPLETED, (Action.START_K, Action.TELL_RESPONSE)),
    (State.PROCEEDING, Event.RESPONSE_FINAL): (State.COMPLETED, (Action.START_K, Action.TELL_RESPONSE)),
    (State.COMPLETED, Event.TIMER_K): (State.TERMINATED, ()),
}

# RFC 3261 figure 7, with RFC 6026 §8.5 (Accepted, timer L). START_100 comes at creation.
INVITE_SERVER: Final[Table] = {
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, (Action.RESEND_RESPONSE,)),
    (State.PROCEEDING, Event.TIMER_100): (State.PROCEEDING, (Action.SEND_TRYING,)),
    (State.PROCEEDING, Event.USER_1XX): (State.PROCEEDING, (Action.SEND_RESPONSE,)),
    (State.PROCEEDING, Event.USER_2XX): (State.ACCEPTED, (Action.SEND_RESPONSE, Action.START_L)),
    (State.PROCEEDING, Event.USER_FINAL): (
        State.COMPLETED,
        (Action.SEND_RESPONSE, Action.START_G, Action.START_H),
    ),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.PROCEEDING, (Action.TELL_TRANSPORT_ERROR,)),
    # §8.5: a 2xx is repeated by the UAS, end to end, not by the transaction
    (State.ACCEPTED, Event.REQUEST): (State.ACCEPTED, ()),
    (State.ACCEPTED, Event.USER_2XX): (State.ACCEPTED, (Action.SEND_RESPONSE,)),
    (State.ACCEPTED, Event.ACK): (State.ACCEPTED, (Action.TELL_ACK,)),
    (State.ACCEPTED, Event.TRANSPORT_ERROR): (State.ACCEPTED, (Action.TELL_TRANSPORT_ERROR,)),
    (State.ACCEPTED, Event.TIMER_L): (State.TERMINATED, ()),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, (Action.RESEND_RESPONSE,)),
    (State.COMPLETED, Event.TIMER_G): (State.COMPLETED, (Action.RESEND_RESPONSE, Action.RESTART_G)),
    (State.COMPLETED, Event.ACK): (State.CONFIRMED, (Action.START_I,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.COMPLETED, (Action.TELL_TRANSPORT_ERROR,)),
    (State.COMPLETED, Event.TIMER_H): (State.TERMINATED, (Action.TELL_TIMEOUT,)),
    (State.CONFIRMED, Event.TIMER_I): (State.TERMINATED, ()),
}

# RFC 3261 figure 8, with RFC 4320 §4.1. START_100 and START_F come when the user does not answer at once: after
# 64 × T1 the client's own timer F has fired, and an answer would reach nobody (RFC 4320 §4.2). A transport error ends
# nothing: a retransmission may come and be answered.
NON_INVITE_SERVER: Final[Table] = {
    (State.TRYING, Event.TIMER_100): (State.PROCEEDING, (Action.SEND_TRYING,)),
    (State.TRYING, Event.TIMER_F): (State.TERMINATED, ()),
    (State.TRYING, Event.USER_1XX): (State.PROCEEDING, (Action.SEND_RESPONSE,)),
    (State.TRYING, Event.USER_2XX): (State.COMPLETED, (Action.SEND_RESPONSE, Action.START_J)),
    (State.TRYING, Event.USER_FINAL): (State.COMPLETED, (Action.SEND_RESPONSE, Action.START_J)),
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, (Action.RESEND_RESPONSE,)),
    (State.PROCEEDING, Event.USER_1XX): (State.PROCEEDING, (Action.SEND_RESPONSE,)),
    (State.PROCEEDING, Event.USER_2XX): (State.COMPLETED, (Action.SEND_RESPONSE, Action.START_J)),
    (State.PROCEEDING, Event.USER_FINAL): (State.COMPLETED, (Action.SEND_RESPONSE, Action.START_J)),
    (State.PROCEEDING, Event.TIMER_F): (State.TERMINATED, ()),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.PROCEEDING, (Action.TELL_TRANSPORT_ERROR,)),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, (Action.RESEND_RESPONSE,)),
    (State.COMPLETED, Event.TIMER_J): (State.TERMINATED, ()),
}


def step(table: Table, state: State, event: Event) -> tuple[State, tuple[Action, ...]] | None:
    """
    One step of a machine.

    @return: the next state and the actions in order; C{None} when the event means nothing in this state.
    """
    return table.get((state, event))
