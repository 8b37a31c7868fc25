"""How the two command lines speak: tables for people, JSON for scripts, refusals with cause and remedy."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from bract.checks import Check
from bract.errors import BractError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def emit(value: Any) -> None:
    """Print plain data as one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table for people."""
    made = Table(*columns, title=title, title_justify="left", title_style="bold", expand=False)
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def show_checks(checks: Sequence[Check], as_json: bool) -> None:
    """What a doctor found: each check, and how to mend what is wrong."""
    if as_json:
        emit([asdict(check) for check in checks])
        return
    for check in checks:
        mark = "[green]ok[/]   " if check.ok else "[red]wrong[/]"
        out.print(f"{mark} {check.name}: {check.detail}", soft_wrap=True)
        if not check.ok:
            out.print(f"      do: {check.remedy}", soft_wrap=True)


def refuse(error: BractError, as_json: bool) -> None:
    """Tell what happened, why, and what to do, on standard error."""
    if as_json:
        body = {"code": error.code, "detail": error.detail, "cause": error.cause, "remedy": error.remedy}
        sys.stderr.write(json.dumps({"error": body}) + "\n")
        return
    err.print(f"[bold red]refused[/] \\[{error.code}] {error.detail or error.cause}", soft_wrap=True)
    if error.detail:
        err.print(f"  why: {error.cause}", soft_wrap=True)
    err.print(f"  do:  {error.remedy}", soft_wrap=True)


def run(app: Callable[[], Any]) -> NoReturn:
    """Run a command line; a refusal ends it with status 1, Ctrl-C with 130."""
    try:
        app()
    except BractError as error:
        refuse(error, "--json" in sys.argv)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
