"""Subjects, data sets and records: what an ingest takes, keeps and closes, and what a data set's own words permit."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Session

from bract.consent import ConsentEvent, Decision, Purpose
from bract.errors import UNKNOWN_DATASET, BractError
from bract.plan import Name
from bract.retention import RetentionRule
from bract.value import decode, strict
from bract_client.handles import handle, record_digest
from bract_client.registry import decisions
from bract_client.registry.keys import SiteKeys
from bract_client.registry.models import Dataset, Quarantine, Record, Subject
from bract_client.sources.location import SourceLocation
from bract_client.sources.record import Reason, Source, SourceRecord, Unreadable

FROM_DATASET = "dataset"
"""Source of the permits that a data set itself states."""

_REPORT_EVERY = 1000
_CHUNK = 500


@strict
@dataclass(frozen=True)
class DatasetInfo:
    """A data set as the registry has it."""

    name: Name
    location: SourceLocation
    retention: RetentionRule
    subjects_floor: int
    member_seq: int


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did, in records; counts stay at the site.

    Attributes:
        taken: new ones, and ones whose payload, subject or time of collection changed.
        removed: those that the source no longer has or that cannot be read any more.
        quarantined: unreadable lines by reason.
    """

    taken: int
    unchanged: int
    removed: int
    quarantined: dict[Reason, int]


@dataclass(frozen=True)
class Reading:
    """Everything that one pass over a source gave."""

    records: dict[str, SourceRecord]
    unreadable: tuple[Unreadable, ...]


def read(source: Source, progress: Callable[[int], None] | None = None) -> Reading:
    """One pass over a source. Of records that share an identifier none is taken: we do not guess which is right.

    Raises:
        BractError: `bad-record` when the source as a whole is not of its form.
    """
    records: dict[str, SourceRecord] = {}
    unreadable: list[Unreadable] = []
    doubles: set[str] = set()
    for count, item in enumerate(source.records(), start=1):
        if isinstance(item, Unreadable):
            unreadable.append(item)
        elif item.record_id in records:
            doubles.add(item.record_id)
            unreadable.append(Unreadable(item.line, Reason.DUPLICATE))
        else:
            records[item.record_id] = item
        if progress is not None and count % _REPORT_EVERY == 0:
            progress(count)
    unreadable.extend(Unreadable(records.pop(one).line, Reason.DUPLICATE) for one in doubles)
    return Reading(records, tuple(unreadable))


def dataset(session: Session, name: str) -> DatasetInfo:
    """The data set of that name.

    Raises:
        BractError: `unknown-dataset`.
    """
    row = session.get(Dataset, name)
    if row is None:
        raise BractError(UNKNOWN_DATASET, name)
    return _info(row)


def datasets(session: Session) -> tuple[DatasetInfo, ...]:
    """All data sets, by name."""
    return tuple(_info(row) for row in session.scalars(select(Dataset).order_by(Dataset.name)))


def _info(row: Dataset) -> DatasetInfo:
    plain = {
        "name": row.name,
        "location": row.location,
        "retention": {"ceiling_days": row.retention_days},
        "subjects_floor": row.subjects_floor,
        "member_seq": row.member_seq,
    }
    return decode(DatasetInfo, plain)


def quarantine(session: Session, name: str) -> dict[int, Reason]:
    """Unreadable lines of the last ingest and why."""
    lines = select(Quarantine.line, Quarantine.reason).where(Quarantine.dataset == name).order_by(Quarantine.line)
    return {line: Reason(reason) for line, reason in session.execute(lines)}


def subjects(session: Session, keys: SiteKeys, ids: Iterable[str], at: datetime) -> dict[str, int]:
    """The numbers of these subjects by identifier; those not yet known are added."""
    names = {subject_id: handle(keys.subject, subject_id) for subject_id in dict.fromkeys(ids)}
    known = _numbers(session, list(names.values()))
    fresh: list[dict[str, Any]] = []
    count = session.scalar(select(func.coalesce(func.max(Subject.subject_no), 0))) or 0
    for name in names.values():
        if name not in known:
            count += 1
            known[name] = count
            fresh.append({"subject_no": count, "handle": name, "key_id": keys.subject_key_id, "created_at": at})
    if fresh:
        session.connection().execute(insert(Subject), fresh)
    return {subject_id: known[name] for subject_id, name in names.items()}


def _numbers(session: Session, handles: Sequence[bytes]) -> dict[bytes, int]:
    known: dict[bytes, int] = {}
    for start in range(0, len(handles), _CHUNK):
        asked = Subject.handle.in_(handles[start : start + _CHUNK])
        known.update(
            (row[0], row[1]) for row in session.execute(select(Subject.handle, Subject.subject_no).where(asked))
        )
    return known


def subject_no(session: Session, keys: SiteKeys, subject_id: str) -> int | None:
    """The number of a subject, None if the site does not know it."""
    return session.scalar(select(Subject.subject_no).where(Subject.handle == handle(keys.subject, subject_id)))


@dataclass(frozen=True)
class Change:
    """The difference between a source and the registry: rows to add, record numbers to close, and the report."""

    added: list[dict[str, Any]]
    closed: list[int]
    report: IngestReport


def compare(
    session: Session, keys: SiteKeys, about: DatasetInfo, reading: Reading, numbers: Mapping[str, int]
) -> Change:
    """What an ingest has to change; nothing is written."""
    columns = (Record.record_id, Record.record_no, Record.record_digest, Record.subject_no, Record.collected_at)
    here = select(*columns).where(Record.dataset == about.name, Record.removed_seq.is_(None))
    live = {row[0]: row for row in session.execute(here)}
    next_no = session.scalar(select(func.coalesce(func.max(Record.record_no), 0))) or 0
    added: list[dict[str, Any]] = []
    closed: list[int] = []
    unchanged = 0
    for one in reading.records.values():
        name = record_digest(keys.subject, about.name, one.record_id, one.payload_digest)
        number = numbers[one.subject_id]
        old = live.pop(one.record_id, None)
        if old is not None and tuple(old)[2:] == (name, number, one.collected_at):
            unchanged += 1
            continue
        if old is not None:
            closed.append(old.record_no)
        added.append(
            {
                "record_no": next_no + len(added) + 1,
                "dataset": about.name,
                "subject_no": number,
                "record_id": one.record_id,
                "record_digest": name,
                "collected_at": one.collected_at,
                "added_seq": about.member_seq + 1,
            }
        )
    closed.extend(row.record_no for row in live.values())
    reasons = dict(Counter(line.reason for line in reading.unreadable))
    return Change(added, closed, IngestReport(len(added), unchanged, len(live), reasons))


def apply(session: Session, about: DatasetInfo, change: Change, unreadable: Iterable[Unreadable]) -> None:
    """Writes a change: intervals are closed and opened at the next member number, the quarantine is renewed."""
    seq = about.member_seq + 1
    if change.closed:
        table = Record.__table__
        session.connection().execute(
            update(Record).where(table.c.record_no == bindparam("no")).values(removed_seq=seq),
            [{"no": number} for number in change.closed],
        )
    if change.added:
        session.connection().execute(insert(Record), change.added)
    if change.closed or change.added:
        session.execute(update(Dataset).where(Dataset.name == about.name).values(member_seq=seq))
    session.execute(delete(Quarantine).where(Quarantine.dataset == about.name))
    lines = {line.line: line.reason.value for line in unreadable}
    if lines:
        rows = [{"dataset": about.name, "line": line, "reason": reason} for line, reason in lines.items()]
        session.connection().execute(insert(Quarantine), rows)


def stated(
    session: Session, name: str, reading: Reading, numbers: Mapping[str, int], at: datetime
) -> Iterator[decisions.NewEvent]:
    """The decisions that a data set's `purposes` amount to, where they differ from what it said before.

    A subject permits a purpose here if every one of its records lists it. A permit that the source takes back is a
    withdrawal from this data set at once.
    """
    permits: dict[int, frozenset[Purpose]] = {}
    since: dict[int, datetime] = {}
    for one in reading.records.values():
        number = numbers[one.subject_id]
        permits[number] = permits.get(number, one.purposes) & one.purposes
        since[number] = min(since.get(number, one.collected_at), one.collected_at)
    before = decisions.last_from(session, FROM_DATASET, name)
    generation = decisions.newest(session)
    names = [(purpose, purpose.value) for purpose in Purpose]
    for number, purposes in permits.items():
        for purpose, word in names:
            said = before.get((number, word))
            reference = f"{name}/{generation}/{number}/{word}"
            if purpose in purposes and said != Decision.PERMIT:
                begin = since[number] if said is None else at
                event = ConsentEvent(purpose, Decision.PERMIT, begin, None, name)
                yield decisions.NewEvent(number, event, FROM_DATASET, reference)
            elif purpose not in purposes and said == Decision.PERMIT:
                event = ConsentEvent(purpose, Decision.WITHDRAW, at, None, name)
                yield decisions.NewEvent(number, event, FROM_DATASET, reference)
