"""The federations on which faults are tried, and the matrix that is printed at the end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import federation
from tests.faults.trial import Bench
from tests.postgres import postgres

_LINE = "{:<24}{:<11}{:<8}{:<6}{:>10}{:>10}{:>8}{:>9}".format


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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was tried and what held."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, ())]
    tried = [told for told in (dict(one.user_properties) for one in reports if one.when == "call") if "fault" in told]
    if not tried:
        return
    terminalreporter.section(f"faults: {sum('tried' in told for told in tried)} of {len(tried)} held")
    terminalreporter.write_line(_LINE("fault", "phase", "wanted", "held", "recovered", "campaign", "redone", "without"))
    for told in tried:
        terminalreporter.write_line(_LINE(*told["fault"], *_outcome(told.get("tried"))))


def _outcome(one: dict[str, Any] | None) -> tuple[object, ...]:
    """`late`: it held, but the phase was over when the fault struck."""
    if one is None:
        return ("NO", "", "", "", "")
    seconds = (f"{one[name]:.1f} s" for name in ("recovered_s", "campaign_s"))
    return ("yes" if one["hit"] else "late", *seconds, one["redone"], one["without"])
