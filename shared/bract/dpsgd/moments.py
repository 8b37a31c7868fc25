"""The statistic that a step releases with noise of its own, before its gradients are computed."""

import torch
from torch import Tensor

from bract.objectives.batch import Batch
from bract.objectives.objective import MomentObjective

_UNITS = 128  # that pass through the model at a time


def moment_sum(objective: MomentObjective, batch: Batch) -> Tensor:
    """The sum over units of their moments, each scaled to a norm of at most one, float64 (k,) on the CPU.

    A unit moves it by at most one; one whose moment is not finite counts as zero.
    """
    device = next(objective.parameters()).device
    total: Tensor | None = None
    for chunk in batch.chunks(_UNITS):
        with torch.no_grad():
            each = objective.moment(chunk.to(device)).to("cpu", torch.float64)
        norms = torch.linalg.vector_norm(each, dim=1, keepdim=True)
        usable = torch.isfinite(norms) & chunk.present.any(1, keepdim=True).cpu()
        added = torch.where(usable, each / norms.clamp(min=1), 0.0).sum(0)
        total = added if total is None else total + added
    if total is None:
        raise ValueError("a batch has at least one unit")
    return total
