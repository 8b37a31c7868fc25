"""What is over its time leaves the hub's disk, with a receipt; what a round or a campaign needs does not."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.checks import Check
from bract.database import open_engine
from bract.digest import Digest, digest
from bract.disposal import job
from bract.disposal.verbs import RunReport
from bract.migrations import migrate
from bract.retention import (
    Action,
    DisposalReceipt,
    LegalHold,
    Method,
    ObjectKind,
    Obstacle,
    RetentionPolicy,
    Selector,
    State,
    Trigger,
    parse_period,
)
from bract.signing import parse_envelope, unseal
from bract_server import disposal
from bract_server.home import HubHome, create
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry
from tests.server.registry.conftest import world
from tests.server.registry.world import AT, SITES, World, campaign_plan, named

DAY = timedelta(days=1)
LATER = AT + 90 * DAY
BYTES = b"weights" * 1000

__all__ = ["world"]


@dataclass
class Hub:
    """A hub's folder beside a registry on either database."""

    home: HubHome
    world: World

    def policy(self, kind: ObjectKind, ceiling: str, trigger: Trigger = Trigger.COLLECTION, scope: str = "") -> None:
        name = f"{kind.value}-{ceiling.lower()}-{trigger.value}"
        period = parse_period(ceiling)
        value = RetentionPolicy(name, 1, kind, "contract 4", trigger, None, period, Action.DELETE, "Ana")
        self.world.registry.add_policy(value, AT)
        self.world.registry.bind_policy(name, scope, "Ana", AT)

    def dispose(self, at: datetime = LATER, *, running: bool = False) -> RunReport:
        return disposal.dispose(self.home, self.world.registry, lambda: at, ordered_by="Ana", running=running)

    def arrays(self, name: str | Digest, at: datetime = AT) -> Path:
        file = str(name).removeprefix("sha256:")
        return self.put(f"arrays/{file}.safetensors", at=at)

    def put(self, name: str, at: datetime = AT) -> Path:
        path = self.home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BYTES)
        os.utime(path, (at.timestamp(), at.timestamp()))
        return path

    def receipts(self) -> list[DisposalReceipt]:
        key = self.world.registry.verify_key
        return [unseal(DisposalReceipt, parse_envelope(one.envelope), key) for one in self.world.registry.disposals()]

    def due(self) -> dict[str, tuple[State, set[Obstacle]]]:
        disposal.take_stock(self.home, self.world.registry, LATER)
        lines = self.world.registry.due(LATER, LATER)
        return {line.object: (line.state, {one.kind for one in line.blockers}) for line in lines}


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create(tmp_path_factory.mktemp("hub") / "hub", name="hub", at=AT).root


@pytest.fixture
def hub(world: World, pristine: Path, tmp_path: Path) -> Iterator[Hub]:
    shutil.copytree(pristine, tmp_path / "hub")
    yield Hub(HubHome(tmp_path / "hub"), world)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine, MIGRATIONS)
    engine.dispose()
    return path


@pytest.fixture
def here(migrated: Path, pristine: Path, tmp_path: Path) -> Iterator[Hub]:
    """For tests of files, which need one database."""
    shutil.copytree(pristine, tmp_path / "hub")
    shutil.copyfile(migrated, tmp_path / "registry.db")
    engine = open_engine(f"sqlite:///{tmp_path}/registry.db")
    made = World(engine, HubRegistry(engine, Ed25519PrivateKey.generate()))
    for site in SITES:
        made.enrol(site)
    yield Hub(HubHome(tmp_path / "hub"), made)
    made.registry.verify_log()
    engine.dispose()


def test_every_file_that_a_hub_holds_is_covered(hub: Hub) -> None:
    campaign = hub.world.start(campaign_plan())
    hub.world.whole_round(campaign, "alder", "birch")
    hub.world.registry.set_state("heart", "completed", "", AT)
    first, last = named("arrays 0 heart"), hub.world.registry.latest_version(campaign)
    kinds = {
        hub.arrays(first): ObjectKind.CHECKPOINT,
        hub.arrays(last.value.arrays): ObjectKind.CHECKPOINT,
        hub.arrays(str(last.server_state)): ObjectKind.SERVER_STATE,
        hub.arrays(named("update alder 1")): ObjectKind.UPDATE,
        hub.arrays("ab" * 32): ObjectKind.LEFTOVER,
        hub.put("certs/.server.pem.0123456789abcdef"): ObjectKind.LEFTOVER,
        hub.put(f"arrays/incoming/{'cd' * 32}.part"): ObjectKind.SCRATCH,
        hub.put("arrays/incoming/tmpabcd/mean"): ObjectKind.SCRATCH,
        hub.put("flower.db"): ObjectKind.FLOWER_STATE,
        hub.put("flower.db-wal"): ObjectKind.FLOWER_STATE,
        hub.put("../export.safetensors"): ObjectKind.EXPORT,
    }
    os.utime(hub.home.arrays / "incoming" / "tmpabcd", (AT.timestamp(), AT.timestamp()))
    hub.world.registry.note_export(last.value.arrays, str(hub.home.root / ".." / "export.safetensors"), AT)
    for kind in set(kinds.values()):
        hub.policy(kind, "P30D")
    others = sorted(path for path in hub.home.root.rglob("*") if path.is_file() and path not in kinds)
    report = hub.dispose()
    assert (report.failed, report.blocked) == (0, 0)
    assert [path.name for path in kinds if path.exists()] == []
    assert all(path.exists() for path in others)
    assert not (hub.home.arrays / "incoming" / "tmpabcd").exists()
    receipts = hub.receipts()
    assert {one.kind for one in receipts} == set(kinds.values())
    checkpoints = [one for one in receipts if one.kind is ObjectKind.CHECKPOINT]
    assert {one.named for one in checkpoints} == {(first,), (last.value.arrays,)}
    assert {one.scope for one in checkpoints} == {campaign}
    assert all("lineage" in one.remains and one.method is Method.OVERWRITE for one in checkpoints)
    assert hub.due() == {}
    assert hub.world.registry.version(last.digest).value == last.value  # what it was stays in the registry


def test_what_a_running_campaign_needs_is_blocked(hub: Hub) -> None:
    campaign = hub.world.start(campaign_plan())
    hub.world.whole_round(campaign, "alder", "birch")
    last = hub.world.registry.latest_version(campaign)
    number, plan = hub.world.open(campaign, "alder", "birch")
    hub.world.registry.accept(hub.world.contribution("alder", campaign, number, plan.name), "alder", AT)
    old, new = hub.arrays(named("arrays 0 heart")), hub.arrays(last.value.arrays)
    state = hub.arrays(str(last.server_state))
    update, flower = hub.arrays(named(f"update alder {number}")), hub.put("flower.db")
    for kind in (ObjectKind.CHECKPOINT, ObjectKind.SERVER_STATE, ObjectKind.UPDATE, ObjectKind.FLOWER_STATE):
        hub.policy(kind, "P30D")
    due = hub.due()
    assert due[named("arrays 0 heart")] == (State.DUE, set())
    assert due[last.value.arrays] == (State.BLOCKED, {Obstacle.ROUND, Obstacle.RUNNING})
    assert due[str(last.server_state)] == (State.BLOCKED, {Obstacle.RUNNING})
    assert due[named(f"update alder {number}")] == (State.BLOCKED, {Obstacle.ROUND})
    assert due["flower.db"] == (State.BLOCKED, {Obstacle.RUNNING})
    report = hub.dispose()
    assert (report.deleted, report.blocked) == (1, 4)
    assert not old.exists()
    assert all(path.exists() for path in (new, state, update, flower))


def test_flowers_state_goes_when_the_hub_rests(here: Hub) -> None:
    path = here.put("flower.db")
    here.policy(ObjectKind.FLOWER_STATE, "P30D")
    assert here.dispose(running=True).blocked == 1
    assert path.exists()
    disposal.before_start(here.home, here.world.registry, lambda: LATER - 89 * DAY)
    assert path.exists()
    disposal.before_start(here.home, here.world.registry, lambda: LATER)
    assert not path.exists()
    assert [one.ordered_by for one in here.receipts()] == [job.SCHEDULE]


def test_periods_are_counted_from_the_last_use_and_the_studys_end(hub: Hub) -> None:
    campaign = hub.world.start(campaign_plan())
    hub.arrays(named("arrays 0 heart"))
    hub.policy(ObjectKind.CHECKPOINT, "P30D", Trigger.STUDY_END)
    hub.policy(ObjectKind.CHECKPOINT, "P1Y", Trigger.RELEASE)
    assert hub.due() == {}
    hub.world.registry.set_state("heart", "completed", "", AT + 61 * DAY)
    assert hub.due() == {}
    (line,) = hub.world.registry.due(LATER + DAY, LATER)
    assert line.due_at == AT + 91 * DAY
    hub.world.registry.tell_event(Trigger.RELEASE, named("arrays 0 heart"), AT - 400 * DAY, "Ana", AT)
    assert hub.due() == {named("arrays 0 heart"): (State.DUE, set())}
    assert campaign


def test_a_hold_on_a_campaign_holds_its_files(here: Hub) -> None:
    one = here.world.start(campaign_plan())
    path = here.arrays(named("arrays 0 heart"))
    here.policy(ObjectKind.CHECKPOINT, "P30D", scope=one)
    hold = LegalHold("case", Selector(scopes=(one,)), "inquiry", "Ana", "Ben", AT)
    here.world.registry.set_state("heart", "completed", "", AT)
    here.world.registry.place_hold(hold, lambda: AT)
    assert (here.dispose().deleted, path.exists()) == (0, True)
    here.world.registry.lift_hold("case", "Ana", "Ben", "over", LATER)
    assert (here.dispose(LATER + DAY).deleted, path.exists()) == (1, False)


def test_what_the_registry_keeps_is_no_leftover(here: Hub) -> None:
    here.world.start(campaign_plan())
    kept, stray = here.arrays(named("arrays 0 heart")), here.arrays(digest(b"stray"))
    here.policy(ObjectKind.LEFTOVER, "P1D")
    assert here.dispose().deleted == 1
    assert kept.exists()
    assert not stray.exists()


def test_the_doctor_tells_what_is_overdue(here: Hub) -> None:
    here.arrays("ab" * 32)
    here.policy(ObjectKind.LEFTOVER, "P30D")
    disposal.take_stock(here.home, here.world.registry, LATER)
    seen = job.overdue(here.world.registry, LATER)
    assert (seen.ok, seen.detail) == (False, "0 failed, 1 due, 0 in conflict, 1 over their time in all")
    assert seen.remedy
    here.dispose()
    assert job.overdue(here.world.registry, LATER).ok


def test_a_doctor_without_a_registry_has_nothing_to_say(pristine: Path) -> None:
    seen: Check = disposal.check(HubHome(pristine), AT)
    assert seen.ok
    assert "not looked at" in seen.detail


def test_a_disposal_is_in_the_log_and_its_receipt_is_kept(here: Hub) -> None:
    here.arrays("ab" * 32)
    here.policy(ObjectKind.LEFTOVER, "P30D")
    before = here.world.registry.verify_log().entries
    here.dispose()
    assert here.world.registry.verify_log().entries == before + 3  # begun, finished, run
    assert here.world.registry.last_run() == LATER
