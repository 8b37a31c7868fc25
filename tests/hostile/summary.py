"""Prints, at the end, what was tried on every reader and what held."""

import sys
from typing import Any

import pytest

_GATHERED: dict[str, dict[str, Any]] = {}
_HEAD = ("class", "tried", "refused", "accepted and right", "accepted but wrong", "crashes", "memory grew, MB")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the tallies on: to the process that gathers them, where tests run in several."""
    attacks = sys.modules.get("tests.hostile.attacks")
    found = {} if attacks is None else {name: tally.plain() for name, tally in attacks.RESULTS.items()}
    handed: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if handed is None:
        _GATHERED.update(found)
    else:
        handed["hostile"] = found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the tallies of another process."""
    del error
    _GATHERED.update(getattr(node, "workeroutput", {}).get("hostile", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table."""
    if not _GATHERED:
        return
    rows: list[tuple[str, ...]] = [
        (
            n,
            str(t["tried"]),
            str(t["refused"]),
            str(t["right"]),
            str(t["wrong"]),
            str(t["crashed"]),
            f"{t['grown_mb']:.0f}",
        )
        for n, t in sorted(_GATHERED.items())
    ]
    sums = [str(sum(int(row[column]) for row in rows)) for column in range(1, 6)]
    rows.append(("all", *sums, max(rows, key=lambda row: int(row[6]))[6]))
    rows.insert(0, _HEAD)
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    terminalreporter.section("hostile inputs")
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        terminalreporter.write_line("  ".join(cells))
