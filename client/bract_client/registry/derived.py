"""What follows from the events and is kept beside them: the standing decisions, and what they amount to for each use.

Both are renewed in the transaction that adds events, for the subjects that it touches, and can be rebuilt.
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    String,
    Subquery,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from bract.consent import REFUSALS, Decision
from bract.database import Utc
from bract.vocabulary.purposes import TERMS, Purpose, closure
from bract_client.registry.models import (
    Base,
    ConsentCurrent,
    ConsentEffective,
    ConsentEventRow,
    PurposeClosure,
    PurposeRow,
)

_CURRENT = ("purpose", "scope", "subject_no", "decision", "refusal", "valid_from", "valid_to", "seq", "condition_no")
_EFFECTIVE = ("purpose", "scope", "subject_no", "ok", "withdrawn", "until", "since", "deciding_seq")
_KEY = ("purpose", "scope", "subject_no")
_LARGE = 10**15
_STATED = sorted(term.code for term in TERMS if term.stated)


def standing(session: Session, *where: ColumnElement[bool], known: int | None = None) -> Subquery:
    """Points 1, 3 and 5 of the rule: the permit or refusal that stands for each purpose, scope and subject.

    Args:
        session: only read.
        where: which events may stand.
        known: the last event that was known; None for all.
    """
    event = ConsentEventRow
    stands = (Decision.PERMIT.value, *(one.value for one in REFUSALS))
    wanted = (event.decision.in_(stands), *where, *_counts(session, event, known))
    first = _last(session.connection().dialect.name, wanted).subquery("first")
    if session.scalar(select(event.seq).where(event.decision == Decision.EXPIRE.value).limit(1)) is None:
        return first
    ended = _ended(session, known)
    sooner = and_(ended.c.at.is_not(None), or_(first.c.valid_to.is_(None), ended.c.at < first.c.valid_to))
    end = case((sooner, ended.c.at), else_=first.c.valid_to).label("valid_to")
    columns = [end if name == "valid_to" else first.c[name] for name in _CURRENT]
    return select(*columns).outerjoin(ended, ended.c.seq == first.c.seq).subquery("standing")


def _last(dialect: str, wanted: tuple[ColumnElement[bool], ...]) -> Select[Any]:
    """Of each subject, purpose and scope the last of the wanted events: by time, a refusal before a permit, by number.

    Both ways are several times faster than numbering every event by a window function. SQLite takes the other columns
    from the row that has the maximum (sqlite.org/lang_select.html, "bare columns in an aggregate query"); a moment is a
    text of fixed length there.
    """
    event = ConsentEventRow
    refusal: ColumnElement[int] = case((event.decision == Decision.PERMIT.value, 0), else_=1)
    key = (event.subject_no, event.purpose, event.scope)
    columns = [refusal.label("refusal") if name == "refusal" else getattr(event, name) for name in _CURRENT]
    statement = select(*columns).where(*wanted)
    if dialect == "postgresql":
        last_first = statement.ext(postgresql.distinct_on(*key))
        return last_first.order_by(*key, event.valid_from.desc(), refusal.desc(), event.seq.desc())
    moment, number = type_coerce(event.valid_from, String), cast(event.seq + _LARGE, String)
    return statement.add_columns(func.max(moment + cast(refusal, String) + number)).group_by(*key)


def _counts(session: Session, event: Any, known: int | None) -> list[ColumnElement[bool]]:
    """Point 1 of the rule; what nobody ever corrected costs nothing."""
    here = [] if known is None else [event.seq <= known]
    later = aliased(ConsentEventRow)
    if session.scalar(select(later.seq).where(later.supersedes_seq.is_not(None)).limit(1)) is None:
        return here
    seen = [] if known is None else [later.seq <= known]
    return [*here, ~exists().where(later.supersedes_seq == event.seq, *seen)]


def _ended(session: Session, known: int | None) -> Subquery:
    """When each permit that an `expire` event ends is ended; there are few of these, so they lead the way."""
    over, permit = aliased(ConsentEventRow), aliased(ConsentEventRow)
    same = and_(
        permit.subject_no == over.subject_no,
        permit.purpose == over.purpose,
        permit.scope == over.scope,
        permit.decision == Decision.PERMIT.value,
        permit.valid_from <= over.valid_from,
    )
    return (
        select(permit.seq, func.min(over.valid_from).label("at"))
        .select_from(over)
        .join(permit, same)
        .where(over.decision == Decision.EXPIRE.value, *_counts(session, over, known))
        .group_by(permit.seq)
        .subquery("ended")
    )


def derive(session: Session, after: int) -> None:
    """Renews the state that an event beyond `after` may have changed."""
    event = ConsentEventRow
    fresh = select(event.subject_no).where(event.seq > after)
    mine, about = [event.subject_no.in_(fresh)], event.seq > after
    if session.scalar(select(event.seq).where(event.seq > after, event.supersedes_seq.is_not(None)).limit(1)):
        # Only a correction can leave nothing where something stood, or change what stands for another purpose or scope.
        about = event.subject_no.in_(fresh)
        keys = select(event.purpose, event.scope, event.subject_no).where(about)
        session.execute(_without(ConsentCurrent, keys))
        session.execute(_without(ConsentEffective, _uses(about)))
    else:
        keys = select(event.purpose, event.scope, event.subject_no).where(about)
        mine.append(tuple_(event.purpose, event.scope, event.subject_no).in_(keys))
    found = standing(session, *mine)
    _put(session, ConsentCurrent, select(*(found.c[name] for name in _CURRENT)).where(literal(1) == 1), _CURRENT)
    _put(session, ConsentEffective, _amounts(about), _EFFECTIVE)


def _uses(about: ColumnElement[bool]) -> Select[str, str, int]:
    """(use, scope, subject) of everything that these events may count for."""
    event, covers = ConsentEventRow, PurposeClosure
    wanted = select(covers.descendant, event.scope, event.subject_no)
    return wanted.join(covers, covers.ancestor == event.purpose).where(about)


def _without(table: type[ConsentCurrent] | type[ConsentEffective], keys: Any) -> Any:
    return delete(table).where(tuple_(table.purpose, table.scope, table.subject_no).in_(keys))


def _put(session: Session, table: type[Base], rows: Select[Any], names: tuple[str, ...]) -> None:
    postgres = session.connection().dialect.name == "postgresql"
    statement = (postgresql.insert if postgres else sqlite.insert)(table).from_select(list(names), rows)
    renewed = {name: statement.excluded[name] for name in names if name not in _KEY}
    session.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=renewed))


def _amounts(about: ColumnElement[bool] | None = None) -> Select[Any]:
    """What the standing decisions amount to, for each use and scope; only for those that these events may count for."""
    row, covers = ConsentCurrent, PurposeClosure
    permit = row.refusal == 0
    asks = or_(row.condition_no.is_not(None), row.purpose.in_(_STATED))
    refused, open_ = func.max(row.refusal), func.max(_flag(and_(permit, asks)))
    endless = func.max(_flag(and_(permit, ~asks, row.valid_to.is_(None))))
    ok = case((refused == 1, 0), (and_(open_ == 1, endless == 0), 2), else_=1)
    until = case((and_(ok == 1, endless == 0), func.max(row.valid_to)), else_=literal(None, Utc()))
    statement = (
        select(
            covers.descendant,
            row.scope,
            row.subject_no,
            ok,
            func.max(_flag(row.decision == Decision.WITHDRAW.value)),
            until,
            func.max(row.valid_from),
            func.max(row.seq),
        )
        .select_from(row)
        .join(covers, covers.ancestor == row.purpose)
        .where(covers.descendant.in_([use.value for use in Purpose]))
        .group_by(covers.descendant, row.scope, row.subject_no)
    )
    if about is None:
        return statement
    # With the purposes above each use, so that what stands is found by its whole key.
    above = aliased(PurposeClosure)
    uses = _uses(about).add_columns(above.ancestor).join(above, above.descendant == covers.descendant)
    touched = uses.distinct().subquery("touched")
    mine = (touched.c.ancestor == row.purpose, touched.c.scope == row.scope, touched.c.subject_no == row.subject_no)
    return statement.join(touched, and_(*mine, touched.c.descendant == covers.descendant))


def _flag(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return cast(case((condition, 1), else_=0), Integer)


def rebuild(session: Session) -> None:
    """Derives everything again: the vocabulary from the code, the state from the events."""
    for table in (ConsentEffective, ConsentCurrent, PurposeClosure, PurposeRow):
        session.execute(delete(table))
    session.connection().execute(
        insert(PurposeRow),
        [{"code": one.code, "iri": one.iri, "label": one.label, "scheme": one.scheme.value} for one in TERMS],
    )
    rows = [dict(zip(("ancestor", "descendant", "depth"), row, strict=True)) for row in closure()]
    session.connection().execute(insert(PurposeClosure), rows)
    found = standing(session)
    names = list(_CURRENT)
    session.execute(insert(ConsentCurrent).from_select(names, select(*(found.c[name] for name in names))))
    session.execute(insert(ConsentEffective).from_select(list(_EFFECTIVE), _amounts()))


def drift(session: Session) -> dict[str, int]:
    """How many rows of each derived table differ from what they follow from; tables that agree are left out."""
    found = standing(session)
    pairs = {
        "consent_current": (select(*(found.c[name] for name in _CURRENT)), _rows(ConsentCurrent, _CURRENT)),
        "consent_effective": (_amounts(), _rows(ConsentEffective, _EFFECTIVE)),
    }
    wrong = {}
    for name, (derived, kept) in pairs.items():
        sides = (derived.except_(kept), kept.except_(derived))
        wrong[name] = sum(session.scalar(select(func.count()).select_from(one.subquery())) or 0 for one in sides)
    pinned = {tuple(row) for row in closure()}
    stored = {
        tuple(row)
        for row in session.execute(select(PurposeClosure.ancestor, PurposeClosure.descendant, PurposeClosure.depth))
    }
    wrong["purpose_closure"] = len(pinned ^ stored)
    return {name: count for name, count in wrong.items() if count}


def _rows(table: type[ConsentCurrent] | type[ConsentEffective], names: tuple[str, ...]) -> Select[Any]:
    return select(*(getattr(table, name) for name in names))
