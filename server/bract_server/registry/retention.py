"""Retention at the hub: files of arrays, exports, logs and Flower's state. There is no person here to name."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from bract.disposal.book import Pen
from bract.disposal.verbs import Context, Retention
from bract.log import book
from bract.retention import Kept, ObjectKind, Trigger
from bract_server.registry import retention_files
from bract_server.registry.models import LOG, RETENTION
from bract_server.registry.retention_files import ArraysFacts
from bract_server.registry.unit import HUB, Store

_ARRAYS = frozenset({ObjectKind.CHECKPOINT, ObjectKind.SERVER_STATE, ObjectKind.UPDATE, ObjectKind.LEFTOVER})


class RetentionVerbs(Retention, Store):
    """Policies, holds and disposal at the hub."""

    retention = RETENTION
    retention_log = LOG

    @contextmanager
    def retention_pen(self, at: datetime) -> Iterator[Pen]:
        """See `Retention.retention_pen`."""
        with self.writing(at) as unit:

            def tell(kind: str, about: str, body: Mapping[str, Any]) -> None:
                book.append(unit.session, LOG, kind=kind, actor=HUB, about=about, body=body, at=at)

            yield Pen(unit.session, RETENTION, at, tell, unit.sign)

    @contextmanager
    def retention_view(self) -> Iterator[Session]:
        """See `Retention.retention_view`."""
        with self.seeing() as session:
            yield session

    @property
    def holder(self) -> str:
        """See `Retention.holder`."""
        return self._origin

    def context(self, session: Session, at: datetime) -> Callable[[Kept], Context]:
        """See `Retention.context`."""
        needed, events = retention_files.needed(session), retention_files.events(session)
        ends, going = retention_files.campaign_ends(session), retention_files.campaigns_going(session)

        def of(kept: Kept) -> Context:
            triggers: dict[Trigger, datetime] = {}
            if kept.scopes and all(scope in ends for scope in kept.scopes):
                triggers[Trigger.STUDY_END] = max(ends[scope] for scope in kept.scopes)
            if kept.kind in _ARRAYS:
                return Context({**triggers, **events.get(kept.object, {})}, needed.get(kept.object, ()))
            return Context(triggers, going if kept.kind is ObjectKind.FLOWER_STATE else ())

        return of

    def arrays_facts(self) -> dict[str, ArraysFacts]:
        """See `retention_files.arrays`."""
        with self.seeing() as session:
            return retention_files.arrays(session)

    def note_export(self, arrays: str, location: str, at: datetime) -> None:
        """Remembers where a copy of arrays was written, so that it is disposed of like what it is a copy of."""
        with self.retention_pen(at) as pen:
            campaigns = retention_files.arrays(pen.session).get(arrays)
            scopes = tuple(sorted(campaigns.scopes)) if campaigns else ()
            _note_export(pen, arrays, location, scopes)

    def exports(self) -> dict[str, tuple[str, tuple[str, ...], datetime]]:
        """By name of the export: where it is, its campaigns, and when it was written."""
        table = RETENTION.object
        with self.seeing() as session:
            rows = session.execute(
                table.select().where(table.c.kind == ObjectKind.EXPORT.value, table.c.gone_at.is_(None))
            )
            return {row.object: (row.location, tuple(row.scopes), row.made_at) for row in rows if row.location}


def _note_export(pen: Pen, arrays: str, location: str, scopes: tuple[str, ...]) -> None:
    table = pen.tables.object
    known = {
        row.object: row for row in pen.session.execute(table.select().where(table.c.kind == ObjectKind.EXPORT.value))
    }
    for name, row in known.items():
        if row.location == location and row.gone_at is None:
            values = {"scopes": list(scopes), "made_at": pen.at, "used_at": pen.at}
            here = (table.c.kind == ObjectKind.EXPORT.value) & (table.c.object == name)
            pen.session.execute(table.update().where(here).values(values))
            return
    values = {
        "kind": ObjectKind.EXPORT.value,
        "object": f"{arrays}#{len(known) + 1}",
        "scopes": list(scopes),
        "location": location,
        "made_at": pen.at,
        "used_at": pen.at,
    }
    pen.session.execute(table.insert(), values)
    pen.tell("export.note", arrays, {"campaigns": list(scopes)})
