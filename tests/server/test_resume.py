"""What the registry calls running goes on, with one process, whatever died; and nothing else does."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from bract.database import open_engine
from bract.errors import CRASH_LOOP, HUB_FAILED, NOT_RUNNING, STATE, UNREACHABLE, BractError
from bract.flower import RunStatus
from bract_server import campaigns
from bract_server.arrays import ArrayStore
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry
from bract_server.resume import MAX_TRIES, Resumer
from tests.migrated import migrated
from tests.server.registry.world import ARRAYS_BYTES, AT, SITES, World, campaign_plan

NAMES = ("heart", "lung")


@dataclass
class Flower:
    """Flower's list of runs; `up` is whether its process answers."""

    told: dict[int, RunStatus] = field(default_factory=dict)
    up: bool = True
    number: int = 0

    def runs(self) -> dict[int, RunStatus]:
        if not self.up:
            raise BractError(NOT_RUNNING)
        return dict(self.told)

    def start(self, config: Mapping[str, str]) -> int:
        self.runs()
        self.number += 1
        self.told[self.number] = RunStatus(config["campaign"], "pending", "", int(config["epoch"]))
        return self.number

    def stop(self, run_id: int) -> None:
        if self.runs()[run_id].status == "finished":
            raise BractError(UNREACHABLE, "finished already")
        self.told[run_id] = replace(self.told[run_id], status="finished", sub_status="stopped")


@dataclass
class Hub:
    """A hub without processes: `served` are the runs whose ServerApps would live."""

    world: World
    store: ArrayStore
    flower: Flower = field(default_factory=Flower)
    served: set[int] = field(default_factory=set)
    now: datetime = AT

    def __post_init__(self) -> None:
        self.resumer = self.launcher()

    def launcher(self) -> Resumer:
        return Resumer(self.world.registry, self.flower, lambda: self.now)

    def look(self) -> None:
        self.served -= self.resumer.look(self.served)
        for run_id, run in self.flower.told.items():
            if run.status == "pending":
                self.flower.told[run_id] = replace(run, status="running")
                self.served.add(run_id)

    def alive(self, name: str = "heart") -> list[int]:
        """The runs that Flower calls alive and that are served."""
        return [
            i
            for i, run in self.flower.told.items()
            if run.campaign == name and run.status != "finished" and i in self.served
        ]

    def epochs(self, name: str = "heart") -> list[int]:
        return [run.epoch for run in self.world.registry.runs(self.world.registry.campaign(name).digest)]


def hub_of(path: Path) -> Hub:
    engine = open_engine(f"sqlite:///{path}")
    migrated(engine, MIGRATIONS)
    world = World(engine, HubRegistry(engine, Ed25519PrivateKey.generate()))
    for site in SITES:
        world.enrol(site)
    for name in NAMES:
        world.start(campaign_plan(name))
    return Hub(world, ArrayStore(path.parent / "arrays", ARRAYS_BYTES, 10 * ARRAYS_BYTES))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = hub_of(tmp_path / "registry.db")
    yield made
    made.world.registry.verify_log()
    made.world.engine.dispose()


def crash(hub: Hub) -> None:
    """The ServerApp dies; Flower does not know yet."""
    hub.served -= set(hub.alive())


def restart(hub: Hub) -> None:
    """Everything dies and a new launcher starts over what is on disk."""
    hub.served.clear()
    hub.resumer = hub.launcher()


def lose_state(hub: Hub) -> None:
    """Flower's database is lost, its processes live on for a while."""
    hub.flower.told.clear()


@pytest.mark.parametrize("fault", [crash, restart, lose_state])
def test_a_campaign_goes_on_with_one_new_run_whatever_died(hub: Hub, fault: Callable[[Hub], None]) -> None:
    hub.look()
    hub.look()
    (before,) = hub.alive()
    fault(hub)
    hub.look()
    (after,) = hub.alive()
    assert after != before and before not in hub.served, "the former process is ended"
    assert hub.flower.told.get(before, RunStatus("", "finished", "")).status == "finished", "not a minute later"
    assert hub.epochs() == [1, 2]
    hub.look()
    assert hub.alive() == [after]


def test_nothing_is_started_for_a_campaign_that_is_not_running(hub: Hub) -> None:
    hub.look()
    hub.world.registry.set_state("heart", "completed", "", AT)
    hub.look()
    assert hub.alive() != [], "its own process tells Flower how it ended"
    crash(hub)
    for _ in range(3):
        hub.look()
    assert (hub.alive(), hub.epochs()) == ([], [1])
    assert len(hub.alive("lung")) == 1, "the other one runs"


def test_a_stop_while_the_hub_is_down_holds(hub: Hub) -> None:
    hub.look()
    hub.flower.up = False
    door: object = hub.flower
    campaigns.stop(hub.world.registry, hub.store, door, "heart", AT)  # type: ignore[arg-type]
    with pytest.raises(BractError):
        hub.look()
    hub.flower.up = True
    restart(hub)
    hub.look()
    assert (hub.alive(), hub.epochs()) == ([], [1])
    assert {run.status for run in hub.flower.told.values() if run.campaign == "heart"} == {"finished"}


def test_a_campaign_starts_only_on_a_hub_that_runs_and_only_once(hub: Hub) -> None:
    door: object = hub.flower
    with pytest.raises(BractError) as caught:
        campaigns.start(hub.world.registry, door, "heart", AT)  # type: ignore[arg-type]
    assert caught.value.code == STATE, "it is running"
    hub.world.registry.set_state("heart", "stopped", "", AT)
    hub.look()
    hub.flower.up = False
    with pytest.raises(BractError) as caught:
        campaigns.start(hub.world.registry, door, "heart", AT)  # type: ignore[arg-type]
    assert (caught.value.code, hub.world.registry.campaign("heart").state) == (NOT_RUNNING, "stopped")
    hub.flower.up = True
    assert not hub.resumer.changed()
    campaigns.start(hub.world.registry, door, "heart", AT)  # type: ignore[arg-type]
    assert hub.resumer.changed(), "the launcher need not wait for its next look"
    hub.look()
    assert len(hub.alive()) == 1


def test_a_campaign_that_always_crashes_stops_with_a_code_after_growing_pauses(hub: Hub) -> None:
    opened = list[datetime]()
    for _ in range(400):
        hub.look()
        if hub.alive():
            opened.append(hub.now)
        crash(hub)
        hub.now += timedelta(milliseconds=500)
    campaign = hub.world.registry.campaign("heart")
    assert (campaign.state, campaign.reason) == ("failed", CRASH_LOOP)
    assert len(opened) == len(hub.epochs()) == MAX_TRIES
    pauses = [later - sooner for sooner, later in itertools.pairwise(opened)]
    assert pauses == sorted(pauses) and pauses[-1] >= timedelta(seconds=5)
    hub.world.registry.set_state("heart", "running", "", hub.now)
    hub.look()
    assert len(hub.alive()) == 1, "somebody's word starts anew"
    assert hub.world.registry.runs(campaign.digest)[-1].tries == 1


def test_a_clock_that_was_set_back_makes_no_campaign_wait_for_the_old_time(hub: Hub) -> None:
    for _ in range(3):
        hub.look()
        crash(hub)
        hub.now += timedelta(seconds=3)
    hub.now -= timedelta(days=1)
    for _ in range(40):  # the longest pause, and a little more
        hub.look()
        hub.now += timedelta(milliseconds=500)
    assert len(hub.alive()) == 1


def test_a_hub_that_is_restarted_again_and_again_is_no_failure_of_the_campaign(hub: Hub) -> None:
    for _ in range(3 * MAX_TRIES):
        hub.look()
        restart(hub)
    hub.look()
    assert len(hub.alive()) == 1
    runs = hub.world.registry.runs(hub.world.registry.campaign("heart").digest)
    assert {run.tries for run in runs} == {1}
    assert {run.after for run in runs[1:]} == {NOT_RUNNING}


def test_a_crash_is_told_from_a_restart(hub: Hub) -> None:
    hub.look()
    hub.look()
    crash(hub)
    hub.look()
    assert [run.after for run in hub.world.registry.runs(hub.world.registry.campaign("heart").digest)] == [
        None,
        HUB_FAILED,
    ]


class Interleaved(RuleBasedStateMachine):
    """Crashes, restarts, lost state, stops and starts in any order; `folder` is set by the test."""

    folder: Path
    count = 0

    @initialize()
    def begin(self) -> None:
        type(self).count += 1
        self.hub = hub_of(self.folder / f"{type(self).count}.db")

    @rule(fault=st.sampled_from([crash, restart, lose_state]))
    def fault(self, fault: Callable[[Hub], None]) -> None:
        fault(self.hub)

    @rule(seconds=st.integers(1, 60))
    def look(self, seconds: int) -> None:
        self.hub.now += timedelta(seconds=seconds)
        if self.hub.flower.up:
            self.hub.look()

    @rule()
    def flower_goes_or_comes(self) -> None:
        self.hub.flower.up = not self.hub.flower.up

    @rule(start=st.booleans())
    def operator(self, start: bool) -> None:
        door: object = self.hub.flower
        registry, store, at = self.hub.world.registry, self.hub.store, self.hub.now
        try:
            if start:
                campaigns.start(registry, door, "heart", at)  # type: ignore[arg-type]
            else:
                campaigns.stop(registry, store, door, "heart", at)  # type: ignore[arg-type]
        except BractError as error:
            assert error.code in (STATE, NOT_RUNNING)

    @invariant()
    def at_most_one_process_may_write(self) -> None:
        newest = self.hub.world.registry.newest_run(self.hub.world.registry.campaign("heart").digest)
        epoch = 0 if newest is None else newest.epoch
        told = self.hub.flower.told
        assert len([i for i in self.hub.alive() if told[i].epoch == epoch]) <= 1

    def teardown(self) -> None:
        """Left alone, the hub does what the registry says."""
        self.hub.flower.up = True
        for _ in range(3):
            self.hub.now += timedelta(seconds=60)
            self.hub.look()
        running = self.hub.world.registry.campaign("heart").state == "running"
        assert len(self.hub.alive()) == int(running)
        self.hub.world.engine.dispose()


def test_in_any_order_of_faults_at_most_one_process_may_write_and_the_registrys_word_is_done(tmp_path: Path) -> None:
    Interleaved.folder = tmp_path
    run_state_machine_as_test(
        Interleaved,
        settings=settings(
            max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
