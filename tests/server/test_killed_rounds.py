"""SIGKILL between the steps of a round, at the hub and at its sites: it is taken up where it stood.

All of it runs in one process, which lives as often as there are places to be killed at, over the same folders.
"""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bract.digest import digest_file
from bract_client.registry.store import SiteRegistry
from bract_server.arrays import ArrayStore
from bract_server.registry.store import HubRegistry
from bract_server.rounds import run_campaign
from tests.federation import Federation, now, small_plan

pytestmark = [pytest.mark.nightly, pytest.mark.slow]

KILLS: tuple[tuple[type[Any], str, str], ...] = (
    (HubRegistry, "propose", "after"),
    (SiteRegistry, "reserve", "after"),
    (HubRegistry, "open_round", "before"),
    (HubRegistry, "open_round", "after"),
    (SiteRegistry, "begin_training", "after"),
    (SiteRegistry, "keep_contribution", "after"),
    (ArrayStore, "receive", "after"),
    (HubRegistry, "accept", "before"),
    (HubRegistry, "accept", "after"),
    (ArrayStore, "adopt", "after"),
    (HubRegistry, "commit_round", "before"),
    (HubRegistry, "commit_round", "after"),
)
"""In the order of a round's steps, so that each life gets to its place."""


def arm(owner: type[Any], name: str, when: str) -> None:
    """This process ends before or after the first call of that verb."""
    verb: Callable[..., Any] = getattr(owner, name)

    def killed(*arguments: Any, **named: Any) -> Any:
        if when == "after":
            verb(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killed)


def lives(world: Federation, kill: tuple[type[Any], str, str] | None) -> bool:
    """Run the campaign in a process of its own; whether it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            registries: list[Any] = [world.registry, *(place.site.registry for place in world.places.values())]
            for registry in registries:
                registry._engine.dispose(close=False)  # the parent's connections are its own
            if kill is not None:
                arm(*kill)
            run_campaign(world.hub(), "small")
            code = 0
        except BaseException:  # noqa: BLE001 - a child tells why it failed, and ends
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "it failed by itself"
    return os.WIFSIGNALED(status)


def stands(world: Federation) -> None:
    """The log verifies, and every version and the newest optimizer state are there, whole."""
    assert world.registry.verify_log().verified
    for version in world.registry.versions():
        assert digest_file(world.store.path(version.value.arrays)) == version.value.arrays
    state = world.registry.latest_version(world.registry.campaign("small").digest).server_state
    assert state is None or digest_file(world.store.path(state)) == state


def test_a_round_killed_between_its_steps_is_taken_up_and_no_site_trains_it_twice(tmp_path: Path) -> None:
    world = Federation(tmp_path, names=("north", "south"))
    world.create(small_plan(rounds=1, sites=small_plan().sites[:2]))
    world.registry.set_state("small", "running", "", now())
    for kill in KILLS:
        assert lives(world, kill), f"the campaign was over before {kill[1:]}"
        stands(world)
    assert not lives(world, None)
    stands(world)
    reports = world.reports()
    assert [report.state for report in reports].count("committed") == 1
    assert len(reports) <= 2, "only the round in which a site died while it trained was lost"
    for name, place in world.places.items():
        spent = len(place.site.registry.spent("adult"))
        assert spent == len(world.registry.spent(name, "adult")), "both ledgers know of the same"
        assert spent <= len(reports), "at most one training a round"
    dead = world.places["north"].site.registry.spent("adult")
    assert len(dead) == len(reports), "what was reserved when the site died counts as spent"
