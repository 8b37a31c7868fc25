"""The columns: how each engine takes one whole step, from `zero_grad` to the optimizer.

plain          forward, mean loss, backward, AdamW: what a step costs that promises nothing; the fastest of its variants
bract          the engine that runs at sites, its noise, the same AdamW
vmap           `torch.func` per-unit gradients in float32, in chunks of the fastest size; bract's noise, the same AdamW
opacus-hooks   in `peers.py`
opacus-ghost   likewise
"""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bract.dpsgd.bookkeeping.clipper import BookKeeping
from bract.dpsgd.clipper import ClippedSum, Engine, trained
from bract.dpsgd.engine import _Run
from bract.dpsgd.noise import SecureNoise
from bract.dpsgd.sampler import SecureSampler
from bract.dpsgd.vmap import unit_gradients
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective
from bract.privacy.spec import PrivacySpec
from tests.benchmarks.dpsgd.settings import Settings
from tests.benchmarks.dpsgd.workloads import Workload

_RATE = 2.0**-7
_HELD_NUMBERS = 500_000_000
_CHUNKS = (4, 8, 16, 32, 64)


@dataclass
class Column:
    """An engine that is ready to step.

    Attributes:
        step: one whole step, on the same batch each time.
        objective: whose parameters it moves.
        settings: as this column uses them.
        picks: what was chosen by measuring.
        note: what a reader of the figures must know.
        layers: whether the model is the equivalent one without plain parameters.
    """

    step: Callable[[], None]
    objective: Objective
    settings: Settings
    picks: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
    layers: bool = False


def fastest_plain(workload: Workload, settings: Settings) -> Column:
    """The fastest of: attention fused or written out, then the batch in parts or whole, then eager or compiled."""
    kinds: list[dict[str, Any]] = [{"attention": "fused"}, {"attention": "written-out"}]
    best = _fastest(plain(workload, settings.changed(**kind)) for kind in kinds)
    if settings.physical < settings.batch:
        best = _fastest([best, plain(workload, best.settings.changed(physical=settings.batch))])
    if settings.compile:
        best = _fastest([best, plain(workload, best.settings.changed(compiled=True))])
    return best


def plain(workload: Workload, settings: Settings) -> Column:
    """A step without privacy: the mean of the same losses."""
    objective, batch = placed(workload, settings)
    parts = list(batch.chunks(min(settings.physical, len(batch))))
    optimizer = adamw(objective)

    def losses(records: Tensor, present: Tensor, draws: Tensor) -> Tensor:
        return objective.unit_loss(Batch(records, present, draws))

    run: Callable[..., Tensor] = torch.compile(losses, dynamic=False) if settings.compiled else losses

    def step() -> None:
        optimizer.zero_grad()
        for part in parts:
            with precision(settings):
                total = run(part.records, part.present, part.draws).sum() / len(batch)
            total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    used = {"attention": settings.attention, "physical": len(parts[0]), "compiled": settings.compiled}
    return Column(step, objective, settings, used)


def fastest_bract(workload: Workload, settings: Settings) -> Column:
    """The engine, compiled if that is asked for and faster."""
    best = bract(workload, settings)
    if settings.compile:
        best = _fastest([best, bract(workload, settings.changed(compiled=True))])
    return best


def bract(workload: Workload, settings: Settings) -> Column:
    """The private step as sites take it."""
    objective, batch = placed(workload, settings)
    clipper: list[BookKeeping] = []

    def made(objective: Objective) -> BookKeeping:
        precise = torch.bfloat16 if settings.device == "cuda" else None
        clipper.append(
            BookKeeping(objective, physical=settings.physical, compiled=settings.compiled, precision=precise)
        )
        return clipper[0]

    step = private_step(objective, batch, settings, made)
    step()  # routes are measured here
    return Column(step, objective, settings, {"compiled": settings.compiled, "routes": dict(clipper[0].picks)})


def vmap(workload: Workload, settings: Settings) -> Column:
    """Per-unit gradients by `torch.func`, with the engine's own noise."""
    settings = settings.changed(attention="written-out")
    objective, batch = placed(workload, settings)
    chunk = _fastest_chunk(objective, batch, settings)
    step = private_step(objective, batch, settings, partial(_Chunked, size=chunk, settings=settings))
    attends = any(hasattr(part, "fused_attn") for part in objective.modules())
    note = "attention written out, for the fused kernel has no rule" if attends else None
    return Column(step, objective, settings, {"chunk": chunk}, note)


def private_step(objective: Objective, batch: Batch, settings: Settings, made: Engine) -> Callable[[], None]:
    """The project's step from clipped sum to noised gradients, and the optimizer."""
    run = private_run(objective, len(batch), settings, made)
    optimizer = adamw(objective)
    objective.begin()

    def step() -> None:
        optimizer.zero_grad()
        run.set_gradients(batch)
        optimizer.step()
        objective.after_step()

    return step


def private_run(objective: Objective, expected: int, settings: Settings, made: Engine) -> _Run:
    """What the project's private steps share; the batch is given instead of drawn."""
    spec = PrivacySpec(settings.clip, settings.noise, _RATE, 1, 1e-6)
    return _Run(objective, spec, round(expected / _RATE), SecureSampler(), SecureNoise(), made)


class _Chunked:
    """Per-unit gradients in float32, some units at a time, as a script would write it with `torch.func`."""

    slack = 0.0

    def __init__(self, objective: Objective, size: int, settings: Settings) -> None:
        self._objective, self._size, self._settings = objective, size, settings

    def clipped_sum(self, batch: Batch, clip: float) -> ClippedSum:
        """See `Clipper`; units that are not finite are not looked for."""
        totals = [torch.zeros_like(each) for each in trained(self._objective).values()]
        for chunk in batch.chunks(self._size):
            with precision(self._settings):
                gradients = [each.flatten(1) for each in unit_gradients(self._objective, chunk).values()]
            norms = torch.stack([torch.linalg.vector_norm(each, dim=1) for each in gradients]).norm(dim=0)
            factors = clip / norms.clamp(min=clip)
            for total, each in zip(totals, gradients, strict=True):
                total.view(-1).addmv_(each.T, factors)
        return ClippedSum(tuple(totals), 0)


def _fastest_chunk(objective: Objective, batch: Batch, settings: Settings) -> int:
    """The chunk that takes the least time a unit; each is tried twice, the first time to warm up."""
    seconds = {}
    for size in [size for size in _CHUNKS if size <= min(len(batch), held_units(objective))] or [1]:
        clipper, part = _Chunked(objective, size, settings), batch.part(0, size)
        clipper.clipped_sum(part, 1.0)
        seconds[size] = timed(lambda: clipper.clipped_sum(part, 1.0), settings)[0] / size  # noqa: B023
    return min(seconds, key=lambda size: seconds[size])


def held_units(objective: Objective) -> int:
    """How many whole per-unit gradients fit into 2 GB."""
    return max(1, _HELD_NUMBERS // sum(each.numel() for each in trained(objective).values()))


def _fastest(columns: Iterable[Column]) -> Column:
    """The column of the quickest step, of two after one to warm up. At most two are held at a time."""
    best: Column | None = None
    least = float("inf")
    for column in columns:
        column.step()
        seconds = min(timed(column.step, column.settings)[0] for _ in range(2))
        if seconds < least:
            best, least = column, seconds
    if best is None:
        raise ValueError("no column to choose from")
    return best


def timed(work: Callable[[], object], settings: Settings) -> tuple[float, float]:
    """Seconds that some work takes: of the processor (of the device, on a GPU), and by the clock."""
    if settings.device == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start = time.perf_counter()
        first.record()
        work()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last) / 1e3, time.perf_counter() - start
    start, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - start


def placed(workload: Workload, settings: Settings, *, layers: bool = False) -> tuple[Objective, Batch]:
    """The objective, its attention as in the settings, and its batch, on the device."""
    objective = workload.objective(layers=layers)
    for part in objective.modules():
        if hasattr(part, "fused_attn"):
            vars(part)["fused_attn"] = settings.attention == "fused"
    batch = workload.batch(objective, settings.batch)
    device = torch.device(settings.device)
    return objective.to(device), batch.to(device)


def adamw(objective: Objective) -> torch.optim.AdamW:
    """The optimizer of every column."""
    return torch.optim.AdamW(trained(objective).values(), lr=1e-4, weight_decay=0.0, fused=True)


def precision(settings: Settings) -> AbstractContextManager[Any]:
    """float32 on a CPU, bf16 autocast on a GPU."""
    return torch.autocast("cuda", torch.bfloat16) if settings.device == "cuda" else nullcontext()
