"""The hub's clock jumps in the middle of a round: at worst the round is given up, and nothing is lost or spent twice."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from bract.errors import QUORUM, BractError
from bract_server.rounds import run_campaign
from tests.federation import NAMES, Federation, now, small_plan


@dataclass
class Clock:
    """True but for `by`, from its reading number `first` to `last`."""

    by: timedelta
    first: int
    last: int
    readings: int = 0

    def __call__(self) -> datetime:
        self.readings += 1
        return now() + (self.by if self.first <= self.readings <= self.last else timedelta())


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    made = Federation(tmp_path_factory.mktemp("clock"), epsilon_cap=900.0)
    for place in made.places.values():
        policy = dataclasses.replace(place.site.policy, test_datasets=("adult",))
        place.site = dataclasses.replace(place.site, policy=policy)
    made.run(small_plan(name="true", seeded_test=3, grace_s=10.0))
    return made


@pytest.mark.parametrize(
    ("seconds", "first", "last"),
    [(-20, 3, 40), (20, 3, 10_000), (-20, 12, 10_000), (20, 12, 40), (-86_400, 12, 40), (86_400, 3, 10_000)],
)
def test_a_clock_that_jumps_costs_at_most_rounds(world: Federation, seconds: int, first: int, last: int) -> None:
    name, by = f"jump-{first}-{last}-{seconds}".replace("--", "-back-"), timedelta(seconds=seconds)
    clock, plan = Clock(by, first, last), small_plan(name=name, seeded_test=3, grace_s=10.0)
    world.create(plan)
    world.registry.set_state(name, "running", "", now())
    try:
        run_campaign(dataclasses.replace(world.hub(), now=clock), name)
    except BractError as error:
        # a day ahead every clearance is expired; a day behind every plan comes too late
        assert error.code == QUORUM and abs(by) > timedelta(minutes=1)
        run_campaign(world.hub(), name)  # somebody has set it right
    world.registry.set_state(name, "completed", "", now())
    committed = [report for report in world.reports(name) if report.state == "committed"]
    assert [report.participants for report in committed] == [tuple(sorted(NAMES))] * plan.rounds
    ends = {world.registry.latest_version(world.registry.campaign(n).digest).value.arrays for n in ("true", name)}
    assert len(ends) == 1, "the unfaulted run's model, bit for bit"
    world.registry.verify_log()
    for place in world.places.values():
        place.site.registry.verify_log()
        place.site.registry.check()
