"""Who is admitted, and the frozen answer: a Merkle root over the admitted records that tells nobody who they are."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, insert, literal, or_, select
from sqlalchemy.orm import Session

from bract.consent import Purpose, Verdict, resolve
from bract.digest import Digest, canonical
from bract.errors import NO_ADMITTED, STALE_CLEARANCE, BractError
from bract.log.checkpoint import root_digest
from bract.log.merkle import leaf_hash, prove_inclusion, root
from bract.retention import RetentionRule
from bract_client.handles import snapshot_salt
from bract_client.registry import decisions
from bract_client.registry.keys import SiteKeys
from bract_client.registry.members import DatasetInfo, dataset
from bract_client.registry.models import Quarantine, Record, SnapshotRow


@dataclass(frozen=True)
class AdmissionReport:
    """Who may be used now; site-local. `refused` counts records, or unreadable lines, by verdict."""

    admitted_subjects: int
    admitted_records: int
    refused: dict[Verdict, int]


@dataclass(frozen=True)
class Snapshot:
    """The admitted records of one moment. `until` is when the first of them may no longer be used (None: no end).

    Counts stay at the site.
    """

    root: Digest
    dataset: str
    purpose: Purpose
    at: datetime
    until: datetime | None
    subjects: int
    records: int


@dataclass(frozen=True)
class Membership:
    """Proof that a record's leaf is in a snapshot (`bract.log.merkle.verify_inclusion`)."""

    leaf: bytes
    index: int
    size: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Member:
    """A record that may be used: where to load it, and what it must still be."""

    record_no: int
    subject_no: int
    record_id: str
    record_digest: bytes


def _records(
    session: Session, about: DatasetInfo, purpose: Purpose, at: datetime, consent_seq: int | None = None
) -> Select[Any]:
    """Every record that the data set had at `about.member_seq`, with its verdict by what was known at `consent_seq`."""
    resolved = decisions.verdicts(session, purpose, about.name, at, consent_seq)
    verdict: ColumnElement[str] = func.coalesce(resolved.c.verdict, Verdict.NO_CONSENT.value)
    days = about.retention.ceiling_days
    if days is not None:
        over = Record.collected_at <= at - timedelta(days=days)
        verdict = case(((verdict == Verdict.ADMITTED.value) & over, literal(Verdict.RETENTION.value)), else_=verdict)
    return (
        select(
            Record.record_no,
            Record.subject_no,
            Record.record_id,
            Record.record_digest,
            Record.collected_at,
            verdict.label("verdict"),
            resolved.c.until,
        )
        .outerjoin(resolved, resolved.c.subject_no == Record.subject_no)
        .where(
            Record.dataset == about.name,
            Record.added_seq <= about.member_seq,
            or_(Record.removed_seq.is_(None), Record.removed_seq > about.member_seq),
        )
    )


def admission(session: Session, name: str, purpose: Purpose, at: datetime) -> AdmissionReport:
    """Counts of who may be used now, and of the others by reason."""
    about = dataset(session, name)
    rows = _records(session, about, purpose, at).subquery()
    people = func.count(rows.c.subject_no.distinct())
    counted = select(rows.c.verdict, func.count(), people).group_by(rows.c.verdict)
    found = {Verdict(row[0]): (row[1], row[2]) for row in session.execute(counted)}
    records, persons = found.pop(Verdict.ADMITTED, (0, 0))
    refused = {verdict: count for verdict, (count, _) in found.items()}
    lines = session.scalar(select(func.count()).where(Quarantine.dataset == name)) or 0
    if lines:
        refused[Verdict.UNREADABLE] = lines
    return AdmissionReport(persons, records, refused)


def freeze(session: Session, keys: SiteKeys, name: str, purpose: Purpose, at: datetime) -> tuple[Snapshot, bool]:
    """The snapshot of now, and whether it is new: the same question at the same state gives the same snapshot."""
    about = dataset(session, name)
    consent_seq = decisions.newest(session)
    rows = _records(session, about, purpose, at).subquery()
    admitted = select(rows).where(rows.c.verdict == Verdict.ADMITTED.value)
    salt = snapshot_salt(keys.subject, _about(name, purpose, at, consent_seq, about.member_seq))
    people: set[int] = set()
    ends: set[datetime | None] = {decisions.next_change(session, purpose, name, at)}
    leaves: list[bytes] = []
    for row in session.execute(admitted):
        people.add(row.subject_no)
        ends.add(row.until)
        ends.add(about.retention.ends(row.collected_at))
        leaves.append(_leaf(salt, row.record_digest))
    until = min((end for end in ends if end is not None), default=None)
    top = root_digest(root([leaf_hash(leaf) for leaf in sorted(leaves)]))
    snapshot = Snapshot(top, name, purpose, at, until, len(people), len(leaves))
    if session.get(SnapshotRow, top) is not None:
        return snapshot, False
    values = {
        "root": top,
        "dataset": name,
        "purpose": purpose.value,
        "at": at,
        "until": until,
        "consent_seq": consent_seq,
        "member_seq": about.member_seq,
        "n_subjects": snapshot.subjects,
        "n_records": snapshot.records,
    }
    session.execute(insert(SnapshotRow), values)
    return snapshot, True


def expiry(snapshot: Snapshot, at: datetime, ttl: timedelta, min_subjects: int) -> datetime:
    """Until when a clearance over the snapshot stands: a function of the clock and the policy alone.

    An end of somebody's consent must not be read off it. Whoever's consent ends meanwhile is left out at admission.

    Raises:
        BractError: `too-few-subjects` below the floor; `stale-clearance` when the snapshot's own time is over.
    """
    if snapshot.subjects < min_subjects:
        raise BractError(NO_ADMITTED, f"the floor is {min_subjects}")
    if snapshot.until is not None and snapshot.until <= at:
        raise BractError(STALE_CLEARANCE, "the snapshot's time is over")
    return at + ttl


def usable(session: Session, snapshot: Digest, at: datetime) -> tuple[Member, ...]:
    """The records of a snapshot that may still be used now: still there, still permitted, not over their time.

    In the order of their subjects.

    Raises:
        BractError: `stale-clearance` when there is no such snapshot.
    """
    row = _row(session, snapshot)
    about = dataset(session, row.dataset)
    now = _records(session, about, Purpose(row.purpose), at).subquery()
    members = _members(session, row, about).subquery()
    statement = select(now.c.record_no, now.c.subject_no, now.c.record_id, now.c.record_digest).where(
        now.c.verdict == Verdict.ADMITTED.value, now.c.record_no.in_(select(members.c.record_no))
    )
    ordered = statement.order_by(now.c.subject_no, now.c.record_no)
    return tuple(Member(*found) for found in session.execute(ordered))


def prove(session: Session, keys: SiteKeys, snapshot: Digest, record_id: str) -> Membership | None:
    """The proof that a record is in a snapshot, None if it is not."""
    row = _row(session, snapshot)
    members = _members(session, row, dataset(session, row.dataset)).subquery()
    salt = snapshot_salt(
        keys.subject, _about(row.dataset, Purpose(row.purpose), row.at, row.consent_seq, row.member_seq)
    )
    leaves: list[bytes] = []
    mine: bytes | None = None
    for found in session.execute(select(members.c.record_id, members.c.record_digest)):
        leaves.append(_leaf(salt, found.record_digest))
        if found.record_id == record_id:
            mine = leaves[-1]
    if mine is None:
        return None
    leaves.sort()
    place = leaves.index(mine)
    return Membership(mine, place, len(leaves), prove_inclusion(place, [leaf_hash(leaf) for leaf in leaves]))


def holding(session: Session, subject_no: int, purposes: Iterable[Purpose], only: str | None) -> set[Digest]:
    """The snapshots that ever held a record of this subject, for these purposes (and one data set, if given)."""
    events = decisions.history(session, subject_no)
    statement = (
        select(SnapshotRow, Record.collected_at)
        .join(Record, Record.dataset == SnapshotRow.dataset)
        .where(
            Record.subject_no == subject_no,
            Record.added_seq <= SnapshotRow.member_seq,
            or_(Record.removed_seq.is_(None), Record.removed_seq > SnapshotRow.member_seq),
            SnapshotRow.purpose.in_([purpose.value for purpose in purposes]),
        )
    )
    if only is not None:
        statement = statement.where(SnapshotRow.dataset == only)
    found: set[Digest] = set()
    rules: dict[str, RetentionRule] = {}
    for row, collected_at in session.execute(statement):
        if row.dataset not in rules:
            rules[row.dataset] = dataset(session, row.dataset).retention
        known = [one.event for one in events if one.seq <= row.consent_seq]
        verdict = resolve(known, Purpose(row.purpose), row.dataset, row.at).verdict
        if verdict is Verdict.ADMITTED and not rules[row.dataset].over(collected_at, row.at):
            found.add(Digest(row.root))
    return found


def _row(session: Session, snapshot: Digest) -> SnapshotRow:
    row = session.get(SnapshotRow, snapshot)
    if row is None:
        raise BractError(STALE_CLEARANCE, "the site has no such snapshot")
    return row


def _members(session: Session, row: SnapshotRow, about: DatasetInfo) -> Select[Any]:
    """The records that were admitted when the snapshot was taken, from what was known then."""
    then = replace(about, member_seq=row.member_seq)
    rows = _records(session, then, Purpose(row.purpose), row.at, row.consent_seq).subquery()
    return select(rows).where(rows.c.verdict == Verdict.ADMITTED.value)


def _about(name: str, purpose: Purpose, at: datetime, consent_seq: int, member_seq: int) -> bytes:
    return canonical([name, purpose.value, at.timestamp(), consent_seq, member_seq])


def _leaf(salt: bytes, record_digest: bytes) -> bytes:
    return sha256(salt + record_digest).digest()
