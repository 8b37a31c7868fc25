"""A hub of real processes, killed in its parts and as a whole: the campaign goes on by itself.

No site is there: it is enough that the round waits.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bract.errors import HUB_FAILED, NOT_RUNNING, BractError
from bract.flower import Operator
from bract.value import decode
from bract_client import enrol as site_enrol
from bract_client import home as site_homes
from bract_client.settings import SiteSettings
from bract_server import campaigns
from bract_server import enrol as hub_enrol
from bract_server import home as hub_homes
from bract_server.demo.stage import HUB, Stage, free_ports, stage
from bract_server.home import HubHome
from bract_server.hub import open_registry, open_store
from bract_server.registry.store import HubRegistry
from tests.federation import NAMES, now, small_plan

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.timeout(300)]

TASK_TIMEOUT_S = 60.0
"""Flower believes for this long that a process which says nothing lives."""


@dataclass
class World:
    stage: Stage
    home: HubHome
    registry: HubRegistry

    def start(self) -> None:
        self.stage.start("hub", HUB, "hub", self.home.root)

    def epoch_taken(self, epoch: int) -> bool:
        newest = self.registry.newest_run(self.registry.campaign("small").digest)
        return newest is not None and newest.epoch == epoch and newest.flower_run is not None

    def server_apps(self) -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process(self.stage.running["hub"].pid).children(recursive=True)
            if child.status() != psutil.STATUS_ZOMBIE and "bract_server.app" in child.cmdline()
        ]

    def rounds(self) -> list[tuple[int, str]]:
        return [(r.number, r.state) for r in self.registry.rounds(self.registry.campaign("small").digest)]


def eventually(holds: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.1)


def answers(door: Operator) -> bool:
    try:
        door.runs()
    except BractError:
        return False
    return True


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    fleet, wire = free_ports(2)
    home = hub_homes.create(tmp_path / "hub", name="hub", fleet_port=fleet, wire_port=wire, at=now())
    registry = open_registry(home)
    for name in NAMES:
        settings = decode(SiteSettings, {"name": name, "subjects_floor": 100})
        site = site_homes.create(tmp_path / name, name=name, settings=settings)
        hub_enrol.approve(home, registry, site_enrol.request(site, now()), now())
    campaigns.create(registry, open_store(home), small_plan(deadline_s=600.0), now())
    with stage(tmp_path) as made:
        yield World(made, home, registry)


def test_whatever_is_killed_the_same_round_goes_on_under_a_new_run(world: World) -> None:
    world.start()
    with campaigns.operator(world.home) as door:
        eventually(lambda: answers(door), 60)
        campaigns.start(world.registry, door, "small", now())
    eventually(lambda: world.epoch_taken(1) and world.rounds() == [(1, "planned")], 60)

    (process,) = world.server_apps()
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: world.epoch_taken(2), TASK_TIMEOUT_S / 2)

    world.stage.kill("hub")
    world.start()
    eventually(lambda: world.epoch_taken(3), TASK_TIMEOUT_S)
    with campaigns.operator(world.home) as door:
        assert [run.epoch for run in door.runs().values() if run.status != "finished"] == [3]
        campaigns.stop(world.registry, open_store(world.home), door, "small", now())
    runs = world.registry.runs(world.registry.campaign("small").digest)
    assert [(run.after, run.tries) for run in runs] == [(None, 1), (HUB_FAILED, 2), (NOT_RUNNING, 1)]
    assert world.rounds() == [(1, "aborted")], "nothing was redone, and with the campaign its round was stopped"
    eventually(lambda: not world.server_apps(), 15)
    assert world.registry.verify_log().verified
