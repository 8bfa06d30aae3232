"""
Which transaction a message belongs to (RFC 3261 §17.1.3, §17.2.3), as strings: they hash and compare at the price of
one C{str}, and hold no references.
"""

from __future__ import annotations

from sipdmq.sip.message import Request, Response

__all__ = ["client_key", "merge_key", "response_key", "server_key"]


def server_key(request: Request, method: str = "") -> str:
    """
    The name of the server transaction that a request belongs to.

    With a unique branch it is branch, sent-by and method; without (RFC 2543) it is Request-URI, From tag, Call-ID,
    CSeq number and top Via. The To tag is not in it: the ACK carries the one that we gave, and two dialogs never share
    From tag, Call-ID and CSeq number.

    @param method: look for the transaction of that method instead: C{"INVITE"} for an ACK or a CANCEL, that
        share its branch.
    """
    method = method or request.method
    via = request.top_via
    if via.is_unique:
        return f"{via.params['branch']} {via.host}:{via.port} {method}"
    return "\n".join(
        (
            request.uri_text,
            request.from_.tag,
            request.call_id,
            str(request.cseq.number),
            f"{via.transport} {via.host}:{via.port} {via.branch}",
            method,
        )
    )


def client_key(branch: str, method: str) -> str:
    """
    The name of the client transaction with that branch.
    """
    return f"{branch} {method}"


def response_key(response: Response) -> str:
    """
    The name of the client transaction that a response belongs to.
    """
    return client_key(response.top_via.branch, response.cseq.method)


def merge_key(request: Request) -> int:
    """
    What is the same in all copies of a request that was forked on its way (RFC 3261 §8.2.2.2): a hash over From tag,
    Call-ID and CSeq. Python's string hash is keyed, so nobody can make two of them meet.
    """
    return hash((request.from_.tag, request.call_id, request.cseq))
