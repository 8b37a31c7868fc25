"""Runs a site's disposal again and again, each time killed with SIGKILL at its next step; prints what stood after another.

A step is a statement or commit of the database, or a file that is opened, renamed or removed.

Usage: killed_disposal.py URL FOLDER EVERY. In SQLite every run starts from the same state; in PostgreSQL from what the
killed one before left. A line a kill.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import event

from bract.database import open_engine
from bract.retention import Action, ObjectKind, RetentionPolicy, RetentionRule, Trigger, parse_period
from bract_client import disposal
from bract_client.home import SiteHome
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import KEY, SIGNING, T0, Person, add_table, open_registry, write_table

LATER = T0 + timedelta(days=60)
CANARY = "KANARIENVOGEL"
_FILE_STEPS = {"open", "os.rename", "os.remove", "os.rmdir"}


def prepare(url: str, home: SiteHome) -> None:
    """Two records of which one is over its time, a transfer that was cut off, and an old day of a log."""
    for folder in (home.data, home.outbox, home.logs):
        folder.mkdir(parents=True)
    (home.outbox / "one.part").write_bytes(CANARY.encode() * 100)
    os.utime(home.outbox / "one.part", (T0.timestamp(), T0.timestamp()))
    (home.logs / "executor.log").write_text(f"2026-01-05 10:00:00,1 {CANARY}\n2026-04-29 10:00:00,1 new\n")
    engine, registry = open_registry(url)
    people = [
        Person(f"{CANARY}-0", "P-0", collected_at="2025-04-01T00:00:00+00:00"),
        Person("new", "P-1", collected_at="2026-02-20T00:00:00+00:00"),
    ]
    add_table(registry, write_table(home.data / "t.parquet", people), retention=RetentionRule(365))
    registry.ingest("adult", T0)
    for kind in (ObjectKind.SCRATCH, ObjectKind.LOG):
        period = parse_period("P30D")
        value = RetentionPolicy(kind.value, 1, kind, "law", Trigger.COLLECTION, None, period, Action.DELETE, "Ana")
        registry.add_policy(value, T0)
        registry.bind_policy(kind.value, "", "Ana", T0)
    engine.dispose()


def killed_at(url: str, home: SiteHome, step: int) -> bool:
    """Whether the child was killed; False once the job has fewer steps and ended."""
    child = os.fork()
    if child == 0:
        engine = open_engine(url)
        seen = [0]

        def maybe_die(*_: object) -> None:
            seen[0] += 1
            if seen[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)

        def audited(name: str, arguments: tuple[object, ...]) -> None:
            if name in _FILE_STEPS and str(home.root) in str(arguments[0]):
                maybe_die()

        event.listen(engine, "after_cursor_execute", maybe_die)
        event.listen(engine, "commit", maybe_die)
        sys.addaudithook(audited)
        dispose(home, SiteRegistry(engine, KEY, SIGNING, "ward"))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("the child failed by itself")
    return os.WIFSIGNALED(status)


def dispose(home: SiteHome, registry: SiteRegistry) -> int:
    return disposal.dispose(home, registry, lambda: LATER, ordered_by="Ana").failed


def state(url: str, home: SiteHome) -> dict[str, object]:
    """What a run that is not killed makes of it."""
    engine = open_engine(url)
    registry = SiteRegistry(engine, KEY, SIGNING, "ward")
    failed = dispose(home, registry)
    registry.check()
    registry.verify_log()
    told: dict[str, object] = {
        "failed": failed,
        "receipts": sorted(one.receipt.kind.value for one in registry.disposals()),
        "unfinished": len(registry.disposal_tasks()),
        "due": len(registry.due(LATER, LATER)),
        "records": registry.ingest("adult", LATER).unchanged,
        "files": sorted(str(path.relative_to(home.root)) for path in home.root.rglob("*") if path.is_file()),
    }
    engine.dispose()
    folders = [home.root, *([Path(url.removeprefix("sqlite:///")).parent] if url.startswith("sqlite") else [])]
    data = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    told["canary"] = sorted(path.name for path in data if CANARY.encode() in path.read_bytes())
    return told


def main(url: str, folder: Path, every: int, out: Callable[[str], object]) -> None:
    work, pristine = folder / "work", folder / "pristine"
    sqlite = url.startswith("sqlite")
    url = f"sqlite:///{work}/registry.db" if sqlite else url
    prepare(url, SiteHome(work))
    shutil.copytree(work, pristine)
    step, alive = 1 - every, True
    while alive:
        step += every
        if sqlite:
            shutil.rmtree(work)
            shutil.copytree(pristine, work)
        alive = killed_at(url, SiteHome(work), step)
        if sqlite or not alive:
            out(json.dumps({"killed": alive, "step": step, **state(url, SiteHome(work))}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), lambda line: sys.stdout.write(line + "\n"))
