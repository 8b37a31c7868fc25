"""Who is admitted, and the frozen answer: a Merkle root over the admitted records that tells nobody who they are."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import func, insert, null, select
from sqlalchemy.orm import Session

from bract.consent import Purpose, Verdict
from bract.digest import Digest, canonical
from bract.errors import NO_ADMITTED, STALE_CLEARANCE, BractError
from bract.log.checkpoint import root_digest
from bract.log.merkle import root
from bract.value import decode, plain
from bract.vocabulary.modifiers import UseContext
from bract_client.handles import snapshot_salt
from bract_client.registry import decisions, judged
from bract_client.registry.keys import SiteKeys
from bract_client.registry.members import dataset
from bract_client.registry.models import Quarantine, Record, SnapshotRow
from bract_client.registry.resolving import Judgement, judge, many, next_change

_LEAF = b"\x00"  # RFC 9162 §2.1.1, without a call for each of a million


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


@dataclass(frozen=True, slots=True)
class Member:
    """A record that may be used: where to load it, and what it must still be."""

    record_no: int
    subject_no: int
    record_id: str
    record_digest: bytes


def admission(session: Session, name: str, purpose: Purpose, at: datetime, use: UseContext) -> AdmissionReport:
    """Counts of who may be used now, and of the others by reason."""
    about = dataset(session, name)
    rows = judged.records(session, about, purpose, at, use)
    people = func.count(Record.subject_no.distinct())
    counted = rows.statement.add_columns(rows.verdict, func.count(), people).group_by(rows.verdict)
    with many(session):
        found = {Verdict(row[0]): (row[1], row[2]) for row in session.execute(counted)}
    records, persons = found.pop(Verdict.ADMITTED, (0, 0))
    refused = {verdict: count for verdict, (count, _) in found.items()}
    lines = session.scalar(select(func.count()).where(Quarantine.dataset == name)) or 0
    if lines:
        refused[Verdict.UNREADABLE] = lines
    return AdmissionReport(persons, records, refused)


def freeze(
    session: Session, keys: SiteKeys, name: str, purpose: Purpose, at: datetime, use: UseContext
) -> tuple[Snapshot, bool]:
    """The snapshot of now, and whether it is new: the same question at the same state gives the same snapshot."""
    about = dataset(session, name)
    consent_seq = decisions.newest(session)
    admitted = judged.records(session, about, purpose, at, use)
    oldest = Record.collected_at if about.retention.ceiling_days is not None else null()
    people: set[int] = set()
    untils: set[Any] = set()
    collected: set[Any] = set()
    digests: list[bytes] = []
    for number, until, taken, digest in judged.raw(
        session, admitted.admitted.add_columns(Record.subject_no, admitted.until, oldest, Record.record_digest)
    ):
        people.add(number)
        untils.add(until)
        collected.add(taken)
        digests.append(digest)
    salt = snapshot_salt(keys.subject, _about(name, purpose, at, use, consent_seq, about.member_seq))
    top = root_digest(root([sha256(_LEAF + leaf).digest() for leaf in leaves(salt, digests)]))
    ends = [next_change(session, purpose, name, at), judged.first(untils)]
    if (first_taken := judged.first(collected)) is not None:
        ends.append(about.retention.ends(first_taken))
    over = min((end for end in ends if end is not None), default=None)
    subjects, records = len(people), len(digests)
    snapshot = Snapshot(top, name, purpose, at, over, subjects, records)
    if session.get(SnapshotRow, top) is not None:
        return snapshot, False
    values = {
        "root": top,
        "dataset": name,
        "purpose": purpose.value,
        "at": at,
        "until": over,
        "consent_seq": consent_seq,
        "member_seq": about.member_seq,
        "n_subjects": subjects,
        "n_records": records,
        "use": plain(use),
    }
    session.execute(insert(SnapshotRow), values)
    return snapshot, True


def leaves(salt: bytes, digests: Iterable[bytes]) -> list[bytes]:
    """The leaves of a snapshot, in their order."""
    begun = sha256(salt)
    found: list[bytes] = []
    for record_digest in digests:
        hasher = begun.copy()
        hasher.update(record_digest)
        found.append(hasher.digest())
    found.sort()
    return found


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


def usable(session: Session, snapshot: Digest, at: datetime, use: UseContext) -> tuple[Member, ...]:
    """The records of a snapshot that may still be used now: still there, still permitted, not over their time.

    In the order of their subjects.

    Raises:
        BractError: `stale-clearance` when there is no such snapshot.
    """
    row = row_of(session, snapshot)
    about = dataset(session, row.dataset)
    now = judged.records(session, about, Purpose(row.purpose), at, use)
    then = judged_then(session, row)
    statement = then.join(now.admitted).where(
        *judged.there(about.name, row.member_seq), then.verdict == Verdict.ADMITTED.value
    )
    ordered = statement.add_columns(
        Record.record_no, Record.subject_no, Record.record_id, Record.record_digest
    ).order_by(Record.subject_no, Record.record_no)
    return tuple(Member(*found) for found in judged.raw(session, ordered))


def judged_then(session: Session, row: SnapshotRow) -> Judgement:
    """The verdicts by which a snapshot was taken."""
    return judge(
        session,
        Record.subject_no,
        Purpose(row.purpose),
        row.dataset,
        row.at,
        use_of(row),
        consent_seq=row.consent_seq,
        name="then",
    )


def row_of(session: Session, snapshot: Digest) -> SnapshotRow:
    """The snapshot's row.

    Raises:
        BractError: `stale-clearance` when there is no such snapshot.
    """
    row = session.get(SnapshotRow, snapshot)
    if row is None:
        raise BractError(STALE_CLEARANCE, "the site has no such snapshot")
    return row


def then(session: Session, row: SnapshotRow, *columns: Any) -> Iterator[Sequence[Any]]:
    """Of every record that the data set had when the snapshot was taken, these columns and its verdict then."""
    before = replace(dataset(session, row.dataset), member_seq=row.member_seq)
    found = judged.records(session, before, Purpose(row.purpose), row.at, use_of(row), row.consent_seq)
    return judged.raw(session, found.statement.add_columns(*columns, found.verdict))


def salt_of(keys: SiteKeys, row: SnapshotRow) -> bytes:
    """The secret salt of a snapshot's leaves."""
    about = _about(row.dataset, Purpose(row.purpose), row.at, use_of(row), row.consent_seq, row.member_seq)
    return snapshot_salt(keys.subject, about)


def use_of(row: SnapshotRow) -> UseContext:
    """What was known of the use when the snapshot was taken."""
    return UseContext() if row.use is None else decode(UseContext, row.use)


def _about(name: str, purpose: Purpose, at: datetime, use: UseContext, consent_seq: int, member_seq: int) -> bytes:
    known = [] if use == UseContext() else [plain(use)]
    return canonical([name, purpose.value, at.timestamp(), consent_seq, member_seq, *known])
