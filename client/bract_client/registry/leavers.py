"""Which snapshots somebody leaves, and who left one while a round was trained on it, by what is known now."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.consent import Decision, Purpose, Verdict, ends, resolve, uncorrected
from bract.digest import Digest
from bract.retention import RetentionRule
from bract.vocabulary.modifiers import UseContext
from bract_client.registry import decisions, judged, snapshots
from bract_client.registry.members import dataset, datasets
from bract_client.registry.models import Record, SnapshotRow
from bract_client.registry.resolving import judge, known_at, many

_IN = Verdict.ADMITTED.value
_CHUNK = 500


def lost(session: Session, snapshot: Digest, since: datetime, at: datetime, use: UseContext) -> bool:
    """Whether somebody of a snapshot was permitted at `since`, by what was known then, and by what is known now is not at `at`.

    Knowledge counts, not only times: a withdrawal that is learnt late lies before `since`. Records that were taken away
    meanwhile do not hide who withdrew.

    Raises:
        BractError: `stale-clearance` when there is no such snapshot.
    """
    row = snapshots.row_of(session, snapshot)
    purpose, about = Purpose(row.purpose), replace(dataset(session, row.dataset), member_seq=row.member_seq)
    was = judged.records(session, about, purpose, since, use, known_at(session, since))
    then = snapshots.judged_then(session, row)
    now = judge(session, Record.subject_no, purpose, about.name, at, use, name="after")
    ended = func.coalesce(now.verdict, Verdict.NO_CONSENT.value) != _IN
    statement = now.join(then.join(was.admitted)).where(then.verdict == _IN, ended)
    with many(session):
        return session.execute(statement.add_columns(Record.record_no).limit(1)).first() is not None


def holding(session: Session, subject_no: int, purposes: Iterable[Purpose], only: str | None) -> set[Digest]:
    """The snapshots that ever held a record of this subject, for these purposes (and one data set, if given)."""
    return leaving(session, {(subject_no, only, False): set(purposes)})


def leaving(session: Session, asked: Mapping[tuple[int, str | None, bool], Collection[Purpose]]) -> set[Digest]:
    """The snapshots that somebody leaves.

    A snapshot that one subject leaves is not looked at again for others, and one is looked at only for a subject of whom a
    permit was known that could stand then: so that many cost little more than one, also over many snapshots.

    Args:
        session: only read.
        asked: (subject, data set or None for all, wrongly) to the purposes of the snapshots; `wrongly` means only those
            that would not have held the subject, had the site known then what it knows now.
    """
    by_subject: dict[int, list[tuple[str | None, bool, Collection[Purpose]]]] = {}
    for (number, only, wrongly), purposes in asked.items():
        by_subject.setdefault(number, []).append((only, wrongly, purposes))
    found: set[Digest] = set()
    snapshots = {row.root: row for row in session.scalars(select(SnapshotRow))}
    rules: dict[str, RetentionRule] = {one.name: one.retention for one in datasets(session)}
    numbers = sorted(by_subject)
    for start in range(0, len(numbers), _CHUNK):
        left = {root: row for root, row in snapshots.items() if root not in found}
        if not left:
            break
        mine = _records_of(session, numbers[start : start + _CHUNK])
        events = decisions.histories(session, mine)
        for number, records in mine.items():
            permits = _permits(events[number])
            for name, row in left.items() if permits else ():
                if name not in found and any(
                    _permitted(permits, row) and _left(row, events[number], records, rules[row.dataset], *one)
                    for one in by_subject[number]
                ):
                    found.add(Digest(name))
    return found


_Permit = tuple[int, datetime, datetime | None]
"""When a permit was learnt (its number), from when it holds, and its own end."""


def _permits(events: Iterable[decisions.KnownEvent]) -> list[_Permit]:
    said = [(one.seq, one.event) for one in events if one.event.decision is Decision.PERMIT]
    return [(seq, event.valid_from, ends(event)) for seq, event in said]


def _permitted(permits: Iterable[_Permit], row: SnapshotRow) -> bool:
    """Whether a snapshot may have held their subject at all; without such a permit the rule admits nobody."""
    seq, at = row.consent_seq, row.at
    return any(known <= seq and begin <= at and (end is None or end >= at) for known, begin, end in permits)


def _records_of(session: Session, numbers: Sequence[int]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in session.scalars(select(Record).where(Record.subject_no.in_(numbers))):
        found.setdefault(record.subject_no, []).append(record)
    return found


def _left(
    row: SnapshotRow,
    events: Sequence[decisions.KnownEvent],
    records: Iterable[Record],
    rule: RetentionRule,
    only: str | None,
    wrongly: bool,
    purposes: Collection[Purpose],
) -> bool:
    if only not in (None, row.dataset) or Purpose(row.purpose) not in purposes:
        return False
    held = any(
        record.dataset == row.dataset
        and record.added_seq <= row.member_seq
        and (record.removed_seq is None or record.removed_seq > row.member_seq)
        and not rule.over(record.collected_at, row.at)
        for record in records
    )
    return held and _admitted(events, row, row.consent_seq) and not (wrongly and _admitted(events, row, None))


def _admitted(events: Iterable[decisions.KnownEvent], row: SnapshotRow, known: int | None) -> bool:
    learnt = uncorrected((one.seq, one.event) for one in events if known is None or one.seq <= known)
    verdict = resolve(learnt, Purpose(row.purpose), row.dataset, row.at, snapshots.use_of(row)).verdict
    return verdict is Verdict.ADMITTED
