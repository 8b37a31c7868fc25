"""The federations on which faults are tried."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.processes import federation
from tests.faults.trial import Bench
from tests.postgres import postgres


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Bench]]:
    """The running federation whose hub has this kind of database, started when it is asked for; one at a time."""
    running: dict[str, Bench] = {}
    broken = set[str]()
    with ExitStack() as stack:

        def of(database: str) -> Bench:
            if database in broken:
                pytest.fail("its federation did not start")
            if database not in running:
                stack.close()
                running.clear()
                broken.add(database)
                folder: Path = tmp_path_factory.mktemp(database)
                server = stack.enter_context(postgres()) if database == "postgresql" else None
                world = stack.enter_context(federation(folder, server))
                running[database] = Bench(world, folder / "replay")
                broken.remove(database)
            return running[database]

        yield of
