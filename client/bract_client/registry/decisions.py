"""Consent events as rows: added once, never changed; the state derived from them; and the rule over many at once.

`verdicts` is `bract.consent.resolve` in SQL. It reads the derived state when that is exact, and the events themselves
when a decision lies in the future of the asked time or the question is about an earlier state of knowledge.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Select, Subquery, case, delete, func, insert, literal, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from bract.consent import ConsentEvent, Decision, Purpose, Verdict
from bract.database import Utc
from bract.digest import Digest
from bract_client.registry.models import EVERYWHERE, ConsentCurrent, ConsentEventRow

_CHUNK = 500
_STATE = ("purpose", "scope", "subject_no", "decision", "refusal", "valid_from", "valid_to", "seq")


@dataclass(frozen=True)
class NewEvent:
    """A decision of a known subject, to be recorded; `source` and `reference` together name it once."""

    subject_no: int
    event: ConsentEvent
    source: str
    reference: str


@dataclass(frozen=True)
class KnownEvent:
    """A recorded decision: valid time in `event`, the time when we learnt it in `recorded_at`."""

    seq: int
    event: ConsentEvent
    recorded_at: datetime
    source: str


@dataclass(frozen=True)
class Recorded:
    """The events of one transaction: `first` to `last`, and the digest of their rows for the log."""

    events: tuple[NewEvent, ...]
    first: int
    last: int
    digest: Digest


def record(session: Session, events: Iterable[NewEvent], at: datetime) -> Recorded | None:
    """Adds the events that are not there yet and renews the derived state; None when all were known.

    `recorded_at` never goes back, whatever the clock does.
    """
    fresh = _unknown(session, list(events))
    if not fresh:
        return None
    row = session.execute(
        select(ConsentEventRow.seq, ConsentEventRow.recorded_at).order_by(ConsentEventRow.seq.desc()).limit(1)
    ).first()
    before, recorded_at = (row.seq, max(at, row.recorded_at)) if row else (0, at)
    session.connection().execute(
        insert(ConsentEventRow),
        [
            {
                "seq": before + place,
                "subject_no": new.subject_no,
                "purpose": new.event.purpose.value,
                "scope": new.event.dataset or EVERYWHERE,
                "decision": new.event.decision.value,
                "valid_from": new.event.valid_from,
                "valid_to": new.event.valid_to,
                "recorded_at": recorded_at,
                "source": new.source,
                "source_ref": new.reference,
            }
            for place, new in enumerate(fresh, start=1)
        ],
    )
    _derive(session, before)
    last = before + len(fresh)
    return Recorded(tuple(fresh), before + 1, last, rows_digest(session, before + 1, last))


def _unknown(session: Session, events: Sequence[NewEvent]) -> list[NewEvent]:
    fresh = {(new.source, new.reference): new for new in events}
    names = list(fresh)
    for start in range(0, len(names), _CHUNK):
        part = names[start : start + _CHUNK]
        known = select(ConsentEventRow.source, ConsentEventRow.source_ref).where(
            tuple_(ConsentEventRow.source, ConsentEventRow.source_ref).in_(part)
        )
        for row in session.execute(known):
            del fresh[row.source, row.source_ref]
    return list(fresh.values())


def rows_digest(session: Session, first: int, last: int) -> Digest:
    """sha256 over the rows of these events: what the log commits to, so that a changed row is found."""
    hasher = sha256()
    statement = select(*ConsentEventRow.__table__.columns).where(ConsentEventRow.seq.between(first, last))
    for row in session.execute(statement.order_by(ConsentEventRow.seq).execution_options(yield_per=5000)):
        hasher.update(repr([str(value) for value in row]).encode())
    return Digest(f"sha256:{hasher.hexdigest()}")


def latest(after: int = 0) -> Select[tuple[object, ...]]:
    """Of each subject, purpose and scope the decision that stands last in valid time, of the events beyond `after`."""
    return _last_of(_events().where(ConsentEventRow.seq > after))


def _events() -> Select[tuple[object, ...]]:
    event = ConsentEventRow
    refusal = case((event.decision == Decision.PERMIT.value, 0), else_=1).label("refusal")
    place = func.row_number().over(
        partition_by=(event.purpose, event.scope, event.subject_no),
        order_by=(event.valid_from.desc(), refusal.desc(), event.seq.desc()),
    )
    named = (event.purpose, event.scope, event.subject_no, event.decision, refusal)
    return select(*named, event.valid_from, event.valid_to, event.seq, place.label("place"))


def _last_of(events: Select[tuple[object, ...]]) -> Select[tuple[object, ...]]:
    ranked = events.subquery()
    return select(*(ranked.c[name] for name in _STATE)).where(ranked.c.place == 1)


def _derive(session: Session, after: int) -> None:
    """Puts the events beyond `after` into the state, wherever they stand later than what is there."""
    postgres = session.connection().dialect.name == "postgresql"
    statement = (postgresql.insert if postgres else sqlite.insert)(ConsentCurrent)
    statement = statement.from_select(list(_STATE), latest(after))
    new, old = statement.excluded, ConsentCurrent
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["purpose", "scope", "subject_no"],
            set_={name: new[name] for name in ("decision", "refusal", "valid_from", "valid_to", "seq")},
            where=tuple_(new.valid_from, new.refusal, new.seq) > tuple_(old.valid_from, old.refusal, old.seq),
        )
    )


def rebuild(session: Session) -> None:
    """Derives the whole state again from the events."""
    session.execute(delete(ConsentCurrent))
    _derive(session, 0)


def drift(session: Session) -> int:
    """How many rows of the state differ from what the events say."""
    state = select(*(getattr(ConsentCurrent, name) for name in _STATE))
    both = (latest().except_(state), state.except_(latest()))
    return sum(session.scalar(select(func.count()).select_from(one.subquery())) or 0 for one in both)


def newest(session: Session) -> int:
    """The last event's number, 0 if there is none."""
    return session.scalar(select(func.coalesce(func.max(ConsentEventRow.seq), 0))) or 0


def next_change(session: Session, purpose: Purpose, dataset: str, at: datetime) -> datetime | None:
    """When the next decision that is already recorded begins to count."""
    event = ConsentEventRow
    return session.scalar(
        select(func.min(event.valid_from)).where(
            event.purpose == purpose.value, event.scope.in_((EVERYWHERE, dataset)), event.valid_from > at
        )
    )


def verdicts(
    session: Session, purpose: Purpose, dataset: str, at: datetime, consent_seq: int | None = None
) -> Subquery:
    """(subject_no, verdict, until) of every subject that decided anything; others did not consent.

    Args:
        session: only read.
        purpose: the purpose asked for.
        dataset: the data set asked for.
        at: the valid time asked for.
        consent_seq: what was known then; None for all that is known now.
    """
    scopes = (EVERYWHERE, dataset)
    current = ConsentCurrent
    about = (current.purpose == purpose.value, current.scope.in_(scopes))
    pending = select(current.seq).where(*about, current.valid_from > at).limit(1)
    if consent_seq is None and session.scalar(pending) is None:
        standing = select(current.subject_no, current.decision, current.valid_to).where(*about).subquery()
    else:
        event = ConsentEventRow
        known = [] if consent_seq is None else [event.seq <= consent_seq]
        asked = (event.purpose == purpose.value, event.scope.in_(scopes), event.valid_from <= at)
        standing = _last_of(_events().where(*asked, *known)).subquery()
    return _resolved(standing, at)


def _resolved(standing: Subquery, at: datetime) -> Subquery:
    """The rule over at most two rows a subject: one for this data set, one for all of them."""
    row = standing.c
    permit = row.decision == Decision.PERMIT.value
    withdrawn = func.max(case((row.decision == Decision.WITHDRAW.value, 1), else_=0))
    refused = func.max(case((permit, 0), else_=1))
    endless = func.max(case((permit & row.valid_to.is_(None), 1), else_=0))
    end = func.max(row.valid_to)
    verdict = case(
        (withdrawn == 1, Verdict.WITHDRAWN.value),
        (refused == 1, Verdict.DENIED.value),
        ((endless == 1) | (end > at), Verdict.ADMITTED.value),
        else_=Verdict.EXPIRED.value,
    )
    until = case((endless == 1, literal(None, Utc())), else_=end)
    return (
        select(row.subject_no, verdict.label("verdict"), until.label("until"))
        .group_by(row.subject_no)
        .subquery("resolved")
    )


def history(session: Session, subject_no: int) -> tuple[KnownEvent, ...]:
    """Every decision of one subject, in the order in which we learnt them."""
    statement = select(ConsentEventRow).where(ConsentEventRow.subject_no == subject_no)
    return tuple(
        KnownEvent(
            row.seq,
            ConsentEvent(Purpose(row.purpose), Decision(row.decision), row.valid_from, row.valid_to, row.scope or None),
            row.recorded_at,
            row.source,
        )
        for row in session.scalars(statement.order_by(ConsentEventRow.seq))
    )


def last_from(session: Session, source: str, scope: str) -> dict[tuple[int, str], str]:
    """What a source said last about each subject and purpose in one scope: (subject_no, purpose) to decision."""
    event = ConsentEventRow
    statement = select(event.subject_no, event.purpose, event.decision).where(
        event.source == source, event.scope == scope
    )
    return {(row[0], row[1]): row[2] for row in session.execute(statement.order_by(event.seq))}
