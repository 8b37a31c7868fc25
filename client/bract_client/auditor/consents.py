"""Questions 1, 2 and 7 at a site: whose data were in which snapshot, by what was believed then and what is known now."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, or_, select
from sqlalchemy.orm import Session

from bract.consent import Purpose, UseContext, Verdict
from bract.digest import Digest
from bract.question import Draft, Moment, stamp
from bract.value import decode
from bract_client.auditor.sight import Arguments, ClearedRound, SiteSight
from bract_client.registry import leavers
from bract_client.registry.members import dataset
from bract_client.registry.models import Record, SnapshotRow
from bract_client.registry.resolving import known_at, verdicts

_HERE = "Counts and numbers of persons are for the steward's eyes: they stay at the site."


@dataclass(frozen=True)
class Changed:
    """Persons of one round with one verdict then, one in hindsight and one at the asked time."""

    then: Verdict
    hindsight: Verdict
    asked: Verdict
    subjects: int
    records: int

    @property
    def corrected(self) -> bool:
        """Admitted then, and with what is known now they should not have been."""
        return self.then is Verdict.ADMITTED and self.hindsight is not Verdict.ADMITTED

    @property
    def ended(self) -> bool:
        """Admitted then and rightly so, and not any more at the asked time."""
        admitted = self.then is Verdict.ADMITTED and self.hindsight is Verdict.ADMITTED
        return admitted and self.asked is not Verdict.ADMITTED


def person_in_snapshots(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 1. Takes `person`."""
    with sight.seeing() as session:
        number = sight.person(session, arguments.person)
        held = leavers.holding(session, number, tuple(Purpose), None)
        rounds: dict[str, list[str]] = {}
        for one in sight.cleared_rounds(session, Arguments(), when.known):
            rounds.setdefault(one.snapshot.root, []).append(f"round {one.number} of {one.campaign}")
        mine = (SnapshotRow.root.in_(held), SnapshotRow.at <= when.known)
        wanted = select(SnapshotRow).where(*mine).order_by(SnapshotRow.at, SnapshotRow.root)
        rows = tuple(
            {
                "snapshot": row.root,
                "dataset": row.dataset,
                "purpose": row.purpose,
                "frozen_at": stamp(row.at),
                "rounds": rounds.get(row.root, []),
                "entry": ("snapshot.freeze", row.root),
            }
            for row in session.scalars(wanted)
        )
    notes = ["The hub lists the models: give it the signed answer (`--out FILE`), `bract audit ask 1 --answer FILE`."]
    if not rows:
        notes.append("No snapshot held a record of this person.")
    return Draft(("snapshot", "dataset", "purpose", "frozen_at", "rounds", "entry"), rows, tuple(notes))


def consents_of_rounds(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 2. Takes `campaign` and `number`, and `listed`."""
    columns: tuple[str, ...] = (
        "campaign",
        "round",
        "dataset",
        "purpose",
        "believed_then",
        "known_now",
        "differs",
        "subjects",
        "records",
    )
    rows: list[dict[str, Any]] = []
    with sight.seeing() as session:
        seq = known_at(session, when.known)
        for one in sight.cleared_rounds(session, arguments, when.known):
            rows += _listed(session, one, seq) if arguments.listed else _counted(session, one, seq, when)
    if arguments.listed:
        columns = ("campaign", "round", "subject_no", "believed_then", "known_now")
    notes = ["Both are about the moment when the round's snapshot was frozen.", _HERE]
    notes.append(
        "Rounds differ where rows say so." if any(r.get("differs", True) for r in rows) else "No round differs."
    )
    if not rows:
        notes = ["No round was cleared by then, or nothing in it differs.", _HERE]
    return Draft((*columns, "entry"), tuple(rows), tuple(notes))


def _counted(session: Session, one: ClearedRound, seq: int, when: Moment) -> list[dict[str, Any]]:
    about = {"campaign": one.campaign, "round": one.number, "dataset": one.snapshot.dataset}
    about |= {"purpose": one.snapshot.purpose, "entry": ("clearance.issue", one.clearance)}
    counts: dict[tuple[Verdict, Verdict], tuple[int, int]] = {}
    for found in changed(session, one.snapshot, seq, when):
        subjects, records = counts.get((found.then, found.hindsight), (0, 0))
        counts[found.then, found.hindsight] = subjects + found.subjects, records + found.records
    return [
        about
        | {"believed_then": str(then), "known_now": str(now), "differs": then is not now}
        | {"subjects": subjects, "records": records}
        for (then, now), (subjects, records) in sorted(counts.items())
    ]


def _listed(session: Session, one: ClearedRound, seq: int) -> Iterator[dict[str, Any]]:
    judged = _judged(session, one.snapshot, seq, one.snapshot.at)
    then, now, _ = judged.verdicts
    wanted = judged.statement.add_columns(Record.subject_no).where(then != now).distinct().order_by(Record.subject_no)
    for believed, known, _same, number in session.execute(wanted):
        about = {"campaign": one.campaign, "round": one.number, "subject_no": number}
        yield about | {"believed_then": believed, "known_now": known, "entry": ("clearance.issue", one.clearance)}


def unlawful_now(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 7. Takes `campaign` and `number`."""
    columns = ("campaign", "round", "dataset", "trained", "what", "verdict", "subjects", "records", "snapshot", "entry")
    rows: list[dict[str, Any]] = []
    with sight.seeing() as session:
        seq = known_at(session, when.known)
        for one in sight.cleared_rounds(session, arguments, when.known):
            about = {"campaign": one.campaign, "round": one.number, "dataset": one.snapshot.dataset}
            about |= {"trained": one.begun_at is not None, "snapshot": one.snapshot.root}
            about["entry"] = ("clearance.issue", one.clearance)
            for found in changed(session, one.snapshot, seq, when):
                if found.corrected:
                    what = {"what": "corrected: should not have been in", "verdict": str(found.hindsight)}
                elif found.ended:
                    what = {"what": "lawful then, ended since", "verdict": str(found.asked)}
                else:
                    continue
                rows.append(about | what | {"subjects": found.subjects, "records": found.records})
    notes = ["A round whose `trained` is false was cleared and reserved but never begun.", _HERE]
    if not rows:
        notes = ["No cleared round held data whose consent is not in force at the asked time.", _HERE]
    return Draft(columns, tuple(rows), tuple(notes))


def differing_snapshots(sight: SiteSight, when: Moment, arguments: Arguments, number: int) -> tuple[Digest, ...]:
    """The snapshots that question 1, 2 or 7 is about, for the hub: their names, and nothing of whom or how many."""
    with sight.seeing() as session:
        if number == 1:
            held = leavers.holding(session, sight.person(session, arguments.person), tuple(Purpose), None)
            roots = session.scalars(
                select(SnapshotRow.root).where(SnapshotRow.root.in_(held), SnapshotRow.at <= when.known)
            )
            return tuple(sorted(map(Digest, roots)))
        seq = known_at(session, when.known)
        found = set[Digest]()
        for one in sight.cleared_rounds(session, arguments, when.known):
            for part in changed(session, one.snapshot, seq, when):
                if part.then is not part.hindsight if number == 2 else part.corrected or part.ended:
                    found.add(Digest(one.snapshot.root))
        return tuple(sorted(found))


def changed(session: Session, row: SnapshotRow, seq: int, when: Moment) -> list[Changed]:
    """The records that a snapshot's data set had, by their verdicts: then, in hindsight (events to `seq`), and as asked."""
    judged = _judged(session, row, seq, when.valid)
    wanted = judged.statement.add_columns(func.count(Record.subject_no.distinct()), func.count())
    return [
        Changed(Verdict(then), Verdict(hindsight), Verdict(asked), subjects, records)
        for then, hindsight, asked, subjects, records in session.execute(wanted.group_by(*judged.verdicts))
    ]


@dataclass(frozen=True)
class _Judged:
    """A statement over records that selects three verdicts: then, in hindsight, as asked."""

    statement: Select[Any]
    verdicts: tuple[ColumnElement[str], ...]


def _judged(session: Session, row: SnapshotRow, seq: int, valid: datetime) -> _Judged:
    about = dataset(session, row.dataset)
    use = UseContext() if row.use is None else decode(UseContext, row.use)
    columns: list[ColumnElement[str]] = []
    statement: Select[Any] = select()
    for name, at, known in (("believed", row.at, row.consent_seq), ("hindsight", row.at, seq), ("asked", valid, seq)):
        found = verdicts(session, Purpose(row.purpose), row.dataset, at, use, consent_seq=known).alias(name)
        verdict: ColumnElement[str] = func.coalesce(found.c.verdict, Verdict.NO_CONSENT.value)
        end = None if about.retention.ceiling_days is None else at - timedelta(days=about.retention.ceiling_days)
        if end is not None:
            over = (verdict == Verdict.ADMITTED.value) & (Record.collected_at <= end)
            verdict = case((over, literal(Verdict.RETENTION.value)), else_=verdict)
        # A bound value is another one each time that it is named, which PostgreSQL refuses to group by.
        columns.append(verdict.label(f"{name}_verdict"))
        statement = statement.outerjoin_from(Record, found, found.c.subject_no == Record.subject_no)
    there = (
        Record.dataset == row.dataset,
        Record.added_seq <= row.member_seq,
        or_(Record.removed_seq.is_(None), Record.removed_seq > row.member_seq),
    )
    return _Judged(statement.add_columns(*columns).where(*there), tuple(columns))
