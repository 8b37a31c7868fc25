"""A vision transformer of timm's blocks: fixed sin-cos positions, no class token, LayerNorm only, mean-pooled.

[Dosovitskiy et al. 2021, 2010.11929; positions as in MAE, He et al. 2022, 2111.06377, appendix A.1]
"""

from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from bract.encoders.encoder import Encoder
from bract.encoders.spec import ViTSpec
from bract.errors import MALFORMED, BractError


class ViTEncoder(Encoder):
    """Images (B, C, H, W), pixels in [0, 1], to features (B, dim)."""

    positions: Tensor

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        if spec.image_size % spec.patch_size or spec.dim % spec.heads or spec.dim % 4:
            raise BractError(MALFORMED, "encoder: patch_size must divide image_size, heads and 4 must divide dim")
        self.dim = spec.dim
        self.patch = spec.patch_size
        self.side = spec.image_size // spec.patch_size
        self.tokens = self.side**2
        self.patch_numbers = spec.channels * spec.patch_size**2
        self.mean, self.std = spec.mean, spec.std
        self.embed = nn.Linear(self.patch_numbers, spec.dim)
        self.register_buffer("positions", positions(self.side, spec.dim), persistent=False)
        self.blocks = blocks(spec.depth, spec.dim, spec.heads, spec.mlp_ratio)
        self.norm = nn.LayerNorm(spec.dim)

    def patches(self, images: Tensor) -> Tensor:
        """Standardised patches (B, tokens, C·p·p), row by row."""
        count, channels = images.shape[0], images.shape[1]
        grid = images.reshape(count, channels, self.side, self.patch, self.side, self.patch)
        flat = grid.permute(0, 2, 4, 1, 3, 5).reshape(count, self.tokens, self.patch_numbers)
        return (flat - self.mean) / self.std

    def forward(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Tokens (B, V, dim) of the visible patches, given by their positions (B, V)."""
        tokens = self.embed(patches) + self.positions
        kept = torch.take_along_dim(tokens, visible[..., None], dim=1)
        encoded: Tensor = self.norm(self.blocks(kept))
        return encoded

    def features(self, images: Tensor) -> Tensor:
        """Mean of the tokens of whole images."""
        everything = torch.arange(self.tokens, device=images.device).expand(len(images), -1)
        tokens: Tensor = self(self.patches(images), everything)
        return tokens.mean(1)


def positions(side: int, dim: int) -> Tensor:
    """Sines and cosines of a square grid's coordinates (side², dim); half of dim for each axis."""
    frequencies = 1 / 10_000 ** (np.arange(dim // 4) / (dim // 4))
    steps = np.arange(side)[:, None] * frequencies
    axis = np.concatenate([np.sin(steps), np.cos(steps)], axis=1)
    grid = np.concatenate([np.repeat(axis, side, 0), np.tile(axis, (side, 1))], axis=1)
    return torch.from_numpy(grid.astype(np.float32))


def blocks(depth: int, dim: int, heads: int, mlp_ratio: float) -> nn.Sequential:
    """Pre-norm transformer blocks. Attention is written out, for the fused kernel has no per-record gradient rule."""
    stack = [Block(dim, heads, mlp_ratio, qkv_bias=True) for _ in range(depth)]
    for block in stack:
        attention: Any = block.attn
        attention.fused_attn = False
    return nn.Sequential(*stack)
