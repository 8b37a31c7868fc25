"""What a line of a source said each time, by the line's own name: how an importer tells what is new.

The events of a line are named `BASE.GENERATION.PLACE`: each time the line says something else is a generation, and the first
generation and place are 0, so that all of them are found by looking for the next one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.orm import Session

from bract.consent import REFUSALS, ConsentEvent, Decision, Evidence, ends
from bract.vocabulary.modifiers import Modifier
from bract_client.registry import conditions, decisions
from bract_client.registry.decisions import KnownEvent
from bract_client.sources.record import Reason
from bract_client.sources.statement import Statement

Content = tuple[int, str, Decision, datetime, datetime | None, str | None, tuple[Modifier, ...]]


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


@dataclass(frozen=True)
class Change:
    """What to record of a line that says something else than before.

    Attributes:
        events: pairs of a subject's number and an event.
        aside: why not all that it says is recorded; None if it is.
    """

    events: tuple[tuple[int, ConsentEvent], ...]
    aside: Reason | None = None


def changes(past: Past, subject_no: int, line: Statement, at: datetime) -> Change:
    """What to record when a line says something else than before (rules in `imports`).

    Args:
        past: what it said before.
        subject_no: whom it is about now.
        line: what it says now; no events if what it said was an error.
        at: now.
    """
    now = {content(subject_no, event): event for event in line.events}
    permits = [key for key, event in now.items() if event.decision is Decision.PERMIT]
    if permits and frozenset(now) in past.generations:
        return Change((), Reason.REPLACED)
    wrong = [
        one
        for one in past.standing
        if one.subject_no != subject_no or not any(_later(event, one.known.event) for event in line.events)
    ]
    lost = [one for one in wrong if _lost(one, subject_no, line.events)]
    older = bool(past.said) and (line.changed is None or line.changed <= past.said[-1].known.recorded_at)
    if lost and not _shown(line):
        return _narrowed(past, now, wrong, lost, permits, line.evidence, at, Reason.REFUSAL_STANDS)
    beyond = [key for key in permits if older and _goes_beyond(past, wrong, subject_no, now[key])]
    kept = lost if older and line.events else []
    if beyond or kept:
        undated = line.changed is None and not line.ordered
        aside = Reason.UNDATED if undated else Reason.REPLACED
        return _narrowed(past, now, wrong, kept, beyond, line.evidence, at, aside)
    return Change(_replaced(now, wrong, line.evidence, at))


def _narrowed(
    past: Past,
    now: dict[Content, ConsentEvent],
    wrong: Iterable[Said],
    kept: Iterable[Said],
    left_out: Iterable[Content],
    evidence: Evidence,
    at: datetime,
    aside: Reason,
) -> Change:
    """Of what a line says only what takes something away: nothing is permitted then that it does not say now as before.

    Args:
        past: what it said before.
        now: what it says now.
        wrong: what stands and would be replaced.
        kept: of these the refusals and ends that stay.
        left_out: the permits in `now` that do not count.
        evidence: the line's.
        at: now.
        aside: why.
    """
    left_out, kept = list(left_out), list(kept)
    standing = {_of(one) for one in past.standing}
    less = {key: event for key, event in now.items() if key not in left_out and key not in standing}
    within = [
        one for one in wrong if any(key[0] == one.subject_no and _within(one.known.event, now[key]) for key in left_out)
    ]
    gone = [one for one in wrong if one not in kept and one not in within and _of(one) not in now]
    return Change(_replaced(less, gone, evidence, at), aside)


def _replaced(
    now: dict[Content, ConsentEvent], wrong: Iterable[Said], evidence: Evidence, at: datetime
) -> tuple[tuple[int, ConsentEvent], ...]:
    """The events, each in the place of one that was wrong about the same person if any is left; the others are corrected."""
    left, said = list(wrong), list[tuple[int, ConsentEvent]]()
    for (subject_no, *_), event in now.items():
        fits = next((one for one in left if one.subject_no == subject_no), None)
        if fits is not None:
            left.remove(fits)
        said.append((subject_no, replace(event, supersedes=None if fits is None else fits.known.seq)))
    said.extend((one.subject_no, _correction(one, evidence, at)) for one in left)
    return tuple(said)


def _of(one: Said) -> Content:
    return content(one.subject_no, one.known.event)


def _shown(line: Statement) -> bool:
    """Whether something is named that shows it."""
    return line.evidence.digest is not None or any(event.evidence.digest is not None for event in line.events)


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


def _goes_beyond(past: Past, wrong: Iterable[Said], subject_no: int, event: ConsentEvent) -> bool:
    """Whether a permit is neither within one that stands nor later than it, or goes beyond one that it would replace."""
    standing = [one.known.event for one in past.standing if one.subject_no == subject_no]
    replaced = [one.known.event for one in wrong if one.subject_no == subject_no and _same(event, one.known.event)]
    return not (
        any(_within(event, old) or _later(event, old) for old in standing)
        and all(_within(event, old) for old in replaced if old.decision is Decision.PERMIT)
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
