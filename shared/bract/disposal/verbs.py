"""What a registry of either side can be asked and told about retention; one verb, one transaction."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.disposal import book, due, stock, tasks
from bract.disposal.book import Binding, Decided, Pen, Placed
from bract.disposal.due import Conflict, DueItem, Found, Rules
from bract.disposal.stock import Stocked
from bract.disposal.tables import RetentionTables
from bract.disposal.tasks import Disposal, Outcome, Task
from bract.disposal.turn import turn
from bract.errors import STATE, BractError
from bract.log.book import LogTables
from bract.retention import (
    Blocker,
    DisposalReceipt,
    Kept,
    LegalHold,
    ObjectKind,
    Obstacle,
    RetentionPolicy,
    Trigger,
    Way,
)


class Context(NamedTuple):
    """What a side's tables know about a file: when its triggers came, and what stands in the way of its deletion."""

    triggers: Mapping[Trigger, datetime]
    busy: tuple[Blocker, ...]


@dataclass(frozen=True)
class RunReport:
    """What one run of the job did, in objects: deleted, failed, and due but blocked or in conflict."""

    deleted: int
    failed: int
    blocked: int
    codes: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        """Whether nothing failed."""
        return not self.failed


class Retention(ABC):
    """Policies, holds, decisions, due lists and disposals. A side says how its transactions are made and what it holds."""

    retention: RetentionTables
    retention_log: LogTables
    _engine: Engine

    @abstractmethod
    def retention_pen(self, at: datetime) -> AbstractContextManager[Pen]:
        """A write transaction."""

    @abstractmethod
    def retention_view(self) -> AbstractContextManager[Session]:
        """A transaction that sees one state."""

    @property
    @abstractmethod
    def holder(self) -> str:
        """The site's or hub's name."""

    def shorthand(self, session: Session) -> Iterable[tuple[str, RetentionPolicy]]:
        """Scopes and policies that stand elsewhere than in the tables of policies."""
        return ()

    def context(self, session: Session, at: datetime) -> Callable[[Kept], Context]:
        """Tells of each file what its triggers are beside its own times, and what uses it now."""
        return lambda _: Context({}, ())

    def found(self, session: Session, standing: Rules, by: datetime | None) -> Iterator[Found]:
        """Everything here that may be due by then (None: ever), with its triggers and uses: files, and what a side adds."""
        table, context = self.retention.object, self.context(session, standing.at)
        kinds = [kind.value for kind in standing.kinds()]
        here = select(table).where(table.c.gone_at.is_(None), table.c.kind.in_(kinds))
        for row in session.execute(here.order_by(table.c.kind, table.c.object)):
            kept = Kept(ObjectKind(row.kind), row.object, tuple(row.scopes))
            triggers, busy = context(kept)
            if row.busy is not None:
                busy = (*busy, Blocker(Obstacle.RUNNING, row.busy))
            own = {Trigger.COLLECTION: row.made_at, Trigger.LAST_USE: row.used_at}
            yield Found(kept, {**own, **triggers}, busy)

    def leaves(self, session: Session, kind: ObjectKind, scope: str, also: Sequence[str]) -> dict[str, bytes]:
        """What each object of a kind and scope is in a receipt's roots, of all that are here and `also` these."""
        table = self.retention.object
        rows = session.execute(
            select(table.c.object, table.c.scopes, table.c.gone_at).where(table.c.kind == kind.value)
        )
        asked = set(also)
        return {
            name: name.encode()
            for name, scopes, gone_at in rows
            if name in asked or (gone_at is None and (not scope or scope in scopes))
        }

    # --- what persons lay down

    def add_policy(self, policy: RetentionPolicy, at: datetime) -> Digest:
        """See `bract.disposal.book.add_policy`."""
        with self.retention_pen(at) as pen:
            return book.add_policy(pen, policy)

    def bind_policy(self, policy: str, scope: str, by: str, at: datetime) -> None:
        """See `bract.disposal.book.bind`."""
        with self.retention_pen(at) as pen:
            book.bind(pen, policy, scope, by)

    def unbind_policy(self, policy: str, scope: str, by: str, at: datetime) -> None:
        """See `bract.disposal.book.unbind`."""
        with self.retention_pen(at) as pen:
            book.unbind(pen, policy, scope, by)

    def tell_event(self, trigger: Trigger, scope: str, came_at: datetime, by: str, at: datetime) -> None:
        """See `bract.disposal.book.tell_event`."""
        with self.retention_pen(at) as pen:
            book.tell_event(pen, trigger, scope, came_at, by)

    def place_hold(self, hold: LegalHold, clock: Callable[[], datetime]) -> None:
        """See `bract.disposal.book.place_hold`. A deletion that is under way ends first, and none begins meanwhile.

        The hold is placed, and holds, from when that has ended: what was deleted before was not held.

        Raises:
            BractError: also `concurrent` when that deletion takes too long; nothing is placed then.
        """
        with self.deleting():
            at = clock()
            with self.retention_pen(at) as pen:
                book.place_hold(pen, replace(hold, from_at=max(hold.from_at, at)))

    def lift_hold(self, name: str, by: str, approved_by: str, why: str, at: datetime) -> None:
        """See `bract.disposal.book.lift_hold`."""
        with self.retention_pen(at) as pen:
            book.lift_hold(pen, name, by, approved_by, why)

    def decide_conflict(self, terms: str, way: Way, by: str, why: str, at: datetime) -> Conflict:
        """Keeps a person's decision about terms, given by their digest or its first characters.

        Raises:
            BractError: `wrong-state` unless exactly one of the open terms begins so.
        """
        fitting = [one for one in self.conflicts(at) if one.terms.removeprefix("sha256:").startswith(_bare(terms))]
        if len(fitting) != 1:
            raise BractError(STATE, "exactly one conflict must have these terms; `retention conflict list` shows them")
        with self.retention_pen(at) as pen:
            book.decide(pen, fitting[0].about, way, by, why)
        return fitting[0]

    # --- what stands

    def retention_policies(self) -> tuple[tuple[RetentionPolicy, datetime], ...]:
        """Every version of every policy with when it was added."""
        with self.retention_view() as session:
            return book.policies(session, self.retention)

    def retention_bindings(self) -> tuple[Binding, ...]:
        """Every binding, oldest first."""
        with self.retention_view() as session:
            return book.bindings(session, self.retention)

    def legal_holds(self) -> tuple[Placed, ...]:
        """Every hold, by name."""
        with self.retention_view() as session:
            return book.holds(session, self.retention)

    def retention_decisions(self) -> tuple[Decided, ...]:
        """Every decision, oldest first."""
        with self.retention_view() as session:
            return book.decisions(session, self.retention)

    def due(self, by: datetime, at: datetime) -> tuple[DueItem, ...]:
        """What is due by then, and what stands in its way now; earliest first."""
        with self.retention_view() as session:
            standing = due.rules(session, self.retention, at, self.shorthand(session))
            lines = due.items(session, self.retention, standing, self.found(session, standing, max(by, at)), by)
            return tuple(sorted(lines, key=lambda one: (one.due_at, one.kind, one.scopes, one.object)))

    def conflicts(self, at: datetime) -> tuple[Conflict, ...]:
        """What only a person can settle, or has settled."""
        with self.retention_view() as session:
            standing = due.rules(session, self.retention, at, self.shorthand(session))
            return due.conflicts(standing, self.found(session, standing, None))

    def disposal_tasks(self) -> tuple[Task, ...]:
        """Disposals that are not finished."""
        with self.retention_view() as session:
            return tasks.unfinished(session, self.retention)

    def disposals(self) -> tuple[Disposal, ...]:
        """Every receipt, oldest first."""
        with self.retention_view() as session:
            return tasks.disposals(session, self.retention)

    def last_run(self) -> datetime | None:
        """When the job last ran."""
        entry = self.retention_log.entry
        with self.retention_view() as session:
            moment: datetime | None = session.scalar(select(func.max(entry.c.at)).where(entry.c.kind == RUN))
            return moment

    def under_policy(self) -> bool:
        """Whether any policy stands, so that the job has something to do."""
        with self.retention_view() as session:
            known = select(func.count()).select_from(self.retention.policy)
            return bool(session.scalar(known)) or any(True for _ in self.shorthand(session))

    # --- the job's steps

    def deleting(self) -> AbstractContextManager[None]:
        """The turn of one deletion, from its claim to its receipt: no hold is placed meanwhile (`bract.disposal.turn`)."""
        return turn(self._engine)

    def take_stock(self, kinds: Iterable[ObjectKind], found: Iterable[Stocked], at: datetime) -> None:
        """Brings the known files of these kinds up to what the disk holds."""
        with self.retention_pen(at) as pen:
            stock.take(pen, set(kinds), found)

    def claim_disposal(self, task: Task, gone: Iterable[str], at: datetime) -> Task:
        """Puts a task on disk before anything of it is deleted, or takes one up again that has a number.

        What may be deleted is judged again in this transaction, so that no hold that was placed before it is overlooked.

        Args:
            task: its pending objects.
            gone: those of them that are not there any more and only want a receipt.
            at: now.

        Returns:
            The task with those objects that are gone or may be deleted; its number is 0 when that is none of a new one.
        """
        with self.retention_pen(at) as pen:
            wanted = {*gone, *self._ready(pen.session, task.kind, at)}
            left = replace(task, objects=tuple(name for name in task.objects if name in wanted))
            if not task.id:
                return tasks.claim(pen, left) if left.objects else left
            tasks.release(pen, task, [name for name in task.objects if name not in wanted])
            return tasks.reclaim(pen, left)

    def _ready(self, session: Session, kind: ObjectKind, at: datetime) -> set[str]:
        standing = due.rules(session, self.retention, at, self.shorthand(session))
        # each file is a task of its own: a million records are not judged anew for every one
        mine = replace(
            standing,
            bound=[one for one in standing.bound if one[1].applies_to is kind],
            holds=book.holding(session, self.retention, at),
        )
        listed = due.items(session, self.retention, mine, self.found(session, mine, at), at)
        return {one.object for one in listed if one.kind is kind and one.ready}

    def finish_disposal(self, task: Task, outcome: Outcome, at: datetime) -> tuple[DisposalReceipt, ...]:
        """See `bract.disposal.tasks.finish`; what is gone is no longer known as here."""
        with self.retention_pen(at) as pen:
            leaves = self.leaves(pen.session, task.kind, task.scope, task.objects) if outcome.gone else {}
            receipts = tasks.finish(pen, self.holder, task, outcome, leaves)
            stock.forget(pen, task.kind, outcome.gone)
            return receipts

    def note_run(self, report: RunReport, at: datetime) -> None:
        """Tells the log that the job ran, and what it did."""
        with self.retention_pen(at) as pen:
            body = {"deleted": report.deleted, "failed": report.failed, "blocked": report.blocked}
            pen.tell(RUN, self.holder, body)


RUN = "retention.run"


def _bare(terms: str) -> str:
    return terms.removeprefix("sha256:") or "-"
