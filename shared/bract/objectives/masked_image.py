"""Masked autoencoding of images [He et al. 2022, 2111.06377], one loss an image as in ViP [Yu et al. 2023, 2306.08842].

The mask token is a constant zero, so that every trained array is a Linear's or a LayerNorm's. Targets are pixels
standardised by public constants.
"""

import torch
from torch import Tensor, nn

from bract.encoders.spec import ViTSpec
from bract.encoders.vit import ViTEncoder, blocks, positions
from bract.errors import MALFORMED, BractError
from bract.objectives.objective import Objective
from bract.objectives.spec import MaskedImageSpec


class MaskedImage(Objective):
    """Images (B, C, H, W); masks (B, tokens): an order of the patches, of which the first ones stay visible."""

    encoder: ViTEncoder
    places: Tensor

    def __init__(self, encoder: ViTSpec, spec: MaskedImageSpec) -> None:
        super().__init__()
        if spec.decoder_dim % spec.decoder_heads or spec.decoder_dim % 4:
            raise BractError(MALFORMED, "objective: decoder_heads and 4 must divide decoder_dim")
        self.encoder = built = ViTEncoder(encoder)
        hidden = round(spec.mask_ratio * built.tokens)
        if not 0 < hidden < built.tokens:
            raise BractError(MALFORMED, "objective: mask_ratio hides no patch, or all")
        self.visible = built.tokens - hidden
        self.bridge = nn.Linear(built.dim, spec.decoder_dim)
        self.register_buffer("places", positions(built.side, spec.decoder_dim), persistent=False)
        self.decoder = blocks(spec.decoder_depth, spec.decoder_dim, spec.decoder_heads, encoder.mlp_ratio)
        self.norm = nn.LayerNorm(spec.decoder_dim)
        self.pixels = nn.Linear(spec.decoder_dim, built.patch_numbers)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """A random order of the patches for each image."""
        return torch.rand(count, self.encoder.tokens, generator=generator).argsort(1)

    def record_loss(self, records: Tensor, masks: Tensor) -> Tensor:
        """Mean squared error over an image's own hidden patches (B,)."""
        patches = self.encoder.patches(records)
        seen = self.bridge(self.encoder(patches, masks[:, : self.visible]))
        unseen = torch.zeros_like(seen[:, :1]).expand(-1, self.encoder.tokens - self.visible, -1)
        in_place = torch.take_along_dim(torch.cat([seen, unseen], dim=1), masks.argsort(1)[..., None], dim=1)
        guesses = self.pixels(self.norm(self.decoder(in_place + self.places)))
        hidden = masks[:, self.visible :, None]
        errors = torch.take_along_dim(guesses, hidden, dim=1) - torch.take_along_dim(patches, hidden, dim=1)
        return errors.square().mean((1, 2))
