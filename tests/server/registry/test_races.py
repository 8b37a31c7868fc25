"""Threads and processes that race for a site's last budget at the hub get what a serial ledger grants."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bract.database import open_engine
from bract.errors import BUDGET, STATE, BractError
from bract.errors import LOG as INCONSISTENT
from bract.migrations import migrate
from bract_server.registry import MIGRATIONS
from tests.server.registry.killed_hub_verbs import world
from tests.server.registry.raced_hub import FITS, asked, broken, campaign, cap
from tests.server.registry.world import AT, MECHANISM, SITES, World, campaign_plan

ROOT = Path(__file__).parents[3]
RACERS = 8


@pytest.fixture
def racing(database_url: str) -> Iterator[World]:
    """A proposed round of each racer's campaign, and one round of the same account taken already."""
    engine = open_engine(database_url)
    migrate(engine, MIGRATIONS)
    made = world(engine)
    for site in SITES:
        made.enrol(site)
    for number in range(RACERS + 1):
        made.registry.propose(made.start(campaign_plan(f"c{number}")), AT)
    made.registry.reserve("alder", asked(made, 0), AT)
    yield made
    engine.dispose()


def processes(url: str, which: str) -> int:
    arguments = [sys.executable, "-m", "tests.server.registry.raced_hub", url, str(RACERS), which]
    ended = subprocess.run(
        arguments, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return int(json.loads(ended.stdout))


@pytest.mark.slow
def test_processes_that_race_get_what_one_after_the_other_would(racing: World, database_url: str) -> None:
    racing.engine.dispose()
    assert processes(database_url, "sound") == FITS - 1
    (account,) = racing.registry.accounts()
    assert account.counted == (MECHANISM,) * FITS
    assert account.bound() == account.cap_epsilon == cap()
    racing.registry.verify_log()


@pytest.mark.slow
def test_the_race_of_processes_catches_a_ledger_that_looks_before_it_locks(racing: World, database_url: str) -> None:
    racing.engine.dispose()
    assert processes(database_url, "broken") == RACERS > FITS
    with pytest.raises(BractError) as found:
        racing.registry.verify_log()
    assert found.value.code == INCONSISTENT


def test_threads_that_race_get_what_one_after_the_other_would(racing: World) -> None:
    barrier = threading.Barrier(2 * RACERS)

    def ask(number: int) -> bool:
        """Every racer's reservation is delivered twice."""
        barrier.wait()
        try:
            racing.registry.reserve("alder", asked(racing, number), AT)
        except BractError as error:
            assert error.code == BUDGET
            return False
        return True

    with ThreadPoolExecutor(2 * RACERS) as pool:
        got = list(pool.map(ask, [*range(1, RACERS + 1)] * 2))
    assert sum(got[:RACERS]) <= FITS - 1 and sum(map(any, zip(got[:RACERS], got[RACERS:], strict=True))) == FITS - 1
    (account,) = racing.registry.accounts()
    assert account.counted == (MECHANISM,) * FITS
    racing.registry.verify_log()


def test_the_race_catches_a_ledger_that_looks_before_it_locks(racing: World) -> None:
    looked = threading.Barrier(RACERS)
    with ThreadPoolExecutor(RACERS) as pool:
        every = [pool.submit(broken, racing.engine, number, looked.wait) for number in range(1, RACERS + 1)]
        assert all(one.result() is None for one in every), "every one of them was granted"
    with pytest.raises(BractError) as found:
        racing.registry.verify_log()
    assert found.value.code == INCONSISTENT


def test_what_is_given_back_and_expires_at_once_ends_once(racing: World) -> None:
    """Six say that nothing was begun while the clock ends the same reservation: it ends one way, for everybody."""
    said = racing.relinquishment("alder", campaign(0), 1, asked(racing, 0).name)
    late = AT.replace(hour=AT.hour + 1)
    barrier = threading.Barrier(8)

    def give(_: int) -> str:
        barrier.wait()
        try:
            racing.registry.relinquish("alder", said, AT)
        except BractError as error:
            assert error.code == STATE
            return "expired"
        return "aborted"

    def lapse(_: int) -> str:
        barrier.wait()
        return "expired" if racing.registry.expire_reservations(late) else "aborted"

    with ThreadPoolExecutor(8) as pool:
        ends = [*pool.map(lambda n: give(n) if n < 6 else lapse(n), range(8))]
    (charge,) = racing.registry.accounts()[0].charges
    assert set(ends[:6]) == {charge.state}
    assert racing.registry.accounts()[0].counted == (() if charge.state == "aborted" else (MECHANISM,))
    racing.registry.verify_log()
