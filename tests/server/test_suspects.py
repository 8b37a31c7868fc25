"""A real backdoor, planted by a site into its update, is found among honest private updates and left out of the round."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from bract.aggregation import TrimmedMean
from bract.arrays import read_arrays, read_layout
from bract.errors import QUORUM, SUSPECTED
from bract.plan import SitePlan
from bract.receipt import RoundReceipt
from bract.samples import adult_spare
from bract.signing import parse_envelope
from bract.value import decode
from bract_server.collecting import Post
from bract_server.progress import line, progress
from bract_server.rounds import run_round
from tests.backdoor import planted
from tests.federation import Federation, now, small_plan
from tests.server.test_rounds import with_update

NAMES = tuple(f"ward-{number}" for number in range(6))
VILLAIN = NAMES[3]
BOOST = 3.0 * len(NAMES)


@pytest.mark.slow
def test_a_planted_backdoor_is_left_out_and_honest_sites_are_not(tmp_path: Path) -> None:
    world = Federation(tmp_path, NAMES)
    plan = small_plan(
        sites=tuple(SitePlan(name, subjects_floor=100) for name in NAMES),
        quorum=5,
        deadline_s=300.0,
        rounds=2,
        aggregation=TrimmedMean(1),
        inspection="exclude",
    )
    rows = torch.from_numpy(adult_spare(200, 1))
    honest = world.places[VILLAIN].work

    def turns(payload: dict[str, bytes | str]) -> dict[str, bytes | str]:
        """Honest in the first round; from the second on, the backdoor on top of its private update, boosted."""
        campaign = world.registry.campaign(plan.name).digest
        newest = world.registry.latest_version(campaign).value
        if newest.number == 1:
            path = world.store.path(newest.arrays)
            extra, near = planted(plan, dict(read_arrays(path, read_layout(path))), rows)
            assert near > 0.9, "the backdoor works"
            with_update(world, world.places[VILLAIN], functools.partial(added, extra))
        return honest(payload)

    world.places[VILLAIN].work = turns  # type: ignore[method-assign]
    world.run(plan)
    first, second = world.reports()
    assert (first.state, first.missing, second.state) == ("committed", {}, "committed")
    assert first.inspection is not None and first.inspection.flagged == ()
    assert second.inspection is not None and second.inspection.flagged == (VILLAIN,)
    assert second.inspection.excluded and second.inspection.scores[VILLAIN] > 0.25
    assert f"{VILLAIN} suspected" in line(second) and "suspected" not in line(first)
    shown = progress(world.registry, plan.name).plain()["rounds"][1]["inspection"]
    assert shown["flagged"] == [VILLAIN] and sorted(shown["scores"]) == list(NAMES)
    shares = {
        name: decode(RoundReceipt, parse_envelope(world.registry.receipts(name, 0)[-1][1]).payload).share
        for name in NAMES
    }
    assert shares == {name: 0 if name == VILLAIN else 1 / 5 for name in NAMES}
    strict = dataclasses.replace(plan, name="strict", quorum=len(NAMES), rounds=1)
    world.create(strict)
    world.registry.set_state("strict", "running", "", now())
    assert not run_round(world.hub(), Post(), world.registry.campaign("strict"))
    (report,) = world.reports("strict")
    assert (report.state, report.version) == ("aborted", None)
    assert report.missing == {name: SUSPECTED if name == VILLAIN else QUORUM for name in NAMES}
    world.registry.verify_log()


def added(extra: dict[str, np.ndarray], update: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: (array + BOOST * extra[name]).astype(np.float32) for name, array in update.items()}
