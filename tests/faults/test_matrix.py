"""Whatever is killed, cut, filled or locked in whatever phase: the campaign ends as it should, nothing is lost or spent twice.

Scenarios are data (`tests.faults.scenario`). Some of each kind run at each change; `pytest -m nightly` runs every process in
every phase.
"""

from collections.abc import Callable
from dataclasses import asdict

import pytest

from tests.faults.processes import can_mount
from tests.faults.scenario import FLEETING, SCENARIOS, FullDisk, Scenario
from tests.faults.trial import Bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _cases() -> list[object]:
    return [
        pytest.param(one, id=str(one), marks=() if one.ci else (pytest.mark.nightly,))
        for one in sorted(SCENARIOS, key=lambda one: one.database == "postgresql")
    ]


@pytest.mark.parametrize("scenario", _cases())
def test_a_fault_costs_no_more_than_it_must(
    scenario: Scenario, bench: Callable[[str], Bench], record_property: Callable[[str, object], None]
) -> None:
    if isinstance(scenario.action, FullDisk) and scenario.action.whose == "site" and not can_mount():
        pytest.skip("mounts are forbidden here")
    record_property("fault", [str(scenario.action), scenario.phase.name.lower(), str(scenario.outcome)])
    tried = bench(scenario.database).attempt(scenario)
    record_property("tried", asdict(tried))
    assert tried.hit or scenario.phase in FLEETING, "the fault struck too late each time"
