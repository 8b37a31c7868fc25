"""Spectral contrast [HaoChen et al. 2021, 2106.04156] with a released moment.

The paper's population loss −2·E[f·f⁺] + E[(f·f′)²], with f = √μ·z on a sphere and f′ an independent draw, is
−2μ·E[z·z⁺] + μ²·‖R‖² for R = E[½ (z zᵀ + z⁺ z⁺ᵀ)]. The first part is per record, the second a function of R alone.
Over a batch, R as the mean over its pairs gives the loss with every pair of views in it, a view with itself too.
"""

from torch import Tensor

from bract.encoders.spec import EncoderSpec
from bract.objectives.released_moment import ReleasedMoment, entries, flat, second
from bract.objectives.spec import SpectralContrastSpec


class SpectralContrast(ReleasedMoment):
    """Statistic: R of one record as a vector of the same norm, at most ½ (‖z‖² + ‖z⁺‖²) ≤ 1."""

    def __init__(self, encoder: EncoderSpec, spec: SpectralContrastSpec) -> None:
        super().__init__(encoder, spec, entries(spec.width))
        self.radius = spec.radius

    def statistic(self, views: Tensor) -> Tensor:
        """The upper triangle of ½ (z zᵀ + z⁺ z⁺ᵀ) (B, d(d+1)/2)."""
        return flat(second(views))

    def batch_loss(self, mean: Tensor) -> Tensor:
        """μ²·‖R‖²."""
        return self.radius**2 * mean.square().sum()

    def own_loss(self, views: Tensor) -> Tensor:
        """−2μ·z·z⁺ (B,)."""
        return -2 * self.radius * (views[:, 0] * views[:, 1]).sum(1)
