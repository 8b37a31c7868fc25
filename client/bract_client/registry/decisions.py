"""Consent events as rows: added once, never changed, each with what shows it; the derived state is renewed with them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from bract.consent import Capacity, ConsentEvent, Decision, Evidence, ends, sound
from bract.database import insert_many
from bract.digest import Digest
from bract.errors import MALFORMED, BractError
from bract.vocabulary.modifiers import Modifier
from bract.vocabulary.purposes import named
from bract_client.registry import conditions
from bract_client.registry.derived import derive
from bract_client.registry.models import EVERYWHERE, Base, ConsentCondition, ConsentEventRow

_CHUNK = 500
_EVENTS = Base.metadata.tables["consent_event"]
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_FIRST = (
    "seq",
    "subject_no",
    "purpose",
    "scope",
    "decision",
    "valid_from",
    "valid_to",
    "recorded_at",
    "source",
    "source_ref",
)
_COLUMNS = (
    *_FIRST,
    "supersedes_seq",
    "legal_basis",
    "evidence_digest",
    "notice_ref",
    "capacity",
    "actor",
)

FORM = 2
"""How `Recorded.digest` is made: form 1 had the columns of the first schema only, as text."""


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

    Raises:
        BractError: `malformed` for an event that is not `sound`, or that supersedes anything but an earlier event of its own
            subject.
    """
    fresh = _unknown(session, list(events))
    if not fresh:
        return None
    for new in fresh:
        sound(new.event)
    row = session.execute(
        select(ConsentEventRow.seq, ConsentEventRow.recorded_at).order_by(ConsentEventRow.seq.desc()).limit(1)
    ).first()
    before, recorded_at = (row.seq, max(at, row.recorded_at)) if row else (0, at)
    _own(session, fresh)
    kept = [conditions.stored(new.event.modifiers) for new in fresh]
    numbers = conditions.numbers(session, kept)
    rows = [
        _row(new, numbers[modifiers], seq, recorded_at)
        for seq, (new, modifiers) in enumerate(zip(fresh, kept, strict=True), start=before + 1)
    ]
    insert_many(session.connection(), _EVENTS, rows)
    derive(session, before)
    by_number = {number: _text(modifiers) for modifiers, number in numbers.items()}
    hasher = sha256()
    for values in rows:
        hasher.update(_line(tuple(values[name] for name in _COLUMNS), by_number[values["condition_no"]]))
    last = before + len(fresh)
    return Recorded(tuple(fresh), before + 1, last, Digest(f"sha256:{hasher.hexdigest()}"))


def _row(new: NewEvent, condition_no: int | None, seq: int, recorded_at: datetime) -> dict[str, Any]:
    event, about = new.event, new.event.evidence
    return {
        "seq": seq,
        "subject_no": new.subject_no,
        "purpose": str(event.purpose),
        "scope": event.dataset or EVERYWHERE,
        "decision": event.decision.value,
        "valid_from": event.valid_from,
        "valid_to": ends(event) if event.modifiers else event.valid_to,
        "recorded_at": recorded_at,
        "source": new.source,
        "source_ref": new.reference,
        "condition_no": condition_no,
        "supersedes_seq": event.supersedes,
        "legal_basis": about.legal_basis,
        "evidence_digest": about.digest,
        "notice_ref": about.notice,
        "capacity": None if about.capacity is None else about.capacity.value,
        "actor": about.actor,
    }


def _unknown(session: Session, events: Sequence[NewEvent]) -> list[NewEvent]:
    fresh = {(new.source, new.reference): new for new in events}
    by_source: dict[str, list[str]] = {}
    for source, reference in fresh:
        by_source.setdefault(source, []).append(reference)
    row = ConsentEventRow
    for source, references in by_source.items():
        for start in range(0, len(references), _CHUNK):
            # One source at a time: SQLite finds a list of pairs only by reading every event.
            part = row.source_ref.in_(references[start : start + _CHUNK])
            for reference in session.scalars(select(row.source_ref).where(row.source == source, part)):
                del fresh[source, reference]
    return list(fresh.values())


def _own(session: Session, fresh: Sequence[NewEvent]) -> None:
    """That what is superseded is an earlier event of the same subject."""
    asked = {new.event.supersedes: new.subject_no for new in fresh if new.event.supersedes is not None}
    wanted = list(asked)
    for start in range(0, len(wanted), _CHUNK):
        part = wanted[start : start + _CHUNK]
        rows = select(ConsentEventRow.seq, ConsentEventRow.subject_no).where(ConsentEventRow.seq.in_(part))
        found = {row[0]: row[1] for row in session.execute(rows)}
        if any(found.get(seq) != asked[seq] for seq in part):
            raise BractError(MALFORMED, "supersedes: not an earlier event of the same subject")


def rows_digest(session: Session, first: int, last: int, form: int = FORM) -> Digest:
    """sha256 over the rows of these events: what the log commits to, so that a changed row is found.

    Args:
        session: only read.
        first: number of the first event.
        last: number of the last.
        form: as the log entry says; entries that do not say are of form 1.
    """
    columns = [getattr(ConsentEventRow, name) for name in _COLUMNS]
    statement = select(*columns, ConsentCondition.modifiers).outerjoin(
        ConsentCondition, ConsentCondition.no == ConsentEventRow.condition_no
    )
    statement = statement.where(ConsentEventRow.seq.between(first, last)).order_by(ConsentEventRow.seq)
    hasher = sha256()
    for row in session.execute(statement.execution_options(yield_per=5000)):
        *values, modifiers = row
        later = (*values[len(_FIRST) :], modifiers)
        if form == 1 and not any(one is not None for one in later):  # which these rows cannot have
            hasher.update(repr([str(value) for value in values[: len(_FIRST)]]).encode())
        else:
            hasher.update(_line(tuple(values), modifiers))
    return Digest(f"sha256:{hasher.hexdigest()}")


def _line(values: tuple[Any, ...], modifiers: str | None) -> bytes:
    """A row as numbers and text that cannot be read in two ways: times in microseconds, the conditions written out."""
    (seq, subject, purpose, scope, decision, valid_from, valid_to, recorded_at, *rest) = values
    times = (_moment(valid_from), None if valid_to is None else _moment(valid_to), _moment(recorded_at))
    return repr((seq, subject, purpose, scope, decision, *times, *rest, modifiers)).encode()


@lru_cache(maxsize=1 << 16)
def _moment(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _text(modifiers: tuple[Modifier, ...]) -> str | None:
    return conditions.text(modifiers) if modifiers else None


def newest(session: Session) -> int:
    """The last event's number, 0 if there is none."""
    return session.scalar(select(func.coalesce(func.max(ConsentEventRow.seq), 0))) or 0


def history(session: Session, subject_no: int) -> tuple[KnownEvent, ...]:
    """Every decision of one subject, in the order in which we learnt them."""
    return _known(session, ConsentEventRow.subject_no == subject_no)


def histories(session: Session, subjects: Collection[int]) -> dict[int, list[KnownEvent]]:
    """Every decision of each of these subjects, in the order in which we learnt them; none is an empty list."""
    found: dict[int, list[KnownEvent]] = {number: [] for number in subjects}
    statement = (
        select(ConsentEventRow, ConsentCondition.modifiers)
        .outerjoin(ConsentCondition, ConsentCondition.no == ConsentEventRow.condition_no)
        .where(ConsentEventRow.subject_no.in_(list(subjects)))
        .order_by(ConsentEventRow.seq)
    )
    for row in session.execute(statement):
        found[row[0].subject_no].append(_event(row))
    return found


def event(session: Session, seq: int) -> tuple[int, KnownEvent] | None:
    """The event of that number and its subject's number, None if there is none."""
    found = _known(session, ConsentEventRow.seq == seq)
    number = session.scalar(select(ConsentEventRow.subject_no).where(ConsentEventRow.seq == seq))
    return None if number is None else (number, found[0])


def _known(session: Session, where: ColumnElement[bool]) -> tuple[KnownEvent, ...]:
    statement = (
        select(ConsentEventRow, ConsentCondition.modifiers)
        .outerjoin(ConsentCondition, ConsentCondition.no == ConsentEventRow.condition_no)
        .where(where)
        .order_by(ConsentEventRow.seq)
    )
    return tuple(_event(row) for row in session.execute(statement))


def _event(found: Any) -> KnownEvent:
    row, modifiers = found
    evidence = Evidence(
        row.legal_basis,
        None if row.evidence_digest is None else Digest(row.evidence_digest),
        row.notice_ref,
        None if row.capacity is None else Capacity(row.capacity),
        row.actor,
    )
    said = ConsentEvent(
        named(row.purpose),
        Decision(row.decision),
        row.valid_from,
        row.valid_to,
        row.scope or None,
        conditions.parsed(modifiers),
        row.supersedes_seq,
        evidence,
    )
    return KnownEvent(row.seq, said, row.recorded_at, row.source)


def seq_of(session: Session, source: str, reference: str) -> int | None:
    """The number of the event that a source named so, None if there is none."""
    event = ConsentEventRow
    return session.scalar(select(event.seq).where(event.source == source, event.source_ref == reference))


def by_reference(session: Session, source: str, references: Sequence[str]) -> dict[str, tuple[int, KnownEvent]]:
    """The events that a source named so, with their subjects' numbers, by their names."""
    found: dict[str, tuple[int, KnownEvent]] = {}
    for start in range(0, len(references), _CHUNK):
        asked = ConsentEventRow.source_ref.in_(references[start : start + _CHUNK])
        statement = (
            select(ConsentEventRow, ConsentCondition.modifiers)
            .outerjoin(ConsentCondition, ConsentCondition.no == ConsentEventRow.condition_no)
            .where(ConsentEventRow.source == source, asked)
        )
        found.update((row[0].source_ref, (row[0].subject_no, _event(row))) for row in session.execute(statement))
    return found


def last_from(session: Session, source: str, scope: str) -> dict[tuple[int, str], str]:
    """What a source said last about each subject and purpose in one scope: (subject_no, purpose) to decision."""
    event = ConsentEventRow
    statement = select(event.subject_no, event.purpose, event.decision).where(
        event.source == source, event.scope == scope
    )
    return {(row[0], row[1]): row[2] for row in session.execute(statement.order_by(event.seq))}
