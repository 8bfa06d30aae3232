"""
What the calls of L{calls} are made of: the messages, as far as they are known before the first one is sent.
"""

from __future__ import annotations

__all__ = ["Script", "copied_of", "values_of"]

SDP = (
    "v=0\r\no=- 3841273345 3841273345 IN IP4 {host}\r\ns=call\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 9 8 0 101\r\na=rtpmap:9 G722/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
    "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
)


class Script:
    """
    What is known before the first message is sent. By the number of the call, or of the callee.

    @ivar key: what stands before the number of the call in its Call-ID.
    @ivar invites: whole requests.
    @ivar dialogs: From, To with its tag, Call-ID.
    @ivar acks: ACK as far as the routes; the loop completes it.
    @ivar byes: BYE as far as the routes.
    @ivar ringing: the end of a 180, by callee.
    @ivar ok: the end of a 200 for INVITE, by callee.
    @ivar ok_bye: the end of a 200 for BYE.
    """

    def __init__(self, run: str, count: int, domain: str, caller_at: str, contacts: list[str]) -> None:
        """
        @param run: eight characters that no other run has.
        @param count: of calls.
        @param domain: of the callees.
        @param caller_at: host and port of the caller.
        @param contacts: URI of each callee.
        """
        sdp = SDP.format(host=caller_at.partition(":")[0])
        self.key = f"call{run}".encode()
        with_sdp = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
        server = "User-Agent: Softphone/4.2.1 (Linux; x86_64)\r\n"
        allow = "Allow: INVITE,ACK,BYE,CANCEL,OPTIONS,NOTIFY,UPDATE,INFO\r\nSupported: replaces,timer\r\n"
        cseq = "CSeq: 1 INVITE\r\n"
        self.ringing: list[bytes] = []
        self.ok: list[bytes] = []
        self.invites: list[bytes] = []
        self.dialogs: list[bytes] = []
        self.acks: list[bytes] = []
        self.byes: list[bytes] = []
        for contact in contacts:
            end = f"{cseq}Contact: <{contact}>\r\n{server}"
            self.ringing.append(f"{end}Content-Length: 0\r\n\r\n".encode())
            self.ok.append((end + allow + with_sdp).encode())
        self.ok_bye = f"CSeq: 2 BYE\r\n{server}Content-Length: 0\r\n\r\n".encode()
        for number in range(count):
            user = number % len(contacts)
            via = f"Via: SIP/2.0/UDP {caller_at};branch=z9hG4bK%s{number:08d}{run};rport\r\n"
            from_ = f'From: "Caller {number}" <sip:caller@caller.example>;tag=f{number:08d}\r\n'
            to = f"To: <sip:callee{user:04d}@{domain}>"
            call_id = f"Call-ID: call{run}{number:08d}-8f14e45fceea@{caller_at}\r\n"
            self.dialogs.append(f"{from_}{to};tag=t{number:08d}\r\n{call_id}".encode())
            self.invites.append(
                f"INVITE sip:callee{user:04d}@{domain} SIP/2.0\r\n{via % 'i'}Max-Forwards: 70\r\n{from_}{to}\r\n"
                f"{call_id}{cseq}Contact: <sip:caller@{caller_at}>\r\n{server}{allow}{with_sdp}".encode()
            )
            for method, made in (("ACK", self.acks), ("BYE", self.byes)):
                made.append(f"{method} {contacts[user]} SIP/2.0\r\n{via % method[0].lower()}".encode())


def values_of(data: bytes, name: bytes) -> list[bytes]:
    """
    @param name: of a header field, with the line end before and C{": "} behind it.
    @return: what the lines hold, from top to bottom.
    """
    found = []
    at = data.find(name)
    while at >= 0:
        end = data.index(b"\r\n", at + 2)
        found.append(data[at + len(name) : end])
        at = data.find(name, end)
    return found


def copied_of(request: bytes) -> bytes:
    """
    @return: the lines that every answer to this request begins with: its Vias and Record-Routes.
    """
    lines = [b"Via: %b\r\n" % value for value in values_of(request, b"\r\nVia: ")]
    lines += [b"Record-Route: %b\r\n" % value for value in values_of(request, b"\r\nRecord-Route: ")]
    return b"".join(lines)
