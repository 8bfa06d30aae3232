"""
Which response goes upstream: RFC 3261 §16.7 steps 6 and 7.
"""

from __future__ import annotations

from itertools import permutations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.proxy.best import Outcome, best_of, final_response
from sipdmq.sip.message import Response, response_to
from tests.fakes import request

INVITE = request("INVITE")


def said(status: int, *headers: tuple[str, str]) -> Outcome:
    return Outcome(status, response_to(INVITE, status, "t1", headers))


class BestTests(SynchronousTestCase):
    """
    "It MUST choose from the 6xx class responses if any exist ... the lowest response class stored in the response
    context. The proxy MAY select any response within that chosen class. The proxy SHOULD give preference to responses
    that provide information affecting resubmission of this request, such as 401, 407, 415, 420, and 484".
    """

    def assert_best(self, best: int, *others: int) -> None:
        for order in permutations((best, *others)):
            self.assertEqual(best_of([said(status) for status in order]).status, best, order)

    def test_table(self) -> None:
        for statuses in (
            (600, 302, 404, 500),
            (302, 404, 500),
            (404, 500, 503),
            (486, 480, 408),
            (401, 486, 404),
            (407, 486, 500),
            (484, 486, 403),
            (486, 487),
            (404, 482, 440),
            (500, 503),
        ):
            self.assert_best(*statuses)

    def test_the_first_6xx(self) -> None:
        self.assertEqual(best_of([said(486), said(604), said(603)]).status, 604)

    def test_what_was_said_before_what_was_not(self) -> None:
        self.assertIsNotNone(best_of([Outcome(408), said(408)]).response)
        self.assertEqual(best_of([Outcome(408), said(480)]).status, 480)


class FinalResponseTests(SynchronousTestCase):
    def answer(self, *outcomes: Outcome, is_cancelled: bool = False) -> Response:
        return final_response(INVITE, outcomes, is_cancelled, "ours")

    def test_the_response_itself(self) -> None:
        busy = said(486)
        self.assertIs(self.answer(busy), busy.response)

    def test_none_came(self) -> None:
        response = self.answer(Outcome(408))
        self.assertEqual((response.status, response.to.tag), (408, "ours"))
        self.assertEqual(self.answer(Outcome(503)).status, 503)

    def test_a_503_of_somebody_else_is_500(self) -> None:
        """
        "a proxy which receives a 503 (Service Unavailable) response SHOULD NOT forward it upstream unless it can
        determine that any subsequent requests it might proxy will also generate a 503."
        """
        response = self.answer(said(503, ("Retry-After", "3600")))
        self.assertEqual(response.status, 500)
        self.assertNotIn("retry-after", response.headers)

    def test_all_challenges(self) -> None:
        """
        "the proxy MUST collect any WWW-Authenticate and Proxy-Authenticate header field values from all other 401 and
        407 responses received so far in this response context and add them to this response without modification".
        """
        response = self.answer(
            said(407, ("Proxy-Authenticate", "Digest a"), ("Proxy-Authenticate", "Digest b")),
            said(401, ("WWW-Authenticate", "Digest c")),
            said(404, ("WWW-Authenticate", "Digest x")),
            said(407, ("Proxy-Authenticate", "Digest d")),
        )
        self.assertEqual(response.headers.get_all("proxy-authenticate"), ["Digest a", "Digest b", "Digest d"])
        self.assertEqual(response.headers.get_all("www-authenticate"), ["Digest c"])

    def test_no_challenges_where_none_was_chosen(self) -> None:
        response = self.answer(said(401, ("WWW-Authenticate", "Digest c")), said(603))
        self.assertNotIn("www-authenticate", response.headers)

    def test_who_gave_up_hears_487(self) -> None:
        for outcomes in ([Outcome(408)], [Outcome(503)], [said(408)], [said(487), Outcome(408)], [said(487)]):
            self.assertEqual(self.answer(*outcomes, is_cancelled=True).status, 487)
        self.assertEqual(self.answer(said(487), said(486), is_cancelled=True).status, 486)
