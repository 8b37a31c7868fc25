"""Records under retention: which may be over their time, closing them to every use, and erasing what names them.

An erased record's row stays, without the name by which its source knew it: the Merkle roots of past snapshots, and with
them other people's proofs, rest on its keyed digest, and what was spent on its subject is counted over its row. The last
erased record of a subject takes the subject's handle with it, unless a refusal stands that must be known again.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from bract.disposal.due import Found, Rules
from bract.retention import Action, Blocker, Kept, ObjectKind, Obstacle, RetentionPolicy, Trigger
from bract.vocabulary.purposes import Purpose
from bract_client.registry.models import (
    EVERYWHERE,
    ConsentCurrent,
    Dataset,
    PurposeClosure,
    Record,
    ReservationRow,
    Subject,
)

ERASED_ID = ""
"""The name of a record that was erased; no source can give it."""

_CHUNK = 500
_HANDLE = 32


@dataclass(frozen=True)
class Erased:
    """What an erasure did: how many rows, and of how many subjects the handle."""

    records: int
    handles: int
    remains: frozenset[str]


def running(session: Session, at: datetime) -> dict[str, tuple[Blocker, ...]]:
    """By data set, the rounds that are being trained on it now."""
    open_ones = select(ReservationRow).where(
        ReservationRow.state == "reserved", ReservationRow.begun_at.is_not(None), ReservationRow.expires_at > at
    )
    found: dict[str, tuple[Blocker, ...]] = {}
    for row in session.scalars(open_ones):
        blocker = Blocker(Obstacle.ROUND, f"{row.campaign}/{row.number}", row.expires_at)
        found[row.dataset] = (*found.get(row.dataset, ()), blocker)
    return found


def records(session: Session, standing: Rules, by: datetime | None, only: str | None = None) -> Iterator[Found]:
    """The records that may be over their time at `by` (None: that a person may have to decide about).

    A record is last used when its data set is: which records a round drew stays unknown. Before its first use, what
    counts is when the data set was declared.
    """
    if ObjectKind.RECORD not in standing.kinds():
        return
    busy = running(session, standing.at)
    asked = any(policy.trigger is Trigger.WITHDRAWAL for _, policy in standing.bound)
    for name, declared_at in session.execute(select(Dataset.name, Dataset.created_at).order_by(Dataset.name)):
        if only is not None and name != only:
            continue
        begun = select(func.max(ReservationRow.begun_at)).where(ReservationRow.dataset == name)
        used_at = session.scalar(begun) or declared_at
        told = {**standing.events.get("", {}), **standing.events.get(name, {})}
        wanted = _wanted(standing, name, by, {Trigger.LAST_USE: used_at, **told})
        if wanted is None:
            continue
        gone = dict(session.execute(withdrawn(name)).all()) if asked else {}
        rows = session.execute(
            select(Record.record_no, Record.subject_no, Record.collected_at)
            .where(Record.dataset == name, Record.record_id != ERASED_ID, wanted)
            .order_by(Record.record_no)
        )
        yield from (_found(row, name, used_at, gone, busy.get(name, ())) for row in rows)


def _found(
    row: Row[int, int, datetime],
    name: str,
    used_at: datetime,
    gone: dict[int, datetime],
    busy: tuple[Blocker, ...],
) -> Found:
    triggers = {Trigger.COLLECTION: row.collected_at, Trigger.LAST_USE: used_at}
    if row.subject_no in gone:
        triggers[Trigger.WITHDRAWAL] = gone[row.subject_no]
    return Found(Kept(ObjectKind.RECORD, str(row.record_no), (name,), row.subject_no), triggers, busy)


def withdrawn(dataset: str) -> Select[int, datetime]:
    """Subjects who refuse a data set every use that any decision of theirs on it is about, and since when."""
    row, covers = ConsentCurrent, PurposeClosure
    here = row.scope.in_((EVERYWHERE, dataset))
    refused_at = func.max(case((row.refusal == 1, row.valid_from)))
    uses = (
        select(row.subject_no, func.max(row.refusal).label("refused"), refused_at.label("since"))
        .join(covers, covers.ancestor == row.purpose)
        .where(
            here,
            covers.descendant.in_([use.value for use in Purpose]),
            row.subject_no.in_(select(row.subject_no).where(here, row.refusal == 1)),
        )
        .group_by(row.subject_no, covers.descendant)
        .subquery()
    )
    return (
        select(uses.c.subject_no, func.max(uses.c.since).label("since"))
        .group_by(uses.c.subject_no)
        .having(func.min(uses.c.refused) == 1)
    )


def _wanted(
    standing: Rules, name: str, by: datetime | None, whole: dict[Trigger, datetime]
) -> ColumnElement[bool] | None:
    """A condition that no record fails which is over its time at `by` under any policy; None when there can be none."""
    mine = [
        (scope, one)
        for scope, one in standing.bound
        if one.applies_to is ObjectKind.RECORD and (scope in ("", name) or scope.isdecimal())
    ]
    if by is None and not any(policy.floor or policy.action is not Action.DELETE for _, policy in mine):
        return None
    conditions: list[ColumnElement[bool]] = []
    for scope, policy in mine:
        told = {int(one): came[policy.trigger] for one, came in _single(standing) if policy.trigger in came}
        condition = _over(policy, by, whole, name, told)
        if condition is not None:
            conditions.append(and_(condition, Record.record_no == int(scope)) if scope.isdecimal() else condition)
    return or_(*conditions) if conditions else None


def _over(
    policy: RetentionPolicy,
    by: datetime | None,
    whole: dict[Trigger, datetime],
    name: str,
    told: dict[int, datetime],
) -> ColumnElement[bool] | None:
    """Records whose ceiling may have passed under one policy: by an event of all, of their subject, or of their own."""
    if policy.ceiling is None:
        return None
    everything = Record.record_no > 0
    if by is None:
        return everything
    cutoff = policy.ceiling.cutoff(by)
    if policy.trigger is Trigger.COLLECTION:
        return Record.collected_at <= cutoff
    if policy.trigger in whole and whole[policy.trigger] <= cutoff:
        return everything
    single = [number for number, came in told.items() if came <= cutoff]
    parts: list[ColumnElement[bool]] = [Record.record_no.in_(chunk) for chunk in _chunks(single)]
    if policy.trigger is Trigger.WITHDRAWAL:
        gone = withdrawn(name).subquery()
        parts.append(Record.subject_no.in_(select(gone.c.subject_no).where(gone.c.since <= cutoff)))
    return or_(*parts) if parts else None


def _single(standing: Rules) -> list[tuple[str, dict[Trigger, datetime]]]:
    """Events that were told about one record, by its number."""
    return [(scope, came) for scope, came in standing.events.items() if scope.isdecimal()]


def closed(session: Session, numbers: Iterable[int]) -> bool:
    """Whether none of the records is open to use."""
    for chunk in _chunks(list(numbers)):
        live = select(Record.record_no).where(Record.record_no.in_(chunk), Record.removed_seq.is_(None)).limit(1)
        if session.scalar(live) is not None:
            return False
    return True


def exclude(session: Session, numbers: Sequence[int]) -> dict[str, int]:
    """Closes records to every use from now on: by data set, how many were still open."""
    closed: dict[str, int] = {}
    for chunk in _chunks(list(numbers)):
        live = session.execute(
            select(Record.dataset, Record.record_no).where(Record.record_no.in_(chunk), Record.removed_seq.is_(None))
        ).all()
        by_dataset: dict[str, list[int]] = {}
        for name, number in live:
            by_dataset.setdefault(name, []).append(number)
        for name, found in by_dataset.items():
            if name not in closed:
                session.execute(update(Dataset).where(Dataset.name == name).values(member_seq=Dataset.member_seq + 1))
            seq = select(Dataset.member_seq).where(Dataset.name == name).scalar_subquery()
            session.execute(update(Record).where(Record.record_no.in_(found)).values(removed_seq=seq))
            closed[name] = closed.get(name, 0) + len(found)
    return closed


def erase(session: Session, numbers: Sequence[int]) -> Erased:
    """Erases the records' names, and the handles of subjects of whom nothing else is left; again changes nothing."""
    exclude(session, numbers)
    people: set[int] = set()
    for chunk in _chunks(list(numbers)):
        people.update(session.scalars(select(Record.subject_no).where(Record.record_no.in_(chunk)).distinct()))
        session.execute(
            update(Record).where(Record.record_no.in_(chunk), Record.record_id != ERASED_ID).values(record_id=ERASED_ID)
        )
    remains = {"membership", "spend", "consent", "models"}
    shred: list[int] = []
    for chunk in _chunks(sorted(people)):
        here = set(
            session.scalars(
                select(Record.subject_no).where(Record.subject_no.in_(chunk), Record.record_id != ERASED_ID).distinct()
            )
        )
        refusing = set(
            session.scalars(
                select(ConsentCurrent.subject_no)
                .where(ConsentCurrent.subject_no.in_(chunk), ConsentCurrent.refusal == 1)
                .distinct()
            )
        )
        remains |= {"handle"} if here else set()
        remains |= {"refusal"} if refusing - here else set()
        shred.extend(number for number in chunk if number not in here and number not in refusing)
    for number in shred:
        session.execute(update(Subject).where(Subject.subject_no == number).values(handle=secrets.token_bytes(_HANDLE)))
    return Erased(len(numbers), len(shred), frozenset(remains))


def left(session: Session, numbers: Iterable[int]) -> set[int]:
    """Those of the records whose names are still there."""
    found: set[int] = set()
    for chunk in _chunks(list(numbers)):
        named = select(Record.record_no).where(Record.record_no.in_(chunk), Record.record_id != ERASED_ID)
        found.update(session.scalars(named))
    return found


def names(session: Session, dataset: str, numbers: Sequence[int]) -> frozenset[str]:
    """The records' names at their source, but for those that another record of the data set still has."""
    mine: set[str] = set()
    asked = set(numbers)
    rows = session.execute(
        select(Record.record_no, Record.record_id).where(Record.dataset == dataset, Record.record_id != ERASED_ID)
    ).all()
    mine.update(name for number, name in rows if number in asked)
    return frozenset(mine - {name for number, name in rows if number not in asked})


def digests(session: Session, dataset: str, also: Iterable[str]) -> dict[str, bytes]:
    """The keyed digest of every record of a data set that is here, and `also` of these."""
    rows = session.execute(
        select(Record.record_no, Record.record_id, Record.record_digest).where(Record.dataset == dataset)
    )
    asked = set(also)
    return {str(number): value for number, name, value in rows if name != ERASED_ID or str(number) in asked}


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), _CHUNK):
        yield numbers[start : start + _CHUNK]
