"""Masked autoencoding of images [He et al. 2022, 2111.06377], one loss an image as in ViP [Yu et al. 2023, 2306.08842].

Targets are pixels standardised by public constants.
"""

import torch
from torch import Tensor, nn

from bract.encoders.spec import ViTSpec
from bract.objectives.hidden_patches import HiddenPatches
from bract.objectives.spec import MaskedImageSpec


class MaskedImage(HiddenPatches):
    """The hidden patches of an image are predicted, pixel by pixel."""

    def __init__(self, encoder: ViTSpec, spec: MaskedImageSpec) -> None:
        super().__init__(encoder, spec.mask_ratio, spec.decoder_dim, spec.decoder_depth, spec.decoder_heads)
        self.pixels = nn.Linear(spec.decoder_dim, self.encoder.patch_numbers)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """A random order of the patches for each image."""
        return torch.rand(count, self.encoder.tokens, generator=generator).argsort(1)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """Mean squared error over an image's own hidden patches (B,)."""
        patches = self.encoder.patches(records)
        guesses = self.pixels(self.told(patches, draws))
        errors: Tensor = guesses - self.hidden(patches, draws)
        return errors.square().mean((1, 2))
