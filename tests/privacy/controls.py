"""Positive controls: objectives that couple subjects or keep state of them, each of which must be caught.

Each declares to be per-record, as somebody would who has overlooked what it does. They are the losses that people run DP-SGD
over in practice (`in-batch InfoNCE` and so on), over a small table encoder.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bract.encoders.spec import TableSpec
from bract.encoders.table import TableEncoder
from bract.encoders.weights import fill
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective
from bract.objectives.spec import PrivacyStructure

_WIDTH = 8


class TwoViews(Objective):
    """Two views of each row with other columns hidden, embedded once; subclasses say what is lost."""

    encoder: TableEncoder

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TableEncoder(TableSpec("table", "adult", dim=16, depth=1))
        self.head = nn.Linear(16, _WIDTH)
        fill(self, 0)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        columns = len(self.encoder.schema.names)
        return torch.rand(count, 2, columns, generator=generator) < 0.3

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        present = torch.ones(len(records), 1, dtype=torch.bool)
        return self.unit_loss(Batch(records[:, None], present, draws[:, None]))

    def unit_loss(self, batch: Batch) -> Tensor:
        """The loss of a unit's first record, with whoever else is there."""
        there = batch.present[:, 0]
        losses = torch.zeros_like(batch.records[:, 0, 0])
        return losses.masked_scatter(there, self.batch_loss(*self.views(batch)[there].unbind(1)))

    def views(self, batch: Batch) -> Tensor:
        """Embeddings (n, 2, width) of each unit's first record, its views side by side."""
        rows = batch.records[:, :1].expand(-1, 2, -1).flatten(0, 1)
        embedded: Tensor = self.head(self.encoder(rows, batch.draws[:, 0].flatten(0, 1)))
        return embedded.reshape(-1, 2, _WIDTH)

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        """A loss (n,) of each pair, whose sum is n times the paper's mean."""
        raise NotImplementedError


class InBatchInfoNCE(TwoViews):
    """SimCLR, CLIP: every other row is a negative [2002.05709]."""

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        likeness = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T / 0.1
        return functional.cross_entropy(likeness, torch.arange(len(one)), reduction="none")


class SigLip(TwoViews):
    """A sigmoid over every pair of the batch [2303.15343]."""

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        likeness = 10 * functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T - 10
        signs = 2 * torch.eye(len(one), dtype=one.dtype) - 1
        return -functional.logsigmoid(signs * likeness).sum(1)


class VicReg(TwoViews):
    """Variance and covariance of the batch [2105.04906]."""

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        centred = one - one.mean(0)
        covariance = centred.T @ centred / max(1, len(one) - 1)
        spread = torch.relu(1 - torch.sqrt(covariance.diag() + 1e-4)).mean()
        crossed = (covariance - torch.diag(covariance.diag())).square().sum() / _WIDTH
        return 25 * (one - other).square().mean(1) + 25 * spread + crossed


class Barlow(TwoViews):
    """Cross-correlation of the batch [2103.03230]."""

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        left, right = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-6).sqrt() for z in (one, other))
        correlation = left.T @ right / len(one)
        weights = 0.05 + 0.95 * torch.eye(_WIDTH, dtype=one.dtype)
        gaps = (correlation - torch.eye(_WIDTH, dtype=one.dtype)).square() * weights
        return gaps.sum().expand(len(one))


class KoLeo(TwoViews):
    """The distance to the nearest other row of the batch [DINOv2, 2304.07193]."""

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        points = functional.normalize(one, dim=1)
        apart = (points[:, None] - points[None]).square().sum(2) + 10 * torch.eye(len(one), dtype=one.dtype)
        nearest = apart.min(1).values
        return -torch.log(nearest + 1e-8) / 2 + 0 * other.sum(1)


class DinoCentre(TwoViews):
    """A centre that is the running mean of what the batches gave [2104.14294]: state, and no other fault."""

    centre: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(_WIDTH))

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        teacher = functional.softmax((other.detach() - self.centre) / 0.04, 1)
        if torch.is_grad_enabled():
            self.centre.mul_(0.9).add_(other.detach().mean(0), alpha=0.1)
        return -(teacher * functional.log_softmax(one / 0.1, 1)).sum(1)


class MoCoQueue(TwoViews):
    """Negatives are the embeddings of former batches [1911.05722], kept in a plain Python list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Tensor] = []

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        query, key = functional.normalize(one, dim=1), functional.normalize(other, dim=1).detach()
        negatives = torch.cat([*self.queue, torch.eye(_WIDTH, dtype=one.dtype)])
        if torch.is_grad_enabled():
            self.queue = [*self.queue, key][-4:]
        likeness = torch.cat([(query * key).sum(1, keepdim=True), query @ negatives.T], 1) / 0.2
        return functional.cross_entropy(likeness, torch.zeros(len(one), dtype=torch.long), reduction="none")


class RunningStatistics(TwoViews):
    """Rows standardised by running statistics of the batches: BatchNorm by hand, so that no type gives it away."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(_WIDTH))

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.average.lerp_(one.detach().mean(0), 0.1)
        return (one - self.average - other).square().sum(1)


class ConcatenatedViews(TwoViews):
    """`cat([view, view])`: a unit's rows do not lie side by side, so the engine clips strangers together."""

    def views(self, batch: Batch) -> Tensor:
        rows = torch.cat([batch.records[:, 0], batch.records[:, 0]])
        embedded: Tensor = self.head(self.encoder(rows, torch.cat(batch.draws[:, 0].unbind(1))))
        return embedded.reshape(2, -1, _WIDTH).transpose(0, 1)

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        return -functional.cosine_similarity(one, other.detach(), dim=1)


class MeanOverTheBatch(TwoViews):
    """The mean over all hidden columns of the batch, times its size: one long subject dilutes everybody."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        few = torch.rand(count, 2, len(self.encoder.schema.names), generator=generator)
        return few < torch.rand(count, 1, 1, generator=generator).square()

    def unit_loss(self, batch: Batch) -> Tensor:
        there = batch.present[:, 0]
        weights = batch.draws[:, 0].flatten(1).sum(1) * there + 1e-3
        errors = self.views(batch).square().sum((1, 2)) * there
        return errors * weights / weights.sum() * there.sum()


COUPLED: dict[str, type[Objective]] = {
    "in-batch InfoNCE": InBatchInfoNCE,
    "SigLIP": SigLip,
    "VICReg": VicReg,
    "Barlow Twins": Barlow,
    "KoLeo": KoLeo,
    "concatenated views": ConcatenatedViews,
    "mean over the batch's masked tokens": MeanOverTheBatch,
}
"""Their gradients depend on who else is there."""

STATEFUL: dict[str, type[Objective]] = {
    "DINO centring": DinoCentre,
    "running batch statistics": RunningStatistics,
    "MoCo queue": MoCoQueue,
}
"""What they keep of a batch outlives the step."""


class Honest(TwoViews):
    """The control of the controls: the same views, each record for itself."""

    def batch_loss(self, one: Tensor, other: Tensor) -> Tensor:
        return -functional.cosine_similarity(one, other.detach(), dim=1)


class Undeclared(Honest):
    """One that says itself that nothing is proved."""

    structure = PrivacyStructure.NONE


def honest() -> Any:
    """A factory with examples of its own."""
    made = Honest()
    made.example_records = torch.rand(8, made.encoder.schema.width)
    return made
