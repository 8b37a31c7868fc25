"""What is over its time leaves the site's disk and registry, with a receipt; what fails stays due and is told."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, event, text
from typer.testing import CliRunner

from bract.consent import Decision, Purpose
from bract.disposal import job, turn
from bract.disposal.erase import blank, erase
from bract.disposal.job import Files
from bract.disposal.stock import Stocked
from bract.disposal.tasks import Outcome, Task
from bract.disposal.verbs import RunReport
from bract.errors import CONCURRENT, DISK, NOT_DELETED, SAME_PERSON, UNKNOWN_SUBJECT, BractError
from bract.retention import (
    Action,
    DisposalReceipt,
    LegalHold,
    Method,
    ObjectKind,
    RetentionPolicy,
    RetentionRule,
    Selector,
    State,
    Trigger,
    parse_period,
)
from bract.signing import parse_envelope, unseal
from bract_client import disposal
from bract_client.cli.main import app
from bract_client.home import SiteHome, create
from bract_client.registry.store import SiteRegistry
from bract_client.site import open_registry as site_registry
from bract_client.sources.location import FilesLocation, ImagesLocation
from tests.client.site_world import SIGNING, T0, Person, add_table, open_registry, write_table
from tests.small_disk import on_small_disk

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
LATER = T0 + 60 * DAY
OLD, NEW = "2025-04-01T00:00:00+00:00", "2026-02-20T00:00:00+00:00"
CANARY = "KANARIENVOGEL"


@dataclass
class Ward:
    """A site in its own folder, with a registry on either database."""

    home: SiteHome
    engine: Engine
    registry: SiteRegistry

    def policy(self, kind: ObjectKind, ceiling: str, trigger: Trigger = Trigger.COLLECTION, scope: str = "") -> None:
        name = f"{kind.value}-{ceiling.lower()}-{trigger.value}"
        period = parse_period(ceiling)
        value = RetentionPolicy(name, 1, kind, "notice 3", trigger, None, period, Action.DELETE, "Ana")
        self.registry.add_policy(value, T0)
        self.registry.bind_policy(name, scope, "Ana", T0)

    def dispose(self, at: datetime = LATER, *, sources: bool = False) -> RunReport:
        return disposal.dispose(self.home, self.registry, lambda: at, ordered_by="Ana", sources=sources)

    def receipts(self) -> list[DisposalReceipt]:
        key = SIGNING.public_key()
        return [unseal(DisposalReceipt, parse_envelope(one.envelope), key) for one in self.registry.disposals()]

    def put(self, name: str, data: bytes = b"x" * 5000, at: datetime = T0) -> Path:
        path = self.home.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (at.timestamp(), at.timestamp()))
        return path


@pytest.fixture
def ward(database_url: str, tmp_path: Path) -> Iterator[Ward]:
    """Whatever a test did, the log verifies at its end, and the consent state is what the events say."""
    yield from _ward(database_url, tmp_path)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    engine, _ = open_registry(f"sqlite:///{path}")
    engine.dispose()
    return path


@pytest.fixture
def here(migrated: Path, tmp_path: Path) -> Iterator[Ward]:
    """The same for tests of files, which need one database."""
    shutil.copyfile(migrated, tmp_path / "registry.db")
    yield from _ward(f"sqlite:///{tmp_path}/registry.db", tmp_path)


def _ward(url: str, folder: Path) -> Iterator[Ward]:
    home = create(folder / "ward", name="ward")
    engine, registry = open_registry(url)
    yield Ward(home, engine, registry)
    registry.verify_log()
    registry.check()
    engine.dispose()


def people(*collected: str) -> list[Person]:
    return [Person(f"{CANARY}-{n}", f"P-{n}", collected_at=when) for n, when in enumerate(collected)]


def found_on_disk(folder: Path, word: bytes) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and word in path.read_bytes()}


def test_every_file_that_a_site_holds_is_covered(ward: Ward) -> None:
    kinds = {
        "outbox/sha256:" + "a" * 64: ObjectKind.ARRAYS,
        "outbox/sha256:" + "b" * 64 + ".update": ObjectKind.UPDATE,
        "outbox/.arrays-1234": ObjectKind.SCRATCH,
        "outbox/sha256:" + "c" * 64 + ".part": ObjectKind.SCRATCH,
        "audits/0f.json": ObjectKind.DOCUMENT,
        "node.id": ObjectKind.FLOWER_STATE,
        ".settings.toml.0123456789abcdef": ObjectKind.LEFTOVER,
        "keys/.signing.pem.0123456789abcdef": ObjectKind.LEFTOVER,
    }
    paths = [ward.put(name) for name in kinds]
    ward.put("logs/executor.log", b"2026-01-05 10:00:00,123 bract INFO one\n", LATER)
    for kind in {*kinds.values(), ObjectKind.LOG}:
        ward.policy(kind, "P30D")
    others = sorted(path for path in ward.home.root.rglob("*") if path.is_file() and path not in paths)
    report = ward.dispose()
    assert (report.deleted, report.failed) == (len(kinds) + 1, 0)
    assert not any(path.exists() for path in paths)
    assert all(path.exists() for path in others)
    by_kind = {one.kind: one for one in ward.receipts()}
    assert set(by_kind) == {*kinds.values(), ObjectKind.LOG}
    assert {one.method for kind, one in by_kind.items() if kind is not ObjectKind.LOG} == {Method.OVERWRITE}
    assert all(one.remains == ("old-blocks",) and one.ordered_by == "Ana" for one in by_kind.values())
    assert all(one.named == () for one in by_kind.values())
    assert ward.registry.due(LATER, LATER) == ()


def test_nothing_is_deleted_that_no_policy_says(here: Ward) -> None:
    path = here.put("outbox/old.part")
    add_table(here.registry, write_table(here.home.data / "t.parquet", people(OLD)))
    here.registry.ingest("adult", T0)
    assert here.dispose(T0 + 36_500 * DAY).deleted == 0
    assert path.exists()
    assert here.registry.admission("adult", Purpose.PRETRAINING, T0).admitted_records == 1


def test_a_disposed_record_is_nowhere_on_the_sites_disk(ward: Ward) -> None:
    """Rows, write-ahead log and the site's own source; the same scan finds it before."""
    add_table(ward.registry, write_table(ward.home.data / "t.parquet", people(OLD, NEW)), retention=RetentionRule(365))
    ward.registry.ingest("adult", T0)
    sqlite = ward.engine.dialect.name == "sqlite"
    folders = [ward.home.root, *([ward.home.root.parent] if sqlite else [])]
    gone, kept = f"{CANARY}-0".encode(), f"{CANARY}-1".encode()
    before = set().union(*(found_on_disk(folder, gone) for folder in folders))
    assert "t.parquet" in before
    assert not sqlite or before & {"registry.db", "registry.db-wal"}
    assert ward.dispose().deleted == 1
    assert set().union(*(found_on_disk(folder, gone) for folder in folders)) == set()
    assert found_on_disk(ward.home.root, kept) == {"t.parquet"}
    with ward.engine.connect() as connection:
        names = connection.execute(text("SELECT record_id FROM record ORDER BY record_no")).scalars().all()
    assert names == ["", f"{CANARY}-1"]
    (receipt,) = ward.receipts()
    assert (receipt.method, receipt.scope, receipt.named) == (Method.ERASE_ROWS, "adult", ())
    assert set(receipt.remains) >= {"membership", "spend", "consent", "models"}
    assert "source" not in receipt.remains
    assert ("row-versions" in receipt.remains) is not sqlite
    assert len({receipt.before, receipt.after, receipt.disposed}) == 3


def test_a_hospitals_own_files_are_left_unless_a_steward_asks(here: Ward, tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", people(OLD, OLD, NEW))
    add_table(here.registry, path, retention=RetentionRule(365))
    here.registry.ingest("adult", T0)
    before = path.read_bytes()
    assert here.dispose().deleted == 2
    assert path.read_bytes() == before
    assert "source" in here.receipts()[0].remains
    # read again they come again, are of no use, and go again: now from the source, too
    here.registry.ingest("adult", LATER)
    assert here.registry.admission("adult", Purpose.PRETRAINING, LATER).admitted_records == 1
    assert here.dispose(LATER + DAY, sources=True).deleted == 2
    assert pq.read_table(path).column("record_id").to_pylist() == [f"{CANARY}-2"]
    assert here.registry.ingest("adult", LATER + DAY).unchanged == 1


def test_a_receipt_says_nothing_of_a_source_that_is_away(here: Ward, tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", people(OLD, NEW))
    add_table(here.registry, path, retention=RetentionRule(365))
    here.registry.ingest("adult", T0)
    path.rename(tmp_path / "unmounted.parquet")
    assert here.dispose(sources=True).deleted == 1
    assert "source" in here.receipts()[0].remains


def test_a_line_between_two_open_quotation_marks_is_not_taken_for_deleted(here: Ward, tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    lines = ["file,record_id,subject_id,collected_at,purposes", 'x,"y,z,u,v']
    lines += [f"a.bin,{CANARY},P-1,{OLD},ssl-pretraining", 'x,y",z,u,v', f"b.bin,kept,P-2,{NEW},ssl-pretraining"]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    for name in ("a.bin", "b.bin"):
        (folder / name).write_bytes(name.encode())
    location = FilesLocation("files", str(folder))
    here.registry.add_dataset(
        "letters", location, retention=RetentionRule(365), subjects_floor=9, epsilon_cap=1.0, delta=1e-6, at=T0
    )
    assert here.registry.ingest("letters", T0).taken == 2
    report = here.dispose(sources=True)
    assert (report.deleted, report.failed, report.codes) == (0, 1, (NOT_DELETED,))
    assert CANARY in (folder / "manifest.csv").read_text()


def test_images_and_their_lines_go_together(here: Ward) -> None:
    folder = here.home.data / "scans"
    folder.mkdir()
    lines = ["record_id,subject_id,collected_at,purposes,file"]
    for n, when in enumerate((OLD, OLD, NEW)):
        lines.append(f"r{n},P-{n},{when},ssl-pretraining,{CANARY}-{min(n, 1)}.png")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    for n in range(2):
        (folder / f"{CANARY}-{n}.png").write_bytes(_png())
    location = ImagesLocation("images", str(folder), 1, 1, 1)
    here.registry.add_dataset(
        "scans", location, retention=RetentionRule(365), subjects_floor=9, epsilon_cap=1.0, delta=1e-6, at=T0
    )
    assert here.registry.ingest("scans", T0).taken == 3
    assert here.dispose().deleted == 2
    assert sorted(path.name for path in folder.iterdir()) == [f"{CANARY}-1.png", "manifest.csv"]  # another line has it
    assert (folder / "manifest.csv").read_text().splitlines()[1:] == [lines[3]]


def test_the_last_record_takes_the_handle_with_it_but_a_refusal_is_known_again(ward: Ward) -> None:
    add_table(ward.registry, write_table(ward.home.data / "t.parquet", people(OLD, OLD, OLD)))
    ward.policy(ObjectKind.RECORD, "P1Y", scope="adult")
    ward.registry.ingest("adult", T0)
    other = write_table(ward.home.data / "u.parquet", [Person("q", "P-2", collected_at=NEW)])
    add_table(ward.registry, other, "more")
    ward.registry.ingest("more", T0)
    ward.registry.decide("P-1", Purpose.PRETRAINING, Decision.DENY, T0)
    assert ward.dispose().deleted == 3
    with pytest.raises(BractError) as refused:
        ward.registry.history("P-0")
    assert refused.value.code == UNKNOWN_SUBJECT
    assert ward.registry.history("P-1")[-1].event.decision is Decision.DENY
    assert ward.registry.disposed_records("P-1") == (2,)
    assert ward.registry.disposed_records("P-2") == (3,)
    assert {"refusal", "handle"} <= set(ward.receipts()[0].remains)


def test_other_peoples_proofs_outlive_a_disposal(here: Ward) -> None:
    add_table(here.registry, write_table(here.home.data / "t.parquet", people(OLD, NEW)), retention=RetentionRule(365))
    here.registry.ingest("adult", T0)
    snapshot = here.registry.freeze("adult", Purpose.PRETRAINING, T0)
    proof = here.registry.prove_membership(snapshot.root, f"{CANARY}-1")
    here.dispose()
    assert here.registry.prove_membership(snapshot.root, f"{CANARY}-1") == proof != None  # noqa: E711
    assert here.registry.prove_membership(snapshot.root, f"{CANARY}-0") is None


def test_a_hold_blocks_the_deletion_and_not_the_exclusion(ward: Ward) -> None:
    add_table(ward.registry, write_table(ward.home.data / "t.parquet", people(OLD, OLD, NEW)))
    ward.policy(ObjectKind.RECORD, "P1Y", scope="adult")
    ward.registry.ingest("adult", T0)
    snapshot = ward.registry.freeze("adult", Purpose.PRETRAINING, T0)
    held = LegalHold("case-1", Selector(subjects=ward.registry.subject_numbers(["P-0"])), "inquiry", "Ana", "Ben", T0)
    ward.registry.place_hold(held, lambda: T0)
    assert [one.record_no for one in ward.registry.usable(snapshot.root, LATER)] == [3]
    assert ward.registry.admission("adult", Purpose.PRETRAINING, LATER).admitted_records == 1
    report = ward.dispose()
    assert (report.deleted, report.blocked) == (1, 1)
    (line,) = ward.registry.due(LATER, LATER)
    assert (line.object, line.state, line.blockers[0].name) == ("1", State.BLOCKED, "case-1")
    assert len(pq.read_table(ward.home.data / "t.parquet")) == 2
    ward.registry.lift_hold("case-1", "Ben", "Ana", "over", LATER)
    assert ward.dispose(LATER + DAY).deleted == 1
    assert len(pq.read_table(ward.home.data / "t.parquet")) == 1


def test_a_failed_deletion_stays_due_counts_its_attempts_and_alarms(
    here: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is held by another process, as a transfer holds its part."""
    path = here.put("outbox/sha256:" + "a" * 64 + ".part")
    other = here.put("outbox/other.part")
    here.policy(ObjectKind.SCRATCH, "P30D")
    hold = (
        "import fcntl,sys; f=open(sys.argv[1],'r+b'); fcntl.flock(f,fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        for attempt in (1, 2):
            report = here.dispose(LATER + attempt * DAY)
            assert (report.failed, report.codes, report.well) == (1, (CONCURRENT,), False)
            (line,) = here.registry.due(LATER, LATER)
            assert (line.object, line.state, line.attempts, line.code) == (path.name, State.DUE, attempt, CONCURRENT)
        assert not other.exists()
        assert not job.overdue(here.registry, LATER).ok
        holder.communicate(b"")
    assert [record.getMessage() for record in caplog.records if record.name == "bract.disposal"] == [
        f"1 objects whose time is over could not be deleted: {CONCURRENT}"
    ] * 2
    assert here.dispose(LATER + 3 * DAY).deleted == 1
    assert job.overdue(here.registry, LATER).ok
    assert not path.exists()


def test_what_vanished_before_gets_a_receipt_that_says_so(here: Ward) -> None:
    path = here.put("outbox/one.part")
    here.policy(ObjectKind.SCRATCH, "P30D")
    disposal.take_stock(here.home, here.registry, LATER)
    holdings = disposal.holdings(here.home, here.registry)
    (line,) = here.registry.due(LATER, LATER)
    (task,) = job.tasks_of([line], "Ana", sources=False)
    here.registry.claim_disposal(task, (), LATER)
    path.unlink()
    with job.alone(here.home.root):
        assert job.dispose(here.registry, holdings, lambda: LATER).deleted == 1
    assert [one.method for one in here.receipts()] == [Method.ABSENT]


def test_an_overwritten_file_that_was_not_yet_unlinked_is_still_due(here: Ward) -> None:
    """As a job leaves it that is killed there; the overwriting changed the file's time."""
    path = here.put("outbox/one.part")
    here.policy(ObjectKind.SCRATCH, "P30D")
    disposal.take_stock(here.home, here.registry, LATER)
    (task,) = job.tasks_of(here.registry.due(LATER, LATER), "Ana", sources=False)
    here.registry.claim_disposal(task, (), LATER)
    here.put("outbox/one.part", bytes(5000), LATER)
    assert here.dispose(LATER + DAY).deleted == 1
    assert not path.exists()


def test_a_hold_that_comes_between_two_tries_lets_the_object_go(here: Ward) -> None:
    """Claimed by a job that was cut off, and held before the next one."""
    path = here.put("outbox/one.part")
    here.policy(ObjectKind.SCRATCH, "P30D")
    disposal.take_stock(here.home, here.registry, LATER)
    (task,) = job.tasks_of(here.registry.due(LATER, LATER), "Ana", sources=False)
    here.registry.claim_disposal(task, (), LATER)
    here.registry.place_hold(LegalHold("case", Selector(), "inquiry", "Ana", "Ben", LATER), lambda: LATER)
    report = here.dispose(LATER + DAY)
    assert (report.deleted, report.failed, report.blocked) == (0, 0, 1)
    assert path.exists()
    assert here.registry.disposal_tasks() == ()
    here.registry.lift_hold("case", "Ana", "Ben", "over", LATER + DAY)
    assert here.dispose(LATER + 2 * DAY).deleted == 1


def test_a_hold_placed_after_the_due_list_was_read_is_seen_by_the_claim(ward: Ward) -> None:
    ward.put("outbox/one.part")
    ward.policy(ObjectKind.SCRATCH, "P30D")
    disposal.take_stock(ward.home, ward.registry, LATER)
    (task,) = job.tasks_of(ward.registry.due(LATER, LATER), "Ana", sources=False)
    ward.registry.place_hold(LegalHold("case", Selector(), "inquiry", "Ana", "Ben", LATER), lambda: LATER)
    assert ward.registry.claim_disposal(task, (), LATER).id == 0
    assert ward.registry.disposal_tasks() == ()


def test_a_clock_that_was_set_back_lifts_no_hold(ward: Ward) -> None:
    path = ward.put("outbox/one.part")
    ward.policy(ObjectKind.SCRATCH, "P30D")
    hold = LegalHold("case", Selector(), "inquiry", "Ana", "Ben", LATER + DAY)
    ward.registry.place_hold(hold, lambda: LATER + DAY)
    assert (ward.dispose(LATER).deleted, path.exists()) == (0, True)
    ward.registry.lift_hold("case", "Ana", "Ben", "over", LATER + DAY)
    assert (ward.dispose(LATER + 2 * DAY).deleted, path.exists()) == (1, False)


def test_a_hold_comes_before_a_claim_or_after_its_deletion_and_never_between(ward: Ward) -> None:
    """A hold is placed while each of two files is claimed and not yet deleted: it waits, and what is left then stays."""
    ward.put("outbox/one.part")
    ward.put("outbox/two.part")
    ward.policy(ObjectKind.SCRATCH, "P30D")
    hold, placing = LegalHold("case", Selector(), "inquiry", "Ana", "Ben", LATER), list[threading.Thread]()

    ticks, deleted_at = itertools.count(), list[datetime]()

    def clock() -> datetime:
        return LATER + next(ticks) * SECOND

    class Slow(Files):
        def delete(self, task: Task, at: datetime) -> Outcome:
            if not placing:
                placing.append(threading.Thread(target=ward.registry.place_hold, args=(hold, clock)))
                placing[0].start()
                placing[0].join(0.5)
                assert placing[0].is_alive() and not ward.registry.legal_holds()
            outcome = super().delete(task, at)
            deleted_at.append(clock())
            assert not ward.registry.legal_holds(), "what is held now was claimed before"
            return outcome

    folder = ward.home.outbox
    stock = [Stocked(ObjectKind.SCRATCH, path.name, T0, T0) for path in sorted(folder.iterdir())]
    slow = Slow([ObjectKind.SCRATCH], lambda: stock, lambda _, name: [folder / name])
    report = job.dispose(ward.registry, [slow], clock)
    placing[0].join()
    assert (report.deleted, report.failed) == (1, 0) and len(list(folder.iterdir())) == 1
    (placed,) = ward.registry.legal_holds()
    assert placed.placed_at == placed.hold.from_at > deleted_at[0], "not before what it waited for was deleted"
    assert [placed.hold.name for placed in ward.registry.legal_holds()] == ["case"]
    assert ward.dispose(LATER + DAY).deleted == 0
    with ward.engine.connect() as connection:
        said = connection.scalars(text("SELECT kind FROM log_entry WHERE kind LIKE '%hold%' OR kind LIKE 'disposal%'"))
        assert list(said) == ["disposal.begin", "disposal.finish", "hold.place"]


def test_a_turn_ends_with_whoever_had_it_and_does_not_wait_for_ever(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys; from bract.database import open_engine; from bract.disposal.turn import turn\n"
    script += "with turn(open_engine(sys.argv[1])): print('mine', flush=True); sys.stdin.read()"
    url = ward.engine.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "mine\n"
        monkeypatch.setattr(turn, "BUSY_S", 0.1)
        if ward.engine.dialect.name == "sqlite":
            with pytest.raises(BractError) as refusal, ward.registry.deleting():
                raise AssertionError("two have it")
            assert refusal.value.code == CONCURRENT
        other.kill()
        other.wait()
        monkeypatch.undo()
        with ward.registry.deleting():
            pass


def test_a_locked_database_stops_a_run_before_anything_is_deleted(ward: Ward) -> None:
    path = ward.put("outbox/one.part")
    ward.policy(ObjectKind.SCRATCH, "P30D")
    sqlite = ward.engine.dialect.name == "sqlite"

    @event.listens_for(ward.engine, "connect")
    def impatient(connection: Any, _: object) -> None:
        connection.execute("PRAGMA busy_timeout=50" if sqlite else "SET lock_timeout = 50")
        if not sqlite:
            connection.commit()

    ward.engine.dispose()
    with ward.engine.connect() as other:
        other.execute(text("SELECT 1" if sqlite else "LOCK TABLE log_entry IN EXCLUSIVE MODE"))
        with pytest.raises(BractError) as refused:
            ward.dispose()
    assert refused.value.code == CONCURRENT
    assert path.exists()
    assert ward.dispose().deleted == 1


def test_two_disposals_do_not_run_at_once(here: Ward) -> None:
    with job.alone(here.home.root), pytest.raises(BractError) as refused:
        here.dispose()
    assert refused.value.code == CONCURRENT


def test_the_job_runs_once_a_day_and_says_so_in_the_log(ward: Ward) -> None:
    assert not job.is_due_now(ward.registry, LATER)  # nothing is under any policy
    ward.policy(ObjectKind.SCRATCH, "P30D")
    assert job.is_due_now(ward.registry, LATER)
    ward.dispose()
    assert not job.is_due_now(ward.registry, LATER + timedelta(hours=23))
    assert job.is_due_now(ward.registry, LATER + DAY)


def test_a_daily_run_that_fails_is_run_again_and_tells_no_path(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    stop = threading.Event()

    def run() -> None:
        calls.append(1)
        if len(calls) == 3:
            stop.set()
        raise (OSError(13, "denied", "/data/P-1") if len(calls) == 1 else BractError(DISK, "ENOSPC"))

    job.daily(run, stop, poll_s=0.001)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["disposal: PermissionError", *["disposal: disk"] * 2]


@pytest.mark.slow
def test_the_process_of_a_site_disposes_by_itself(tmp_path: Path) -> None:
    home = create(tmp_path / "ward", name="ward")
    registry = site_registry(home)
    put = Ward(home, registry._engine, registry)
    put.policy(ObjectKind.SCRATCH, "P30D")
    path = put.put("outbox/one.part")
    script = "import sys,time,pathlib; from bract_client import disposal, home; "
    script += "disposal.start_daily(home.open_home(pathlib.Path(sys.argv[1]))); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, home.root]) as process:
        try:
            deadline = time.monotonic() + 50
            while not registry.disposals() and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            process.kill()
    assert not path.exists()
    assert [one.receipt.ordered_by for one in registry.disposals()] == [job.SCHEDULE]
    registry._engine.dispose()


def test_the_command_line_lists_decides_and_disposes(tmp_path: Path) -> None:
    home = create(tmp_path / "ward", name="ward")
    path = Ward(home, None, None).put("outbox/one.part")  # type: ignore[arg-type]  # only its folder

    def said(*words: str, status: int = 0) -> Any:
        ran = CliRunner().invoke(app, ["retention", *words, "--site", str(home.root), "--json"])
        assert ran.exit_code == status, ran.output
        return ran.exception if status else json.loads(ran.stdout)

    made = ["--on", "scratch", "--from", "collection", "--basis", "notice 3", "--approved-by", "Ana"]
    said("policy", "add", "short", *made, "--ceiling", "P30D")
    said("policy", "add", "long", *made, "--floor", "P99Y")
    for name in ("short", "long"):
        said("policy", "bind", name, "--by", "Ana")
    assert [one["state"] for one in said("due", "--by", "2026-12-31")] == ["conflict"]
    (terms,) = (one["terms"] for one in said("conflict", "list"))
    said("conflict", "decide", terms, "delete", "--by", "Ana", "--why", "nobody needs it")
    held = ["--matter", "inquiry", "--by", "Ana"]
    assert said("hold", "place", "case", *held, "--approved-by", "ANA", status=1).code == SAME_PERSON
    said("hold", "place", "case", *held, "--approved-by", "Ben", "--on", "scratch")
    assert said("dispose", "--by", "Ana") == {"deleted": 0, "failed": 0, "blocked": 1, "codes": []}
    said("hold", "lift", "case", "--by", "Ana", "--approved-by", "Ben", "--why", "over")
    assert [one["object"] for one in said("dispose", "--by", "Ana", "--dry-run")] == ["one.part"]
    assert path.exists()
    assert said("dispose", "--by", "Ana")["deleted"] == 1
    assert not path.exists()
    assert [one["ordered_by"] for one in said("receipts")] == ["Ana"]
    assert [one["hold"] if "hold" in one else one["name"] for one in said("hold", "list")] == ["case"]
    assert len(said("policy", "list")["bindings"]) == 2


def test_a_log_loses_its_old_days_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "executor.log"
    path.write_text(
        "2026-01-05 10:00:00,1 bract INFO one\nTraceback of one\n"
        "2026-01-06 10:00:00,1 bract INFO two\n2026-01-05 11:00:00,1 bract INFO late\n"
    )
    logs = job.Logs(tmp_path)
    assert [one.object for one in logs.stock()] == ["executor.log@2026-01-05", "executor.log@2026-01-06"]
    with path.open("a") as writer:
        assert blank(path, datetime(2026, 1, 5, tzinfo=UTC).date()) is Method.BLANK
        writer.write("2026-01-07 10:00:00,1 bract INFO three\n")
    assert [line[:10] for line in path.read_text().split("\n") if line] == ["2026-01-06", "2026-01-07"]
    assert "one" not in path.read_text()
    assert "late" not in path.read_text()


def test_a_link_is_removed_and_never_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    link, double = tmp_path / "link", tmp_path / "double"
    link.symlink_to(precious)
    double.hardlink_to(precious)
    assert erase(link) is Method.UNLINK
    assert erase(double) is Method.UNLINK
    assert precious.read_text() == "kept"
    assert not link.exists()


IMMUTABLE = """
import sys, pathlib, subprocess
from bract.disposal.erase import erase
from bract.errors import BractError
folder = pathlib.Path(sys.argv[1])
(folder / "sub").mkdir()
(folder / "sub" / "old").write_bytes(b"secret" * 1000)
subprocess.run(["mount", "--bind", folder / "sub", folder / "sub"], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", folder / "sub"], check=True)
try:
    erase(folder / "sub" / "old")
except BractError as error:
    print(error.code, error.detail, "secret" in (folder / "sub" / "old").read_text())
subprocess.run(["mount", "-o", "remount,bind,rw", folder / "sub"], check=True)
print(erase(folder / "sub" / "old"))
"""


def test_a_disk_that_is_read_only_fails_with_a_code_and_no_path(tmp_path: Path) -> None:
    assert on_small_disk(tmp_path / "disk", 256, IMMUTABLE).split("\n")[:2] == [
        f"{DISK} EROFS True",
        Method.OVERWRITE.value,
    ]


FULL = """
import sys, pathlib
from datetime import timedelta
from bract.database import open_engine
from bract.disposal import job, turn
from bract.disposal.erase import blank, erase
from bract.disposal.job import Files
from bract.disposal.stock import Stocked
from bract.disposal.tasks import Outcome, Task
from bract.errors import BractError
from bract.retention import *
from bract_client import disposal
from bract_client.home import SiteHome
from tests.client.site_world import *
folder = pathlib.Path(sys.argv[1])
home = SiteHome(folder)
for name in ("data", "outbox", "logs"):
    (folder / name).mkdir()
engine, registry = open_registry(f"sqlite:///{folder}/registry.db")
people = [Person(f"r{n}", f"P-{n}", collected_at="2025-04-01T00:00:00+00:00") for n in range(100)]
people[0] = Person("r0", "P-0", collected_at="2026-02-20T00:00:00+00:00")
add_table(registry, write_table(folder / "data" / "t.parquet", people), retention=RetentionRule(365))
registry.ingest("adult", T0)
later = T0 + timedelta(days=60)
with (folder / "ballast").open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)): pass
    except OSError: pass
try:
    report = disposal.dispose(home, registry, lambda: later, ordered_by="Ana")
    print(report.deleted, report.failed, report.codes)
except BractError as error:
    print("refused", error.code)
print(len(registry.disposals()))
(folder / "ballast").unlink()
report = disposal.dispose(home, registry, lambda: later, ordered_by="Ana")
print(report.deleted, report.failed, len(registry.disposals()), sorted(p.name for p in (folder / "data").iterdir()))
registry.verify_log()
"""


@pytest.mark.slow
def test_a_full_disk_leaves_everything_due_and_nothing_half_done(tmp_path: Path) -> None:
    first, receipts, second, _ = on_small_disk(tmp_path / "disk", 4096, FULL).split("\n")
    assert DISK in first or NOT_DELETED in first
    assert (receipts, second) == ("0", "99 0 1 ['t.parquet']")


def _png() -> bytes:
    import io

    from PIL import Image

    made = io.BytesIO()
    Image.new("L", (1, 1)).save(made, "PNG")
    return made.getvalue()
