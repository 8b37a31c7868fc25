"""One gradient a subject, one clip a subject, and their sum.

1. A subject's loss is the mean of its records' losses; it is computed from that subject alone (`torch.func.vmap`).
2. A subject's gradient is scaled to an L2 norm of at most C over all parameters together; one that is not
   finite counts as zero.
3. Scaled gradients are summed in float64.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from bract.errors import NO_CERTIFICATE, BractError
from bract.objectives.objective import Objective

_CHUNK_SUBJECTS = 96
_CHUNK_NUMBERS = 6_000_000

Gradients = Mapping[str, Tensor]
"""Parameter names to per-subject gradients (n, …)."""


@dataclass(frozen=True)
class Batch:
    """The subjects of one step.

    Attributes:
        records: (n, m, …), padded to m records a subject.
        present: (n, m), True where there is a record.
        masks: (n, m, …), each record's own draw.
    """

    records: Tensor
    present: Tensor
    masks: Tensor

    def chunks(self, size: int) -> Iterator["Batch"]:
        """The batch in pieces of `size` subjects, the last filled up with absent ones."""
        for start in range(0, len(self.records), size):
            piece = slice(start, start + size)
            yield Batch(
                _filled(self.records[piece], size), _filled(self.present[piece], size), _filled(self.masks[piece], size)
            )


def chunk_size(objective: nn.Module) -> int:
    """Subjects whose gradients are in memory at once (72 MB at most). Every chunk has this size."""
    return max(1, min(_CHUNK_SUBJECTS, _CHUNK_NUMBERS // sum(p.numel() for p in objective.parameters())))


def check_modules(objective: nn.Module) -> None:
    """Refuse modules that mix records, keep state of them, or draw their own randomness.

    Raises:
        BractError: `no-certificate`, naming the module's class.
    """
    for module in objective.modules():
        batched = isinstance(module, nn.modules.batchnorm._NormBase)
        drops = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if batched or drops or isinstance(module, nn.RNNBase | nn.EmbeddingBag):
            raise BractError(NO_CERTIFICATE, f"{type(module).__name__} has no per-subject gradient")


def subject_gradients(objective: Objective, batch: Batch) -> Gradients:
    """Each subject's gradient, computed from its own records only."""
    weights = {name: parameter.detach() for name, parameter in objective.named_parameters()}

    def loss(weights: dict[str, Tensor], records: Tensor, present: Tensor, masks: Tensor) -> Tensor:
        losses = functional_call(
            _Losses(objective), {f"objective.{k}": v for k, v in weights.items()}, (records, masks)
        )
        return _mean(losses, present)

    gradients: Gradients = vmap(grad(loss), in_dims=(None, 0, 0, 0))(weights, batch.records, batch.present, batch.masks)
    return gradients


def explicit_gradient(objective: Objective, records: Tensor, present: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """One subject's gradient by an ordinary backward pass over it alone: what the fast one must equal."""
    parameters = dict(objective.named_parameters())
    loss = _mean(objective.record_loss(records, masks), present)
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameters[name]) if gradient is None else gradient
        for name, gradient in zip(parameters, found, strict=True)
    }


def clipped(gradients: Gradients, clip: float, workspace: Tensor) -> Tensor:
    """The sum over subjects of gradients clipped to `clip`, float64 (P,), parameters in the order of the mapping.

    Args:
        gradients: of n subjects.
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
    return torch.where(usable, clip / norms.clamp(min=clip), 0.0) @ workspace


class ClippedSum:
    """Sums a step's clipped gradients; holds the memory for it from step to step.

    `gradients` is the engine's own in every private run; audits put a faulty one in its place, to see it caught.
    """

    def __init__(
        self, objective: Objective, gradients: Callable[[Objective, Batch], Gradients] = subject_gradients
    ) -> None:
        check_modules(objective)
        self._objective = objective
        self._gradients = gradients
        self.width = sum(parameter.numel() for parameter in objective.parameters())
        self._workspace = torch.empty(chunk_size(objective), self.width, dtype=torch.float64)

    def of(self, batch: Batch, clip: float) -> Tensor:
        """What is noised: float64 (P,). Adding a subject to the batch moves it by at most `clip`."""
        total = torch.zeros(self.width, dtype=torch.float64)
        for chunk in batch.chunks(len(self._workspace)):
            total += clipped(self._gradients(self._objective, chunk), clip, self._workspace)
        return total


class _Losses(nn.Module):
    """`record_loss` as a forward pass, which is what `functional_call` can run with other weights."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, records: Tensor, masks: Tensor) -> Tensor:
        return self.objective.record_loss(records, masks)


def _mean(losses: Tensor, present: Tensor) -> Tensor:
    """The mean over the records that are there; zero for a subject that has none."""
    there = present.to(losses.dtype)
    return (losses * there).sum() / there.sum().clamp(min=1)


def _filled(part: Tensor, size: int) -> Tensor:
    if len(part) == size:
        return part
    return torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
