"""
The header field Event (RFC 6665 §8.2.1).
"""

from __future__ import annotations

import re
from sys import intern
from typing import Final, NamedTuple

from sipdmq.errors import ParseError
from sipdmq.sip.params import parse_params

__all__ = ["Event", "parse_event"]

# Event          =  ( "Event" / "o" ) HCOLON event-type *( SEMI event-param )
# event-type     =  event-package *( "." event-template )
# token-nodot    =  1*( alphanum / "-"  / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~" )
_PART: Final = r"[A-Za-z0-9\-!%*_+`'~]+"
_EVENT_TYPE: Final = re.compile(rf"({_PART}(?:\.{_PART})*)[ \t]*")
_TOKEN_ID: Final = re.compile(rf"[.{_PART[1:-2]}]+")
MAX_EVENT: Final = 128
"""Characters of a type, and of an id: both are remembered."""


class Event(NamedTuple):
    """
    What somebody subscribes to, publishes, or is notified of.

    @ivar package: with its templates: C{"presence"}, C{"presence.winfo"}; compared byte for byte.
    @ivar id: tells subscriptions in one dialog apart; empty when there is none.
    """

    package: str
    id: str = ""


def parse_event(value: str) -> Event:
    """
    Read one Event value.

    @raise ParseError: it breaks the grammar, or is absurdly long.
    """
    match = _EVENT_TYPE.match(value)
    if match is None or (value[match.end() : match.end() + 1] not in ("", ";")):
        raise ParseError("Invalid Event")
    params = parse_params(value[match.end() :])
    event_id = params.get("id", "")
    if event_id is None or (event_id and not _TOKEN_ID.fullmatch(event_id)):
        raise ParseError("Invalid Event Id")
    if len(match.group(1)) > MAX_EVENT or len(event_id) > MAX_EVENT:
        raise ParseError("Event Too Long")
    return Event(intern(match.group(1)), event_id)
