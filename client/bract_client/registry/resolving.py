"""The rule of `bract.consent` over many subjects at once, in SQL.

A question about what is known now is answered from the resolved state; from the standing decisions when a permit's conditions
are to be judged for this use; and from the events themselves when a decision lies in the future of the asked time, or
when the question is about an earlier state of knowledge. The three give the same answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    and_,
    case,
    func,
    inspect,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from bract.consent import Decision, Purpose, Verdict
from bract.database import Utc
from bract.vocabulary.modifiers import UseContext
from bract.vocabulary.purposes import ancestors
from bract_client.registry import conditions
from bract_client.registry.decisions import newest
from bract_client.registry.derived import standing
from bract_client.registry.models import EVERYWHERE, ConsentCurrent, ConsentEffective, ConsentEventRow


@contextmanager
def many(session: Session) -> Iterator[None]:
    """For queries over all of a data set's records: PostgreSQL joins them by hashing, whatever it believes about sizes.

    After a large import and before its tables were analysed it takes them for small, and reads one of them again for every
    row of another.
    """
    if session.connection().dialect.name != "postgresql":
        yield
        return
    session.execute(text("SET LOCAL enable_nestloop = off"))
    session.execute(text("SET LOCAL work_mem = '64MB'"))
    yield
    session.execute(text("RESET enable_nestloop"))
    session.execute(text("RESET work_mem"))


@dataclass(frozen=True)
class Judgement:
    """Verdicts ready to be joined to rows that name a subject: `verdict` is NULL for who decided nothing."""

    verdict: ColumnElement[str]
    until: ColumnElement[datetime]
    tables: tuple[tuple[FromClause, ColumnElement[bool]], ...]

    def join(self, statement: Select[Any]) -> Select[Any]:
        """The statement with what the verdicts need."""
        for table, on in self.tables:
            statement = statement.outerjoin(table, on)
        return statement


def judge(
    session: Session,
    subject_no: ColumnElement[int] | InstrumentedAttribute[int],
    purpose: Purpose,
    dataset: str,
    at: datetime,
    use: UseContext,
    *,
    consent_seq: int | None = None,
    name: str = "now",
) -> Judgement:
    """The verdict about the subject of each row; arguments as `verdicts`, and the rows' column.

    `name` tells the judgements of one statement apart.

    What was known earlier differs from what is known now only for subjects that decided since.
    """
    if not (_begins_later(session, purpose, dataset, at, consent_seq) or _conditional(session, purpose, dataset)):
        return _by_scopes(session, subject_no, purpose, dataset, at, use, consent_seq, name)
    found = verdicts(session, purpose, dataset, at, use, consent_seq=consent_seq).alias(name)
    return Judgement(found.c.verdict, found.c.until, ((found, found.c.subject_no == subject_no),))


def verdicts(
    session: Session,
    purpose: Purpose,
    dataset: str,
    at: datetime,
    use: UseContext,
    *,
    consent_seq: int | None = None,
) -> Subquery:
    """(subject_no, verdict, until) of every subject that decided anything; others did not consent.

    Args:
        session: only read.
        purpose: the purpose asked for.
        dataset: the data set asked for.
        at: the valid time asked for.
        use: what is known of the use.
        consent_seq: the last event that was known then (`known_at`); None for all that is known now.
    """
    scopes = (EVERYWHERE, dataset)
    wide = sorted(ancestors(purpose))
    if consent_seq is None and not _begins_later(session, purpose, dataset, at, None):
        row = ConsentEffective
        if not _conditional(session, purpose, dataset):
            rows = select(row).where(row.purpose == purpose.value, row.scope.in_(scopes)).subquery("effective")
            return _grouped(
                rows,
                at,
                withdrawn=rows.c.withdrawn == 1,
                permit=rows.c.ok == 1,
                good=rows.c.ok == 1,
                over=rows.c.until,
            )
        current = ConsentCurrent
        rows = select(current).where(current.purpose.in_(wide), current.scope.in_(scopes)).subquery("current")
        return _from_standing(session, rows, purpose, at, use)
    event = ConsentEventRow
    wanted = (event.purpose.in_(wide), event.scope.in_(scopes), event.valid_from <= at)
    return _from_standing(session, standing(session, *wanted, known=consent_seq), purpose, at, use)


def known_at(session: Session, known: datetime) -> int:
    """The number of the last event that was recorded at that time or before, 0 if there was none.

    Recorded times never go back and numbers have no gaps, so bisection finds it.
    """
    event = ConsentEventRow
    low, high = 0, session.scalar(select(func.coalesce(func.max(event.seq), 0))) or 0
    while low < high:
        middle = (low + high + 1) // 2
        recorded = session.scalar(select(event.recorded_at).where(event.seq == middle))
        if recorded is not None and recorded <= known:
            low = middle
        else:
            high = middle - 1
    return low


def next_change(session: Session, purpose: Purpose, dataset: str, at: datetime) -> datetime | None:
    """When the next decision that is already recorded begins to count."""
    event = ConsentEventRow
    about = (event.purpose.in_(sorted(ancestors(purpose))), event.scope.in_((EVERYWHERE, dataset)))
    return session.scalar(select(func.min(event.valid_from)).where(*about, event.valid_from > at))


def _begins_later(session: Session, purpose: Purpose, dataset: str, at: datetime, known: int | None) -> bool:
    """Whether a decision that was known begins after the asked time."""
    event = ConsentEventRow
    about = (event.purpose.in_(sorted(ancestors(purpose))), event.scope.in_((EVERYWHERE, dataset)))
    seen = [] if known is None else [event.seq <= known]
    return session.scalar(select(event.seq).where(event.valid_from > at, *about, *seen).limit(1)) is not None


def _conditional(session: Session, purpose: Purpose, dataset: str) -> bool:
    """Whether a permit's conditions have to be judged."""
    row = ConsentEffective
    about = (row.purpose == purpose.value, row.scope.in_((EVERYWHERE, dataset)), row.ok == 2)
    return session.scalar(select(row.subject_no).where(*about).limit(1)) is not None


def _by_scopes(
    session: Session,
    subject_no: ColumnElement[int] | InstrumentedAttribute[int],
    purpose: Purpose,
    dataset: str,
    at: datetime,
    use: UseContext,
    consent_seq: int | None,
    name: str,
) -> Judgement:
    """The verdict from the resolved rows of the two scopes, found by key: nothing is grouped or sorted."""
    rows = [aliased(ConsentEffective, name=f"{name}_{scope}") for scope in ("wide", "narrow")]
    tables: list[tuple[FromClause, ColumnElement[bool]]] = [
        (inspect(row).selectable, and_(row.purpose == purpose.value, row.scope == scope, row.subject_no == subject_no))
        for row, scope in zip(rows, (EVERYWHERE, dataset), strict=True)
    ]
    endless = or_(*(and_(row.ok == 1, row.until.is_(None)) for row in rows))
    first, second = (row.until for row in rows)
    last = case((first.is_(None), second), (second.is_(None), first), (first > second, first), else_=second)
    verdict: ColumnElement[Any] = case(
        (or_(*(row.withdrawn == 1 for row in rows)), Verdict.WITHDRAWN.value),
        (or_(*(row.ok == 0 for row in rows)), Verdict.DENIED.value),
        (or_(endless, last > at), Verdict.ADMITTED.value),
        (or_(*(row.ok == 1 for row in rows)), Verdict.EXPIRED.value),
    )
    until: ColumnElement[Any] = case((endless, literal(None, Utc())), else_=last)
    if consent_seq is not None and consent_seq < newest(session):
        since = _since(session, purpose, dataset, at, use, consent_seq).alias(f"{name}_since")
        tables.append((since, since.c.subject_no == subject_no))
        until = case((since.c.subject_no.is_not(None), since.c.until), else_=until)
        verdict = case((since.c.subject_no.is_not(None), since.c.verdict), else_=verdict)
    return Judgement(verdict, until, tuple(tables))


def _since(
    session: Session, purpose: Purpose, dataset: str, at: datetime, use: UseContext, consent_seq: int
) -> Subquery:
    """The verdicts of those who decided since, by what was known before; NULL for who had decided nothing."""
    event = ConsentEventRow
    later = select(event.subject_no).where(event.seq > consent_seq).distinct().subquery("later")
    wanted = (
        event.purpose.in_(sorted(ancestors(purpose))),
        event.scope.in_((EVERYWHERE, dataset)),
        event.valid_from <= at,
        event.subject_no.in_(select(later.c.subject_no)),
    )
    before = _from_standing(session, standing(session, *wanted, known=consent_seq), purpose, at, use)
    rows = select(later.c.subject_no, before.c.verdict, before.c.until)
    return rows.outerjoin(before, before.c.subject_no == later.c.subject_no).subquery("since")


def _from_standing(session: Session, rows: Subquery, purpose: Purpose, at: datetime, use: UseContext) -> Subquery:
    holds = conditions.holds(session, ancestors(purpose), use, rows.c.purpose, rows.c.condition_no)
    return _grouped(
        rows,
        at,
        withdrawn=rows.c.decision == Decision.WITHDRAW.value,
        permit=rows.c.refusal == 0,
        good=and_(rows.c.refusal == 0, holds),
        over=rows.c.valid_to,
    )


def _grouped(
    rows: Subquery,
    at: datetime,
    *,
    withdrawn: ColumnElement[bool],
    permit: ColumnElement[bool],
    good: ColumnElement[bool],
    over: ColumnElement[Any],
) -> Subquery:
    """Points 4 to 7 of the rule over all that stands for a subject."""

    def some(condition: ColumnElement[bool]) -> ColumnElement[bool]:
        return func.max(case((condition, 1), else_=0)) == 1

    live = or_(over.is_(None), over > at)
    verdict = case(
        (some(withdrawn), Verdict.WITHDRAWN.value),
        (some(~permit), Verdict.DENIED.value),
        (some(and_(good, live)), Verdict.ADMITTED.value),
        (some(and_(permit, live)), Verdict.CONDITION.value),
        else_=Verdict.EXPIRED.value,
    )
    until = case((some(and_(good, over.is_(None))), literal(None, Utc())), else_=func.max(case((good, over))))
    statement: Select[Any] = select(rows.c.subject_no, verdict.label("verdict"), until.label("until"))
    return statement.group_by(rows.c.subject_no).subquery("resolved")
