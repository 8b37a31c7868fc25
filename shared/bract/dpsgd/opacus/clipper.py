"""Opacus' hooks mode as a reference engine: a gradient a row by its rules, rows of a unit summed, one clip a unit.

Opacus [Yousefpour et al. 2021, 2109.12298] keeps a gradient for each row of a layer's input. A unit is m records of K
views, so it has several rows, all side by side; their sum is the unit's gradient, for `unit_loss` already weighs them.
Norms and sums are float64. Hooks live during one call only; the objective is left as it was found.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bract.dpsgd.clipper import ClippedSum, trained
from bract.dpsgd.modules import check_modules
from bract.dpsgd.opacus.watch import Watch
from bract.errors import NO_CERTIFICATE, BractError
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective

_AGREEMENT = 1e-3


class OpacusClipper:
    """Per-row gradients of a chunk of units at a time.

    Args:
        objective: what is trained.
        held: numbers in the per-row gradients of a chunk; one unit's are always held, even if they are more.

    Slack: a float64 norm of P numbers is off by at most P·2⁻⁵³ of itself, below 1e-9 for nine million parameters.
    """

    slack = 1e-9

    def __init__(self, objective: Objective, held: int = 6_000_000) -> None:
        check_modules(objective)
        self._objective = objective
        self._parameters = trained(objective)
        self._width = sum(parameter.numel() for parameter in self._parameters.values())
        self._held = held
        self._rows = 0  # of a unit in the layer that has most; not known before a first unit was seen

    def clipped_sum(self, batch: Batch, clip: float) -> ClippedSum:
        """See `Clipper`. Units whose gradient is not finite count as zero.

        Raises:
            BractError: `no-certificate`, naming the layer or parameter that Opacus has no right gradient of.
        """
        total = [torch.zeros(p.shape, dtype=torch.float64, device=p.device) for p in self._parameters.values()]
        start = dropped = 0
        while start < len(batch):
            units = min(self._units(), len(batch) - start)
            gradients = self._unit_gradients(batch.part(start, units))
            norms = torch.linalg.vector_norm(torch.stack([_norms(each) for each in gradients]), dim=0)
            usable = torch.isfinite(norms)
            factors = torch.where(usable, clip / norms.clamp(min=clip), 0.0)
            for sums, each in zip(total, gradients, strict=True):
                each[~usable] = 0.0
                sums.add_(torch.einsum("n,n...->...", factors, each))
            dropped += int((~usable).sum())
            start += units
        return ClippedSum(tuple(total), dropped)

    def _units(self) -> int:
        """How many units' gradients may be held at once; one, until it is known how many rows a unit has."""
        return max(1, self._held // (self._width * self._rows)) if self._rows else 1

    def _unit_gradients(self, batch: Batch) -> list[Tensor]:
        """Each unit's gradient (n, …) in float64, parameter by parameter."""
        with _hooked(self._objective) as watch, _own_gradients(self._parameters):
            losses = watch.forward(lambda: self._objective.unit_loss(batch))
            if losses.shape != (len(batch),):
                raise BractError(NO_CERTIFICATE, f"unit_loss: {tuple(losses.shape)} is not one value a unit")
            watch.backward(losses.sum())
            found = {name: self._summed(name, len(batch), watch) for name in self._parameters}
            self._check_sums(found, watch)
        self._rows = max(self._rows, watch.most_rows // len(batch))
        return list(found.values())

    def _summed(self, name: str, units: int, watch: Watch) -> Tensor:
        """A parameter's gradient a unit, from those a row."""
        parameter: Any = self._parameters[name]
        rows = parameter.grad_sample
        if not isinstance(rows, Tensor):
            raise BractError(NO_CERTIFICATE, f"{name}: no private gradient; its layer was not run, or run apart")
        if len(rows) % units:
            raise BractError(NO_CERTIFICATE, f"{watch.owner(parameter)}: {len(rows)} rows of {units} units")
        return rows.to(torch.float64).reshape(units, -1, *parameter.shape).sum(1)

    def _check_sums(self, found: dict[str, Tensor], watch: Watch) -> None:
        """Refuse where units do not add up to what autograd has for all of them: a weight used outside its layer."""
        sizes = {name: float(_norms(each).sum()) for name, each in found.items()}
        whole = sum(sizes.values())
        if not math.isfinite(whole):
            return  # a unit that is not finite spoils autograd's sum; what is kept is clipped all the same
        for name, each in found.items():
            parameter = self._parameters[name]
            apart = each.sum(0) if parameter.grad is None else each.sum(0) - parameter.grad
            if float(apart.norm()) > _AGREEMENT * (sizes[name] + _AGREEMENT * whole):
                layer = watch.owner(parameter)
                raise BractError(NO_CERTIFICATE, f"{layer}: {name} has a gradient that does not come through its layer")


def _norms(each: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(each.flatten(1), dim=1)
    return norms


@contextmanager
def _hooked(objective: nn.Module) -> Iterator[Watch]:
    """Opacus' hooks, with a watch on the layers they are attached to; nothing of either is left behind."""
    hooks = None
    handles: list[RemovableHandle] = []
    try:
        hooks = _attached(objective)
        watch = Watch(objective, list(hooks.iterate_submodules(objective)))
        handles = watch.attach()
        yield watch
    finally:
        for handle in handles:
            handle.remove()
        if hooks is not None:
            hooks.cleanup()
        for module in objective.modules():
            for left in ("activations", "max_batch_len", "autograd_grad_sample_hooks"):
                module.__dict__.pop(left, None)


def _attached(objective: nn.Module) -> Any:
    try:
        return GradSampleHooks(objective, loss_reduction="sum", strict=False)
    except NotImplementedError as error:
        raise BractError(NO_CERTIFICATE, f"Opacus: {error}") from error


@contextmanager
def _own_gradients(parameters: dict[str, Tensor]) -> Iterator[None]:
    """Empty `grad` fields for a while; what was in them comes back."""
    before = {name: parameter.grad for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.grad = before[name]
