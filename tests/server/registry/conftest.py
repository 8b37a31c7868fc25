"""The registry under test, on both databases."""

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.database import open_engine
from bract.digest import Digest
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry
from tests.migrated import migrated
from tests.server.registry.world import SITES, World, campaign_plan


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """Three enrolled sites; whatever a test did, the log verifies at its end."""
    engine = open_engine(database_url)
    migrated(engine, MIGRATIONS)
    world = World(engine, HubRegistry(engine, Ed25519PrivateKey.generate()))
    for site in SITES:
        world.enrol(site)
    yield world
    world.registry.verify_log()
    engine.dispose()


@pytest.fixture
def campaign(world: World) -> Digest:
    """A running campaign of all three sites, with a quorum of two."""
    return world.start(campaign_plan())
