"""SimSiam [Chen and He 2021, 2011.10566]: one view predicts the other's projection, which takes no gradient.

Per record: LayerNorm and statistics of public records stand for BatchNorm, so that a record's loss is a function of that
record, its draws and the weights.
"""

from torch import Tensor

from bract.encoders.spec import EncoderSpec
from bract.objectives.paired import on_sphere, pairs, perceptron
from bract.objectives.spec import SimSiamSpec
from bract.objectives.standardised import Standardised


class SimSiam(Standardised):
    """Loss 1 − ½ (cos(p₁, z₂) + cos(p₂, z₁)), z without gradient."""

    def __init__(self, encoder: EncoderSpec, spec: SimSiamSpec) -> None:
        super().__init__(encoder, spec.views, spec.public, spec.width)
        self.predictor = perceptron(spec.width, spec.hidden, spec.width)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """One minus the mean cosine of the two predictions (B,)."""
        projected = self.projections(records, draws)
        guesses = pairs(on_sphere(self.predictor(projected)))
        targets = pairs(on_sphere(projected.detach())).flip(1)
        return 1 - (guesses * targets).sum(2).mean(1)
