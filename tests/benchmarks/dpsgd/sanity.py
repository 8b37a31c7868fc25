"""Whether an engine does the work that its time is measured for: every parameter trains, and the gradient is the right one.

A few units, hardly any noise, and a clip that half of them exceed. The gradient that reaches the optimizer is compared with an
ordinary backward pass over one unit after the other, summed in float64.
"""

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from bract.dpsgd.clipper import trained
from bract.dpsgd.vmap import explicit_gradient
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective
from tests.benchmarks.dpsgd.columns import Column, placed
from tests.benchmarks.dpsgd.prepare import prepare
from tests.benchmarks.dpsgd.settings import Settings
from tests.benchmarks.dpsgd.workloads import Workload

_UNITS = 8
_NOISE = 1e-30


@dataclass(frozen=True)
class Sanity:
    """What one step moved.

    Attributes:
        tensors: parameters of which a number changed, and all of them.
        numbers: how many numbers those parameters have, and all.
        moved: numbers that changed; of an embedding, the rows of words that are not in the batch stay.
        error: ‖gradient − reference‖ / ‖reference‖.
        finite: whether every number of the gradient is.
    """

    tensors: tuple[int, int]
    numbers: tuple[int, int]
    moved: int
    error: float
    finite: bool


def check(engine: str, workload: Workload, settings: Settings) -> Sanity:
    """Take one step without noise and look at it."""
    settings = settings.changed(batch=_UNITS, physical=_UNITS, noise=_NOISE)
    objective, batch = placed(workload, settings)
    norms = [float(torch.cat([g.flatten() for g in each]).norm()) for each in _gradients(objective, batch)]
    settings = settings.changed(clip=statistics.median(norms))
    column = prepare(engine, workload, settings)
    reference = _reference(workload, column, clipped=engine != "plain")
    before = {name: each.detach().clone() for name, each in trained(column.objective).items()}
    column.step()
    after = trained(column.objective)
    moved = {name: int((each.detach() != before[name]).sum()) for name, each in after.items()}
    found = [torch.zeros_like(each) if each.grad is None else each.grad for each in after.values()]
    sizes = {name: each.numel() for name, each in after.items()}
    return Sanity(
        tensors=(sum(count > 0 for count in moved.values()), len(moved)),
        numbers=(sum(sizes[name] for name, count in moved.items() if count), sum(sizes.values())),
        moved=sum(moved.values()),
        error=_distance(found, reference),
        finite=all(bool(torch.isfinite(each).all()) for each in found),
    )


def _reference(workload: Workload, column: Column, *, clipped: bool) -> list[Tensor]:
    """The mean of explicit gradients at the column's present weights, on a model that no engine has touched."""
    objective, batch = placed(workload, column.settings, layers=column.layers)
    objective.load_state_dict(column.objective.state_dict())
    totals = [torch.zeros_like(each, dtype=torch.float64) for each in trained(objective).values()]
    for gradients in _gradients(objective, batch):
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        factor = min(1.0, column.settings.clip / norm) if clipped else 1.0
        for total, each in zip(totals, gradients, strict=True):
            total.add_(each, alpha=factor / len(batch))
    return totals


def _gradients(objective: Objective, batch: Batch) -> list[list[Tensor]]:
    return [
        [each.double() for each in explicit_gradient(objective, batch.part(place, 1)).values()]
        for place in range(len(batch))
    ]


def _distance(found: list[Tensor], reference: list[Tensor]) -> float:
    squares = [(a.double() - b).square().sum() for a, b in zip(found, reference, strict=True)]
    whole = torch.stack([each.square().sum() for each in reference]).sum()
    return float((torch.stack(squares).sum() / whole).sqrt())
