"""Databases for the tests: every test that asks for `database_url` runs on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.postgres import PostgresServer, postgres


def pytest_configure(config: pytest.Config) -> None:
    """Summaries are printed by the process that gathers the results, which need not be one that runs tests."""
    for name in ("tests.faults.summary", "tests.hostile.summary"):
        config.pluginmanager.register(import_module(name), name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked `nightly` runs only where it is asked for: `pytest -m nightly`."""
    if "nightly" in config.option.markexpr:
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server a session, started when the first test needs it and gone afterwards."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.emptied()
