"""What objectives over two views of each record have in common: the views, and a projection beside the encoder."""

import torch
from torch import Tensor, nn

from bract.encoders.build import module
from bract.encoders.spec import EncoderSpec
from bract.objectives.objective import Objective
from bract.objectives.spec import ViewsSpec
from bract.objectives.views import views


class Paired(Objective):
    """Records (B, …) of the encoder's kind; draws (B, 2, …) for their two views."""

    def __init__(self, encoder: EncoderSpec, spec: ViewsSpec, width: int) -> None:
        super().__init__()
        self.views = views(encoder, spec)
        self.encoder = module(encoder)
        self.projector = perceptron(self.encoder.dim, self.encoder.dim, width)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws for two views of each record."""
        return self.views.draw(count, generator)

    def projections(self, records: Tensor, draws: Tensor) -> Tensor:
        """Projections (2·B, width), a record's two views side by side; each layer is applied once."""
        projected: Tensor = self.projector(self.views.encode(self.encoder, records, draws))
        return projected

    def embeddings(self, records: Tensor, draws: Tensor) -> Tensor:
        """Projections of length one (B, 2, width)."""
        return pairs(on_sphere(self.projections(records, draws)))


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer with LayerNorm, where the papers have BatchNorm, which would mix the records of a batch."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, outputs))


def on_sphere(vectors: Tensor) -> Tensor:
    """Vectors scaled to a length of one, or a little less; finite, with finite gradients, for zeros too."""
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + 1e-12)


def pairs(rows: Tensor) -> Tensor:
    """Rows (2·B, width) as pairs (B, 2, width)."""
    return rows.reshape(-1, 2, rows.shape[-1])
