"""The hub as an auditor sees it, on both databases."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from bract.database import open_engine
from bract.question import Answer, moment
from bract.roles import Role
from bract_server.auditor.questions import ask
from bract_server.auditor.sight import Arguments, Sight
from bract_server.registry import MIGRATIONS
from bract_server.registry.access import Principal
from bract_server.registry.store import HubRegistry
from tests.migrated import migrated
from tests.server.registry.world import AT, SITES, World

LATER = AT + timedelta(days=1)
ADA = Principal("ada", Role.AUDITOR)


@dataclass
class Hub:
    """A registry, and an auditor who reads it over connections that cannot write."""

    world: World
    reader: Engine
    key: Ed25519PrivateKey = field(repr=False)

    def sight(self, site: str | None = None) -> Sight:
        return Sight(self.reader, self.key, "hub", site)

    def ask(
        self,
        asked: int,
        who: Principal = ADA,
        *,
        known: datetime | None = None,
        valid: datetime | None = None,
        at: datetime = LATER,
        purpose: str = "yearly audit",
        **arguments: Any,
    ) -> Answer:
        given = Arguments(**arguments)
        times = moment(valid, known, at)
        sight = self.sight(who.site)
        return ask(sight, self.world.registry, who, asked, times, at, arguments=given, purpose=purpose)


@pytest.fixture
def hub(database_url: str) -> Iterator[Hub]:
    """Three enrolled sites; whatever a test asked, the log verifies at its end."""
    engine = open_engine(database_url)
    migrated(engine, MIGRATIONS)
    key = Ed25519PrivateKey.generate()
    world = World(engine, HubRegistry(engine, key))
    for site in SITES:
        world.enrol(site)
    reader = open_engine(database_url, read_only=True)
    yield Hub(world, reader, key)
    world.registry.verify_log()
    reader.dispose()
    engine.dispose()
