"""What a site's registry takes: clearing, looking back, taking decisions in, reserving."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import perf_counter

from sqlalchemy import Engine

from bract.consent import ConsentEvent, Decision, Purpose
from bract.database import open_engine
from bract.digest import digest
from bract.migrations import migrate
from bract.privacy.spec import Mechanism
from bract_client.registry import MIGRATIONS, decisions, members
from bract_client.registry.store import SiteRegistry
from tests.benchmarks.registry.figure import Figure
from tests.benchmarks.registry.world import DAY, fill
from tests.client.site_world import KEY, SIGNING, T0

WRITERS = 8
HOUR = timedelta(hours=1)


def seconds(work: Callable[[], object]) -> float:
    """How long it took, by the wall clock."""
    begin = perf_counter()
    work()
    return perf_counter() - begin


def opened(url: str) -> tuple[Engine, SiteRegistry]:
    """An empty registry."""
    engine = open_engine(url)
    migrate(engine, MIGRATIONS)
    return engine, SiteRegistry(engine, KEY, SIGNING, "north")


def people(url: str, size: int) -> list[Figure]:
    """Resolve and freeze; the same by the events alone; look back on both axes."""
    engine, registry = opened(url)
    fill(registry, size, events_per_subject=3, start=T0)
    now = T0 + 10 * DAY
    large = size > 2_000_000
    clear = seconds(lambda: registry.freeze("adult", Purpose.PRETRAINING, now))
    counted = seconds(lambda: registry.admission("adult", Purpose.PRETRAINING, now))
    back = seconds(lambda: registry.consents(Purpose.PRETRAINING, "adult", T0 + 2 * DAY, T0 + 2 * DAY))
    engine.dispose()
    return [
        Figure("resolve and freeze a snapshot", clear, "s", 60 if large else 5, size),
        Figure("resolve and count", counted, "s", None, size, counted / back, "as of an earlier day"),
        Figure("as of an earlier day, as known then", back, "s", None if large else 10, size),
    ]


def intake(url: str, size: int) -> list[Figure]:
    """Decisions in batches of 5,000, each with its derived state and its log entry."""
    engine, registry = opened(url)
    fill(registry, size, start=T0)
    with registry._write() as session:
        numbers = members.subjects(session, registry._keys, (f"P-{n}" for n in range(1, size + 1)), T0)
    events = [
        decisions.NewEvent(
            number, ConsentEvent(Purpose.PRETRAINING, Decision.PERMIT, T0 + DAY), "csv", f"later/{number}"
        )
        for number in numbers.values()
    ]

    def take() -> None:
        for start in range(0, len(events), 5000):
            with registry._write() as session:
                recorded = decisions.record(session, events[start : start + 5000], T0 + DAY)
                assert recorded is not None
                registry._decided(session, recorded, T0 + DAY)

    rate = size / seconds(take)
    engine.dispose()
    return [Figure("decisions taken in", rate, "/s", 10_000, size)]


def reservations(url: str, size: int) -> list[Figure]:
    """One account, eight writers released together, each reservation on disk and logged; against one writer alone."""
    engine, registry = opened(url)
    fill(registry, 10, start=T0)
    mechanism, each = Mechanism(8.0, 0.001, 1), size // WRITERS
    gate = threading.Barrier(WRITERS + 1)

    def write(writer: int, count: int) -> None:
        for number in range(1, count + 1):
            registry.reserve(digest(f"campaign {writer}".encode()), number, "adult", mechanism, T0, HOUR)

    def wait_and_write(writer: int) -> None:
        gate.wait()
        write(writer, each)

    with ThreadPoolExecutor(WRITERS) as pool:
        futures = [pool.submit(wait_and_write, writer) for writer in range(WRITERS)]
        gate.wait()
        together = each * WRITERS / seconds(lambda: [future.result() for future in futures])
    alone = each / seconds(lambda: write(WRITERS, each))
    assert len(registry.spent("adult")) == each * (WRITERS + 1)
    registry.check()
    engine.dispose()
    name = f"reservations at a site, {WRITERS} writers"
    return [Figure(name, together, "/s", 200, each * WRITERS, alone / together, "one writer")]
