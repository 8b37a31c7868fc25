"""What the hub's registry takes: what a withdrawal touches among ten thousand models, and sites' reservations."""

import threading
from concurrent.futures import ThreadPoolExecutor

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.database import open_engine
from bract.migrations import migrate
from bract.privacy.spec import Mechanism
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry
from tests.benchmarks.registry import lineage_world
from tests.benchmarks.registry.figure import Figure
from tests.benchmarks.registry.lineage_world import Size
from tests.benchmarks.registry.site import WRITERS, seconds
from tests.server.registry.world import AT, SITES, World, campaign_plan

_ASKED = {"versions below a snapshot", "everything below a snapshot", "everything under a notice"}


def impact(url: str, size: int) -> list[Figure]:
    """Questions about `size` models, of which three in ten are encoder versions."""
    world = lineage_world.build(url, Size(rounds=size * 3 // 10, tuned=size * 7 // 10))
    found = [
        Figure(what, took * 1e3, "ms", 500 if what in _ASKED else None, things)
        for what, took, things in lineage_world.measure(world)
    ]
    world.engine.dispose()
    return found


def reservations(url: str, size: int) -> list[Figure]:
    """One site's account at the hub, eight writers released together; each is checked, logged and under a checkpoint."""
    engine = open_engine(url)
    migrate(engine, MIGRATIONS)
    world = World(engine, HubRegistry(engine, Ed25519PrivateKey.generate()))
    for site in SITES:
        world.enrol(site)
    envelopes = []
    for number in range(size):
        campaign = world.start(campaign_plan(f"c{number}"))
        world.registry.propose(campaign, AT)
        mechanism = Mechanism(20.0, 0.001, 1)
        envelopes.append(world.reservation(SITES[0], campaign, 1, mechanism=mechanism, epsilon_cap=1000.0))
    gate = threading.Barrier(WRITERS + 1)

    def write(writer: int) -> None:
        gate.wait()
        for envelope in envelopes[writer::WRITERS]:
            world.registry.reserve(SITES[0], envelope, AT)

    with ThreadPoolExecutor(WRITERS) as pool:
        futures = [pool.submit(write, writer) for writer in range(WRITERS)]
        gate.wait()
        rate = size / seconds(lambda: [future.result() for future in futures])
    world.registry.verify_log()
    engine.dispose()
    return [Figure(f"reservations at the hub, {WRITERS} writers", rate, "/s", 200, size)]
