"""The job that deletes: take stock, take up what was cut off, claim, delete, look again, sign. One at a time a folder.

It may be killed between any two steps. What was claimed is found again by the next run and deleted once more, which
changes nothing about what is gone; a receipt is signed only after the thing was looked for and not found. From claim to receipt
nobody can place a hold: it waits for that one deletion, and every later claim sees it.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from bract.checks import Check
from bract.disposal import erase as erasing
from bract.disposal.due import DueItem
from bract.disposal.stock import Stocked
from bract.disposal.tasks import Outcome, Task
from bract.disposal.verbs import Retention, RunReport
from bract.errors import CONCURRENT, NOT_DELETED, BractError
from bract.retention import Method, ObjectKind, State
from bract.retention.receipt import is_time

SCHEDULE = "schedule"
"""Who ordered what the daily job does."""

POLL_S = 600.0
"""How often it is asked whether it is time."""

log = logging.getLogger("bract.disposal")


class Holding(Protocol):
    """A place where objects of some kinds lie."""

    kinds: frozenset[ObjectKind]

    def stock(self) -> Iterable[Stocked]:
        """What is there now, as far as it is files."""
        ...

    def delete(self, task: Task, at: datetime) -> Outcome:
        """Deletes the task's pending objects and looks for them again; once more changes nothing."""
        ...

    def gone(self, task: Task) -> frozenset[str]:
        """Those of the task's objects that are not there any more."""
        ...


class Files:
    """A holding whose objects are files: each under its name, deleted one by one.

    Args:
        kinds: of the objects.
        stock: gives what is there.
        path: of an object; None when the name means none.
        remains: what deleting one leaves behind.
    """

    def __init__(
        self,
        kinds: Iterable[ObjectKind],
        stock: Callable[[], Iterable[Stocked]],
        path: Callable[[ObjectKind, str], Sequence[Path]],
        remains: Iterable[str] = ("old-blocks",),
    ) -> None:
        self.kinds = frozenset(kinds)
        self._stock = stock
        self._path = path
        self._remains = frozenset(remains)

    def stock(self) -> Iterable[Stocked]:
        """See `Holding.stock`."""
        return self._stock()

    def delete(self, task: Task, at: datetime) -> Outcome:
        """See `Holding.delete`."""
        gone: dict[str, Method] = {}
        failed: dict[str, str] = {}
        for name in task.objects:
            try:
                gone[name] = self._delete(task.kind, name)
            except BractError as error:
                failed[name] = error.code
        return Outcome(gone, failed, self._remains)

    def gone(self, task: Task) -> frozenset[str]:
        """See `Holding.gone`."""
        return frozenset(
            name for name in task.objects if not any(os.path.lexists(path) for path in self._path(task.kind, name))
        )

    def _delete(self, kind: ObjectKind, name: str) -> Method:
        methods = [erasing.erase(path) for path in self._path(kind, name)]
        if any(os.path.lexists(path) for path in self._path(kind, name)):
            raise BractError(NOT_DELETED, "it was found again")
        weakest = (Method.UNLINK, Method.OVERWRITE)
        return next((method for method in weakest if method in methods), Method.ABSENT)


class Logs:
    """The logs of our processes, a day of one log an object: `executor.log@2026-11-22`."""

    kinds = frozenset({ObjectKind.LOG})

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stock(self) -> Iterable[Stocked]:
        """See `Holding.stock`. A day of a log is collected when the day is over."""
        for path in sorted(self._folder.glob("*.log")):
            for day, over in erasing.days(path).items():
                yield Stocked(ObjectKind.LOG, f"{path.name}@{day.isoformat()}", over, over)

    def delete(self, task: Task, at: datetime) -> Outcome:
        """See `Holding.delete`."""
        gone: dict[str, Method] = {}
        failed: dict[str, str] = {}
        for name in task.objects:
            file, _, day = name.rpartition("@")
            try:
                gone[name] = erasing.blank(self._folder / file, datetime.fromisoformat(day).date())
            except BractError as error:
                failed[name] = error.code
        return Outcome(gone, failed, frozenset({"old-blocks"}))

    def gone(self, task: Task) -> frozenset[str]:
        """See `Holding.gone`."""
        here = {one.object for one in self.stock()}
        return frozenset(task.objects) - here


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other disposals of this folder out; the lock ends with the process, however it ends.

    Raises:
        BractError: `concurrent`.
    """
    with (folder / "disposal.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BractError(CONCURRENT, "another disposal is running") from error
        yield


def take_stock(registry: Retention, holdings: Iterable[Holding], at: datetime) -> None:
    """Bring what the registry knows of files up to the disk."""
    for holding in holdings:
        registry.take_stock(holding.kinds, holding.stock(), at)


def dispose(
    registry: Retention,
    holdings: Sequence[Holding],
    clock: Callable[[], datetime],
    *,
    ordered_by: str = SCHEDULE,
    sources: bool = False,
) -> RunReport:
    """One run. Hold `alone` around it.

    Args:
        registry: of this side.
        holdings: all that there are.
        clock: the time.
        ordered_by: a named person, or `SCHEDULE`.
        sources: whether a record's own source files are deleted too.

    Raises:
        BractError: `concurrent`, `disk`, `unreachable` of the registry; what was claimed is taken up by the next run.
    """
    take_stock(registry, holdings, clock())
    outcomes = [_redo(registry, holdings, task, clock) for task in registry.disposal_tasks()]
    pending = {(task.kind, name) for task in registry.disposal_tasks() for name in task.objects}
    listed = registry.due(clock(), clock())
    ready = [one for one in listed if one.ready and (one.kind, one.object) not in pending]
    for task in tasks_of(ready, ordered_by, sources=sources):
        with registry.deleting():
            claimed = registry.claim_disposal(task, (), clock())
            if claimed.id:
                outcomes.append(_perform(registry, holdings, claimed, clock))
    blocked = sum(one.state in (State.BLOCKED, State.CONFLICT) for one in listed)
    report = RunReport(
        deleted=sum(len(one.gone) for one in outcomes),
        failed=sum(len(one.failed) for one in outcomes),
        blocked=blocked,
        codes=tuple(sorted({code for one in outcomes for code in one.failed.values()})),
    )
    if report.failed:
        log.error("%d objects whose time is over could not be deleted: %s", report.failed, ", ".join(report.codes))
    registry.note_run(report, clock())
    return report


def daily(run: Callable[[], object], stop: threading.Event, poll_s: float = POLL_S) -> None:
    """Forever, until `stop`: ask whether it is time, and run. A failure is logged by its code and tried again."""
    while True:
        try:
            run()
        except BractError as error:
            log.error("disposal: %s", error.code)
        except Exception as error:  # noqa: BLE001 - it must run again tomorrow; a text could hold a path of data
            log.error("disposal: %s", type(error).__name__)
        if stop.wait(poll_s):
            return


def is_due_now(registry: Retention, at: datetime) -> bool:
    """Whether the daily job has something to do and has not run today."""
    return registry.under_policy() and is_time(registry.last_run(), at)


def overdue(registry: Retention, at: datetime) -> Check:
    """For `doctor`: that nothing is over its time, but for what may not be deleted."""
    listed = registry.due(at, at)
    failed = [one for one in listed if one.attempts]
    waiting = [one for one in listed if one.state is State.DUE and not one.attempts]
    stuck = [one for one in listed if one.state is State.CONFLICT]
    told = f"{len(failed)} failed, {len(waiting)} due, {len(stuck)} in conflict, {len(listed)} over their time in all"
    remedy = "`retention due` lists them; `retention dispose` deletes, `retention conflict decide` settles."
    well = not (failed or waiting or stuck)
    return Check("retention", well, told, "" if well else remedy)


def tasks_of(items: Iterable[DueItem], ordered_by: str, *, sources: bool) -> Iterator[Task]:
    """Records of one data set go together; every other object goes alone, so that one failure stops no other."""
    records: dict[tuple[str, tuple[str, ...]], list[DueItem]] = {}
    for one in items:
        if one.kind is ObjectKind.RECORD:
            records.setdefault((one.scopes[0], one.policies), []).append(one)
        else:
            scope = one.scopes[0] if len(one.scopes) == 1 else ""
            yield _task(one.kind, scope, [one], ordered_by, sources=False)
    for (scope, _), together in records.items():
        yield _task(ObjectKind.RECORD, scope, together, ordered_by, sources=sources)


def _task(kind: ObjectKind, scope: str, items: Sequence[DueItem], ordered_by: str, *, sources: bool) -> Task:
    names = tuple(one.object for one in items)
    due_at = min(one.due_at for one in items)
    return Task(0, kind, scope, names, due_at, items[0].policies, sources, ordered_by, 0, "executing", None)


def _perform(registry: Retention, holdings: Sequence[Holding], task: Task, clock: Callable[[], datetime]) -> Outcome:
    holding = next((one for one in holdings if task.kind in one.kinds), None)
    nobody = Outcome({}, dict.fromkeys(task.objects, NOT_DELETED))
    outcome = nobody if holding is None else holding.delete(task, clock())
    registry.finish_disposal(task, outcome, clock())
    return outcome


def _redo(registry: Retention, holdings: Sequence[Holding], task: Task, clock: Callable[[], datetime]) -> Outcome:
    """A task that was cut off or failed: what is gone is signed for; what may still be deleted is; the rest is let go."""
    holding = next((one for one in holdings if task.kind in one.kinds), None)
    with registry.deleting():
        gone = holding.gone(task) if holding is not None and task.objects else frozenset()
        return _perform(registry, holdings, registry.claim_disposal(task, gone, clock()), clock)
