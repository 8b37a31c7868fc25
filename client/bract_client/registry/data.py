"""The verbs about data sets: declare one, take its records in, see what could not be taken."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import insert

from bract.consent import Purpose
from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, MALFORMED, UNKNOWN_SUBJECT, BractError
from bract.membership import Membership, SubjectMembership
from bract.retention import RetentionRule
from bract.value import decode, digest_value, plain
from bract_client.registry import decisions, ledger, members, proofs, snapshots
from bract_client.registry.desk import Desk
from bract_client.registry.members import DatasetInfo, IngestReport
from bract_client.registry.models import Dataset
from bract_client.registry.snapshots import AdmissionReport, Snapshot
from bract_client.sources.location import AnyLocation, open_source
from bract_client.sources.record import Reason

_LONGEST_DAYS = 36_500


class DataVerbs(Desk):
    """Data sets, their records and their snapshots."""

    def add_dataset(
        self,
        name: str,
        location: AnyLocation,
        *,
        retention: RetentionRule,
        subjects_floor: int,
        epsilon_cap: float,
        delta: float,
        at: datetime,
    ) -> None:
        """Declares a data set with its privacy account; nothing is read yet.

        Raises:
            BractError: `already-exists`; `malformed` for a name, floor, cap, δ or retention out of range.
        """
        if not (epsilon_cap > 0 and 0 < delta < 1 and subjects_floor >= 1):
            raise BractError(MALFORMED, "a data set needs a floor of 1 or more, a cap above 0 and 0 < delta < 1")
        if not 0 <= (retention.ceiling_days or 0) <= _LONGEST_DAYS:
            raise BractError(MALFORMED, f"retention: 0 to {_LONGEST_DAYS} days, or no end")
        info = {
            "name": name,
            "location": plain(location),
            "retention": plain(retention),
            "subjects_floor": subjects_floor,
            "member_seq": 0,
        }
        decode(DatasetInfo, info)
        with self._write() as session:
            if session.get(Dataset, name) is not None:
                raise BractError(ALREADY_EXISTS, name)
            if any(_same_files(known.location.path, location.path) for known in members.datasets(session)):
                # the same people under a second name, or read in another shape, would have a second budget
                raise BractError(ALREADY_EXISTS, "another data set has these files")
            values = {
                "name": name,
                "location": info["location"],
                "retention_days": retention.ceiling_days,
                "subjects_floor": subjects_floor,
                "member_seq": 0,
                "created_at": at,
            }
            session.execute(insert(Dataset), values)
            ledger.open_account(session, name, epsilon_cap, delta)
            self._log(session, "dataset.add", name, {**info, "cap": epsilon_cap, "delta": delta}, at)

    def datasets(self) -> tuple[DatasetInfo, ...]:
        """All data sets, by name."""
        with self._read() as session:
            return members.datasets(session)

    def dataset(self, name: str) -> DatasetInfo:
        """One data set.

        Raises:
            BractError: `unknown-dataset`.
        """
        with self._read() as session:
            return members.dataset(session, name)

    def ingest(self, dataset: str, at: datetime, progress: Callable[[int], None] | None = None) -> IngestReport:
        """Brings the registry up to the source: the same source again changes nothing.

        The source is read before the transaction begins, so that nobody waits for slow files. `progress` hears how many
        lines were read.

        Raises:
            BractError: `unknown-dataset`; `bad-record` when the source as a whole cannot be read.
        """
        reading = members.read(open_source(self.dataset(dataset).location), progress)
        with self._write() as session:
            about = members.dataset(session, dataset)
            ids = (one.subject_id for one in reading.records.values())
            numbers = members.subjects(session, self._keys, ids, at)
            change = members.compare(session, self._keys, about, reading, numbers)
            members.apply(session, about, change, reading.unreadable)
            stated = members.stated(session, dataset, reading, numbers, at)
            recorded = decisions.record(session, stated, at)
            if recorded is not None:
                self._decided(session, recorded, at)
            body = {
                "taken": change.report.taken,
                "unchanged": change.report.unchanged,
                "removed": change.report.removed,
                "unreadable": len(reading.unreadable),
            }
            self._log(session, "dataset.ingest", dataset, body, at)
            return change.report

    def quarantine(self, dataset: str) -> dict[int, Reason]:
        """The lines that the last ingest could not take, and why."""
        with self._read() as session:
            return members.quarantine(session, dataset)

    def admission(self, dataset: str, purpose: Purpose, at: datetime) -> AdmissionReport:
        """Who may be used now, in counts that stay at the site.

        Raises:
            BractError: `unknown-dataset`.
        """
        with self._read() as session:
            return snapshots.admission(session, dataset, purpose, at, self._use)

    def freeze(self, dataset: str, purpose: Purpose, at: datetime) -> Snapshot:
        """The admitted records of now under one root; the same state at the same time gives the same snapshot.

        Raises:
            BractError: `unknown-dataset`.
        """
        with self._write() as session:
            snapshot, new = snapshots.freeze(session, self._keys, dataset, purpose, at, self._use)
            if new:
                body = {
                    "dataset": dataset,
                    "purpose": purpose.value,
                    "subjects": snapshot.subjects,
                    "records": snapshot.records,
                    "use": digest_value(self._use),
                }
                self._log(session, "snapshot.freeze", snapshot.root, body, at)
            return snapshot

    def prove_membership(self, snapshot: Digest, record_id: str) -> Membership | None:
        """The proof that a record is in a snapshot, None if it is not.

        Raises:
            BractError: `stale-clearance` when there is no such snapshot.
        """
        with self._read() as session:
            return proofs.prove(session, self._keys, snapshot, record_id)

    def prove_subject_membership(self, subject_id: str, snapshot: Digest) -> SubjectMembership:
        """Whether a snapshot held a person: a proof for each record that the data set then had of them, and of nobody else.

        Raises:
            BractError: `unknown-subject`; `stale-clearance` when there is no such snapshot.
        """
        with self._read() as session:
            number = members.subject_no(session, self._keys, subject_id)
            if number is None:
                raise BractError(UNKNOWN_SUBJECT)
            return proofs.prove_subject(session, self._keys, snapshot, number)


def _same_files(one: str, other: str) -> bool:
    """Whether two paths lead to one file or folder, by whatever links, or would if it were there."""
    first, second = Path(one), Path(other)
    try:
        return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL: nothing can be read there
        return one == other
