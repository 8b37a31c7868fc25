"""What persons laid down: policies and what they are bound to, events, holds and decisions. One function a step.

Every step is made in the caller's transaction and tells the log what it did; nothing told names a data subject.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.disposal.tables import RetentionTables
from bract.errors import ALREADY_EXISTS, MALFORMED, STATE, BractError
from bract.retention import (
    LegalHold,
    RetentionPolicy,
    Terms,
    Trigger,
    Way,
    check_hold,
    check_policy,
    check_two,
)
from bract.signing import Envelope
from bract.value import decode, digest_value, encode, plain


@dataclass(frozen=True)
class Pen:
    """A write transaction at a moment: its session, its way to the log, and the signature of whom it is for."""

    session: Session
    tables: RetentionTables
    at: datetime
    tell: Callable[[str, str, Mapping[str, Any]], None]
    sign: Callable[[Any], Envelope]


@dataclass(frozen=True)
class Binding:
    """A policy's name and what it applies to; `ended_at` None as long as it does."""

    policy: str
    scope: str
    bound_by: str
    bound_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Placed:
    """A hold, and when and by whom it was lifted."""

    hold: LegalHold
    placed_at: datetime
    lifted_at: datetime | None
    lifted_by: str | None

    def in_force(self, at: datetime) -> bool:
        """Whether it holds then."""
        return self.hold.in_force(at) and (self.lifted_at is None or at < self.lifted_at)

    def before_deleting(self, at: datetime) -> LegalHold | None:
        """The hold for who is about to delete, None if it is over; a clock set back since it was placed does not lift it."""
        stands = self.in_force(max(at, self.placed_at))
        return replace(self.hold, from_at=min(self.hold.from_at, at)) if stands else None


@dataclass(frozen=True)
class Decided:
    """A decision about terms, by a named person."""

    terms: Digest
    about: Terms
    way: Way
    by: str
    why: str
    at: datetime


def add_policy(pen: Pen, policy: RetentionPolicy) -> Digest:
    """Keeps a version of a policy; wherever its name is bound, it counts from now on.

    Raises:
        BractError: `malformed`; `wrong-state` unless it is the next version, on the same kind as the one before.
    """
    check_policy(decode(RetentionPolicy, plain(policy)))
    table, digest = pen.tables.policy, digest_value(policy)
    before = pen.session.execute(
        select(table.c.version, table.c.applies_to)
        .where(table.c.name == policy.name)
        .order_by(table.c.version.desc())
        .limit(1)
    ).first()
    wanted = 1 if before is None else before.version + 1
    if policy.version != wanted:
        raise BractError(STATE, f"policy {policy.name}: the next version is {wanted}")
    if before is not None and before.applies_to != policy.applies_to:
        raise BractError(STATE, f"policy {policy.name} is about {before.applies_to}")
    values = plain(policy)
    row = {**values, "digest": digest, "body": encode(policy), "added_at": pen.at}
    pen.session.execute(insert(table), row)
    pen.tell("policy.add", digest, values)
    return digest


def bind(pen: Pen, policy: str, scope: str, by: str) -> None:
    """Applies a policy to a data set, a campaign, one object, or (an empty scope) to everything of its kind.

    Raises:
        BractError: `malformed` without such a policy; `already-exists`.
    """
    _known_policy(pen, policy)
    if _open_binding(pen, policy, scope) is not None:
        raise BractError(ALREADY_EXISTS, f"policy {policy} is bound to that already")
    values = {"policy": policy, "scope": scope, "bound_by": by}
    pen.session.execute(insert(pen.tables.binding), {**values, "bound_at": pen.at})
    pen.tell("policy.bind", policy, values)


def unbind(pen: Pen, policy: str, scope: str, by: str) -> None:
    """Ends a binding; what was done under it stands.

    Raises:
        BractError: `wrong-state` when there is none.
    """
    number = _open_binding(pen, policy, scope)
    if number is None:
        raise BractError(STATE, f"policy {policy} is not bound to that")
    table = pen.tables.binding
    pen.session.execute(update(table).where(table.c.id == number).values(ended_at=pen.at, ended_by=by))
    pen.tell("policy.unbind", policy, {"policy": policy, "scope": scope, "ended_by": by})


def tell_event(pen: Pen, trigger: Trigger, scope: str, came_at: datetime, by: str) -> None:
    """Notes when a trigger came that the registry cannot know by itself; told again, the newer word counts.

    Raises:
        BractError: `malformed` for a time ahead, or for collection, which is each object's own.
    """
    if trigger is Trigger.COLLECTION:
        raise BractError(MALFORMED, "when something was collected is its own time, not an event")
    if came_at > pen.at:
        raise BractError(MALFORMED, "the event lies ahead")
    values = {"trigger": trigger.value, "scope": scope, "told_by": by}
    pen.session.execute(insert(pen.tables.event), {**values, "came_at": came_at, "told_at": pen.at})
    pen.tell("retention.event", scope or trigger.value, {**values, "came_at": came_at.isoformat()})


def place_hold(pen: Pen, hold: LegalHold) -> None:
    """Forbids deletion of what the hold selects.

    Raises:
        BractError: `same-person`; `malformed`; `already-exists`.
    """
    check_hold(decode(LegalHold, plain(hold)))
    table = pen.tables.hold
    if pen.session.scalar(select(table.c.name).where(table.c.name == hold.name)) is not None:
        raise BractError(ALREADY_EXISTS, f"hold {hold.name}")
    values = plain(hold)
    row = {**values, "from_at": hold.from_at, "to_at": hold.to_at, "placed_at": pen.at}
    pen.session.execute(insert(table), row)
    # who is selected stays in the row: the log knows its digest
    pen.tell("hold.place", hold.name, {**values, "selector": digest_value(hold.selector)})


def lift_hold(pen: Pen, name: str, by: str, approved_by: str, why: str) -> None:
    """Ends a hold, by two persons again.

    Raises:
        BractError: `same-person`; `wrong-state` when there is no such hold, or it was lifted.
    """
    check_two(by, approved_by)
    hold, lift = pen.tables.hold, pen.tables.lift
    if pen.session.scalar(select(hold.c.name).where(hold.c.name == name)) is None:
        raise BractError(STATE, f"there is no hold {name}")
    if pen.session.scalar(select(lift.c.hold).where(lift.c.hold == name)) is not None:
        raise BractError(STATE, f"hold {name} was lifted before")
    values = {"hold": name, "lifted_by": by, "approved_by": approved_by, "why": why}
    pen.session.execute(insert(lift), {**values, "lifted_at": pen.at})
    pen.tell("hold.lift", name, values)


def decide(pen: Pen, terms: Terms, way: Way, by: str, why: str) -> None:
    """Keeps a person's decision about terms; a newer one replaces it from then on."""
    digest = digest_value(terms)
    values = {"terms": digest, "way": way.value, "decided_by": by, "why": why}
    pen.session.execute(insert(pen.tables.decision), {**values, "about": plain(terms), "decided_at": pen.at})
    pen.tell("retention.decide", digest, {**values, "about": plain(terms)})


def policies(session: Session, tables: RetentionTables) -> tuple[tuple[RetentionPolicy, datetime], ...]:
    """Every version of every policy with when it was added, by name and version."""
    table = tables.policy
    rows = session.execute(select(table.c.body, table.c.added_at).order_by(table.c.name, table.c.version))
    return tuple((decode(RetentionPolicy, row.body), row.added_at) for row in rows)


def bindings(session: Session, tables: RetentionTables) -> tuple[Binding, ...]:
    """Every binding, in the order in which they were made."""
    rows = session.execute(select(tables.binding).order_by(tables.binding.c.id))
    return tuple(Binding(row.policy, row.scope, row.bound_by, row.bound_at, row.ended_at) for row in rows)


def holds(session: Session, tables: RetentionTables) -> tuple[Placed, ...]:
    """Every hold, by name."""
    hold, lift = tables.hold, tables.lift
    rows = session.execute(
        select(hold, lift.c.lifted_at, lift.c.lifted_by)
        .outerjoin(lift, lift.c.hold == hold.c.name)
        .order_by(hold.c.name)
    )
    return tuple(Placed(_hold(row), row.placed_at, row.lifted_at, row.lifted_by) for row in rows)


def holding(session: Session, tables: RetentionTables, at: datetime) -> tuple[LegalHold, ...]:
    """The holds that who is about to delete must heed (`Placed.before_deleting`)."""
    found = (one.before_deleting(at) for one in holds(session, tables))
    return tuple(one for one in found if one is not None)


def decisions(session: Session, tables: RetentionTables) -> tuple[Decided, ...]:
    """Every decision, oldest first."""
    rows = session.execute(select(tables.decision).order_by(tables.decision.c.id))
    return tuple(
        Decided(Digest(r.terms), decode(Terms, r.about), Way(r.way), r.decided_by, r.why, r.decided_at) for r in rows
    )


def events(session: Session, tables: RetentionTables) -> Iterable[tuple[Trigger, str, datetime]]:
    """Trigger, scope and time of every event, oldest word first."""
    rows = session.execute(select(tables.event).order_by(tables.event.c.id))
    return tuple((Trigger(row.trigger), row.scope, row.came_at) for row in rows)


def _hold(row: Row[Any]) -> LegalHold:
    value = {
        "name": row.name,
        "selector": row.selector,
        "matter": row.matter,
        "placed_by": row.placed_by,
        "approved_by": row.approved_by,
        "from_at": row.from_at,
        "to_at": row.to_at,
    }
    return decode(LegalHold, value)


def _known_policy(pen: Pen, policy: str) -> None:
    table = pen.tables.policy
    if not pen.session.scalar(select(func.count()).where(table.c.name == policy)):
        raise BractError(MALFORMED, f"there is no policy {policy}")


def _open_binding(pen: Pen, policy: str, scope: str) -> int | None:
    table = pen.tables.binding
    open_ones = select(table.c.id).where(table.c.policy == policy, table.c.scope == scope, table.c.ended_at.is_(None))
    found: int | None = pen.session.scalar(open_ones)
    return found
