"""The reference engine: each unit's whole gradient by `torch.func`, one clip, a sum in float64.

Simple enough to be read in one go, and slow: the engines that run are compared with it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from bract.dpsgd.clipper import ClippedSum, trained
from bract.dpsgd.modules import check_modules
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective

_CHUNK_UNITS = 96
_CHUNK_NUMBERS = 6_000_000

Gradients = Mapping[str, Tensor]
"""Parameter names to per-unit gradients (n, …)."""


class VmapClipper:
    """Per-unit gradients, held in chunks of 72 MB at most; workspace is kept from step to step."""

    slack = 1e-9  # float64 norms of up to millions of numbers

    def __init__(self, objective: Objective) -> None:
        check_modules(objective)
        self._objective = objective
        self._shapes = [parameter.shape for parameter in trained(objective).values()]
        width = sum(shape.numel() for shape in self._shapes)
        units = max(1, min(_CHUNK_UNITS, _CHUNK_NUMBERS // width))
        device = next(objective.parameters()).device
        self._workspace = torch.empty(units, width, dtype=torch.float64, device=device)

    def clipped_sum(self, batch: Batch, clip: float) -> ClippedSum:
        """See `Clipper`."""
        total = torch.zeros_like(self._workspace[0])
        dropped = 0
        for chunk in batch.chunks(len(self._workspace)):
            added, bad = clipped(unit_gradients(self._objective, chunk), clip, self._workspace)
            total += added
            dropped += bad
        pieces = torch.split(total, [shape.numel() for shape in self._shapes])
        shaped = tuple(piece.reshape(shape) for piece, shape in zip(pieces, self._shapes, strict=True))
        return ClippedSum(shaped, dropped)


def unit_gradients(objective: Objective, batch: Batch) -> Gradients:
    """Each unit's gradient, computed from that unit only."""
    weights = {name: parameter.detach() for name, parameter in trained(objective).items()}

    def loss(weights: dict[str, Tensor], records: Tensor, present: Tensor, draws: Tensor) -> Tensor:
        unit = Batch(records[None], present[None], draws[None])
        losses: Tensor = functional_call(
            _UnitLoss(objective), {f"objective.{k}": v for k, v in weights.items()}, (unit,)
        )
        return losses[0]

    found: Any = vmap(grad(loss), in_dims=(None, 0, 0, 0))(weights, batch.records, batch.present, batch.draws)
    gradients: Gradients = found
    return gradients


def explicit_gradient(objective: Objective, unit: Batch) -> dict[str, Tensor]:
    """One unit's gradient by an ordinary backward pass over it alone: what every engine must agree with."""
    parameters = trained(objective)
    found = torch.autograd.grad(objective.unit_loss(unit)[0], list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameters[name]) if gradient is None else gradient
        for name, gradient in zip(parameters, found, strict=True)
    }


def clipped(gradients: Gradients, clip: float, workspace: Tensor) -> tuple[Tensor, int]:
    """The sum over units of gradients clipped to `clip`, float64 (P,), and how many units were not finite.

    Args:
        gradients: of n units.
        clip: C.
        workspace: float64 (n, P), overwritten; memory used again and again costs a third of fresh memory.
    """
    offset = 0
    for gradient in gradients.values():
        flat = gradient.reshape(len(workspace), -1)
        workspace[:, offset : offset + flat.shape[1]].copy_(flat)
        offset += flat.shape[1]
    norms = torch.linalg.vector_norm(workspace, dim=1)
    usable = torch.isfinite(norms)
    if not bool(usable.all()):
        workspace[~usable] = 0.0
    return torch.where(usable, clip / norms.clamp(min=clip), 0.0) @ workspace, int((~usable).sum())


class _UnitLoss(nn.Module):
    """`unit_loss` as a forward pass, which is what `functional_call` can run with other weights."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch) -> Tensor:
        return self.objective.unit_loss(batch)
