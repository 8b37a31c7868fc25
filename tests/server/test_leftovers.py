"""What nothing needs is deleted after a while, whether a round is opened or not; what may be needed stays."""

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.arrays import write_arrays
from bract.database import open_engine
from bract.digest import Digest
from bract.retention import LegalHold, Selector
from bract.supervisor import environment, python
from bract_server import home as homes
from bract_server.arrays import ArrayStore
from bract_server.hub import open_store
from bract_server.leftovers import discard_leftovers
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry
from tests.loopback import now
from tests.migrated import migrated
from tests.server.registry.world import AT, SITES, World, campaign_plan
from tests.server.test_fence import free_port

HOUR = timedelta(hours=1)


def adopted(store: ArrayStore, at: datetime) -> Digest:
    """An array that came then."""
    path = store.scratch / "array"
    write_arrays(path, {})
    with path.open("ab") as file:
        file.write(os.urandom(8))
    named = store.adopt(path)
    os.utime(store.path(named), (at.timestamp(),) * 2)
    return named


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    engine = open_engine(f"sqlite:///{tmp_path / 'registry.db'}")
    migrated(engine, MIGRATIONS)
    made = World(engine, HubRegistry(engine, Ed25519PrivateKey.generate()))
    for site in SITES:
        made.enrol(site)
    yield made
    engine.dispose()


def test_only_what_is_old_and_of_no_open_round_goes(world: World, tmp_path: Path) -> None:
    store, campaign = ArrayStore(tmp_path / "arrays", 1 << 20, 1 << 30), world.start(campaign_plan())
    world.registry.propose(campaign, AT)
    before, during, later = (adopted(store, AT + hours * HOUR) for hours in (-2, 1, 5))
    discard_leftovers(world.registry, store, AT + 5.5 * HOUR)
    assert set(store.whole(AT + 9 * HOUR)) == {during, later}, "a round is open since then"
    world.registry.set_state("heart", "stopped", "", AT)
    discard_leftovers(world.registry, store, AT + 5.5 * HOUR)
    assert set(store.whole(AT + 9 * HOUR)) == {later} and before != during


def test_what_is_held_stays_until_it_is_lifted(world: World, tmp_path: Path) -> None:
    store = ArrayStore(tmp_path / "arrays", 1 << 20, 1 << 30)
    old, other = adopted(store, AT), adopted(store, AT)
    hold = LegalHold("case", Selector(objects=(old,)), "inquiry", "Ana", "Ben", AT)
    world.registry.place_hold(hold, lambda: AT)
    discard_leftovers(world.registry, store, AT + 2 * HOUR)
    assert store.whole(AT + 9 * HOUR) == (old,) and other != old
    world.registry.lift_hold("case", "Ana", "Ben", "over", AT + 3 * HOUR)
    discard_leftovers(world.registry, store, AT + 4 * HOUR)
    assert store.whole(AT + 9 * HOUR) == ()


def test_the_hub_deletes_leftovers_though_no_campaign_runs(tmp_path: Path) -> None:
    home = homes.create(tmp_path / "hub", name="hub", fleet_port=free_port(), wire_port=free_port(), at=now())
    store = open_store(home)
    old, new = adopted(store, now() - 2 * HOUR), adopted(store, now())
    process = subprocess.Popen(python("bract_server.gateway", str(home.root)), env=environment(home.root))
    try:
        until = time.monotonic() + 30
        while store.path(old).exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        assert store.path(new).exists()
    finally:
        process.terminate()
        assert process.wait(20) == 0
