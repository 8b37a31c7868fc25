"""Opacus' columns [Yousefpour et al. 2021, 2109.12298], with its modules, optimizers and noise as shipped.

opacus-hooks   `GradSampleModule` and `DPOptimizer`: each unit's whole gradient is held
opacus-ghost   `GradSampleModuleFastGradientClipping`, its optimizer and loss wrapper: norms in a first backward pass, the
               clipped sum in a second [Li et al. 2022, 2110.05679]

Two things are done for Opacus: `nn.LayerNorm` stands in for timm's subclass, which it would run through functorch, and
where a model has parameters of no layer, which it refuses, an equivalent model is timed and the refusal is noted.
"""

from collections.abc import Callable
from typing import Any

from opacus.grad_sample import GradSampleModule, register_grad_sampler
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from timm.layers.norm import LayerNorm
from torch import Tensor, nn

from bract.objectives.batch import Batch
from bract.objectives.objective import Objective
from tests.benchmarks.dpsgd.columns import Column, adamw, held_units, placed, precision
from tests.benchmarks.dpsgd.series import Constant
from tests.benchmarks.dpsgd.settings import Settings
from tests.benchmarks.dpsgd.workloads import Workload

Step = Callable[[], None]


def opacus(workload: Workload, settings: Settings, name: str) -> Column:
    """Opacus on the model as it is, or else on its equivalent."""
    try:
        column = _column(workload, settings, name, layers=False)
        column.step()
    except Exception as refusal:
        if not workload.plain_parameters:
            raise
        column = _column(workload, settings, name, layers=True)
        told = f"{type(refusal).__name__}: {refusal}".splitlines()[0]
        column.note = f"on an equivalent model with plain parameters moved into layers; as it is, {told}"
    return column


def _column(workload: Workload, settings: Settings, name: str, *, layers: bool) -> Column:
    objective, batch = placed(workload, settings, layers=layers)
    for part in objective.modules():
        if isinstance(part, LayerNorm):
            # the same forward pass; Opacus looks rules up by exact type
            part.__class__ = nn.LayerNorm  # type: ignore[assignment]
    make, most = (_hooks, held_units(objective)) if name == "opacus-hooks" else (_ghost, len(batch))
    parts = list(batch.chunks(min(settings.physical, len(batch), most)))
    step = make(objective, parts, settings)
    return Column(step, objective, settings, {"physical": len(parts[0])}, layers=layers)


def _hooks(objective: Objective, parts: list[Batch], settings: Settings) -> Step:
    wrapped = GradSampleModule(_Losses(objective))
    optimizer = DPOptimizer(adamw(objective), **_mechanism(settings))

    def backward(losses: Tensor) -> None:
        losses.mean().backward()  # type: ignore[no-untyped-call]

    return _step(wrapped, optimizer, parts, settings, backward)


def _ghost(objective: Objective, parts: list[Batch], settings: Settings) -> Step:
    wrapped = GradSampleModuleFastGradientClipping(_Losses(objective), max_grad_norm=settings.clip)
    optimizer = DPOptimizerFastGradientClipping(adamw(objective), **_mechanism(settings))
    criterion = DPLossFastGradientClipping(wrapped, optimizer, _Given())

    def backward(losses: Tensor) -> None:
        criterion(losses, losses).backward()

    return _step(wrapped, optimizer, parts, settings, backward)


def _step(
    wrapped: Any, optimizer: Any, parts: list[Batch], settings: Settings, backward: Callable[[Tensor], None]
) -> Step:
    """Physical batches as Opacus' `BatchMemoryManager` takes them: every step but the last only accumulates."""

    def step() -> None:
        for number, part in enumerate(parts, 1):
            optimizer.signal_skip_step(do_skip=number < len(parts))
            optimizer.zero_grad()
            with precision(settings):
                losses = wrapped(part.records, part.present, part.draws)
            backward(losses)
            optimizer.step()

    return step


def _mechanism(settings: Settings) -> dict[str, Any]:
    return {
        "noise_multiplier": settings.noise,
        "max_grad_norm": settings.clip,
        "expected_batch_size": settings.batch,
    }


class _Losses(nn.Module):
    """`unit_loss` as a forward pass over tensors, which is what Opacus wraps."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, records: Tensor, present: Tensor, draws: Tensor) -> Tensor:
        return self.objective.unit_loss(Batch(records, present, draws))


class _Given(nn.Module):
    """A criterion for losses that are there already."""

    reduction = "mean"

    def forward(self, losses: Tensor, _: Tensor) -> Tensor:
        return losses


@register_grad_sampler(Constant)  # type: ignore[untyped-decorator]
def _constant(layer: Constant, _: list[Tensor], gradient: Tensor) -> dict[nn.Parameter, Tensor]:
    """Each row's own copy is its gradient."""
    return {layer.weight: gradient.unsqueeze(1)}
