"""Barlow Twins [Zbontar et al. 2021, 2103.03230] with a released moment.

    L = Σ_a (1 − C_aa)² + λ Σ_{a≠b} C_ab²,   C_ab = (E[½ (z_a z⁺_b + z⁺_a z_b)] − m_a m_b) / (σ_a σ_b)

is the paper's loss of a batch that holds each pair of views in both orders, so that C is symmetric; m and σ² are then
mean and variance over both views. C is a function of three means of statistics of single records, each of norm ≤ 1 for
z on the unit sphere:

    ½ (z + z⁺)                 ‖·‖ ≤ ½ (‖z‖ + ‖z⁺‖) ≤ 1
    ½ (z z⁺ᵀ + z⁺ zᵀ)          ‖·‖ ≤ ‖z‖·‖z⁺‖ ≤ 1
    ½ (z² + z⁺²), entrywise    ‖·‖ ≤ ½ (‖z‖² + ‖z⁺‖²) ≤ 1, for ‖z²‖₂ ≤ ‖z²‖₁ = ‖z‖²

so together, divided by √3, of norm ≤ 1.
"""

import torch
from torch import Tensor

from bract.encoders.spec import EncoderSpec
from bract.objectives.released_moment import ReleasedMoment, entries, flat, product, square
from bract.objectives.spec import BarlowSpec

_PARTS = 3**0.5


class Barlow(ReleasedMoment):
    """Variances that a release makes smaller than floor / d are taken for that, so that noise never divides by zero."""

    def __init__(self, encoder: EncoderSpec, spec: BarlowSpec) -> None:
        super().__init__(encoder, spec, 2 * spec.width + entries(spec.width))
        self.redundancy, self.least = spec.redundancy, spec.floor / spec.width

    def statistic(self, views: Tensor) -> Tensor:
        """Mean, squares and product of the two views, over √3 (B, d(d+1)/2 + 2d)."""
        return torch.cat([views.mean(1), views.square().mean(1), flat(product(views))], 1) / _PARTS

    def batch_loss(self, mean: Tensor) -> Tensor:
        """L of the module's docstring."""
        width = self.width
        centre, squares, upper = (_PARTS * part for part in (mean[:width], mean[width : 2 * width], mean[2 * width :]))
        spread = (squares - centre.square()).clamp(min=self.least).sqrt()
        correlation: Tensor = (square(upper, self.width) - centre.outer(centre)) / spread.outer(spread)
        diagonal = correlation.diagonal()
        off = correlation.square().sum() - diagonal.square().sum()
        return (1 - diagonal).square().sum() + self.redundancy * off
