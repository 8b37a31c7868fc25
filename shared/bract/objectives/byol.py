"""BYOL [Grill et al. 2020, 2006.07733]: one view predicts what a slow copy of the network makes of the other.

Per record: LayerNorm and statistics of public records stand for BatchNorm, and the slow copy is a running mean of noised
weights. It begins each round as a copy of the weights that the round starts from.
"""

import torch
from torch import Tensor

from bract.encoders.spec import EncoderSpec
from bract.objectives.paired import on_sphere, pairs, perceptron
from bract.objectives.slow import follow, still
from bract.objectives.spec import ByolSpec
from bract.objectives.standardised import Standardised


class Byol(Standardised):
    """Loss 1 − ½ (cos(p₁, t₂) + cos(p₂, t₁)), t by the slow copy; a quarter of the paper's, which has 2 − 2 cos twice."""

    slow_centre: Tensor
    slow_spread: Tensor

    def __init__(self, encoder: EncoderSpec, spec: ByolSpec) -> None:
        super().__init__(encoder, spec.views, spec.public, spec.width)
        self.keep = spec.keep
        self.predictor = perceptron(spec.width, spec.hidden, spec.width)
        self.slow_encoder, self.slow_projector = still(self.encoder), still(self.projector)
        self.register_buffer("slow_centre", torch.zeros(self.encoder.dim), persistent=False)
        self.register_buffer("slow_spread", torch.ones(self.encoder.dim), persistent=False)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """One minus the mean cosine of the two predictions (B,)."""
        guesses = pairs(on_sphere(self.predictor(self.projections(records, draws))))
        seen = (self.views.encode(self.slow_encoder, records, draws) - self.slow_centre) / self.slow_spread
        targets = pairs(on_sphere(self.slow_projector(seen).detach())).flip(1)
        return 1 - (guesses * targets).sum(2).mean(1)

    def begin(self) -> None:
        """The slow copy becomes equal to the weights."""
        super().begin()
        self._follow(0.0)

    def after_step(self) -> None:
        """The slow copy follows."""
        super().after_step()
        self._follow(self.keep)

    def _follow(self, keep: float) -> None:
        follow(self.slow_encoder, self.encoder, keep)
        follow(self.slow_projector, self.projector, keep)
        self.standardise(self.slow_encoder, self.slow_centre, self.slow_spread)
