"""Peak memory of one engine on one workload, in a fresh process that does nothing else.

On a CPU: the high-water mark of resident memory less what the imports took. It holds model, optimizer state, batch,
activations, gradients and noise, and on the first step whatever the engine measures or records once. On a GPU:
`torch.cuda.max_memory_allocated`. `plain` and `bract` pass equally many units through the model at a time.
"""

from multiprocessing.connection import Connection

import torch

from tests.benchmarks.dpsgd.prepare import prepare
from tests.benchmarks.dpsgd.processes import begin, reset_peak, resident
from tests.benchmarks.dpsgd.settings import Settings
from tests.benchmarks.dpsgd.workloads import workloads

_STEPS = 3


def measure(pipe: Connection, name: str, engine: str, settings: Settings) -> None:
    """Send (peak, peak after the first step) in bytes, or the text of what went wrong."""
    begin(settings, keep_memory=False)
    try:
        pipe.send(_measured(name, engine, settings))
    except Exception as error:  # noqa: BLE001 - whatever an engine does, the others go on
        pipe.send(f"{type(error).__name__}: {error}")


def _measured(name: str, engine: str, settings: Settings) -> tuple[int, int]:
    torch.randn(256, 256) @ torch.randn(256, 256)  # the libraries' own buffers
    before = 0 if settings.device == "cuda" else resident("VmRSS")
    column = prepare(engine, workloads(small=settings.small)[name], settings)
    column.step()
    first = _peak(settings)
    if settings.device == "cpu":
        reset_peak()
    for _ in range(_STEPS - 1):
        column.step()
    later = _peak(settings)
    return max(first, later) - before, later - before


def _peak(settings: Settings) -> int:
    if settings.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak
    return resident("VmHWM")
