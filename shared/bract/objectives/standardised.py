"""Features standardised by statistics of public records: what stands for BatchNorm, whose statistics are of the batch.

Without BatchNorm, objectives that only attract find constant features quickly. Here each feature has mean zero and
variance one over views of procedural records (`bract.objectives.public_records`), embedded anew at each step; a feature
that shrinks is stretched again. The statistics are functions of noised weights and public values alone, and constants to
the loss. They do not rule collapse out: features may tell public records apart and not the site's.
"""

import torch
from torch import Tensor

from bract.encoders.encoder import Encoder
from bract.encoders.spec import EncoderSpec
from bract.objectives.paired import Paired
from bract.objectives.public_records import public_records
from bract.objectives.spec import PublicRecordsSpec, ViewsSpec

_LEAST = 1e-5


class Standardised(Paired):
    """Records and draws as `Paired`; `items` are public, `centre` and `spread` (dim,) are of their views' features."""

    items: Tensor
    item_draws: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, encoder: EncoderSpec, spec: ViewsSpec, public: PublicRecordsSpec, width: int) -> None:
        super().__init__(encoder, spec, width)
        generator = torch.Generator().manual_seed(public.seed)
        self.register_buffer("items", public_records(encoder, public.count, public.seed), persistent=False)
        self.register_buffer("item_draws", self.views.draw(public.count, generator), persistent=False)
        self.register_buffer("centre", torch.zeros(self.encoder.dim), persistent=False)
        self.register_buffer("spread", torch.ones(self.encoder.dim), persistent=False)

    def projections(self, records: Tensor, draws: Tensor) -> Tensor:
        """As `Paired`, of standardised features."""
        features = (self.views.encode(self.encoder, records, draws) - self.centre) / self.spread
        projected: Tensor = self.projector(features)
        return projected

    def begin(self) -> None:
        """Take the statistics."""
        self.standardise(self.encoder, self.centre, self.spread)

    def after_step(self) -> None:
        """Take them anew."""
        self.standardise(self.encoder, self.centre, self.spread)

    def standardise(self, encoder: Encoder, centre: Tensor, spread: Tensor) -> None:
        """Overwrite mean and standard deviation of an encoder's features over the views of the public records."""
        with torch.no_grad():
            features = self.views.encode(encoder, self.items, self.item_draws)
            centre.copy_(features.mean(0))
            spread.copy_((features.var(0, correction=0) + _LEAST).sqrt())
