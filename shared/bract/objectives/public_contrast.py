"""InfoNCE [van den Oord et al. 2018, 1807.03748] with public negatives: no record is a negative of another.

    ℓ = −log( e^{s(z, z⁺)/τ} / (e^{s(z, z⁺)/τ} + Σ_k e^{s(z, a_k)/τ}) ),   s the cosine, meant over both orders of the views

The a_k are views of procedural records that belong to nobody, embedded by the encoder as it is, without gradient; that
is post-processing of noised weights. So the loss is a record's own: Δ = C. As in MoCo [He et al. 2020, 1911.05722], z⁺
takes no gradient either: with one through z⁺ alone, all embeddings drift away from where the bank was, and the bank
follows them. What the loss can teach is bounded by the bank: two records that both look unlike it are not driven apart.
"""

import torch
from torch import Tensor

from bract.encoders.spec import EncoderSpec
from bract.objectives.spec import PublicContrastSpec
from bract.objectives.standardised import Standardised


class PublicContrast(Standardised):
    """Records and draws as `Paired`; `bank` (2·K, width) holds the negatives."""

    bank: Tensor

    def __init__(self, encoder: EncoderSpec, spec: PublicContrastSpec) -> None:
        super().__init__(encoder, spec.views, spec.public, spec.width)
        self.temperature, self.refresh = spec.temperature, spec.refresh
        self.register_buffer("bank", torch.zeros(2 * spec.public.count, spec.width), persistent=False)
        self._steps = 0

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """Mean of the two views' losses (B,)."""
        views = self.embeddings(records, draws)
        likeness = (views * views.detach().flip(1)).sum(2, keepdim=True) / self.temperature
        unlike = views @ self.bank.T / self.temperature
        return (torch.cat([likeness, unlike], 2).logsumexp(2) - likeness[..., 0]).mean(1)

    def begin(self) -> None:
        """Embed the public records."""
        self._steps = 0
        self._embed()

    def after_step(self) -> None:
        """Embed them anew, every `refresh` steps."""
        self._steps += 1
        if self._steps % self.refresh == 0:
            self._embed()

    def _embed(self) -> None:
        super().begin()
        with torch.no_grad():
            self.bank.copy_(self.embeddings(self.items, self.item_draws).flatten(0, 1))
