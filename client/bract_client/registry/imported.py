"""What a line of a source said each time, by the line's own name: how an importer tells what is new.

The events of a line are named `BASE.GENERATION.PLACE`: each time the line says something else is a generation, and the first
generation and place are 0, so that all of them are found by looking for the next one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.orm import Session

from bract.consent import REFUSALS, ConsentEvent, Decision, Evidence, ends
from bract_client.registry import conditions, decisions
from bract_client.registry.decisions import KnownEvent
from bract_client.sources.record import Reason
from bract_client.sources.statement import Statement

Content = tuple[object, ...]


@dataclass(frozen=True)
class Said:
    """One event that a line gave: when (the generation), whom it is about, and whether it still counts."""

    generation: int
    subject_no: int
    known: KnownEvent


@dataclass(frozen=True)
class Past:
    """Everything that one line ever gave, in the order in which it was recorded."""

    said: tuple[Said, ...] = ()

    @property
    def generations(self) -> list[frozenset[Content]]:
        """What the line said, each time."""
        found: list[set[Content]] = [set() for _ in range(1 + max((one.generation for one in self.said), default=-1))]
        for one in self.said:
            if one.known.event.decision is not Decision.CORRECT:
                found[one.generation].add(content(one.subject_no, one.known.event))
        return [frozenset(one) for one in found]

    @property
    def last(self) -> frozenset[Content]:
        """What it said last; nothing for a line that is new or was an error."""
        return self.generations[-1] if self.said else frozenset()

    @property
    def standing(self) -> list[Said]:
        """What of it still counts."""
        superseded = {one.known.event.supersedes for one in self.said}
        return [
            one
            for one in self.said
            if one.known.seq not in superseded and one.known.event.decision is not Decision.CORRECT
        ]

    @property
    def permits(self) -> bool:
        """Whether something of it still permits, as far as its own events tell."""
        return any(one.known.event.decision is Decision.PERMIT for one in self.standing)


def content(subject_no: int, event: ConsentEvent) -> Content:
    """What makes an event the same one again; evidence does not."""
    kept = conditions.stored(event.modifiers)
    return subject_no, str(event.purpose), event.decision, event.valid_from, ends(event), event.dataset, kept


def name_of(base: str, generation: int, place: int) -> str:
    """The name of one event of a line."""
    return f"{base}.{generation}.{place}"


def pasts(session: Session, form: str, bases: Iterable[str]) -> dict[str, Past]:
    """What these lines said before; those that are new are left out."""
    found: dict[str, list[Said]] = {}
    asked = {name_of(base, 0, 0): (base, 0, 0) for base in bases}
    while asked:
        following: dict[str, tuple[str, int, int]] = {}
        for name, (subject_no, known) in decisions.by_reference(session, form, list(asked)).items():
            base, generation, place = asked[name]
            found.setdefault(base, []).append(Said(generation, subject_no, known))
            following[name_of(base, generation, place + 1)] = (base, generation, place + 1)
            if place == 0:
                following[name_of(base, generation + 1, 0)] = (base, generation + 1, 0)
        asked = following
    return {base: Past(tuple(sorted(said, key=lambda one: one.known.seq))) for base, said in found.items()}


def changes(past: Past, subject_no: int, line: Statement, at: datetime) -> list[tuple[int, ConsentEvent]] | Reason:
    """What to record when a line says something else than before (rules in `imports`), or why that is not done.

    Args:
        past: what it said before.
        subject_no: whom it is about now.
        line: what it says now; no events if what it said was an error.
        at: now.

    Returns:
        Pairs of a subject's number and an event.
    """
    events, evidence = line.events, line.evidence
    now = {content(subject_no, event): event for event in events}
    if any(event.decision is Decision.PERMIT for event in events) and frozenset(now) in past.generations:
        return Reason.REPLACED
    wrong = [
        one
        for one in past.standing
        if one.subject_no != subject_no or not any(_later(event, one.known.event) for event in events)
    ]
    shown = evidence.digest is not None or any(event.evidence.digest is not None for event in events)
    if not shown and any(_lost(one, subject_no, events) for one in wrong):
        return Reason.REFUSAL_STANDS
    wider = _goes_beyond(past, subject_no, events) or (events and any(_lost(one, subject_no, events) for one in wrong))
    if past.said and wider and (line.changed is None or line.changed <= past.said[-1].known.recorded_at):
        return Reason.REPLACED if line.ordered or line.changed is not None else Reason.UNDATED
    said: list[tuple[int, ConsentEvent]] = []
    for event in now.values():
        fits = next((one for one in wrong if one.subject_no == subject_no), None)
        if fits is not None:
            wrong.remove(fits)
        said.append((subject_no, replace(event, supersedes=None if fits is None else fits.known.seq)))
    said.extend((one.subject_no, _correction(one, evidence, at)) for one in wrong)
    return said


def _correction(one: Said, evidence: Evidence, at: datetime) -> ConsentEvent:
    old = one.known.event
    return ConsentEvent(
        old.purpose, Decision.CORRECT, at, dataset=old.dataset, supersedes=one.known.seq, evidence=evidence
    )


def _later(event: ConsentEvent, old: ConsentEvent) -> bool:
    """Whether it is a later decision about the same."""
    return _same(event, old) and event.valid_from > old.valid_from


def _lost(one: Said, subject_no: int, events: Iterable[ConsentEvent]) -> bool:
    """Whether it is a refusal, or an end, that is no longer said, from the same time on or earlier."""
    old = one.known.event
    enough = {*REFUSALS, Decision.EXPIRE} if old.decision is Decision.EXPIRE else set(REFUSALS)
    return old.decision in {*REFUSALS, Decision.EXPIRE} and not (
        one.subject_no == subject_no
        and any(
            event.decision in enough and _same(event, old) and event.valid_from <= old.valid_from for event in events
        )
    )


def _goes_beyond(past: Past, subject_no: int, events: Iterable[ConsentEvent]) -> bool:
    """Whether a permit is said that is neither within one that stands nor a later decision about the same."""
    standing = [one.known.event for one in past.standing if one.subject_no == subject_no]
    return any(
        event.decision is Decision.PERMIT and not any(_within(event, old) or _later(event, old) for old in standing)
        for event in events
    )


def _within(event: ConsentEvent, old: ConsentEvent) -> bool:
    """Whether a permit allows nothing that an older one did not."""
    end, until = ends(old), ends(event)
    return (
        old.decision is Decision.PERMIT
        and str(event.purpose) == str(old.purpose)
        and old.dataset in (None, event.dataset)
        and event.valid_from >= old.valid_from
        and (end is None or (until is not None and until <= end))
        and set(old.modifiers) <= set(event.modifiers)
    )


def _same(event: ConsentEvent, old: ConsentEvent) -> bool:
    return (str(event.purpose), event.dataset) == (str(old.purpose), old.dataset)
