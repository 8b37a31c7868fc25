"""One workload in a process of its own: each round takes a step of every engine, in rotating order."""

import gc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from tests.benchmarks.dpsgd.columns import Column, timed
from tests.benchmarks.dpsgd.prepare import fastest
from tests.benchmarks.dpsgd.processes import begin
from tests.benchmarks.dpsgd.sanity import Sanity, check
from tests.benchmarks.dpsgd.settings import Settings
from tests.benchmarks.dpsgd.workloads import Workload, workloads

_LEAST_RATIO = 1.02
_LARGEST_ERROR = {"cpu": 1e-4, "cuda": 0.05}  # float32, and bf16 autocast

Row = dict[str, Any]


@dataclass
class _Timed:
    """An engine's steps: by round, seconds of the processor and of the clock."""

    column: Column
    sanity: Sanity
    seconds: dict[int, tuple[float, float]] = field(default_factory=dict)


def run(pipe: Connection, name: str, engines: Sequence[str], settings: Settings) -> None:
    """Send ("at", engine) before anything may end the process, ("round", n), and at last ("rows", rows)."""
    begin(settings, keep_memory=True)
    workload = workloads(small=settings.small)[name]
    ready: dict[str, _Timed] = {}
    errors: dict[str, str] = {}
    for engine in engines:
        pipe.send(("at", engine))
        try:
            ready[engine] = _ready(engine, workload, settings)
        except Exception as error:  # noqa: BLE001 - whatever an engine does, the others go on
            errors[engine] = _told(error)
        if engine == "plain" and engine in ready:
            settings = settings.changed(attention=ready[engine].column.settings.attention)
        gc.collect()
    for number in range(settings.rounds):
        _round(pipe, number, ready, errors, settings)
        pipe.send(("round", number + 1))
    pipe.send(("rows", [_row(name, engine, ready, errors) for engine in engines]))


def _ready(engine: str, workload: Workload, settings: Settings) -> _Timed:
    """Checked, prepared and warmed up."""
    sanity = check(engine, workload, settings)
    column = fastest(engine, workload, settings)
    column.step()
    return _Timed(column, sanity)


def _round(pipe: Connection, number: int, ready: dict[str, _Timed], errors: dict[str, str], settings: Settings) -> None:
    names = [name for name in ready if name in ("plain", "bract") or number % settings.peers_every == 0]
    turn = number % len(names) if names else 0
    for name in names[turn:] + names[:turn]:
        pipe.send(("at", name))
        gc.collect()
        gc.disable()
        try:
            ready[name].seconds[number] = timed(ready[name].column.step, settings)
        except Exception as error:  # noqa: BLE001 - likewise
            errors[name] = _told(error)
            del ready[name]
        finally:
            gc.enable()


def _row(workload: str, engine: str, ready: dict[str, _Timed], errors: dict[str, str]) -> Row:
    """One engine's figures, or its error."""
    row: Row = {"workload": workload, "engine": engine}
    if engine in errors or "plain" not in ready:
        return row | {"error": errors.get(engine, f"nothing to compare with: {errors.get('plain')}")}
    mine, base = ready[engine], ready["plain"]
    pairs = [(seconds, base.seconds[number]) for number, seconds in sorted(mine.seconds.items())]
    ratios = [one[0] / other[0] for one, other in pairs]
    row |= {
        "time_ratio": _spread(ratios),
        "wall_ratio": _spread([one[1] / other[1] for one, other in pairs]),
        "step_ms": round(1e3 * statistics.median(one[0] for one, _ in pairs), 2),
        "wall_ms": round(1e3 * statistics.median(one[1] for one, _ in pairs), 2),
        "rounds": len(pairs),
        "parameters_trained": mine.sanity.numbers[0],
        "parameters_total": mine.sanity.numbers[1],
        "tensors_trained": mine.sanity.tensors[0],
        "tensors_total": mine.sanity.tensors[1],
        "numbers_moved": mine.sanity.moved,
        "gradient_error": mine.sanity.error,
        "picks": mine.column.picks,
        "alarms": _alarms(engine, statistics.median(ratios), mine, base),
    }
    return row | ({"note": mine.column.note} if mine.column.note else {})


def _alarms(engine: str, ratio: float, mine: _Timed, base: _Timed) -> list[str]:
    """What must not be believed without a look."""
    found = []
    trained, total = mine.sanity.tensors
    if trained < total:
        found.append(f"only {trained} of {total} parameters train")
    if mine.sanity.moved < 0.999 * base.sanity.moved:
        found.append(f"{mine.sanity.moved} numbers moved, of plain's {base.sanity.moved}")
    if not mine.sanity.finite:
        found.append("a gradient is not finite")
    if not mine.sanity.error <= _LARGEST_ERROR[mine.column.settings.device]:
        found.append(f"the gradient is {mine.sanity.error:.1e} away from the explicit one")
    if engine != "plain" and ratio < _LEAST_RATIO:
        found.append(f"a ratio below {_LEAST_RATIO} is more likely an error than a feat")
    return found


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, and the quartiles on either side."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"median": round(statistics.median(values), 4), "iqr": [round(low, 4), round(high, 4)]}


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
