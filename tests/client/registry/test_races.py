"""Threads and processes that race for a site's last budget get what a serial ledger grants, on both databases."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from bract.digest import digest
from bract.errors import BUDGET, STATE, BractError
from bract.errors import LOG as INCONSISTENT
from bract.privacy.accounting import epsilon_of_curve, rdp_curve
from bract.privacy.budget import NOTHING, add
from bract_client.registry.store import SiteRegistry
from tests.client.registry.raced import BIG, CAP, DELTA, C
from tests.client.site_world import HOUR, T0, add_table, open_registry

ROOT = Path(__file__).parents[3]
OTHER = digest(b"another")
RACERS = 10


def serial() -> int:
    """How many such charges one after the other would get."""
    total, count = NOTHING, 0
    while epsilon_of_curve(total := add(total, rdp_curve(BIG)), DELTA) <= CAP:
        count += 1
    return count


@pytest.fixture
def opened(database_url: str, tmp_path: Path) -> Iterator[tuple[Engine, SiteRegistry]]:
    assert 1 <= serial() < RACERS // 2
    engine, registry = open_registry(database_url)
    add_table(registry, tmp_path / "none.parquet", cap=CAP)
    yield engine, registry
    engine.dispose()


def processes(url: str, which: str) -> int:
    arguments = [sys.executable, "-m", "tests.client.registry.raced", url, str(RACERS), which]
    ended = subprocess.run(
        arguments, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return int(json.loads(ended.stdout))


@pytest.mark.slow
def test_processes_that_race_get_what_one_after_the_other_would(
    opened: tuple[Engine, SiteRegistry], database_url: str
) -> None:
    engine, registry = opened
    engine.dispose()
    assert processes(database_url, "sound") == serial()
    assert registry.spent("adult") == (BIG,) * serial()
    registry.check()
    registry.verify_log()


@pytest.mark.slow
def test_the_race_of_processes_catches_a_ledger_that_looks_before_it_locks(
    opened: tuple[Engine, SiteRegistry], database_url: str
) -> None:
    engine, registry = opened
    engine.dispose()
    assert processes(database_url, "broken") == RACERS > serial()
    with pytest.raises(BractError) as found:
        registry.check()
    assert found.value.code == INCONSISTENT


def test_what_is_given_back_in_a_race_is_granted_once(opened: tuple[Engine, SiteRegistry]) -> None:
    """The budget is full; half of the racers give one back each, the others ask: never more is out than fits."""
    _, registry = opened
    most = serial()
    for number in range(1, most + 1):
        registry.reserve(C, number, "adult", BIG, T0, HOUR)
    barrier = threading.Barrier(2 * most)

    def ask(number: int) -> bool:
        barrier.wait()
        try:
            registry.reserve(OTHER, number, "adult", BIG, T0, HOUR)
        except BractError as error:
            assert error.code == BUDGET
            return False
        return True

    def give(number: int) -> None:
        barrier.wait()
        registry.relinquish(C, number, T0)

    with ThreadPoolExecutor(2 * most) as pool:
        given = [pool.submit(give, number) for number in range(1, most + 1)]
        asked = [pool.submit(ask, number) for number in range(1, most + 1)]
        got = sum(one.result() for one in asked)
        assert all(one.result() is None for one in given)
    assert registry.spent("adult") == (BIG,) * got
    for number in range(most + 1, 2 * most - got + 1):
        registry.reserve(OTHER, number, "adult", BIG, T0, HOUR)
    with pytest.raises(BractError) as full:
        registry.reserve(OTHER, 99, "adult", BIG, T0, HOUR)
    assert full.value.code == BUDGET
    registry.check()


def test_one_relinquishment_that_races_is_made_once(opened: tuple[Engine, SiteRegistry]) -> None:
    _, registry = opened
    registry.reserve(C, 1, "adult", BIG, T0, HOUR)
    barrier = threading.Barrier(6)

    def give(place: int) -> str:
        barrier.wait()
        return registry.relinquish(C, 1, T0 + place * HOUR / 100).name

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(give, range(6)))) == 1
    with pytest.raises(BractError) as refused:
        registry.reserve(C, 1, "adult", BIG, T0, HOUR)
    assert refused.value.code == STATE
    registry.check()
