"""Where the private step's time goes beyond the plain one's, in per cent of a plain step.

    python -m tests.benchmarks.dpsgd.phases [WORKLOAD …] [--batch N] [--physical N] [--rounds N]

pass        forward and backward, with what the layers note, less a plain pass that makes no gradients of weights
norms       squared norms of the units' gradients, by kind of layer and route
finish      the clipped sums, less what the plain step pays for gradients of weights. Layers on the direct route have made
            theirs in the pass already: only the sum of pass and finish says what both cost beyond plain
noise       drawn, added, divided
"""

import argparse
import gc
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from bract.dpsgd.bookkeeping.clipper import BookKeeping
from bract.objectives.objective import Objective
from tests.benchmarks.dpsgd.columns import adamw, placed, plain, private_run, timed
from tests.benchmarks.dpsgd.processes import begin
from tests.benchmarks.dpsgd.settings import Settings
from tests.benchmarks.dpsgd.workloads import FULL, Workload

Seconds = defaultdict[str, float]


def main() -> None:
    """One block of lines a workload."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.dpsgd.phases")
    parser.add_argument("workload", nargs="*", choices=[*FULL, []], metavar="WORKLOAD", help=", ".join(FULL))
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument("--physical", type=int, default=Settings.physical)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    settings = Settings(batch=asked.batch, physical=asked.physical, rounds=asked.rounds)
    begin(settings, keep_memory=True)
    for name in asked.workload or FULL:
        print(f"{name}, batch {settings.batch}, physical {settings.physical}")
        _tell(*_measured(FULL[name], settings))


def _measured(workload: Workload, settings: Settings) -> tuple[dict[str, float], dict[str, int]]:
    """Median seconds of the parts of both steps, and how many layers take which route."""
    ordinary = plain(workload, settings)
    objective, batch = placed(workload, settings)
    run = private_run(objective, len(batch), settings, lambda each: BookKeeping(each, physical=settings.physical))
    descent = adamw(objective)
    clock: Seconds = defaultdict(float)
    inputs = _inputs_only(workload, settings)
    work: dict[str, Callable[[], object]] = {
        "plain": ordinary.step,
        "inputs": inputs,
        "private": lambda: run.set_gradients(batch),
        "descent": descent.step,
    }
    for each in work.values():
        each()
    _watch_engine(run.clipper, clock)
    found: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(settings.rounds):
        clock.clear()
        for label, each in work.items():
            gc.collect()
            found[label].append(timed(each, settings)[0])
        for label, seconds in clock.items():
            found[label].append(seconds)
    routes: Any = getattr(run.clipper, "picks", {})
    return {label: statistics.median(each) for label, each in found.items()}, dict(Counter(routes.values()))


def _inputs_only(workload: Workload, settings: Settings) -> Callable[[], None]:
    """A plain pass that makes gradients of activations and of no weight."""
    objective, batch = placed(workload, settings)
    objective.requires_grad_(False)
    _first_layer(objective).register_forward_hook(lambda _, __, output: output.requires_grad_())

    def work() -> None:
        for part in batch.chunks(settings.physical):
            objective.unit_loss(part).sum().backward()  # type: ignore[no-untyped-call]

    return work


def _first_layer(objective: Objective) -> Any:
    return next(part for part in list(objective.modules())[1:] if list(part.parameters(recurse=False)))


def _watch_engine(clipper: Any, clock: Seconds) -> None:
    for method, label in (("clipped_sum", "sum"), ("_pass", "pass"), ("_norms", "norms")):
        _watch(clipper, method, label, clock)
    for layer in clipper._tape.layers.values():
        kind = f"{type(layer).__name__}, {layer.route}"
        _watch(layer, "squares", f"norms of {kind}", clock)
        _watch(layer, "add", f"finish of {kind}", clock)


def _watch(target: Any, method: str, label: str, clock: Seconds) -> None:
    """Count the time that a method of this one object takes."""
    work = getattr(target, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        found = work(*args, **kwargs)
        clock[label] += time.process_time() - start
        return found

    setattr(target, method, counted)


def _tell(seconds: dict[str, float], routes: dict[str, int]) -> None:
    whole, private = seconds["plain"], seconds["private"] + seconds["descent"]
    weights = whole - seconds["inputs"] - seconds["descent"]
    finish = sum(each for label, each in seconds.items() if label.startswith("finish"))
    lines = {
        "pass beyond plain": seconds["pass"] - seconds["inputs"],
        "finish beyond plain": finish - weights,
        "norms": seconds["norms"],
        "noise": seconds["private"] - seconds["sum"],
        "rest": seconds["sum"] - seconds["pass"] - seconds["norms"] - finish,
    }
    print(f"  plain {1e3 * whole:.0f} ms, private {1e3 * private:.0f} ms, ratio {private / whole:.3f}; routes {routes}")
    print(f"  of a plain step: weights {_cent(weights, whole)}, optimizer {_cent(seconds['descent'], whole)}")
    for label, each in lines.items():
        print(f"  {label:32} {_cent(each, whole)}")
    for label in sorted(label for label in seconds if " of " in label):
        print(f"    {label:30} {_cent(seconds[label], whole)}")


def _cent(part: float, whole: float) -> str:
    return f"{100 * part / whole:6.1f} %"


if __name__ == "__main__":
    main()
