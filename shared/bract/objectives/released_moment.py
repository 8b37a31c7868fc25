"""From a loss over a batch's mean statistic to a loss of each record, given a noised release of that mean.

Let a batch's loss be L = (1/n) Σᵢ oᵢ + F(S) with S = (1/n) Σᵢ sᵢ, where oᵢ and sᵢ depend on record i and the weights
alone. Then ∇L = (1/n) Σᵢ ∇(oᵢ + ⟨F′(S), sᵢ⟩) with F′(S) held constant: the chain rule, nothing else. So

    ℓᵢ = oᵢ + F(S̃) + ⟨F′(S̃), sᵢ − S̃⟩

is a record's own loss once S̃ was released with noise, and for S̃ = S its mean over the records is L and the mean of its
gradients ∇L. The releases' running mean is post-processing; it trades noise for age. Statistics of public records, which
are constants here, keep embeddings from moving as one, which is what makes an old release misleading.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from bract.encoders.spec import EncoderSpec
from bract.objectives.batch import Batch
from bract.objectives.objective import MomentObjective
from bract.objectives.spec import BarlowSpec, SpectralContrastSpec, VicRegSpec
from bract.objectives.standardised import Standardised


class ReleasedMoment(Standardised, MomentObjective):
    """The statistic is that of a record's two embeddings, which lie on the unit sphere.

    `slope` (k,) is F′(S̃) and `offset` F(S̃) − ⟨F′(S̃), S̃⟩; before the first release S̃ is zero.
    """

    average: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, encoder: EncoderSpec, spec: BarlowSpec | VicRegSpec | SpectralContrastSpec, width: int) -> None:
        super().__init__(encoder, spec.views, spec.public, spec.width)
        self.width, self.memory = spec.width, spec.memory
        self.moment_noise, self.moment_width = spec.moment_noise, width
        for name, shape in (("average", (width,)), ("slope", (width,)), ("offset", ())):
            self.register_buffer(name, torch.zeros(shape), persistent=False)
        self._releases = 0

    @abstractmethod
    def statistic(self, views: Tensor) -> Tensor:
        """Of each record's embeddings (B, 2, d) a vector sᵢ (B, k) of L2 norm at most one."""

    @abstractmethod
    def batch_loss(self, mean: Tensor) -> Tensor:
        """F, the part of the batch's loss that is a function of the mean statistic (k,)."""

    def own_loss(self, views: Tensor) -> Tensor:
        """The part oᵢ (B,) that needs no other record; zero unless the objective has one."""
        return torch.zeros_like(views[:, 0, 0])

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """The loss ℓᵢ of each record (B,), given what was released."""
        views = self.embeddings(records, draws)
        return self.own_loss(views) + self.statistic(views) @ self.slope + self.offset

    def moment(self, batch: Batch) -> Tensor:
        """The mean of the statistic over each unit's records (n, k): a mean of vectors of norm ≤ 1 has norm ≤ 1."""
        with torch.no_grad():
            each = self.statistic(self.embeddings(*batch.rows())).reshape(*batch.present.shape, self.moment_width)
            there = batch.present.to(each.dtype)
            total: Tensor = (each * there[..., None]).sum(1)
            return total / there.sum(1).clamp(min=1)[:, None]

    def receive(self, moment: Tensor) -> None:
        """Take a release into the running mean, which is corrected for its beginning at zero [Adam, 1412.6980, §3]."""
        self._releases += 1
        self.average.mul_(self.memory).add_(moment.to(self.average.dtype), alpha=1 - self.memory)
        self._expand(self.average / (1 - self.memory**self._releases))

    def begin(self) -> None:
        """Forget what was released in earlier rounds, under other weights."""
        super().begin()
        self._releases = 0
        self.average.zero_()
        self._expand(self.average)

    def _expand(self, mean: Tensor) -> None:
        with torch.enable_grad():
            at = mean.detach().clone().requires_grad_()
            value = self.batch_loss(at)
            (slope,) = torch.autograd.grad(value, at)
        self.slope.copy_(slope)
        self.offset.copy_(value.detach() - slope @ mean)


def entries(width: int) -> int:
    """Numbers of a symmetric matrix of that width."""
    return width * (width + 1) // 2


def flat(symmetric: Tensor) -> Tensor:
    """Symmetric matrices (…, d, d) as vectors (…, d(d+1)/2) of the same norm: entries off the diagonal times √2."""
    places, scale = _places(symmetric)
    return symmetric.flatten(-2)[..., places] * scale


def square(vector: Tensor, width: int) -> Tensor:
    """The symmetric matrix (d, d) of such a vector."""
    rows, columns = torch.triu_indices(width, width, device=vector.device)
    _, scale = _places(vector.new_zeros(width, width))
    upper = vector.new_zeros(width, width).index_put((rows, columns), vector / scale)
    return upper + upper.triu(1).T


def product(views: Tensor) -> Tensor:
    """½ (z z⁺ᵀ + z⁺ zᵀ) of pairs (B, 2, d): symmetric (B, d, d), of Frobenius norm at most ‖z‖·‖z⁺‖ ≤ 1."""
    outer = views[:, 0, :, None] * views[:, 1, None, :]
    return (outer + outer.transpose(1, 2)) / 2


def second(views: Tensor) -> Tensor:
    """½ (z zᵀ + z⁺ z⁺ᵀ) of pairs (B, 2, d): symmetric (B, d, d), of Frobenius norm at most ½ (‖z‖² + ‖z⁺‖²) ≤ 1."""
    return (views[..., :, None] * views[..., None, :]).mean(1)


def _places(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Where the upper triangle stands in a flattened matrix, and what each entry is multiplied by."""
    width = symmetric.shape[-1]
    rows, columns = torch.triu_indices(width, width, device=symmetric.device)
    scale = 1 + (2**0.5 - 1) * (rows != columns).to(symmetric.dtype)
    return rows * width + columns, scale
