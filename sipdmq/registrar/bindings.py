"""
What a REGISTER does to the bindings of its address-of-record (RFC 3261 §10.3). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sipdmq.core import refuse
from sipdmq.records import Binding
from sipdmq.sip.fields import NameAddr, parse_q, q_text
from sipdmq.sip.grammar import MAX_DELTA_SECONDS, parse_number
from sipdmq.sip.message import Request
from sipdmq.sip.params import format_params, unquote
from sipdmq.sip.uri import SipURI, parse_uri, same_uri

__all__ = [
    "ContactUpdate",
    "Register",
    "RegisterLimits",
    "Way",
    "apply_register",
    "format_contact",
    "read_register",
]

MAX_ANSWER: Final = 30_000
"""
Characters that the contacts of an AoR may take in an answer: half a datagram; the request's own lines come on top.
"""
CONTACT_OVERHEAD: Final = 40  # "Contact: <>;q=0.555;expires=7200" and the line end
MAX_CONTACT: Final = MAX_ANSWER - CONTACT_OVERHEAD
HOUR: Final = 3600
TOMBSTONE_LIFETIME: Final = 32
"""Seconds for which a removed binding is remembered: as long as a delayed REGISTER may still arrive (64 × T1)."""


class RegisterLimits(NamedTuple):
    """
    What the operator allows; times in seconds.

    @ivar min_expires: shorter ones are refused with 423.
    @ivar default_expires: for who names none.
    @ivar max_expires: longer ones are shortened.
    @ivar max_contacts: of one address-of-record.
    """

    min_expires: int = 60
    default_expires: int = 3600
    max_expires: int = 7200
    max_contacts: int = 20


class Way(NamedTuple):
    """
    How a REGISTER came to us, and so how requests get back; see L{Binding<sipdmq.records.Binding>}.
    """

    received: str = ""
    socket: str = ""
    flow: str = ""


class ContactUpdate(NamedTuple):
    """
    One Contact of a REGISTER.

    @ivar params: what is stored of its parameters: all but C{expires} and C{q}.
    @ivar expires_in: seconds, within the limits; 0 to remove.
    @ivar q: 0 to 1000, -1 when not given.
    """

    uri: SipURI
    params: str
    expires_in: int
    q: int
    instance: str
    reg_id: int


class Register(NamedTuple):
    """
    What a REGISTER asks for.

    @ivar contacts: in order; none for a query, or for C{*}.
    @ivar is_wildcard: remove all.
    """

    aor: str
    call_id: str
    cseq: int
    contacts: tuple[ContactUpdate, ...]
    is_wildcard: bool
    path: str
    user_agent: str
    way: Way

    @property
    def is_query(self) -> bool:
        """
        Whether it only asks for the bindings (§10.2.3).
        """
        return not self.contacts and not self.is_wildcard


def read_register(request: Request, aor: str, limits: RegisterLimits, way: Way) -> Register:
    """
    Read a REGISTER that passed the parser.

    @raise RequestRefused: 423 for a contact that would live too briefly; 400 for a C{*} with other than C{Expires: 0},
        and for a contact that is no SIP URI.
    @raise ParseError: a parameter with a value that it cannot have.
    @see: RFC 3261 §10.3 steps 6 and 7; RFC 3327 §5.3; RFC 5626 §6
    """
    headers = request.headers
    is_wildcard = request.has_wildcard_contact
    contacts: tuple[ContactUpdate, ...] = ()
    if is_wildcard:
        if request.expires != 0:
            raise refuse.bad_request("Wildcard Contact Needs Expires Zero")
    else:
        # Most often there is one.
        read = request.contacts
        if read:
            header_expires = request.expires
            contacts = tuple([_read_contact(contact, header_expires, limits) for contact in read])
    path = ", ".join(headers.get_all("path")) if "path" in headers else ""
    return Register(
        aor,
        request.call_id,
        request.cseq.number,
        contacts,
        is_wildcard,
        path,
        headers.get("user-agent") or "",
        way,
    )


def _read_contact(contact: NameAddr, header_expires: int | None, limits: RegisterLimits) -> ContactUpdate:
    uri = contact.uri
    if not isinstance(uri, SipURI):
        raise refuse.bad_request("Contact Is No SIP URI")
    params = contact.params
    expires = header_expires
    q = -1
    instance = ""
    reg_id = 0
    kept = ""
    if params:
        expires_text = params.get("expires")
        if expires_text is not None:
            expires = parse_number(expires_text, MAX_DELTA_SECONDS, "Expires")
        q = parse_q(params.get("q"))
        instance = unquote(params.get("+sip.instance") or "")
        reg_id = parse_number(params.get("reg-id") or "0", 2**31 - 1, "Reg-Id")
        kept = format_params({name: value for name, value in params.items() if name not in ("expires", "q")})
    if expires is None:
        expires = limits.default_expires
    elif expires > limits.max_expires:
        expires = limits.max_expires
    elif 0 < expires < min(limits.min_expires, HOUR):  # §10.3 step 7 allows to refuse less than an hour only
        raise refuse.interval_too_brief(limits.min_expires)
    return ContactUpdate(uri, kept, expires, q, instance, reg_id)


def is_same_contact(binding: Binding, update: ContactUpdate) -> bool:
    """
    Whether an update is about this binding: by instance and reg-id where both have them (RFC 5626 §6), else by the
    contact URI (RFC 3261 §19.1.4).
    """
    if update.instance and update.reg_id and binding.instance and binding.reg_id:
        return update.instance == binding.instance and update.reg_id == binding.reg_id
    return binding.contact == update.uri.text or same_uri(parse_uri(binding.contact), update.uri)


def _follows(register: Register, binding: Binding) -> bool:
    """
    Whether the REGISTER is newer than the one that wrote the binding (§10.3: CSeq within a Call-ID).
    """
    return binding.call_id != register.call_id or register.cseq > binding.cseq


def _bind(
    register: Register, update: ContactUpdate, previous: Binding | None, now: int, new_ruid: Callable[[], str]
) -> Binding:
    way = register.way
    # A change follows whatever it replaces, whatever the clock says.
    last_modified = now if previous is None else max(now, previous.last_modified + 1)
    return Binding(
        register.aor,
        new_ruid() if previous is None else previous.ruid,
        update.uri.text,
        update.params,
        update.q,
        now + update.expires_in,
        register.call_id,
        register.cseq,
        update.instance,
        update.reg_id,
        register.path,
        way.received,
        way.socket,
        way.flow,
        register.user_agent,
        last_modified,
    )


def _tombstone(register: Register, binding: Binding, now: int) -> Binding:
    """
    The memory that this REGISTER removed the binding, or removed it again: the latest one counts.
    """
    return binding._replace(
        removed=True,
        call_id=register.call_id,
        cseq=register.cseq,
        expires_at=now + TOMBSTONE_LIFETIME,
        last_modified=max(now, binding.last_modified + 1),
    )


def _is_repeated(binding: Binding, register: Register, update: ContactUpdate) -> bool:
    """
    Whether the REGISTER is the one that wrote the binding, come again.
    """
    return (
        binding.call_id == register.call_id
        and binding.cseq == register.cseq
        and binding.removed == (update.expires_in == 0)
        and (binding.removed or (binding.contact == update.uri.text and binding.params == update.params))
    )


def apply_register(
    records: Sequence[Binding],
    register: Register,
    now: int,
    limits: RegisterLimits,
    new_ruid: Callable[[], str],
) -> Sequence[Binding]:
    """
    All records of the AoR after this REGISTER: what is untouched is the same object as before.

    @param records: live bindings and tombstones.
    @param now: seconds since the epoch.
    @param new_ruid: gives a name for a new record.
    @raise RequestRefused: 500 for a REGISTER that is older than what it would change, 403 for one contact too many.
        All or nothing: then no contact of this REGISTER is stored.
    @see: RFC 3261 §10.3 steps 6 and 7
    """
    if register.is_wildcard:
        return _remove_all(records, register, now)
    if len(register.contacts) == 1 and len(records) <= 1:
        # Nearly every REGISTER: a phone's only contact, new or refreshed. What is not so plain goes the way of all.
        update = register.contacts[0]
        previous = records[0] if records else None
        if update.expires_in and (
            previous is None
            or (not previous.removed and is_same_contact(previous, update) and _follows(register, previous))
        ):
            binding = _bind(register, update, previous, now, new_ruid)
            if len(binding.contact) + len(binding.params) + len(binding.path) > MAX_CONTACT:
                _check_room(records, (binding,), limits)
            return (binding,)
    result = list(records)
    written: set[str] = set()
    for update in register.contacts:
        at = next((at for at, binding in enumerate(result) if is_same_contact(binding, update)), None)
        if at is None:
            if update.expires_in:
                result.append(_bind(register, update, None, now, new_ruid))
                written.add(result[-1].ruid)
            continue
        binding = result[at]
        # A contact that stands twice in one REGISTER is no older request: the last one counts.
        if binding.ruid not in written and not _follows(register, binding):
            if _is_repeated(binding, register, update):
                continue
            raise refuse.out_of_order()
        written.add(binding.ruid)
        if update.expires_in:
            result[at] = _bind(register, update, binding, now, new_ruid)
        else:
            result[at] = _tombstone(register, binding, now)
    _check_room(records, result, limits)
    return result


def _check_room(records: Sequence[Binding], result: Sequence[Binding], limits: RegisterLimits) -> None:
    """
    Whether all contacts are few enough, and fit into an answer that a datagram can carry: one that lists them all, and
    that nobody else can call forth in the phone's name to flood it.

    @raise RequestRefused: this REGISTER adds one too many.
    """
    live = [binding for binding in result if not binding.removed]
    before = [binding for binding in records if not binding.removed]
    if len(live) > limits.max_contacts and len(live) > len(before):
        raise refuse.too_many_contacts()
    size = _size(live)
    if size > MAX_ANSWER and size > _size(before):
        raise refuse.too_many_contacts()


def _size(bindings: Sequence[Binding]) -> int:
    return sum([len(b.contact) + len(b.params) + CONTACT_OVERHEAD for b in bindings]) + max(
        [len(b.path) for b in bindings], default=0
    )


def _remove_all(records: Sequence[Binding], register: Register, now: int) -> Sequence[Binding]:
    result = []
    for binding in records:
        follows = _follows(register, binding)
        if not follows and not binding.removed:
            raise refuse.out_of_order()
        result.append(_tombstone(register, binding, now) if follows else binding)
    return result


def format_contact(binding: Binding, now: int) -> str:
    """
    A binding as a Contact value of the answer to a REGISTER, with what is left of its time (§10.3 step 8).
    """
    q = "" if binding.q < 0 else f";q={q_text(binding.q)}"
    return f"<{binding.contact}>{q}{binding.params};expires={binding.expires_at - now}"
