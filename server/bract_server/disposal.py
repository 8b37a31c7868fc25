"""What the hub holds, where, and the daily job that deletes what is over its time.

Covered: encoder versions' arrays, optimizer states and updates by digest, unfinished transfers, exported copies whose place
the hub was told, process logs, Flower's state file (while the hub rests), and temporary files of processes that were killed.
Caches and embeddings: this version stores none. What a round discards at its own end (`bract_server.rounds`) has no receipt.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bract.checks import Check
from bract.database import open_engine
from bract.disposal import job
from bract.disposal.job import Files, Holding, Logs
from bract.disposal.stock import Stocked
from bract.disposal.verbs import RunReport
from bract.errors import BractError
from bract.migrations import at_head
from bract.retention import ObjectKind
from bract.supervisor import is_running
from bract_server.home import HubHome
from bract_server.hub import open_registry
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry

log = logging.getLogger("bract.disposal")

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
_ARRAYS = (ObjectKind.CHECKPOINT, ObjectKind.SERVER_STATE, ObjectKind.UPDATE, ObjectKind.LEFTOVER)
_HEX = 64


def holdings(home: HubHome, registry: HubRegistry, *, running: bool) -> tuple[Holding, ...]:
    """Everything that a hub holds; Flower's state is in use while the hub runs."""
    return (
        Files(
            _ARRAYS,
            lambda: (*_arrays(home, registry), *_leftovers(home)),
            lambda _, name: [_path(home, name)],
            ("old-blocks", "lineage"),
        ),
        Files([ObjectKind.SCRATCH], lambda: _scratch(home), lambda _, name: [home.arrays / "incoming" / name]),
        Files([ObjectKind.EXPORT], lambda: _exports(registry), lambda _, name: _export(registry, name)),
        Files([ObjectKind.FLOWER_STATE], lambda: _flower(home, running=running), lambda _, __: _flower_files(home)),
        Logs(home.logs),
    )


def dispose(
    home: HubHome,
    registry: HubRegistry,
    clock: Callable[[], datetime],
    *,
    ordered_by: str,
    running: bool | None = None,
) -> RunReport:
    """Delete what is over its time and nothing keeps.

    Args:
        home: the hub.
        registry: its registry.
        clock: the time.
        ordered_by: a named person, or `bract.disposal.job.SCHEDULE`.
        running: whether the hub runs; None looks.

    Raises:
        BractError: `concurrent` while another disposal runs; `disk`, `unreachable`.
    """
    runs = is_running(home.root) if running is None else running
    with job.alone(home.root):
        return job.dispose(registry, holdings(home, registry, running=runs), clock, ordered_by=ordered_by)


def take_stock(home: HubHome, registry: HubRegistry, at: datetime) -> None:
    """Bring what the registry knows of the hub's files up to the disk."""
    job.take_stock(registry, holdings(home, registry, running=is_running(home.root)), at)


def start_daily(home: HubHome) -> None:
    """A thread of this process that disposes of what is due, once a day, as long as the process lives."""
    opened: list[HubRegistry] = []

    def run() -> None:
        if not opened:
            opened.append(open_registry(home))
        if job.is_due_now(opened[0], _now()):
            dispose(home, opened[0], _now, ordered_by=job.SCHEDULE, running=True)

    threading.Thread(target=job.daily, args=(run, threading.Event()), name="disposal", daemon=True).start()


def before_start(home: HubHome, registry: HubRegistry, clock: Callable[[], datetime]) -> None:
    """What can only be disposed of while the hub rests, Flower's state: done when the hub starts and it is over its time.

    What goes wrong keeps no hub from starting: it stays due, and `doctor` tells.
    """
    if not registry.under_policy():
        return
    try:
        with job.alone(home.root):
            resting = holdings(home, registry, running=False)
            job.take_stock(registry, resting, clock())
            due = registry.due(clock(), clock())
            if any(one.ready and one.kind is ObjectKind.FLOWER_STATE for one in due):
                job.dispose(registry, resting, clock, ordered_by=job.SCHEDULE)
    except BractError as error:
        log.error("disposal: %s", error.code)


def check(home: HubHome, at: datetime) -> Check:
    """For `doctor`: that nothing is over its time but for what may not be deleted."""
    try:
        engine = open_engine(home.database_url(), read_only=True)
        missing = home.settings().database is None and not home.registry_db.exists()
        ready = not missing and at_head(engine, MIGRATIONS)
    except (BractError, FileNotFoundError):
        return Check("retention", True, "not looked at: there is no registry to ask")
    try:
        if not ready:
            return Check("retention", True, "not looked at: there is no registry of this version")
        return job.overdue(HubRegistry(engine, home.signing_key(), home.settings().name), at)
    finally:
        engine.dispose()


def _arrays(home: HubHome, registry: HubRegistry) -> Iterator[Stocked]:
    """Whole arrays. One that the registry keeps is never a leftover, whatever it is."""
    facts = registry.arrays_facts()
    for path in sorted(home.arrays.glob("*.safetensors")):
        digest, changed = f"sha256:{path.stem}", _changed(path)
        if digest in facts:
            known = facts[digest]
            scopes = tuple(sorted(known.scopes))
            yield Stocked(known.kind, digest, known.made_at, known.used_at, scopes)
        elif len(path.stem) == _HEX:
            kind = ObjectKind.CHECKPOINT if registry.keeps(digest) else ObjectKind.LEFTOVER  # type: ignore[arg-type]
            yield Stocked(kind, digest, changed, changed)


def _path(home: HubHome, name: str) -> Path:
    if name.startswith("sha256:"):
        return home.arrays / f"{name.removeprefix('sha256:')}.safetensors"
    return home.root / name


def _scratch(home: HubHome) -> Iterator[Stocked]:
    folder = home.arrays / "incoming"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield Stocked(ObjectKind.SCRATCH, path.name, _changed(path), _changed(path))


def _leftovers(home: HubHome) -> Iterator[Stocked]:
    """Temporary files of writes that were cut off: beside the settings, keys and certificates."""
    for folder in (home.root, home.authority_key.parent, home.authority_file.parent, home.logs):
        for path in sorted(folder.glob(".*")):
            if path.is_file() and _TEMPORARY.fullmatch(path.name):
                name = str(path.relative_to(home.root))
                yield Stocked(ObjectKind.LEFTOVER, name, _changed(path), _changed(path))


def _exports(registry: HubRegistry) -> Iterator[Stocked]:
    for name, (location, scopes, made_at) in sorted(registry.exports().items()):
        if Path(location).exists():
            yield Stocked(ObjectKind.EXPORT, name, made_at, made_at, scopes, location)


def _export(registry: HubRegistry, name: str) -> Sequence[Path]:
    found = registry.exports().get(name)
    return [Path(found[0])] if found else []


def _flower_files(home: HubHome) -> Sequence[Path]:
    return [home.flower_db, *(home.flower_db.with_name(f"{home.flower_db.name}-{end}") for end in ("wal", "shm"))]


def _flower(home: HubHome, *, running: bool) -> Iterator[Stocked]:
    """Flower's state was last used when it was last written; how old its oldest row is, only Flower knows."""
    here = [path for path in _flower_files(home) if path.exists()]
    if here:
        last = max(_changed(path) for path in here)
        yield Stocked(ObjectKind.FLOWER_STATE, home.flower_db.name, last, last, busy="hub" if running else None)


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.lstat().st_mtime, UTC)


def _now() -> datetime:
    return datetime.now(UTC)
