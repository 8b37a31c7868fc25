"""A site's registry with as many people as a measurement needs, written in bulk: the rows that the verbs would have made."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any

from sqlalchemy import Table
from sqlalchemy.orm import Session

from bract.consent import ConsentEvent, Decision, Purpose
from bract.database import Utc
from bract.retention import RetentionRule
from bract.vocabulary.modifiers import Modifier
from bract_client.handles import handle, record_digest
from bract_client.registry import decisions, derived, members
from bract_client.registry.models import Base, ConsentEventRow, Record, Subject
from bract_client.registry.store import SiteRegistry
from bract_client.sources.location import TableLocation

DAY = timedelta(days=1)

STORY: tuple[tuple[str, Decision, str | None, tuple[Modifier, ...]], ...] = (
    ("research", Decision.PERMIT, None, ()),
    (Purpose.PRETRAINING, Decision.PERMIT, "adult", ()),
    (Purpose.EVALUATION, Decision.DENY, None, ()),
    (Purpose.PRETRAINING, Decision.WITHDRAW, None, ()),
    (Purpose.PRETRAINING, Decision.PERMIT, None, ()),
    ("research", Decision.EXPIRE, None, ()),
)
"""What people decide, in this order. The fourth event is a permit again for two people in three, and every fifth one's
sixth event ends a permit; the others permit once more."""


def event_of(subject: int, number: int, start: datetime) -> ConsentEvent:
    """The decision `number` (from 0) of a subject (from 1); a day lies between two."""
    purpose, decision, scope, modifiers = STORY[number % len(STORY)]
    if (decision is Decision.WITHDRAW and subject % 3) or (decision is Decision.EXPIRE and subject % 5):
        decision = Decision.PERMIT
    return ConsentEvent(purpose, decision, start + number * DAY, None, scope, modifiers)


def fill(
    registry: SiteRegistry,
    subjects: int,
    records_per_subject: int = 1,
    events_per_subject: int = 1,
    *,
    start: datetime,
    name: str = "adult",
) -> None:
    """A data set with its records, and people's decisions, into an empty registry. A person is `P-N`, a record `rN-M`.

    Every batch of decisions is one event a person, recorded on the day on which it begins, as one import would.
    """
    registry.add_dataset(
        name,
        TableLocation("table", f"/data/{name}.parquet", "adult"),
        retention=RetentionRule(),
        subjects_floor=max(1, subjects // 2),
        epsilon_cap=8.0,
        delta=1e-6,
        at=start,
    )
    if registry._engine.dialect.name == "sqlite":
        with registry._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA cache_size=-262144")  # stays with the pooled connection
    with registry._write() as session:
        _people(session, registry, subjects, start)
        _records(session, registry, name, subjects, records_per_subject, start)
        body = {"taken": subjects * records_per_subject, "unchanged": 0, "removed": 0, "unreadable": 0}
        registry._log(session, "dataset.ingest", name, body, start)
    for number in range(events_per_subject):
        with registry._write() as session:
            _decisions(session, registry, subjects, number, start)
    with registry._write() as session:
        derived.rebuild(session)


def _people(session: Session, registry: SiteRegistry, subjects: int, start: datetime) -> None:
    key, key_id = registry._keys.subject, registry._keys.subject_key_id
    _copy(session, Subject, ((n, handle(key, f"P-{n}"), key_id, start) for n in range(1, subjects + 1)))


def _records(session: Session, registry: SiteRegistry, name: str, subjects: int, each: int, start: datetime) -> None:
    key = registry._keys.subject

    def rows() -> Iterator[tuple[Any, ...]]:
        for n in range(1, subjects + 1):
            for m in range(each):
                record_id = f"r{n}-{m}"
                digest = record_digest(key, name, record_id, sha256(record_id.encode()).digest())
                yield (n - 1) * each + m + 1, name, n, record_id, digest, start, 1, None

    _copy(session, Record, rows())
    about = members.dataset(session, name)
    table = Base.metadata.tables["dataset"]
    session.execute(table.update().where(table.c.name == name).values(member_seq=about.member_seq + 1))


def _decisions(session: Session, registry: SiteRegistry, subjects: int, number: int, start: datetime) -> None:
    first = decisions.newest(session) + 1
    at = start + number * DAY
    names = [column.name for column in _table(ConsentEventRow).columns]
    place, subject, reference = (names.index(name) for name in ("seq", "subject_no", "source_ref"))
    hashed = [names.index(name) for name in decisions._COLUMNS]
    hasher = sha256()

    def rows() -> Iterator[list[Any]]:
        # Who is told apart by 15 only says the same as the person 15 before; the words are made once for each.
        words = [
            decisions._row(decisions.NewEvent(0, event_of(who, number, start), "csv", ""), None, 0, at)
            for who in range(1, 16)
        ]
        templates = [[word[name] for name in names] for word in words]
        for n in range(subjects):
            row = list(templates[n % 15])
            row[place], row[subject], row[reference] = first + n, n + 1, f"{number}/{n}"
            hasher.update(decisions._line(tuple([row[index] for index in hashed]), None))
            yield row

    _copy(session, ConsentEventRow, rows())
    digest = f"sha256:{hasher.hexdigest()}"
    body = {"first": first, "last": first + subjects - 1, "rows": digest, "form": decisions.FORM}
    registry._log(session, "consent.record", "csv", body, at)
    registry._log(session, "consent.import", "csv", {"taken": subjects, "known": 0, "unreadable": 0}, at)


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


@lru_cache(maxsize=4096)
def _text(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def _copy(session: Session, model: type[Base], rows: Iterable[Sequence[Any]]) -> None:
    """The rows, in the order of the table's columns: by COPY on PostgreSQL, as the driver takes them on SQLite."""
    table = _table(model)
    names = [column.name for column in table.columns]
    connection = session.connection()
    cursor = connection.connection.cursor()
    if connection.dialect.name == "postgresql":
        with cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    times = [index for index, column in enumerate(table.columns) if isinstance(column.type, Utc)]

    def texts() -> Iterator[list[Any]]:
        for row in rows:
            values = list(row)
            for index in times:
                if values[index] is not None:
                    values[index] = _text(values[index])
            yield values

    marks = ", ".join("?" for _ in names)
    cursor.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", texts())  # type: ignore[arg-type]  # noqa: S608 - ours
