"""What the privacy tests measured, in a table at the end."""

from collections.abc import Callable

import pytest

Row = tuple[str, str, str]
Tell = Callable[[str, str, str], None]
_ROWS: pytest.StashKey[dict[str, list[Row]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str], Tell]:
    """From a table's title to what adds a row to it: name, figure, verdict."""
    tables = request.config.stash.setdefault(_ROWS, {})

    def table(title: str) -> Tell:
        return lambda name, figure, verdict: tables.setdefault(title, []).append((name, figure, verdict))

    return table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, rows in config.stash.get(_ROWS, {}).items():
        terminalreporter.section(title)
        name, figure = (max(len(row[place]) for row in rows) for place in (0, 1))
        for row in rows:
            terminalreporter.write_line(f"{row[0]:{name}}  {row[1]:{figure}}  {row[2]}")
