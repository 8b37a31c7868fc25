"""Due lists: every object against the policies, holds and decisions that stand now."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.disposal import book
from bract.disposal.tables import RetentionTables
from bract.retention import (
    Action,
    Blocker,
    Disposition,
    Kept,
    LegalHold,
    ObjectKind,
    RetentionPolicy,
    State,
    Terms,
    Trigger,
    Way,
    disposition,
    terms_of,
)
from bract.value import digest_value


@dataclass(frozen=True)
class Found:
    """An object that is here, when its triggers came, and what uses it now."""

    kept: Kept
    triggers: Mapping[Trigger, datetime]
    busy: tuple[Blocker, ...] = ()


@dataclass(frozen=True)
class DueItem:
    """One line of a due list.

    Attributes:
        kind: of object.
        object: its record number, digest or file name; never a person.
        scopes: the data set or campaigns that it belongs to.
        due_at: since when, or from when on, the action is due.
        state: now: `kept` when it is due later, else `due`, `blocked` or `conflict`.
        action: what is due.
        blockers: what stands in the way now.
        policies: digests of those that count for it.
        terms: what a decision about it would name.
        attempts: how often deletion was tried.
        code: why the last try failed.
    """

    kind: ObjectKind
    object: str
    scopes: tuple[str, ...]
    due_at: datetime
    state: State
    action: Action
    blockers: tuple[Blocker, ...]
    policies: tuple[Digest, ...]
    terms: Digest
    attempts: int = 0
    code: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the job may delete it now."""
        return self.state is State.DUE and self.action is Action.DELETE


@dataclass(frozen=True)
class Conflict:
    """Terms that only a person can settle: a floor beyond a ceiling, or an action that code does not do.

    Attributes:
        terms: their name.
        about: the kind, scope and policies.
        names: of the policies.
        objects: how many objects; the number stays here.
        due_at: the earliest.
        state: `conflict`, or `blocked` where the action is a person's.
        decided: what was decided last.
    """

    terms: Digest
    about: Terms
    names: tuple[str, ...]
    objects: int
    due_at: datetime
    state: State
    decided: Way | None


@dataclass
class Rules:
    """All that stands at a moment, ready to be applied to many objects."""

    at: datetime
    bound: list[tuple[str, RetentionPolicy]]
    holds: tuple[LegalHold, ...]
    decided: dict[Digest, Way]
    events: dict[str, dict[Trigger, datetime]]
    _known: dict[tuple[Any, ...], tuple[tuple[RetentionPolicy, ...], Terms, Digest]] = field(default_factory=dict)

    def of(self, kept: Kept) -> tuple[tuple[RetentionPolicy, ...], Terms, Digest]:
        """The policies that count for an object, their terms, and these terms' name."""
        own = any(scope == kept.object for scope, _ in self.bound)
        key = (kept.kind, kept.scopes, kept.object if own else None)
        if key not in self._known:
            wanted = {"", kept.object, *kept.scopes}
            mine = tuple(one for scope, one in self.bound if scope in wanted and one.applies_to is kept.kind)
            terms = terms_of(kept, mine)
            self._known[key] = (mine, terms, digest_value(terms))
        return self._known[key]

    def kinds(self) -> frozenset[ObjectKind]:
        """The kinds for which any policy stands."""
        return frozenset(one.applies_to for _, one in self.bound)

    def judge(self, found: Found) -> Disposition | None:
        """The rule's answer, None where no policy counts."""
        mine, _, terms = self.of(found.kept)
        if not mine:
            return None
        told: dict[Trigger, datetime] = {}
        for scope in ("", *found.kept.scopes, found.kept.object):
            told |= self.events.get(scope, {})
        triggers = {**found.triggers, **told}
        decided = self.decided.get(terms)
        return disposition(
            found.kept, mine, self.holds, triggers, self.at, busy=found.busy, decided=decided, terms=terms
        )


def rules(
    session: Session, tables: RetentionTables, at: datetime, shorthand: Iterable[tuple[str, RetentionPolicy]] = ()
) -> Rules:
    """What stands at `at`: the newest version of each policy where it is bound, and `shorthand` beside them."""
    newest = {policy.name: policy for policy, added_at in book.policies(session, tables) if added_at <= at}
    bound = [
        (one.scope, newest[one.policy])
        for one in book.bindings(session, tables)
        if one.policy in newest and one.bound_at <= at and (one.ended_at is None or at < one.ended_at)
    ]
    holds = tuple(one.hold for one in book.holds(session, tables) if one.in_force(at))
    decided = {one.terms: one.way for one in book.decisions(session, tables) if one.at <= at}
    events: dict[str, dict[Trigger, datetime]] = {}
    for trigger, scope, came_at in book.events(session, tables):
        events.setdefault(scope, {})[trigger] = came_at
    return Rules(at, [*bound, *shorthand], holds, decided, events)


def items(
    session: Session, tables: RetentionTables, standing: Rules, found: Iterable[Found], by: datetime
) -> Iterator[DueItem]:
    """The objects whose action is due by then, with what stands in the way at `standing.at`."""
    tried = _tried(session, tables)
    for one in found:
        answer = standing.judge(one)
        if answer is None or answer.due_at is None or answer.due_at > by:
            continue
        _, terms, named = standing.of(one.kept)
        attempts, code = tried.get((one.kept.kind.value, one.kept.object), (0, None))
        yield DueItem(
            kind=one.kept.kind,
            object=one.kept.object,
            scopes=one.kept.scopes,
            due_at=answer.due_at,
            state=answer.state,
            action=answer.action,
            blockers=answer.blockers,
            policies=terms.policies,
            terms=named,
            attempts=attempts,
            code=code,
        )


def conflicts(standing: Rules, found: Iterable[Found]) -> tuple[Conflict, ...]:
    """All terms that a person has to settle, or has settled, by the earliest due date."""
    seen: dict[Digest, Conflict] = {}
    for one in found:
        answer = standing.judge(one)
        if answer is None or answer.ceiling is None:
            continue
        mine, terms, named = standing.of(one.kept)
        decided = standing.decided.get(named)
        if answer.state is not State.CONFLICT and decided is None and answer.action is Action.DELETE:
            continue
        before = seen.get(named)
        due_at = min(answer.ceiling, before.due_at) if before else answer.ceiling
        names = tuple(sorted(policy.name for policy in mine))
        count = before.objects + 1 if before else 1
        seen[named] = Conflict(named, terms, names, count, due_at, answer.state, decided)
    return tuple(sorted(seen.values(), key=lambda one: (one.due_at, one.terms)))


def _tried(session: Session, tables: RetentionTables) -> dict[tuple[str, str], tuple[int, str | None]]:
    """Attempts and last failure of every object of an unfinished task."""
    task, member = tables.task, tables.member
    rows = session.execute(
        select(task.c.kind, member.c.object, func.max(task.c.attempts), func.max(task.c.code))
        .join(member, member.c.task == task.c.id)
        .where(task.c.state != "done", member.c.state == "pending")
        .group_by(task.c.kind, member.c.object)
    )
    return {(kind, name): (attempts, code) for kind, name, attempts, code in rows}
