"""The verbs about people's decisions: decide, correct, withdraw, look back, and tell the hub in batches."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.consent import (
    REFUSALS,
    ConsentEvent,
    Decision,
    Evidence,
    Modifier,
    Purpose,
    Resolution,
    Verdict,
    resolve,
    sound,
    uncorrected,
)
from bract.digest import Digest
from bract.errors import MALFORMED, UNKNOWN_SUBJECT, BractError
from bract.update import WithdrawalNotice
from bract.value import plain
from bract_client.handles import event_reference, handle
from bract_client.registry import decisions, members, notices
from bract_client.registry.decisions import KnownEvent, NewEvent
from bract_client.registry.desk import Desk
from bract_client.registry.resolving import known_at, many, verdicts


class ConsentVerbs(Desk):
    """Subjects and their decisions. Identifiers become handles at the door."""

    def decide(
        self,
        subject_id: str,
        purpose: str,
        decision: Decision,
        at: datetime,
        *,
        valid_to: datetime | None = None,
        dataset: str | None = None,
        modifiers: Sequence[Modifier] = (),
        evidence: Evidence = Evidence(),  # noqa: B008 - a frozen value
    ) -> tuple[Digest, ...]:
        """Records one decision as of now, for all data sets or one; a refusal counts at once.

        Args:
            subject_id: the person; its handle is kept.
            purpose: a `Purpose` or a broader code of the vocabulary.
            decision: anything but a correction.
            at: now.
            valid_to: when a permit ends.
            dataset: None for all.
            modifiers: conditions of a permit.
            evidence: what shows it.

        Returns:
            The snapshots that held the subject and that it leaves by a refusal; a notice of them is queued.

        Raises:
            BractError: `unknown-subject`; `unknown-dataset`; `malformed` for an event that is not `bract.consent.sound`.
        """
        event = ConsentEvent(purpose, decision, at, valid_to, dataset, tuple(modifiers), evidence=evidence)
        return self._decide(subject_id, [event], at)

    def withdraw(self, subject_id: str, at: datetime) -> tuple[Digest, ...]:
        """Withdraws a subject from every purpose and data set; returns the snapshots that ever held it.

        Raises:
            BractError: `unknown-subject`.
        """
        return self._decide(subject_id, [ConsentEvent(one, Decision.WITHDRAW, at) for one in Purpose], at)

    def correct(
        self, subject_id: str, seq: int, evidence: Evidence, at: datetime, instead: ConsentEvent | None = None
    ) -> tuple[Digest, ...]:
        """Takes back an event that was recorded in error; from now on it never counted, but what was believed stays known.

        Args:
            subject_id: the person.
            seq: the event's number, as `history` tells it; it must be one of this person's.
            evidence: what shows the error; to take a refusal back it must have a digest.
            at: now.
            instead: what should have been recorded, with its own valid time; None for nothing.

        Returns:
            The snapshots that held the subject and, as is now known, should not have; a notice of them is queued.

        Raises:
            BractError: `unknown-subject`; `unknown-dataset`; `malformed` for an event that is not `bract.consent.sound` or not
                this person's, or a refusal taken back without evidence.
        """
        with self._read() as session:
            found = decisions.event(session, seq)
            if found is None or found[0] != self._known(session, subject_id):
                raise BractError(MALFORMED, "supersedes: not an earlier event of the same subject")
        said = found[1].event
        if said.decision in REFUSALS and evidence.digest is None:
            raise BractError(
                MALFORMED, "evidence: a refusal is taken back only with the digest of what shows the error"
            )
        if instead is None:
            event = ConsentEvent(
                said.purpose, Decision.CORRECT, at, dataset=said.dataset, supersedes=seq, evidence=evidence
            )
        else:
            event = replace(instead, supersedes=seq, evidence=evidence)
        return self._decide(subject_id, [event], at)

    def _decide(self, subject_id: str, events: list[ConsentEvent], at: datetime) -> tuple[Digest, ...]:
        with self._write() as session:
            number = self._known(session, subject_id)
            for event in events:
                sound(event)
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
        learnt = uncorrected((one.seq, one.event) for one in self.history(subject_id) if one.recorded_at <= known)
        return resolve(learnt, purpose, dataset, at, self._use)

    def consents(self, purpose: Purpose, dataset: str, valid: datetime, known: datetime) -> dict[Verdict, int]:
        """How many people consented at `valid`, and why the others did not, by what was known at `known`; site-local.

        People who never decided anything about the purpose by then are not counted.
        """
        with self._read() as session:
            seq = known_at(session, known)
            found = verdicts(session, purpose, dataset, valid, self._use, consent_seq=seq)
            counted = select(found.c.verdict, func.count()).group_by(found.c.verdict)
            with many(session):
                return {Verdict(row[0]): row[1] for row in session.execute(counted)}

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
        name = handle(self._keys.subject, subject_id).hex()
        return NewEvent(number, event, source, event_reference(self._keys.subject, _statement(name, event)))


def _statement(name: str, event: ConsentEvent) -> bytes:
    """What an event says, as canonical JSON; what it shows for it does not make it another one."""
    parts: list[object] = [
        name,
        str(event.purpose),
        event.decision.value,
        _seconds(event.valid_from),
        None if event.valid_to is None else _seconds(event.valid_to),
        event.dataset,
    ]
    if event.modifiers or event.supersedes is not None:
        parts += [[[one.code, list(one.values)] for one in event.modifiers], event.supersedes]
    # For texts without surrogates and numbers of this size this is RFC 8785, ten times faster.
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def _seconds(at: datetime) -> float | int:
    seconds = at.timestamp()
    return int(seconds) if seconds.is_integer() else seconds


def _against_later(events: list[ConsentEvent], known: Sequence[KnownEvent], at: datetime) -> list[ConsentEvent]:
    """A refusal now also refuses permits that are recorded already and begin later: nobody comes back by themselves."""
    return [
        replace(event, valid_from=later.event.valid_from, supersedes=None)
        for event in events
        if event.decision in REFUSALS
        for later in known
        if later.event.decision is Decision.PERMIT
        and later.event.valid_from > at
        and (later.event.purpose, later.event.dataset) == (event.purpose, event.dataset)
    ]
