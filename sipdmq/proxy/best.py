"""
Which of the final responses of all branches goes upstream (RFC 3261 §16.7 steps 6 and 7). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sipdmq.records import Destination
from sipdmq.sip.message import Request, Response, response_to

__all__ = ["Outcome", "best_of", "final_response", "judge_gateway"]

_RESUBMIT: Final = (401, 407, 415, 420, 484)
"""What tells the client how its request could succeed is preferred among the 4xx."""
_TELLS_NOTHING: Final = (408, 430, 440, 480, 482, 487)
"""What tells least of the user who is called: the others of its class are preferred."""


class Outcome(NamedTuple):
    """
    How a branch ended.

    @ivar status: 300 to 699.
    @ivar response: L{None}: none came; it timed out (408), or could not be reached (503).
    """

    status: int
    response: Response | None = None


def _rank(outcome: Outcome) -> tuple[int, int, bool]:
    status = outcome.status
    if status >= 600:
        return (0, 0, False)
    preference = 0 if status in _RESUBMIT else 2 if status in _TELLS_NOTHING else 1
    if status == 503:
        preference = 3
    return (status // 100, preference, outcome.response is None)


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """
    The best response: a 6xx if there is one, else one of the lowest class.

    @param outcomes: not empty.
    """
    return min(outcomes, key=_rank)


def final_response(request: Request, outcomes: Sequence[Outcome], is_cancelled: bool, to_tag: str) -> Response:
    """
    What is sent upstream when no branch gave a 2xx.

    A 401 or 407 carries the challenges of all others. A 503 said to us says nothing of us: it goes on as 500. Nobody
    who gave up hears that nobody answered: 487.

    @param request: as received.
    @param outcomes: of all branches, not empty; responses without our Via. The one chosen may be changed.
    @param is_cancelled: the client has cancelled the request.
    @param to_tag: for a response of our own.
    """
    best = best_of(outcomes)
    response = best.response
    if is_cancelled and request.method == "INVITE" and (response is None or best.status in (408, 487)):
        if response is None or best.status == 408:
            return response_to(request, 487, to_tag)
        return response
    if response is None:
        return response_to(request, best.status, to_tag)
    if best.status == 503:
        return response_to(request, 500, to_tag)
    if best.status in (401, 407):
        _add_challenges(response, outcomes)
    return response


def _add_challenges(response: Response, outcomes: Sequence[Outcome]) -> None:
    """
    §16.7 step 7.
    """
    for outcome in outcomes:
        other = outcome.response
        if other is None or other is response or outcome.status not in (401, 407):
            continue
        for key in ("www-authenticate", "proxy-authenticate"):
            for line in other.headers.lines_of(key):
                response.headers.add_line(key, line)


def judge_gateway(destination: Destination, outcome: Outcome, has_provisional: bool) -> tuple[bool, bool]:
    """
    What the end of a branch says of the gateway that it was sent to.

    @param has_provisional: whether there was any response, 100 included.
    @return: whether the gateway is alive; and whether its answer is the callee's, so that no other gateway shall be
        asked: everything but what L{Destination.failover} names, and ringing until timer C.
    """
    status, response = outcome
    has_rung_out = status == 408 and response is None and has_provisional
    is_silent = status in (408, 503) and response is None and not has_rung_out
    failover = destination.failover
    if failover is None or is_silent:
        is_last_word = False
    else:
        is_last_word = not destination.timeout if has_rung_out else status not in failover
    return not is_silent and status != 503, is_last_word
