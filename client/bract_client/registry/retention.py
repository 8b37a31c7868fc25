"""Retention at a site: records over their time are out of every use at once, and erased when nothing forbids it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.consent import Purpose
from bract.digest import Digest
from bract.disposal import due
from bract.disposal.book import Pen
from bract.disposal.due import Found, Rules
from bract.disposal.verbs import Context, Retention
from bract.errors import CONCURRENT, UNKNOWN_SUBJECT, BractError
from bract.retention import Blocker, Kept, ObjectKind, Obstacle, RetentionPolicy
from bract.signing import parse_envelope, sign
from bract.update import Contribution
from bract.value import decode
from bract_client.registry import members, retention_records
from bract_client.registry.data import DataVerbs
from bract_client.registry.members import IngestReport
from bract_client.registry.models import (
    LOG,
    RETENTION,
    ContributionRow,
    ReceiptRow,
    Record,
    ReservationRow,
    SnapshotRow,
)
from bract_client.registry.retention_records import ERASED_ID, Erased
from bract_client.registry.rounds import RoundVerbs
from bract_client.registry.snapshots import AdmissionReport, Member, Snapshot

_IN_ROUNDS = frozenset({ObjectKind.ARRAYS, ObjectKind.UPDATE, ObjectKind.SCRATCH})


class RetentionVerbs(Retention, DataVerbs, RoundVerbs):
    """Policies, holds and disposal at a site. Records are known by their numbers."""

    retention = RETENTION
    retention_log = LOG

    @contextmanager
    def retention_pen(self, at: datetime) -> Iterator[Pen]:
        """See `Retention.retention_pen`."""
        with self._write() as session:
            yield Pen(
                session,
                RETENTION,
                at,
                lambda kind, about, body: self._log(session, kind, about, dict(body), at),
                lambda value: sign(value, self._keys.signing),
            )

    @contextmanager
    def retention_view(self) -> Iterator[Session]:
        """See `Retention.retention_view`."""
        with self._read() as session:
            yield session

    @property
    def holder(self) -> str:
        """See `Retention.holder`."""
        return self._keys.site

    def shorthand(self, session: Session) -> Iterable[tuple[str, RetentionPolicy]]:
        """A data set's own ceiling in days, as a policy on its records."""
        return _shorthand(session)

    def found(self, session: Session, standing: Rules, by: datetime | None) -> Iterator[Found]:
        """See `Retention.found`: files, and records."""
        yield from super().found(session, standing, by)
        yield from retention_records.records(session, standing, by)

    def leaves(self, session: Session, kind: ObjectKind, scope: str, also: Sequence[str]) -> dict[str, bytes]:
        """See `Retention.leaves`: a record's leaf is its keyed digest."""
        if kind is ObjectKind.RECORD:
            return retention_records.digests(session, scope, also)
        return super().leaves(session, kind, scope, also)

    def context(self, session: Session, at: datetime) -> Callable[[Kept], Context]:
        """A running round needs what lies in the outbox; an update is needed until the hub gave a receipt for it."""
        rounds = tuple(one for found in retention_records.running(session, at).values() for one in found)
        waiting = _without_receipt(session, at)

        def of(kept: Kept) -> Context:
            busy = rounds if kept.kind in _IN_ROUNDS else ()
            if kept.kind is ObjectKind.UPDATE and kept.object in waiting:
                busy = (*busy, waiting[kept.object])
            return Context({}, busy)

        return of

    # --- use ends with the ceiling, whatever keeps a record from being deleted

    def exclude_over(self, at: datetime, dataset: str | None = None) -> int:
        """Closes every record that is over its time under a bound policy to every use; returns how many were open.

        The withdrawal by the clock: a hold or a conflict keeps the record, and not its use. A data set's own days need
        no closing, as admission refuses those records by their time.
        """
        with self._read() as session:
            if not _open(session, _over(session, at, dataset)):
                return 0
        with self._write() as session:
            closed = retention_records.exclude(session, sorted(_over(session, at, dataset)))
            for name, count in sorted(closed.items()):
                self._log(session, "retention.exclude", name, {"records": count}, at)
            return sum(closed.values())

    def freeze(self, dataset: str, purpose: Purpose, at: datetime) -> Snapshot:
        """See `DataVerbs.freeze`: of records whose time is not over."""
        self.exclude_over(at, dataset)
        return super().freeze(dataset, purpose, at)

    def admission(self, dataset: str, purpose: Purpose, at: datetime) -> AdmissionReport:
        """See `DataVerbs.admission`: records over their time under a bound policy are out first, and not counted."""
        self.exclude_over(at, dataset)
        return super().admission(dataset, purpose, at)

    def ingest(self, dataset: str, at: datetime, progress: Callable[[int], None] | None = None) -> IngestReport:
        """See `DataVerbs.ingest`: what is over its time is taken and closed at once."""
        report = super().ingest(dataset, at, progress)
        self.exclude_over(at, dataset)
        return report

    def usable(self, snapshot: Digest, at: datetime) -> tuple[Member, ...]:
        """See `RoundVerbs.usable`: without records that came to be over their time since the snapshot."""
        usable = super().usable(snapshot, at)
        with self._read() as session:
            name = session.scalar(select(SnapshotRow.dataset).where(SnapshotRow.root == snapshot))
            over = _over(session, at, name)
        return tuple(one for one in usable if one.record_no not in over) if over else usable

    # --- the job's steps

    def record_names(self, dataset: str, numbers: Sequence[int]) -> frozenset[str]:
        """See `retention_records.names`."""
        with self._read() as session:
            return retention_records.names(session, dataset, numbers)

    def erase_records(self, dataset: str, numbers: Sequence[int], at: datetime) -> Erased:
        """See `retention_records.erase`."""
        with self._write() as session:
            pending = retention_records.left(session, numbers)
            erased = retention_records.erase(session, numbers)
            if pending:
                body = {"records": len(pending), "handles": erased.handles}
                self._log(session, "record.erase", dataset, body, at)
            return erased

    def records_left(self, numbers: Iterable[int]) -> frozenset[int]:
        """Those of the records that are not erased."""
        with self._read() as session:
            return frozenset(retention_records.left(session, numbers))

    def settle_disk(self) -> frozenset[str]:
        """Brings what was erased out of SQLite's write-ahead log too; what remains on disk nevertheless.

        Raises:
            BractError: `concurrent` while another process reads an older state.
        """
        if self._engine.dialect.name != "sqlite":
            return frozenset({"row-versions"})
        raw = self._engine.raw_connection()
        try:
            # SQLite overwrites deleted content itself (`secure_delete`); its log has it until it is written back
            busy, _, _ = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            raw.close()
        if busy:
            raise BractError(CONCURRENT, "the database's log is being read")
        return frozenset({"old-blocks"})

    def subject_numbers(self, subject_ids: Sequence[str]) -> tuple[int, ...]:
        """The numbers of subjects, for a hold.

        Raises:
            BractError: `unknown-subject`.
        """
        with self._read() as session:
            numbers = [members.subject_no(session, self._keys, one) for one in subject_ids]
        known = [number for number in numbers if number is not None]
        if len(known) != len(numbers):
            raise BractError(UNKNOWN_SUBJECT)
        return tuple(known)

    def disposed_records(self, subject_id: str) -> tuple[int, ...]:
        """The numbers of a subject's records that were erased.

        Raises:
            BractError: `unknown-subject`; also when nothing else of the subject was left, so that it has no handle.
        """
        with self._read() as session:
            number = members.subject_no(session, self._keys, subject_id)
            if number is None:
                raise BractError(UNKNOWN_SUBJECT)
            erased = select(Record.record_no).where(Record.subject_no == number, Record.record_id == ERASED_ID)
            return tuple(session.scalars(erased.order_by(Record.record_no)))


def _shorthand(session: Session) -> Iterator[tuple[str, RetentionPolicy]]:
    for about in members.datasets(session):
        policy = about.retention.policy(about.name)
        if policy is not None:
            yield about.name, policy


def _over(session: Session, at: datetime, dataset: str | None) -> set[int]:
    """Numbers of the records whose time for use is over under a bound policy, closed or not."""
    standing = due.rules(session, RETENTION, at)
    over: set[int] = set()
    for one in retention_records.records(session, standing, at, dataset):
        answer = standing.judge(one)
        if answer is not None and answer.over:
            over.add(int(one.kept.object))
    return over


def _open(session: Session, numbers: set[int]) -> bool:
    return bool(numbers) and not retention_records.closed(session, numbers)


def _without_receipt(session: Session, at: datetime) -> dict[str, Blocker]:
    """Updates, by file name, that the hub may still ask for: their round is open, and no receipt has come."""
    rows = session.execute(
        select(ContributionRow.envelope, ReservationRow.expires_at)
        .join(
            ReservationRow,
            (ReservationRow.campaign == ContributionRow.campaign) & (ReservationRow.number == ContributionRow.number),
        )
        .outerjoin(ReceiptRow, ReceiptRow.contribution == ContributionRow.name)
        .where(ReceiptRow.number.is_(None), ReservationRow.expires_at > at)
    )
    found: dict[str, Blocker] = {}
    for envelope, expires_at in rows:
        plan = decode(Contribution, parse_envelope(envelope).payload).plan
        found[f"{plan}.update"] = Blocker(Obstacle.RECEIPT, plan, expires_at)
    return found
