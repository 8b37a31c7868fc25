"""Latents of an image's hidden region, predicted from the rest of it [I-JEPA, Assran et al. 2023, 2301.08243].

Per record: the targets come from a slow copy of the encoder, a running mean of noised weights, and are standardised each
by itself. The paper hides four rectangles; here it is one region of a fixed number of patches, those nearest to a random
point, so that every record has the same shapes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bract.encoders.spec import ViTSpec
from bract.objectives.hidden_patches import HiddenPatches
from bract.objectives.slow import follow, still
from bract.objectives.spec import LatentImageSpec

_ASPECT = 1.5


class LatentImage(HiddenPatches):
    """Mean squared error between guessed latents of the hidden patches and those of the slow encoder, which sees all."""

    def __init__(self, encoder: ViTSpec, spec: LatentImageSpec) -> None:
        super().__init__(encoder, spec.mask_ratio, spec.predictor_dim, spec.predictor_depth, spec.predictor_heads)
        self.keep = spec.keep
        self.latents = nn.Linear(spec.predictor_dim, encoder.dim)
        self.slow_encoder = still(self.encoder)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """An order of the patches by their nearness to a random point, the nearest last (count, tokens)."""
        side = self.encoder.side
        point, stretch = torch.rand(count, 2, generator=generator) * side, torch.rand(count, generator=generator)
        stretch = torch.exp((2 * stretch - 1) * math.log(_ASPECT))[:, None]
        steps = torch.arange(side) + 0.5
        down, across = steps.repeat_interleave(side) - point[:, :1], steps.repeat(side) - point[:, 1:]
        return ((down * stretch).square() + (across / stretch).square()).argsort(1, descending=True)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """Mean over an image's own hidden patches and the latents' coordinates (B,)."""
        patches = self.encoder.patches(records)
        guesses = self.latents(self.told(patches, draws))
        everything = torch.arange(self.encoder.tokens, device=records.device).expand(len(records), -1)
        latents = functional.layer_norm(self.slow_encoder(patches, everything).detach(), (self.encoder.dim,))
        errors: Tensor = guesses - self.hidden(latents, draws)
        return errors.square().mean((1, 2))

    def begin(self) -> None:
        """The slow copy becomes equal to the encoder."""
        follow(self.slow_encoder, self.encoder, 0.0)

    def after_step(self) -> None:
        """The slow copy follows."""
        follow(self.slow_encoder, self.encoder, self.keep)
