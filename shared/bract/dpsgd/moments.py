"""The statistic that a step releases with noise of its own, before its gradients are computed."""

import torch
from torch import Tensor

from bract.objectives.batch import Batch
from bract.objectives.objective import MomentObjective


def moment_sum(objective: MomentObjective, batch: Batch) -> Tensor:
    """The sum over units of their moments, each scaled to a norm of at most one, float64 (k,) on the CPU.

    A unit moves it by at most one; one whose moment is not finite counts as zero.
    """
    device = next(objective.parameters()).device
    with torch.no_grad():
        each = objective.moment(batch.to(device)).to("cpu", torch.float64)
    norms = torch.linalg.vector_norm(each, dim=1, keepdim=True)
    return torch.where(torch.isfinite(norms), each / norms.clamp(min=1), 0.0).sum(0)
