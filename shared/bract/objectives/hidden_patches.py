"""What is told about an image's hidden patches from those that are seen: encoder, bridge and a narrow decoder.

The mask token is a constant zero, so that every trained array is a Linear's or a LayerNorm's.
"""

import torch
from torch import Tensor, nn

from bract.encoders.spec import ViTSpec
from bract.encoders.vit import ViTEncoder, blocks, positions
from bract.errors import MALFORMED, BractError
from bract.objectives.objective import Objective


class HiddenPatches(Objective):
    """Images (B, C, H, W); draws (B, tokens): an order of the patches, of which the first ones stay visible."""

    encoder: ViTEncoder
    places: Tensor

    def __init__(self, encoder: ViTSpec, mask_ratio: float, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        if dim % heads or dim % 4:
            raise BractError(MALFORMED, f"objective: {heads} heads and 4 must divide a decoder of width {dim}")
        self.encoder = built = ViTEncoder(encoder)
        hidden = round(mask_ratio * built.tokens)
        if not 0 < hidden < built.tokens:
            raise BractError(MALFORMED, "objective: mask_ratio hides no patch, or all")
        self.visible = built.tokens - hidden
        self.bridge = nn.Linear(built.dim, dim)
        self.register_buffer("places", positions(built.side, dim), persistent=False)
        self.decoder = blocks(depth, dim, heads, encoder.mlp_ratio)
        self.norm = nn.LayerNorm(dim)

    def told(self, patches: Tensor, order: Tensor) -> Tensor:
        """What the decoder makes of the hidden patches (B, hidden, dim), of the visible ones alone."""
        seen = self.bridge(self.encoder(patches, order[:, : self.visible]))
        unseen = torch.zeros_like(seen[:, :1]).expand(-1, self.encoder.tokens - self.visible, -1)
        in_place = torch.take_along_dim(torch.cat([seen, unseen], dim=1), order.argsort(1)[..., None], dim=1)
        return self.hidden(self.norm(self.decoder(in_place + self.places)), order)

    def hidden(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Of tokens (B, tokens, …) those that are hidden (B, hidden, …)."""
        return torch.take_along_dim(tokens, order[:, self.visible :, None], dim=1)
