"""
Every answer to a request that is not served, in one place. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from sipdmq.errors import ParseError, RequestRefused
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.status import reason_phrase

__all__ = [
    "answer",
    "answer_parse_error",
    "bad_event",
    "bad_extension",
    "bad_request",
    "conditional_request_failed",
    "flow_failed",
    "forbidden",
    "interval_too_brief",
    "merged_request",
    "method_not_allowed",
    "no_such_dialog",
    "not_found",
    "out_of_order",
    "service_unavailable",
    "temporarily_unavailable",
    "too_large",
    "too_many_contacts",
    "too_many_hops",
    "unsupported_content",
    "unsupported_scheme",
]


def answer(request: Request, refusal: RequestRefused, to_tag: str) -> Response:
    """
    The response that says what a L{RequestRefused} says.
    """
    return response_to(request, refusal.status, to_tag, refusal.headers, refusal.reason)


def answer_parse_error(error: ParseError, to_tag: str) -> Response | None:
    """
    The response to a request that could not be parsed: what it needs from the request is copied as it came.

    @return: C{None} when there is no request to answer.
    @see: RFC 3261 §16.3 step 1
    """
    request = error.request
    if request is None:
        return None
    usual = reason_phrase(error.status)
    reason = usual if error.reason == usual else f"{usual} ({error.reason})"
    return response_to(request, error.status, to_tag, reason=reason)


def bad_request(reason: str) -> RequestRefused:
    """
    400, with what is wrong in the reason phrase.
    """
    return RequestRefused(400, reason=f"Bad Request ({reason})")


def method_not_allowed(allowed: Iterable[str]) -> RequestRefused:
    """
    405 (RFC 3261 §8.2.1).
    """
    return RequestRefused(405, [("Allow", ", ".join(allowed))])


def flow_failed() -> RequestRefused:
    """
    430: the connection that is the only way to a phone is gone (RFC 5626 §11.5).
    """
    return RequestRefused(430)


def forbidden(reason: str) -> RequestRefused:
    """
    403, with why in the reason phrase (RFC 3261 §21.4.4).
    """
    return RequestRefused(403, reason=f"Forbidden ({reason})")


def temporarily_unavailable() -> RequestRefused:
    """
    480: the user is not registered now (RFC 3261 §21.4.18).
    """
    return RequestRefused(480)


def no_such_dialog() -> RequestRefused:
    """
    481: a request within a dialog that we know nothing of (RFC 3261 §12.2.2).
    """
    return RequestRefused(481)


def service_unavailable() -> RequestRefused:
    """
    503: of those who could serve it nobody can now (RFC 3261 §21.5.4).
    """
    return RequestRefused(503)


def not_found() -> RequestRefused:
    """
    404: no such user, or not our domain (RFC 3261 §8.2.2.1, §10.3 step 5).
    """
    return RequestRefused(404)


def unsupported_scheme() -> RequestRefused:
    """
    416 (RFC 3261 §8.2.2.1).
    """
    return RequestRefused(416)


def bad_extension(option_tags: Iterable[str]) -> RequestRefused:
    """
    420, naming the option tags that we do not have (RFC 3261 §8.2.2.3).
    """
    return RequestRefused(420, [("Unsupported", ", ".join(option_tags))])


def merged_request() -> RequestRefused:
    """
    482 (RFC 3261 §8.2.2.2).
    """
    return RequestRefused(482)


def too_many_hops() -> RequestRefused:
    """
    483 (RFC 3261 §16.3 step 3).
    """
    return RequestRefused(483)


def interval_too_brief(min_expires: int) -> RequestRefused:
    """
    423 (RFC 3261 §10.3 step 7).

    @param min_expires: seconds.
    """
    return RequestRefused(423, [("Min-Expires", str(min_expires))])


def out_of_order() -> RequestRefused:
    """
    500 for a REGISTER that is older than what it would change (RFC 3261 §10.3 step 6 and 7): nothing was changed.
    """
    return RequestRefused(500, reason="Server Internal Error (CSeq Out Of Order)")


def too_many_contacts() -> RequestRefused:
    """
    403: the address-of-record has as many contacts as it may have.
    """
    return RequestRefused(403, reason="Forbidden (Too Many Contacts)")


def conditional_request_failed() -> RequestRefused:
    """
    412: no publication has the entity tag of SIP-If-Match (RFC 3903 §6 step 3).
    """
    return RequestRefused(412)


def too_large() -> RequestRefused:
    """
    413: the body is longer than it may be (RFC 3261 §21.4.11).
    """
    return RequestRefused(413)


def unsupported_content(accepted: Iterable[str]) -> RequestRefused:
    """
    415, naming the content types that would do (RFC 3261 §21.4.13).
    """
    return RequestRefused(415, [("Accept", ", ".join(accepted))])


def bad_event(allowed: Iterable[str]) -> RequestRefused:
    """
    489: an event package that we do not have, or none at all (RFC 6665 §8.3.2, RFC 3903 §6 step 2).

    @param allowed: those that we have.
    """
    return RequestRefused(489, [("Allow-Events", ", ".join(allowed))])
