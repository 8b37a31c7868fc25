"""How fast the registries answer, on SQLite and on PostgreSQL.

    python -m tests.benchmarks.registry [--json FILE] [--scale 1.0] [--large] [--case NAME …] [--database NAME …]

PostgreSQL runs with fsync, SQLite with synchronous=FULL. Each case has a fresh database; wall time, once. `--large` adds ten
million subjects (about 10 GB of disk and an hour). `--scale 0.01` is a quick look, and then no floor is judged.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bract import console
from tests.benchmarks.registry import hub, log, site
from tests.benchmarks.registry.figure import Figure
from tests.postgres import postgres


@dataclass(frozen=True)
class Case:
    """A measurement: `measure(url, size)` on a fresh database; `both` unless it needs none."""

    measure: Callable[[str, int], list[Figure]]
    size: int
    both: bool = True


CASES = {
    "clear": Case(site.people, 1_000_000),
    "intake": Case(site.intake, 100_000),
    "reserve": Case(site.reservations, 1_600),
    "reserve-hub": Case(hub.reservations, 400),
    "impact": Case(hub.impact, 10_000),
    "proof": Case(log.proof, 1_000_000),
    "offline": Case(log.offline, 1_000_000, both=False),
}
LARGE = {"clear": 10_000_000}


def run(names: list[str], databases: list[str], scale: float, large: bool) -> Iterator[tuple[str, str, Figure]]:
    """Every figure as it is measured: case, database, figure."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres(durable=True)) if "postgresql" in databases else None
        for name in names:
            case = CASES[name]
            size = max(100, int((LARGE.get(name, case.size) if large else case.size) * scale))
            for database in databases if case.both else ["none"]:
                with tempfile.TemporaryDirectory(prefix="bract-bench-") as folder:
                    path = Path(folder) / "registry.db"
                    url = server.emptied() if database == "postgresql" and server else f"sqlite:///{path}"
                    for figure in case.measure(url, size):
                        yield name, database, figure


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.registry", description="Registries, both databases."
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--database", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    asked = parser.parse_args()
    rows = []
    for name, database, figure in run(asked.case, asked.database, asked.scale, asked.large):
        holds = figure.holds if asked.scale == 1 else None
        rows.append({"case": name, "database": database, **asdict(figure), "holds": holds})
        console.err.print(f"{name} on {database}: {figure.name} {figure.value:,.4g} {figure.unit}")
        if asked.json is not None:
            told = {
                "machine": platform.processor() or platform.machine(),
                "python": platform.python_version(),
                "rows": rows,
            }
            asked.json.write_text(json.dumps(told, indent=2))
    table = [
        (
            row["name"],
            row["database"],
            f"{row['size']:,}",
            f"{row['value']:,.4g} {row['unit']}",
            "" if row["floor"] is None else f"{row['floor']:g}",
            {True: "holds", False: "MISSED", None: ""}[row["holds"]],
            "" if row["ratio"] is None else f"{row['ratio']:.2f} × {row['against']}",
        )
        for row in rows
    ]
    heads = ("figure", "database", "size", "measured", "floor", "", "ratio")
    console.out.print(console.table("registries", heads, table))


if __name__ == "__main__":
    main()
