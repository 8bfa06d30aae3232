"""
Which of two records counts, when several nodes speak of the same contact. Pure, and the same on every node.

What is to hold: nodes that have heard the same, in whatever order and however often, have the same bindings; what was
removed does not come back by an older message; two nodes that answer each other fall silent.

It follows from this:

  - The records of an AoR are divided by L{identity<sipdmq.core.contacts.identity>}, which is an equivalence (RFC 3261
    §19.1.4 is none). Of each identity one record is kept, the greatest by L{rank<sipdmq.dmq.order.rank>}: a total
    order. So a state is a maximum, and maxima do not mind order or repetition. The order of removals does not mind by
    which ruid they were named.
  - Beside that a record has a ruid, its name among Kamailios, which may move to another identity there: a phone with
    C{+sip.instance} and without C{reg-id} that gets another address. So among the kept records of one ruid only the
    greatest is alive, the others are I{hidden}: that is a view of the state, made anew after each change, and no state
    of its own; it is as indifferent to order.
  - What is left over when a record loses (its ruid, its C{expires}) is kept as maxima, too: the four smallest
    of all ruids seen, the latest C{expires}.
  - A loser's sender is told the winner. Each such answer is greater than what it answers, so this ends.

C{last_modified} 0 has no place in that order: it is what a sender writes who does not know. Such a record gets the
least C{last_modified} by which it wins over what is there (by C{cseq} within a Call-ID), and none at all against a
removal: what two nodes make of it depends on what they had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sipdmq.core.contacts import CONTACT_OVERHEAD, MAX_ANSWER, answer_size, identity, known_until, remembered_until
from sipdmq.dmq.order import Encode, compare, is_removal
from sipdmq.records import Binding

__all__ = ["Answer", "Limits", "Merged", "at_a_glance", "laid_to_rest", "merge", "merge_any"]

MAX_OTHER_RUIDS: Final = 4


class Limits(NamedTuple):
    """
    @ivar contacts: live contacts of an AoR, those that phones registered here included; tombstones as many again.
    @ivar forget_after: seconds for which the removal of a permanent contact is remembered.
    @ivar clock_error: seconds that C{last_modified} may lie ahead of our clock.
    """

    contacts: int = 200
    forget_after: int = 86_400
    clock_error: int = 86_400


class Answer(NamedTuple):
    """
    The sender is to be told.

    @ivar winner: what counts.
    @ivar ruid: the name that the sender used.
    @ivar is_by_name: both say the same, under two names: a Kamailio need not hear of that.
    """

    winner: Binding
    ruid: str
    is_by_name: bool


class Merged(NamedTuple):
    """
    What became of an incoming record.

    @ivar records: all records of the AoR now; those that did not change are the same objects.
    @ivar answer: L{None} when the sender is right.
    @ivar refused: why it was not stored at all; empty when it was considered.
    """

    records: Sequence[Binding]
    answer: Answer | None = None
    refused: str = ""


def _ruids(records: Iterable[Binding], main: str) -> tuple[str, ...]:
    """
    The smallest of all ruids seen, without the main one. Kept this way, and not by age, it does not matter in which
    order they were seen, nor which one was the main one meanwhile.
    """
    seen = {ruid for record in records for ruid in (record.ruid, *record.other_ruids)}
    return tuple([ruid for ruid in sorted(seen)[:MAX_OTHER_RUIDS] if ruid != main])


def laid_to_rest(record: Binding, latest: int, now: int, forget_after: int) -> Binding:
    """
    A record as a tombstone, with its place in the order.

    @param latest: the latest C{expires_at} known of it.
    """
    until = remembered_until(latest, now, forget_after)
    return record._replace(removed=True, is_hidden=False, expires_at=until, known_until=latest, flow="", xavps="")


def _united(winner: Binding, loser: Binding, now: int, limits: Limits) -> Binding:
    """
    The winner, with what is to be kept of the loser.
    """
    latest = max(known_until(winner), known_until(loser))
    others = winner.other_ruids
    if loser.ruid != winner.ruid or loser.other_ruids != others:
        others = _ruids((winner, loser), winner.ruid)
    if others == winner.other_ruids and latest == known_until(winner):
        return winner
    until = winner.expires_at
    if is_removal(winner):
        until = max(until, remembered_until(latest, now, limits.forget_after))
    elif latest == until:
        latest = 0
    return winner._replace(other_ruids=others, known_until=latest, expires_at=until)


def _same(stored: Binding, incoming: Binding, now: int, limits: Limits) -> Binding:
    """
    Two records of the same rank: the stored one, which knows more, and what only some messages have.
    """
    if is_removal(stored):
        main, other = sorted((stored, incoming), key=lambda record: record.ruid, reverse=True)
        if main is incoming:
            stored = stored._replace(ruid=main.ruid, other_ruids=_ruids((stored, other), main.ruid))
    elif incoming.xavps > stored.xavps:
        stored = stored._replace(xavps=incoming.xavps)
    return _united(stored, incoming, now, limits)


def _with_rank(incoming: Binding, stored: Binding, encode: Encode) -> Binding:
    """
    A record with C{last_modified} 0, with a place in the order that is just above or just below that of what is there.
    """
    if incoming.call_id == stored.call_id or (is_removal(incoming) and not incoming.call_id):
        wins = incoming.cseq > stored.cseq or (
            is_removal(incoming) and (incoming.cseq == stored.cseq or not incoming.call_id)
        )
        if not incoming.call_id:
            incoming = incoming._replace(
                call_id=stored.call_id, cseq=stored.cseq, server_id=stored.server_id, contact=stored.contact,
                instance=stored.instance, reg_id=stored.reg_id,
            )  # fmt: skip
    else:
        wins = not is_removal(stored)
    if not wins:
        return incoming
    placed = incoming._replace(last_modified=stored.last_modified)
    if compare(placed, stored, encode) < 0:
        placed = placed._replace(last_modified=stored.last_modified + 1)
    return placed


def merge(
    records: Sequence[Binding], incoming: Binding, now: int, limits: Limits, encode: Encode
) -> Merged:
    """
    The records of an AoR after another node has spoken of one of them.

    @param records: live bindings and tombstones.
    @param incoming: of the same AoR; for a removal C{removed} is set and C{expires_at} the latest known of it.
    @param now: seconds since the epoch.
    """
    plain = at_a_glance(records, incoming, now, limits)
    if plain is not None:
        return Merged(plain)
    return merge_any(records, incoming, now, limits, encode, [identity(record) for record in records])


def at_a_glance(
    records: Sequence[Binding], incoming: Binding, now: int, limits: Limits
) -> Sequence[Binding] | None:
    """
    The records that L{merge} gives, where that takes no thought, as nearly always; the sender is right then.

    @return: L{None}: it does.
    """
    if not _is_plain(incoming, now, limits):
        return None
    if _is_news(records, incoming, limits):
        return (incoming,)
    return records if len(records) == 1 and records[0] == incoming else None


def merge_any(
    records: Sequence[Binding],
    incoming: Binding,
    now: int,
    limits: Limits,
    encode: Encode,
    names: Sequence[str],
) -> Merged:
    """
    As L{merge}, whatever the records are. A new one comes last, the others keep their places.

    @param names: their identities.
    """
    if incoming.last_modified > now + limits.clock_error:
        return Merged(records, None, "last_modified lies in the future")
    name = identity(incoming)
    at = names.index(name) if name in names else None
    if incoming.removed and not (incoming.contact and incoming.last_modified):
        # It says too little of what it removes to be one more record: it goes by its name alone.
        ruid = incoming.ruid
        named = [at for at, record in enumerate(records) if ruid == record.ruid or ruid in record.other_ruids]
        at = at if at in named or not named else named[0]
    if incoming.last_modified == 0:
        if at is not None:
            incoming = _with_rank(incoming, records[at], encode)
        elif incoming.removed:
            return Merged(records)  # of nothing that is known
    if incoming.removed and not incoming.contact and at is not None:
        known = records[at]
        incoming = incoming._replace(contact=known.contact, instance=known.instance, reg_id=known.reg_id)
    latest = known_until(incoming)
    is_over = not incoming.removed and incoming.expires_at <= now
    if incoming.removed or is_over:
        # What has expired on its way is no contact any more, but it replaces what was before it.
        incoming = laid_to_rest(incoming, latest, now, limits.forget_after)
    if at is None:
        refusal = _no_room(records, incoming, None, limits)
        if refusal:
            return Merged(records, None, refusal)
        result = _viewed([*records, incoming], encode)
        return Merged(result, None if is_over else _answer_for(result, len(records), incoming, False, encode))
    stored = records[at]
    order = compare(incoming, stored, encode)
    if order > 0:
        refusal = _no_room(records, incoming, stored, limits)
        if refusal:
            return Merged(records, None, refusal)
        if _is_echo(incoming, stored):
            incoming = incoming._replace(told_by=stored.told_by)
        kept = _united(incoming, stored, now, limits)
    elif order == 0:
        kept = _same(stored, incoming, now, limits)
    else:
        kept = _united(stored, incoming, now, limits)
    changed: Sequence[Binding] = records
    if kept is not stored:
        result = list(records)
        result[at] = kept
        changed = _viewed(result, encode)
    return Merged(changed, None if is_over else _answer_for(changed, at, incoming, order < 0, encode))


def _is_echo(incoming: Binding, stored: Binding) -> bool:
    """
    Whether both are one change under two names, as a Kamailio sends it back by the name that it has. Who told it first
    answers for it: the Kamailio does not.
    """
    return (
        incoming.last_modified == stored.last_modified
        and incoming.cseq == stored.cseq
        and incoming.call_id == stored.call_id
        and incoming.removed == stored.removed
    )


def _is_plain(incoming: Binding, now: int, limits: Limits) -> bool:
    """
    Whether a record is as nearly all are: a live one of some time, with room for it in any answer.
    """
    return not (
        incoming.removed
        or incoming.known_until
        or incoming.other_ruids
        or not 0 < incoming.last_modified <= now + limits.clock_error
        or incoming.expires_at <= now
        or len(incoming.contact) + len(incoming.params) + len(incoming.path) + CONTACT_OVERHEAD > MAX_ANSWER
    )


def _is_news(records: Sequence[Binding], incoming: Binding, limits: Limits) -> bool:
    """
    Whether a plain record is all that there will be of its AoR, seen at a glance: it is the first one, or a refresh
    of the only one by the same name, and nothing of what was there has to be kept.
    """
    if not records:
        return limits.contacts > 0
    if len(records) > 1:
        return False
    stored = records[0]
    return (
        stored.last_modified < incoming.last_modified
        and stored.ruid == incoming.ruid
        and stored.contact == incoming.contact != ""
        and stored.instance == incoming.instance
        and stored.reg_id == incoming.reg_id
        and not stored.removed
        and not stored.other_ruids
        and known_until(stored) <= incoming.expires_at
    )


def _answer_for(
    records: Sequence[Binding], at: int, incoming: Binding, has_lost: bool, encode: Encode
) -> Answer | None:
    """
    What the sender of a record has to hear, when something else counts.

    @param at: the place of what is kept of the identity.
    @param has_lost: something greater was kept.
    """
    winner = records[at]
    if winner.is_hidden:
        winner = next(record for record in records if record.ruid == winner.ruid and not record.is_hidden)
    elif not has_lost:
        return None
    is_by_name = (
        not winner.removed
        and not incoming.removed
        and encode(winner._replace(ruid="")) == encode(incoming._replace(ruid=""))
    )
    return Answer(winner, incoming.ruid, is_by_name)


def _no_room(records: Sequence[Binding], incoming: Binding, stored: Binding | None, limits: Limits) -> str:
    """
    Whether an incoming record is one too many. What takes the place of another, and is no longer, always fits.
    """
    if incoming.removed:
        if stored is None and sum([record.removed for record in records]) >= limits.contacts:
            return "too many removed contacts"
        return ""
    live = [record for record in records if not record.removed and record is not stored]
    if (stored is None or stored.removed) and len(live) >= limits.contacts:
        return "too many contacts"
    size = answer_size([*live, incoming])
    if size > MAX_ANSWER and (stored is None or stored.removed or size > answer_size([*live, stored])):
        return "contacts too long together"
    return ""


def _viewed(records: list[Binding], encode: Encode) -> list[Binding]:
    """
    Hide what is not the greatest of its ruid, show what is.
    """
    ruids = {record.ruid for record in records}
    if len(ruids) == len(records) and not any(record.is_hidden for record in records):
        return records
    greatest: dict[str, Binding] = {}
    for record in records:
        other = greatest.get(record.ruid)
        if other is None or _greater(record, other, encode):
            greatest[record.ruid] = record
    result = []
    for record in records:
        if not is_removal(record):
            is_hidden = greatest[record.ruid] is not record
            if is_hidden != record.is_hidden:
                record = record._replace(is_hidden=is_hidden, removed=is_hidden)
        result.append(record)
    return result


def _greater(one: Binding, other: Binding, encode: Encode) -> bool:
    order = compare(one, other, encode)
    return order > 0 or (order == 0 and identity(one) > identity(other))
