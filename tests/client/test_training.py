"""The training child: it stops when it is told to and stays warm, and it is replaced when it dies."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bract.errors import LATE, QUORUM, SITE_FAILED, BractError
from bract.plan import CampaignPlan, SitePlan
from bract.privacy.spec import PrivacySpec
from bract_client.home import SiteHome
from bract_client.training import Trainer
from tests import federation
from tests.federation import Federation, small_plan

pytestmark = pytest.mark.slow

NAMES = ("north", "south")


def plan(**changed: Any) -> CampaignPlan:
    sites = tuple(SitePlan(name, subjects_floor=100) for name in NAMES)
    return small_plan(sites=sites, rounds=1, deadline_s=300.0, **changed)


@dataclass
class Children:
    """Real training children of sites in one process; `meanwhile` is what happens when one was given a job."""

    trainers: dict[Path, Trainer] = field(default_factory=dict)
    codes: list[str] = field(default_factory=list)
    wanted: bool = True
    meanwhile: Callable[[Trainer], None] = lambda _: None

    def __call__(self, home: SiteHome) -> "Children":
        self._now = self.trainers.get(home.root) or self.trainers.setdefault(home.root, Trainer(home))
        return self

    def run(self, job: dict[str, str], stopped: threading.Event, wanted: Callable[[], bool]) -> dict[str, object]:
        self.meanwhile(self._now)
        try:
            return self._now.run(job, stopped, lambda: self.wanted and wanted())
        except BractError as error:
            self.codes.append(error.code)
            raise

    def pids(self) -> list[int]:
        return [trainer.pid for trainer in self.trainers.values()]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    made = Children()
    monkeypatch.setattr(federation, "NearTrainer", made)
    yield made
    for trainer in made.trainers.values():
        trainer.close()


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    return Federation(tmp_path, NAMES)


def test_a_child_whose_round_is_not_wanted_stops_and_takes_the_next_job_warm(
    world: Federation, children: Children
) -> None:
    children.wanted = False
    with pytest.raises(BractError) as caught:
        world.run(plan(name="long", privacy=PrivacySpec(1.0, 200.0, 0.1, 100_000, 1e-6)))
    assert caught.value.code == QUORUM
    assert set(children.codes) == {LATE}, "nobody had to be killed"
    warm, children.wanted = children.pids(), True
    world.run(plan(name="next"))
    (report,) = world.reports("next")
    assert (report.state, children.pids()) == ("committed", warm)


def test_a_child_that_was_killed_costs_its_round_and_no_more(world: Federation, children: Children) -> None:
    def kill(trainer: Trainer) -> None:
        os.kill(trainer.pid, signal.SIGKILL)
        children.meanwhile = lambda _: None

    children.meanwhile = kill
    world.run(plan())
    assert [report.state for report in world.reports()] == ["aborted", "committed"]
    assert children.codes == [SITE_FAILED]
