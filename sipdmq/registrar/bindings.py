"""
What a REGISTER does to the bindings of its address-of-record (RFC 3261 §10.3). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sipdmq.core import refuse
from sipdmq.core.contacts import (
    CONTACT_OVERHEAD,
    MAX_ANSWER,
    answer_size,
    contact_key,
    known_until,
    remembered_until,
)
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

MAX_CONTACT: Final = MAX_ANSWER - CONTACT_OVERHEAD
HOUR: Final = 3600
TOMBSTONE_LIFETIME: Final = 32
"""
Seconds for which a node alone remembers a removed binding: as long as a delayed REGISTER may still arrive (64 × T1).
"""


class RegisterLimits(NamedTuple):
    """
    What the operator allows; times in seconds.

    @ivar min_expires: shorter ones are refused with 423.
    @ivar default_expires: for who names none.
    @ivar max_expires: longer ones are shortened.
    @ivar max_contacts: of one address-of-record.
    @ivar forget_after: in a cluster, how long the removal of a permanent contact is remembered
        (L{remembered_until<sipdmq.core.contacts.remembered_until>}); 0: the node is alone.
    """

    min_expires: int = 60
    default_expires: int = 3600
    max_expires: int = 7200
    max_contacts: int = 20
    forget_after: int = 0


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


def _has_identity(binding: Binding, update: ContactUpdate) -> bool:
    """
    Whether an update is about this very record (L{identity<sipdmq.core.contacts.identity>}).
    """
    if update.instance and update.reg_id:
        return update.instance == binding.instance and update.reg_id == binding.reg_id
    if binding.instance and binding.reg_id:
        return False
    return binding.contact == update.uri.text or contact_key(parse_uri(binding.contact)) == contact_key(update.uri)


def _find(records: Sequence[Binding], update: ContactUpdate) -> int | None:
    """
    The place of the record that an update is about, the live ones before the removed, the very same before those that
    are only equal by §19.1.4.
    """
    same = [at for at, binding in enumerate(records) if is_same_contact(binding, update)]
    if len(same) < 2:
        return same[0] if same else None
    return min(same, key=lambda at: (records[at].removed, not _has_identity(records[at], update)))


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
    last_modified = now
    expires_at = now + update.expires_in
    latest = 0
    ruid = ""
    others: tuple[str, ...] = ()
    if previous is not None:
        last_modified = max(now, previous.last_modified + 1)
        latest = previous.known_until or previous.expires_at
        if latest <= expires_at:
            latest = 0
        if not previous.is_hidden:  # else its name is that of another record now
            ruid = previous.ruid
            others = previous.other_ruids
    return Binding(
        register.aor,
        ruid or new_ruid(),
        update.uri.text,
        update.params,
        update.q,
        expires_at,
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
        0,
        False,
        latest,
        False,
        others,
    )


def _tombstone(
    register: Register, binding: Binding, now: int, limits: RegisterLimits, new_ruid: Callable[[], str]
) -> Binding:
    """
    The memory that this REGISTER removed the binding, or removed it again: the latest one counts.
    """
    if binding.is_hidden:  # its name is that of another record now
        binding = binding._replace(ruid=new_ruid(), other_ruids=())
    latest = known_until(binding)
    until = remembered_until(latest, now, limits.forget_after) if limits.forget_after else now + TOMBSTONE_LIFETIME
    return binding._replace(
        removed=True,
        is_hidden=False,
        methods=-1,
        told_by="",  # it was changed here
        call_id=register.call_id,
        cseq=register.cseq,
        expires_at=until,
        known_until=latest,
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
        and (
            binding.removed
            or (binding.contact == update.uri.text and (binding.methods >= 0 or binding.params == update.params))
        )
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
        return _remove_all(records, register, now, limits, new_ruid)
    if len(register.contacts) == 1 and len(records) <= 1:
        # Nearly every REGISTER: a phone's only contact, new or refreshed. What is not so plain goes the way of all.
        update = register.contacts[0]
        previous = records[0] if records else None
        if update.expires_in and (
            previous is None
            or (not previous.removed and _has_identity(previous, update) and _follows(register, previous))
        ):
            binding = _bind(register, update, previous, now, new_ruid)
            if len(binding.contact) + len(binding.params) + len(binding.path) > MAX_CONTACT:
                _check_room(records, (binding,), limits)
            return (binding,)
    result = list(records)
    written: set[str] = set()
    for update in register.contacts:
        at = _find(result, update)
        if at is None:
            if update.expires_in:
                result.append(_bind(register, update, None, now, new_ruid))
                written.add(result[-1].ruid)
            elif limits.forget_after and sum([record.removed for record in result]) < limits.max_contacts:
                # Another node may know it, and we may not have heard of it yet.
                unknown = _bind(register, update, None, now, new_ruid)._replace(expires_at=now + limits.max_expires)
                result.append(_tombstone(register, unknown, now, limits, new_ruid))
                written.add(result[-1].ruid)
            continue
        binding = result[at]
        # A contact that stands twice in one REGISTER is no older request: the last one counts.
        if binding.ruid not in written and not _follows(register, binding):
            if _is_repeated(binding, register, update):
                continue
            raise refuse.out_of_order()
        written.add(binding.ruid)
        if not update.expires_in:
            result[at] = _tombstone(register, binding, now, limits, new_ruid)
            written.add(result[at].ruid)
        elif _has_identity(binding, update):
            result[at] = _bind(register, update, binding, now, new_ruid)
        else:
            # The same contact by §19.1.4, but another record: one goes, one comes.
            if not binding.removed:
                result[at] = _tombstone(register, binding, now, limits, new_ruid)
            at = next((at for at, record in enumerate(result) if _has_identity(record, update)), len(result))
            known = result[at] if at < len(result) else None
            result[at : at + 1] = [_bind(register, update, known, now, new_ruid)]
            written.add(result[at].ruid)
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
    size = answer_size(live)
    if size > MAX_ANSWER and size > answer_size(before):
        raise refuse.too_many_contacts()


def _remove_all(
    records: Sequence[Binding], register: Register, now: int, limits: RegisterLimits, new_ruid: Callable[[], str]
) -> Sequence[Binding]:
    result = []
    for binding in records:
        follows = _follows(register, binding)
        if not follows and not binding.removed:
            raise refuse.out_of_order()
        result.append(_tombstone(register, binding, now, limits, new_ruid) if follows else binding)
    return result


def format_contact(binding: Binding, now: int) -> str:
    """
    A binding as a Contact value of the answer to a REGISTER, with what is left of its time (§10.3 step 8).
    """
    q = "" if binding.q < 0 else f";q={q_text(binding.q)}"
    return f"<{binding.contact}>{q}{binding.params};expires={binding.expires_at - now}"
