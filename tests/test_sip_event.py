"""
The header field Event.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.event import Event, parse_event


class EventTests(SynchronousTestCase):
    """
    RFC 6665 §8.2.1.
    """

    def test_what_is_one(self) -> None:
        for text, expected in (
            ("presence", Event("presence")),
            ("presence.winfo", Event("presence.winfo")),
            ("dialog;id=7", Event("dialog", "7")),
            ("dialog ; id=a.b-c ; sla", Event("dialog", "a.b-c")),
            ("Presence", Event("Presence")),  # byte for byte
            ("presence;profile-type=\"user\"", Event("presence")),
        ):
            self.assertEqual(parse_event(text), expected, text)

    def test_what_is_none(self) -> None:
        for text in (
            "", ";", ".", "presence.", ".winfo", "a b", "presence,dialog", "presence;id", "presence;id=\"x\"",
            "presence;id=7;id=8", "presence;;", "präsenz", "p" * 129, "p;id=" + "7" * 129,
        ):  # fmt: skip
            self.assertRaises(ParseError, parse_event, text)

    @given(st.text(max_size=40))
    def test_anything(self, text: str) -> None:
        try:
            event = parse_event(text)
        except ParseError:
            return
        self.assertEqual(parse_event(f"{event.package};id={event.id}" if event.id else event.package), event)
