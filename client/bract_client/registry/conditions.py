"""Conditions of permits as numbered sets: each set is kept once, and judged once for a question, not once an event."""

import json
from collections.abc import Iterable

from sqlalchemy import ColumnElement, and_, false, insert, or_, select
from sqlalchemy.orm import Session

from bract.digest import canonical
from bract.vocabulary.modifiers import TIME_LIMIT, Modifier, UseContext, modifier, satisfied
from bract_client.registry.models import ConsentCondition


def stored(modifiers: Iterable[Modifier]) -> tuple[Modifier, ...]:
    """The conditions as they are kept: sorted, and without a time limit, which is the event's end."""
    kept = {one for one in modifiers if one.code != TIME_LIMIT}
    return tuple(sorted(kept, key=lambda one: (one.code, one.values)))


def numbers(session: Session, sets: Iterable[tuple[Modifier, ...]]) -> dict[tuple[Modifier, ...], int | None]:
    """The number of each set; new ones are added, the empty one has none."""
    found: dict[tuple[Modifier, ...], int | None] = dict.fromkeys(sets)
    known = {row[1]: row[0] for row in session.execute(select(ConsentCondition.no, ConsentCondition.modifiers))}
    fresh = []
    for one in found:
        if not one:
            continue
        name = text(one)
        if name not in known:
            known[name] = len(known) + 1
            fresh.append({"no": known[name], "modifiers": name})
        found[one] = known[name]
    if fresh:
        session.connection().execute(insert(ConsentCondition), fresh)
    return found


def sets(session: Session) -> dict[int, tuple[Modifier, ...]]:
    """Every set by its number."""
    rows = session.execute(select(ConsentCondition.no, ConsentCondition.modifiers))
    return {row[0]: parsed(row[1]) for row in rows}


def text(modifiers: tuple[Modifier, ...]) -> str:
    """A set as it is kept."""
    return canonical([[one.code, list(one.values)] for one in modifiers]).decode()


def parsed(kept: str | None) -> tuple[Modifier, ...]:
    """A set as it was recorded, from what is kept of it; None is the empty one."""
    return () if kept is None else tuple(modifier(code, values) for code, values in json.loads(kept))


def holds(
    session: Session,
    purposes: Iterable[str],
    use: UseContext,
    purpose: ColumnElement[str],
    condition: ColumnElement[int | None],
) -> ColumnElement[bool]:
    """Point 6 of the rule in SQL: whether a permit of `purpose` under the set `condition` counts for the use."""
    known = sets(session)
    plain: list[str] = []
    by_sets: dict[tuple[int, ...], list[str]] = {}
    for code in sorted(purposes):
        if satisfied(code, (), use):
            plain.append(code)
        good = tuple(no for no, modifiers in known.items() if satisfied(code, modifiers, use))
        by_sets.setdefault(good, []).append(code)
    by_sets.pop((), None)
    return or_(
        false(),
        and_(purpose.in_(plain), condition.is_(None)),
        *(and_(purpose.in_(codes), condition.in_(good)) for good, codes in by_sets.items()),
    )
