"""Starts the processes of each workload, shows how far they are, and outlives those that die."""

from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.benchmarks.dpsgd import memory, rounds
from tests.benchmarks.dpsgd.processes import context
from tests.benchmarks.dpsgd.settings import Settings

Row = dict[str, Any]


class Orchestra:
    """Runs workloads one after the other, with a progress bar on standard error."""

    def __init__(self, settings: Settings, engines: Sequence[str], count: int) -> None:
        self._settings, self._engines, self._count = settings, engines, count
        self._context = context()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._each = 2 * len(engines) + settings.rounds
        self._task = self._progress.add_task("starting", total=count * self._each)
        self._done = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def skip(self, name: str) -> None:
        """A workload whose figures are there."""
        self._show(f"{name}: kept", self._each)

    def play(self, name: str) -> list[Row]:
        """Rows of one workload, with memory."""
        lost: dict[str, str] = {}
        rows: list[Row] = []
        while not rows:
            left = [engine for engine in self._engines if engine not in lost]
            rows, culprit, why = self._timed(name, left)
            if culprit:
                lost[culprit] = why
                if culprit == "plain":
                    lost |= dict.fromkeys(left, f"nothing to compare with: plain {why}")
                    break
        rows += [{"workload": name, "engine": engine, "error": why} for engine, why in lost.items()]
        rows.sort(key=lambda row: self._engines.index(row["engine"]))
        if self._settings.memory:
            self._remember(name, rows)
        self._done += 1
        self._show(name, self._done * self._each, absolute=True)
        return rows

    def _timed(self, name: str, engines: Sequence[str]) -> tuple[list[Row], str, str]:
        """Rows; or none, the engine at which the process ended, and how."""
        near, far = self._context.Pipe()
        process = self._context.Process(target=rounds.run, args=(far, name, engines, self._settings))
        process.start()
        far.close()
        at, count = "plain", 0
        try:
            while True:
                kind, value = near.recv()
                if kind == "rows":
                    process.join()
                    return list(value), "", ""
                if kind == "at":
                    at = str(value)
                count += kind == "round" or not count
                self._show(f"{name}: {at}", self._done * self._each + min(count, self._each), absolute=True)
        except EOFError:
            process.join()
            return [], at, f"its process ended with status {process.exitcode}"

    def _remember(self, name: str, rows: list[Row]) -> None:
        """Add peak memory to the rows, each from a process of its own."""
        base: float | None = None
        for row in rows:
            if "error" in row:
                continue
            self._show(f"{name}: {row['engine']}, memory", 1)
            settings = self._settings.changed(
                attention=row["picks"].get("attention", self._attention(rows)),
                compiled=row["picks"].get("compiled", False),
            )
            found = self._peak(name, row["engine"], settings)
            if isinstance(found, str):
                row["memory_error"] = found
                continue
            row["memory_mb"], row["memory_later_mb"] = (round(each / 1e6, 1) for each in found)
            base = found[0] if row["engine"] == "plain" else base
            if base:
                row["memory_ratio"] = round(found[0] / base, 4)

    def _attention(self, rows: Sequence[Row]) -> str:
        return next((str(row["picks"]["attention"]) for row in rows if "attention" in row.get("picks", {})), "fused")

    def _peak(self, name: str, engine: str, settings: Settings) -> tuple[int, int] | str:
        near, far = self._context.Pipe()
        process = self._context.Process(target=memory.measure, args=(far, name, engine, settings))
        process.start()
        far.close()
        found = _received(near)
        process.join()
        return found if found is not None else f"its process ended with status {process.exitcode}"

    def _show(self, text: str, steps: int, *, absolute: bool = False) -> None:
        if absolute:
            self._progress.update(self._task, description=text, completed=steps)
        else:
            self._progress.update(self._task, description=text, advance=steps)


def _received(pipe: Connection) -> tuple[int, int] | str | None:
    try:
        found: tuple[int, int] | str = pipe.recv()
    except EOFError:
        return None
    return found
