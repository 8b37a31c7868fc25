"""The verbs about people's decisions: import, decide, withdraw, look back, and tell the hub in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from bract.consent import ConsentEvent, Decision, Purpose, Resolution, resolve
from bract.digest import Digest, canonical
from bract.errors import MALFORMED, UNKNOWN_SUBJECT, BractError
from bract.update import WithdrawalNotice
from bract.value import plain
from bract_client.handles import event_reference, handle
from bract_client.registry import decisions, members, notices
from bract_client.registry.decisions import KnownEvent, NewEvent
from bract_client.registry.desk import Desk
from bract_client.sources.consent_csv import ConsentLine, read_consent
from bract_client.sources.record import Unreadable


@dataclass(frozen=True)
class ImportReport:
    """What an import of decisions did; `known` counts lines that were recorded before."""

    taken: int
    known: int
    unreadable: tuple[Unreadable, ...]


class ConsentVerbs(Desk):
    """Subjects and their decisions. Identifiers become handles at the door."""

    def import_consent(self, path: Path, at: datetime) -> ImportReport:
        """Records the decisions of a CSV file; the same line again changes nothing.

        A subject that no data set has yet is remembered by handle, so that a refusal counts when its data come later.

        Raises:
            BractError: `bad-record` when the file as a whole cannot be read.
        """
        lines: list[ConsentLine] = []
        unreadable: list[Unreadable] = []
        for item in read_consent(path):
            if isinstance(item, Unreadable):
                unreadable.append(item)
            else:
                lines.append(item)
        with self._write() as session:
            numbers = members.subjects(session, self._keys, (line.subject_id for line in lines), at)
            events = [self._event(numbers[line.subject_id], line.subject_id, line.event, "csv") for line in lines]
            recorded = decisions.record(session, events, at)
            taken = 0
            if recorded is not None:
                taken = len(recorded.events)
                self._decided(session, recorded, at)
            body = {"taken": taken, "known": len(lines) - taken, "unreadable": len(unreadable)}
            self._log(session, "consent.import", "csv", body, at)
        return ImportReport(taken, len(lines) - taken, tuple(unreadable))

    def decide(
        self,
        subject_id: str,
        purpose: Purpose,
        decision: Decision,
        at: datetime,
        *,
        valid_to: datetime | None = None,
        dataset: str | None = None,
    ) -> tuple[Digest, ...]:
        """Records one decision, for all data sets or one; a refusal counts at once.

        Returns:
            The snapshots that held the subject and that it leaves by a refusal; a notice of them is queued.

        Raises:
            BractError: `unknown-subject`; `unknown-dataset`; `malformed` for a permit that ends before it begins.
        """
        return self._decide(subject_id, [ConsentEvent(purpose, decision, at, valid_to, dataset)], at)

    def withdraw(self, subject_id: str, at: datetime) -> tuple[Digest, ...]:
        """Withdraws a subject from every purpose and data set; returns the snapshots that ever held it.

        Raises:
            BractError: `unknown-subject`.
        """
        return self._decide(subject_id, [ConsentEvent(one, Decision.WITHDRAW, at) for one in Purpose], at)

    def _decide(self, subject_id: str, events: list[ConsentEvent], at: datetime) -> tuple[Digest, ...]:
        with self._write() as session:
            number = self._known(session, subject_id)
            for event in events:
                if event.valid_to is not None and event.valid_to <= event.valid_from:
                    raise BractError(MALFORMED, "valid_to: a decision ends after it begins")
                if event.dataset is not None:
                    members.dataset(session, event.dataset)
            events = events + _against_later(events, decisions.history(session, number), at)
            new = [self._event(number, subject_id, event, "site") for event in events]
            recorded = decisions.record(session, new, at)
            return () if recorded is None else self._decided(session, recorded, at)

    def history(self, subject_id: str) -> tuple[KnownEvent, ...]:
        """Every decision of one subject, in the order in which the site learnt them.

        Raises:
            BractError: `unknown-subject`.
        """
        with self._read() as session:
            return decisions.history(session, self._known(session, subject_id))

    def believed(self, subject_id: str, purpose: Purpose, dataset: str, at: datetime, known: datetime) -> Resolution:
        """What the site believed at `known` about the subject's consent at `at`.

        Raises:
            BractError: `unknown-subject`.
        """
        learnt = [one.event for one in self.history(subject_id) if one.recorded_at <= known]
        return resolve(learnt, purpose, dataset, at)

    def take_notice(self, at: datetime, every: timedelta) -> WithdrawalNotice | None:
        """One notice over all queued withdrawals, at the points of a public grid; the same until it is sent."""
        with self._write() as session:
            notice, new = notices.take(session, self._keys.site, at, every)
            if notice is not None and new:
                self._log(session, "notice.take", notice.notice, plain(notice), at)
            return notice

    def mark_sent(self, notice: str, at: datetime) -> None:
        """Notes that the hub has the notice of that name; again is fine.

        Raises:
            BractError: `wrong-state` for a notice that was never taken.
        """
        with self._write() as session:
            if notices.sent(session, notice, at):
                self._log(session, "notice.send", notice, {}, at)

    def _known(self, session: Session, subject_id: str) -> int:
        number = members.subject_no(session, self._keys, subject_id)
        if number is None:
            raise BractError(UNKNOWN_SUBJECT)
        return number

    def _event(self, number: int, subject_id: str, event: ConsentEvent, source: str) -> NewEvent:
        parts = [
            handle(self._keys.subject, subject_id).hex(),
            event.purpose.value,
            event.decision.value,
            event.valid_from.timestamp(),
            None if event.valid_to is None else event.valid_to.timestamp(),
            event.dataset,
        ]
        return NewEvent(number, event, source, event_reference(self._keys.subject, canonical(parts)))


def _against_later(events: list[ConsentEvent], known: Sequence[KnownEvent], at: datetime) -> list[ConsentEvent]:
    """A refusal now also refuses permits that are recorded already and begin later: nobody comes back by themselves."""
    return [
        replace(event, valid_from=later.event.valid_from)
        for event in events
        if event.decision is not Decision.PERMIT
        for later in known
        if later.event.decision is Decision.PERMIT
        and later.event.valid_from > at
        and (later.event.purpose, later.event.dataset) == (event.purpose, event.dataset)
    ]
