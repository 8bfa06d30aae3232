"""
sipp as phones that publish (RFC 3903).
"""

from __future__ import annotations

from tests.interop.sipp import SippTestCase


class PublishTests(SippTestCase):
    host = "127.81.7.1"
    settings = {"presence": {"enable": "1"}}

    def test_initial_refresh_modify_remove(self) -> None:
        """
        50 phones at once, over UDP and over TCP.
        """
        self.assert_passed(self.sipp("publish", calls=50, rate=50))
        self.assert_passed(self.sipp("publish", transport="t1", calls=50, rate=50))
        self.assertEqual(self.server.snapshot()["presence.publications"], 0)

    def test_what_is_refused(self) -> None:
        self.assert_passed(self.sipp("publish_refused", calls=10, rate=10))
        self.assertEqual(self.server.snapshot()["presence.publications"], 0)
