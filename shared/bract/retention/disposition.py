"""What is to happen with one object: the one rule over all its policies, holds and decisions.

The rule (its truth table is a test):
    1. Floor = the longest must-keep of all policies whose trigger has come; ceiling = the shortest must-delete.
    2. A floor whose trigger is certain to come counts as if it came now: it keeps, and its end is not known yet.
    3. Floor beyond ceiling is a conflict. Code does not resolve it: a person decides, and only that decision, made about
       these very policies, lets the object be kept until the floor or deleted at the ceiling.
    4. Without a ceiling nothing is ever due.
    5. At the ceiling the object is due, and is blocked while a hold is in force, a round uses it, a receipt is missing, or
       the action is one that only a person can do.
    6. A hold never lets anything be deleted, whatever was decided. It does not bring anything back into use.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bract.digest import Digest
from bract.retention.policy import CERTAIN, Action, LegalHold, ObjectKind, RetentionPolicy, Selector, Trigger
from bract.value import digest_value, strict


class State(StrEnum):
    """Where an object stands."""

    KEPT = "kept"
    DUE = "due"
    BLOCKED = "blocked"
    CONFLICT = "conflict"


class Obstacle(StrEnum):
    """Why something is not deleted."""

    HOLD = "hold"
    FLOOR = "floor"
    ROUND = "round"
    RECEIPT = "receipt"
    RUNNING = "running"
    CONFLICT = "conflict"
    PERSON = "person"
    FAILED = "failed"


class Way(StrEnum):
    """What a person decided in a conflict, or where the action is one for a person."""

    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True)
class Blocker:
    """What stands in the way.

    Attributes:
        kind: of obstacle.
        name: of the hold, policy, round …; of a failure, its code.
        until: when it ends by itself; None when that is not known.
    """

    kind: Obstacle
    name: str
    until: datetime | None = None


@dataclass(frozen=True)
class Kept:
    """An object that is here.

    Attributes:
        kind: of object.
        object: its record number, digest or file name: never anything that names a person.
        scopes: the data set or campaigns that it belongs to.
        subject: number of its subject, at a site.
    """

    kind: ObjectKind
    object: str
    scopes: tuple[str, ...] = ()
    subject: int | None = None


@dataclass(frozen=True)
class Disposition:
    """The rule's answer.

    Attributes:
        state: now.
        due_at: when the action is due; None as long as nothing says so.
        action: what is due then.
        blockers: everything in force now that stands in the way, also of what is not due yet.
        floor: until when some policy keeps it; None when none does, or (see `awaited`) when that is not known.
        ceiling: from when some policy wants it gone.
        awaited: whether a floor's trigger has still to come.
        over: whether its time for use is over, whatever keeps it from being deleted.
        terms: names the object's kind, scope and policies; a decision is about terms.
    """

    state: State
    due_at: datetime | None
    action: Action
    blockers: tuple[Blocker, ...]
    floor: datetime | None
    ceiling: datetime | None
    awaited: bool
    over: bool
    terms: Digest


@strict
@dataclass(frozen=True)
class Terms:
    """What a decision is about: all objects of one kind and scope, under the same policies."""

    kind: ObjectKind
    scopes: tuple[str, ...]
    policies: tuple[Digest, ...]


def terms_of(about: Kept, policies: Iterable[RetentionPolicy]) -> Terms:
    """The terms of an object under these policies."""
    return Terms(about.kind, tuple(sorted(about.scopes)), tuple(sorted({digest_value(one) for one in policies})))


def selects(selector: Selector, about: Kept) -> bool:
    """Whether a hold's selector matches the object: all its given parts do."""
    return (
        (not selector.kinds or about.kind in selector.kinds)
        and (not selector.scopes or not set(selector.scopes).isdisjoint(about.scopes))
        and (not selector.objects or about.object in selector.objects)
        and (not selector.subjects or about.subject in selector.subjects)
    )


_STRENGTH = (Action.DELETE, Action.ANONYMISE, Action.ARCHIVE, Action.REVIEW)


def disposition(
    about: Kept,
    policies: Collection[RetentionPolicy],
    holds: Iterable[LegalHold],
    triggers: Mapping[Trigger, datetime],
    at: datetime,
    *,
    busy: Iterable[Blocker] = (),
    decided: Way | None = None,
    terms: Digest | None = None,
) -> Disposition:
    """What is to happen with the object at `at` (see the module's rule).

    Args:
        about: the object.
        policies: those bound to it; one of another kind does not count.
        holds: legal holds; those that do not select it, or are not in force, do not count.
        triggers: when each trigger came; one that lies ahead has not come.
        at: now.
        busy: what else stands in the way of deletion now: rounds, receipts …
        decided: what a person decided about these terms.
        terms: the digest of `terms_of`, where the caller knows it already.
    """
    mine = [one for one in policies if one.applies_to is about.kind]
    limits = _limits(mine, {trigger: moment for trigger, moment in triggers.items() if moment <= at}, at)
    clash = limits.clash(at)
    action = limits.action
    blockers = [Blocker(Obstacle.HOLD, h.name, h.to_at) for h in holds if h.in_force(at) and selects(h.selector, about)]
    blockers += busy
    if not (clash and decided is Way.DELETE):
        blockers += limits.in_force(at)
    due_at = limits.ceiling
    if decided is Way.KEEP and (clash or action is not Action.DELETE):
        due_at = limits.floor if clash and not limits.waiting else None
    if action is not Action.DELETE and due_at is not None:
        if decided is Way.DELETE:
            action = Action.DELETE
        elif due_at <= at:
            blockers.append(Blocker(Obstacle.PERSON, action.value))
    if clash and decided is None:
        blockers.append(Blocker(Obstacle.CONFLICT, "floor beyond ceiling"))
    state = _state(clash and decided is None, due_at, at, bool(blockers))
    named = terms if terms is not None else digest_value(terms_of(about, mine))
    over = limits.ceiling is not None and limits.ceiling <= at and (clash or due_at is not None)
    awaited = bool(limits.waiting)
    return Disposition(state, due_at, action, tuple(blockers), limits.floor, limits.ceiling, awaited, over, named)


@dataclass(frozen=True)
class _Limits:
    """Floors and ceilings of the policies whose trigger came, and the policies whose floor waits for its trigger."""

    floors: list[tuple[datetime, RetentionPolicy]]
    waiting: list[RetentionPolicy]
    floor: datetime | None
    least: datetime | None
    ceiling: datetime | None
    action: Action

    def clash(self, at: datetime) -> bool:
        """Whether something must be kept for longer than it may be."""
        if self.ceiling is None:
            return False
        return (self.least is not None and self.least > self.ceiling) or (bool(self.waiting) and self.ceiling <= at)

    def in_force(self, at: datetime) -> list[Blocker]:
        """The floors that keep it now."""
        ends = [Blocker(Obstacle.FLOOR, one.name, end) for end, one in self.floors if end > at]
        return ends + [Blocker(Obstacle.FLOOR, one.name) for one in self.waiting]


def _limits(mine: Collection[RetentionPolicy], came: Mapping[Trigger, datetime], at: datetime) -> _Limits:
    floors = [(one.floor.after(came[one.trigger]), one) for one in mine if one.floor and one.trigger in came]
    ceilings = [(one.ceiling.after(came[one.trigger]), one) for one in mine if one.ceiling and one.trigger in came]
    waiting = [one for one in mine if one.floor and one.trigger in CERTAIN and one.trigger not in came]
    ends = [end for end, _ in floors]
    ceiling = min((end for end, _ in ceilings), default=None)
    return _Limits(
        floors=floors,
        waiting=waiting,
        floor=max(ends, default=None),
        least=max(ends + [one.floor.after(at) for one in waiting if one.floor], default=None),
        ceiling=ceiling,
        action=min((one.action for end, one in ceilings if end == ceiling), key=_STRENGTH.index, default=Action.REVIEW),
    )


def _state(conflict: bool, due_at: datetime | None, at: datetime, blocked: bool) -> State:
    if conflict:
        return State.CONFLICT
    if due_at is None or due_at > at:
        return State.KEPT
    return State.BLOCKED if blocked else State.DUE
