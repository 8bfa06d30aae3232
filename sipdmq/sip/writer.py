"""
From a message to its bytes.
"""

from __future__ import annotations

from sipdmq.sip.message import Message

__all__ = ["format_message"]


def format_message(message: Message) -> bytes:
    """
    The message as it goes on the wire: what came in and was not changed comes out byte for byte.
    """
    head = "\r\n".join((message.start_line, *message.headers.lines(), "\r\n"))
    return head.encode("utf-8", "surrogateescape") + message.body
