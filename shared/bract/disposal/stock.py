"""Which files are here: what the disk was found to hold, kept beside when each was made and used."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, insert, select, update

from bract.disposal import tasks
from bract.disposal.book import Pen
from bract.retention import ObjectKind


@dataclass(frozen=True)
class Stocked:
    """A file, or some files, that the disk holds under one name; `busy` says what uses it, if something does."""

    kind: ObjectKind
    object: str
    made_at: datetime
    used_at: datetime
    scopes: tuple[str, ...] = ()
    location: str | None = None
    busy: str | None = None


def take(pen: Pen, kinds: set[ObjectKind], found: Iterable[Stocked]) -> None:
    """Brings the known files of these kinds up to what was found.

    An object whose deletion was begun keeps its times: overwriting it is no use of it.
    """
    table = pen.tables.object
    known = {
        (row.kind, row.object): row
        for row in pen.session.execute(select(table).where(table.c.kind.in_([kind.value for kind in kinds])))
    }
    begun = {(task.kind.value, name) for task in tasks.unfinished(pen.session, pen.tables) for name in task.objects}
    here: set[tuple[str, str]] = set()
    for one in found:
        key = (one.kind.value, one.object)
        here.add(key)
        values = {
            "scopes": list(one.scopes),
            "location": one.location,
            "made_at": one.made_at,
            "used_at": one.used_at,
            "busy": one.busy,
            "gone_at": None,
        }
        if key not in known:
            pen.session.execute(insert(table), {"kind": key[0], "object": key[1], **values})
            continue
        if key in begun:
            values |= {"made_at": known[key].made_at, "used_at": known[key].used_at}
        if any(getattr(known[key], name) != value for name, value in values.items()):
            pen.session.execute(update(table).where(*_is(pen, key)).values(values))
    for key, row in known.items():
        if key not in here and row.gone_at is None:
            pen.session.execute(update(table).where(*_is(pen, key)).values(gone_at=pen.at, location=None))


def forget(pen: Pen, kind: ObjectKind, gone: Iterable[str]) -> None:
    """Notes that objects are not here any more, nor where they were."""
    table = pen.tables.object
    for name in gone:
        pen.session.execute(update(table).where(*_is(pen, (kind.value, name))).values(gone_at=pen.at, location=None))


def _is(pen: Pen, key: tuple[str, str]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    table = pen.tables.object
    return table.c.kind == key[0], table.c.object == key[1]
