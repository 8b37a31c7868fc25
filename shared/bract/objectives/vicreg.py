"""VICReg [Bardes et al. 2022, 2105.04906] with a released moment.

    L = λ·E‖y − y⁺‖² / d + 2μ·v + 2ν·c,   v = (1/d) Σ_a max(0, 1 − √(Var_a + ε)),   c = (1/d) Σ_{a≠b} Cov_ab²

for y = √d·z, so that a projection spread evenly over the sphere has variances of one. It is the paper's loss of a batch
that holds each pair of views in both orders (then both branches have the same variances and covariances), with the first
part divided by d and covariances divided by n, not n − 1. The first part is per record; v and c are functions of two
means of statistics of single records, for z on the unit sphere:

    ½ (z + z⁺)             ‖·‖ ≤ 1
    ½ (z zᵀ + z⁺ z⁺ᵀ)      ‖·‖ ≤ ½ (‖z‖² + ‖z⁺‖²) ≤ 1

so together, divided by √2, of norm ≤ 1.
"""

import torch
from torch import Tensor

from bract.encoders.spec import EncoderSpec
from bract.objectives.released_moment import ReleasedMoment, entries, flat, second, square
from bract.objectives.spec import VicRegSpec

_PARTS = 2**0.5
_EPSILON = 1e-4


class VicReg(ReleasedMoment):
    """Below a floor, where noise may make a variance negative, the hinge's root goes on along its tangent."""

    def __init__(self, encoder: EncoderSpec, spec: VicRegSpec) -> None:
        super().__init__(encoder, spec, spec.width + entries(spec.width))
        self.invariance, self.variance, self.covariance = spec.invariance, spec.variance, spec.covariance
        self.floor = spec.floor

    def statistic(self, views: Tensor) -> Tensor:
        """Mean and second moment of the two views, over √2 (B, d(d+1)/2 + d)."""
        return torch.cat([views.mean(1), flat(second(views))], 1) / _PARTS

    def batch_loss(self, mean: Tensor) -> Tensor:
        """2μ·v + 2ν·c of the module's docstring."""
        centre, upper = _PARTS * mean[: self.width], _PARTS * mean[self.width :]
        covariance: Tensor = self.width * (square(upper, self.width) - centre.outer(centre))
        variance = covariance.diagonal()
        hinge = (1 - self._root(variance)).clamp(min=0).mean()
        off = (covariance.square().sum() - variance.square().sum()) / self.width
        return 2 * self.variance * hinge + 2 * self.covariance * off

    def own_loss(self, views: Tensor) -> Tensor:
        """λ·‖y − y⁺‖² / d (B,)."""
        return self.invariance * (views[:, 0] - views[:, 1]).square().sum(1)

    def _root(self, variance: Tensor) -> Tensor:
        above = variance.clamp(min=self.floor)
        slope: float = 0.5 / (self.floor + _EPSILON) ** 0.5
        root: Tensor = (above + _EPSILON).sqrt()
        return root + slope * (variance - above)
