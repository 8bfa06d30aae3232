"""
Requests that follow from an INVITE, in its transaction: ACK and CANCEL (RFC 3261 §9.1, §17.1.1.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from sipdmq.sip.grammar import split_commas
from sipdmq.sip.headers import Headers
from sipdmq.sip.message import Request, Response

__all__ = ["ack_for", "cancel_for"]


def _branch_request(invite: Request, method: str, to_line: str) -> Request:
    """
    A request of the same transaction as C{invite}: its top Via, its Route, its CSeq number.
    """
    headers = Headers()
    headers.add("Via", split_commas(invite.headers.get_all("via")[0])[0])
    for line in invite.headers.lines_of("route"):
        headers.add_line("route", line)
    headers.add("Max-Forwards", "70")
    headers.add_line("from", invite.headers.lines_of("from")[0])
    headers.add_line("to", to_line)
    headers.add_line("call-id", invite.headers.lines_of("call-id")[0])
    headers.add("CSeq", f"{invite.cseq.number} {method}")
    headers.add("Content-Length", "0")
    return Request(method, invite.uri_text, headers)


def ack_for(invite: Request, response: Response) -> Request:
    """
    The ACK for a non-2xx final response, in the transaction of the INVITE.

    @param invite: as it was sent, our Via on top.
    @see: RFC 3261 §17.1.1.3
    """
    return _branch_request(invite, "ACK", response.headers.lines_of("to")[0])


def cancel_for(invite: Request, reasons: Sequence[str] = ()) -> Request:
    """
    The CANCEL for an INVITE that we sent.

    @param invite: as it was sent, our Via on top.
    @param reasons: lines of Reason, why.
    @see: RFC 3261 §9.1, RFC 3326 §2
    """
    cancel = _branch_request(invite, "CANCEL", invite.headers.lines_of("to")[0])
    for line in reasons:
        cancel.headers.add_line("reason", line)
    return cancel
