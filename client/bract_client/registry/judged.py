"""A data set's records beside what consent and retention say about each, and many rows of them at little cost."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, or_, select
from sqlalchemy.orm import Session

from bract.consent import Purpose, Verdict
from bract.vocabulary.modifiers import UseContext
from bract_client.registry.members import DatasetInfo
from bract_client.registry.models import Record
from bract_client.registry.resolving import judge, many

_PAGE = 20_000


@dataclass(frozen=True)
class Judged:
    """The data set's records at one member number, and what consent and retention say about each."""

    statement: Select[Any]
    verdict: ColumnElement[str]
    until: ColumnElement[Any]

    @property
    def admitted(self) -> Select[Any]:
        """Those that may be used."""
        return self.statement.where(self.verdict == Verdict.ADMITTED.value)


def records(
    session: Session,
    about: DatasetInfo,
    purpose: Purpose,
    at: datetime,
    use: UseContext,
    consent_seq: int | None = None,
) -> Judged:
    """Every record that the data set had at `about.member_seq`, with its verdict by what was known at `consent_seq`."""
    found = judge(session, Record.subject_no, purpose, about.name, at, use, consent_seq=consent_seq)
    verdict: ColumnElement[str] = func.coalesce(found.verdict, Verdict.NO_CONSENT.value)
    days = about.retention.ceiling_days
    if days is not None:
        over = Record.collected_at <= at - timedelta(days=days)
        verdict = case(((verdict == Verdict.ADMITTED.value) & over, literal(Verdict.RETENTION.value)), else_=verdict)
    statement = found.join(select().select_from(Record)).where(*there(about.name, about.member_seq))
    return Judged(statement, verdict, found.until)


def there(name: str, member_seq: int) -> tuple[ColumnElement[bool], ...]:
    """That a record was in the data set at one member number."""
    return (
        Record.dataset == name,
        Record.added_seq <= member_seq,
        or_(Record.removed_seq.is_(None), Record.removed_seq > member_seq),
    )


def raw(session: Session, statement: Select[Any]) -> Iterator[Sequence[Any]]:
    """Rows as the driver gives them: a million of them are not worth a converted object each."""
    with many(session):
        cursor = session.connection().execute(statement).cursor
    while rows := cursor.fetchmany(_PAGE):
        yield from rows


def first(moments: Iterable[Any]) -> datetime | None:
    """The first of some moments as the driver gives them: texts on SQLite, times on PostgreSQL."""
    found = [one for one in moments if one is not None]
    if not found:
        return None
    least = min(found)
    return datetime.fromisoformat(f"{least}+00:00") if isinstance(least, str) else least.astimezone(UTC)
