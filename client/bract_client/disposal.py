"""What a site holds, where, and the daily job that deletes what is over its time.

Covered: records (rows of the registry, and the source's files where those are the site's own), received models, updates
and unfinished files in the outbox, process logs, results of audits, the node's number at Flower (its other state is in
memory only), and temporary files of processes that were killed. Caches and embeddings: this version stores none.
"""

import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bract.checks import Check
from bract.database import open_engine
from bract.digest import parse_digest
from bract.disposal import job
from bract.disposal.job import Files, Holding, Logs
from bract.disposal.stock import Stocked
from bract.disposal.tasks import Outcome, Task
from bract.disposal.verbs import RunReport
from bract.errors import BractError
from bract.migrations import at_head
from bract.retention import Method, ObjectKind
from bract_client import disposal_sources
from bract_client.home import SiteHome
from bract_client.registry import MIGRATIONS
from bract_client.registry.store import SiteRegistry
from bract_client.site import open_registry

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")


class Records:
    """The records of the site's data sets."""

    kinds = frozenset({ObjectKind.RECORD})

    def __init__(self, home: SiteHome, registry: SiteRegistry) -> None:
        self._root = home.root.resolve()
        self._registry = registry

    def stock(self) -> Iterator[Stocked]:
        """See `Holding.stock`: records are no files."""
        yield from ()

    def delete(self, task: Task, at: datetime) -> Outcome:
        """See `Holding.delete`. The source goes first: without a record's name it could not be found there again."""
        numbers = [int(name) for name in task.objects]
        try:
            with_sources = self._remove(task, numbers)
            erased = self._registry.erase_records(task.scope, numbers, at)
            remains = erased.remains | self._registry.settle_disk()
        except BractError as error:
            return Outcome({}, dict.fromkeys(task.objects, error.code))
        still = {str(number) for number in self._registry.records_left(numbers)}
        gone = {name: Method.ERASE_ROWS for name in task.objects if name not in still}
        failed = dict.fromkeys(still, "not-deleted")
        return Outcome(gone, failed, remains if with_sources else remains | {"source"})

    def gone(self, task: Task) -> frozenset[str]:
        """See `Holding.gone`."""
        numbers = [int(name) for name in task.objects]
        left = self._registry.records_left(numbers)
        self._registry.settle_disk()
        return frozenset(str(number) for number in numbers if number not in left)

    def _remove(self, task: Task, numbers: list[int]) -> bool:
        """Whether the records are out of their source: it was the site's to delete from, or the steward asked for it.

        A source of somebody else's that is not there may lie on a disk that is away: nothing is said of it then.
        """
        location = self._registry.dataset(task.scope).location
        own = Path(location.path).resolve().is_relative_to(self._root)
        if own or task.sources:
            disposal_sources.remove(location, self._registry.record_names(task.scope, numbers))
        return own or (task.sources and Path(location.path).exists())


def holdings(home: SiteHome, registry: SiteRegistry) -> tuple[Holding, ...]:
    """Everything that a site holds."""
    outbox = (ObjectKind.ARRAYS, ObjectKind.UPDATE, ObjectKind.SCRATCH)
    return (
        Records(home, registry),
        Files(outbox, lambda: _outbox(home), lambda _, name: [home.outbox / name]),
        Files(
            [ObjectKind.DOCUMENT],
            lambda: _files(ObjectKind.DOCUMENT, home.root / "audits", "*.json"),
            lambda _, name: [home.root / "audits" / name],
        ),
        Files(
            [ObjectKind.FLOWER_STATE],
            lambda: _files(ObjectKind.FLOWER_STATE, home.root, "node.id"),
            lambda _, name: [home.root / name],
        ),
        Files([ObjectKind.LEFTOVER], lambda: _leftovers(home), lambda _, name: [home.root / name]),
        Logs(home.logs),
    )


def dispose(
    home: SiteHome, registry: SiteRegistry, clock: Callable[[], datetime], *, ordered_by: str, sources: bool = False
) -> RunReport:
    """Close what is over its time to every use, then delete what nothing keeps.

    Raises:
        BractError: `concurrent` while another disposal runs; `disk`, `unreachable`.
    """
    with job.alone(home.root):
        registry.exclude_over(clock())
        return job.dispose(registry, holdings(home, registry), clock, ordered_by=ordered_by, sources=sources)


def take_stock(home: SiteHome, registry: SiteRegistry, at: datetime) -> None:
    """Bring what the registry knows of the site's files up to the disk."""
    job.take_stock(registry, holdings(home, registry), at)


def start_daily(home: SiteHome) -> None:
    """A thread of this process that disposes of what is due, once a day, as long as the process lives."""
    opened: list[SiteRegistry] = []

    def run() -> None:
        if not opened:
            opened.append(open_registry(home))
        if job.is_due_now(opened[0], _now()):
            dispose(home, opened[0], _now, ordered_by=job.SCHEDULE)

    threading.Thread(target=job.daily, args=(run, threading.Event()), name="disposal", daemon=True).start()


def check(home: SiteHome, at: datetime) -> Check:
    """For `doctor`: that nothing is over its time but for what may not be deleted."""
    try:
        engine = open_engine(home.database_url(), read_only=True)
        ready = not _missing(home) and at_head(engine, MIGRATIONS)
    except BractError:
        return Check("retention", True, "not looked at: there is no registry to ask")
    try:
        if not ready:
            return Check("retention", True, "not looked at: there is no registry of this version")
        return job.overdue(SiteRegistry(engine, home.subject_key(), home.signing_key(), home.settings().name), at)
    finally:
        engine.dispose()


def _missing(home: SiteHome) -> bool:
    return home.settings().database is None and not home.registry_db.exists()


def _outbox(home: SiteHome) -> Iterator[Stocked]:
    for path in sorted(home.outbox.iterdir()) if home.outbox.is_dir() else ():
        yield _stocked(_kind(path.name), path.name, path)


def _kind(name: str) -> ObjectKind:
    if name.endswith(".update"):
        return ObjectKind.UPDATE
    try:
        parse_digest(name)
    except BractError:
        return ObjectKind.SCRATCH
    return ObjectKind.ARRAYS


def _files(kind: ObjectKind, folder: Path, pattern: str) -> Iterator[Stocked]:
    for path in sorted(folder.glob(pattern)):
        yield _stocked(kind, path.name, path)


def _leftovers(home: SiteHome) -> Iterator[Stocked]:
    """Temporary files of writes that were cut off: beside the settings, keys, certificates and audits."""
    for folder in (home.root, *(home.root / name for name in ("keys", "certs", "audits", "logs"))):
        for path in sorted(folder.glob(".*")):
            if path.is_file() and _TEMPORARY.fullmatch(path.name):
                yield _stocked(ObjectKind.LEFTOVER, str(path.relative_to(home.root)), path)


def _stocked(kind: ObjectKind, name: str, path: Path) -> Stocked:
    changed = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    return Stocked(kind, name, changed, changed)


def _now() -> datetime:
    return datetime.now(UTC)
