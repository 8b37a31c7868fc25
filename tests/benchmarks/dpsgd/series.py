"""Masked patches of series [PatchTST, Nie et al. 2023, 2211.14730, §4.2]: hidden patches are filled in, one loss a series.

The mask token and the positions are plain parameters of leading dimension one, as in timm's ViT. Opacus has no rule for
those: `layers=True` puts each into a layer of its own, which is the same function.
"""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from bract.objectives.objective import Objective


class Constant(nn.Module):
    """A plain parameter (1, …) as a layer that Opacus can be given a rule for."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(values)

    def forward(self, like: Tensor) -> Tensor:
        """One copy for each row of `like`."""
        return self.weight.expand(len(like), *self.weight.shape[1:])


class MaskedSeries(Objective):
    """Series (B, channels, length); draws (B, patches), True where a patch is hidden."""

    def __init__(self, channels: int, length: int, patch: int, dim: int, depth: int, *, layers: bool) -> None:
        super().__init__()
        self.form, self.patch, self.patches = (channels, length), patch, length // patch
        self.hidden = round(0.4 * self.patches)
        self.embed = nn.Linear(channels * patch, dim)
        made = Constant if layers else nn.Parameter
        self.mask = made(torch.randn(1, 1, dim) * 0.02)
        self.places = made(torch.randn(1, self.patches, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, dim // 32, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, channels * patch)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Which patches are hidden, the same number in each series."""
        ranks = torch.rand(count, self.patches, generator=generator).argsort(1).argsort(1)
        return ranks < self.hidden

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """Mean squared error over a series' own hidden patches (B,)."""
        count, channels = records.shape[:2]
        patches = records.reshape(count, channels, self.patches, self.patch).transpose(1, 2).flatten(2)
        tokens = self.embed(patches)
        tokens = torch.where(draws[..., None], _rows(self.mask, tokens), tokens) + _rows(self.places, tokens)
        errors = (self.head(self.norm(self.blocks(tokens))) - patches).square().mean(2)
        loss: Tensor = (errors * draws.to(errors.dtype)).sum(1) / self.hidden
        return loss


def _rows(parameter: nn.Module | nn.Parameter, like: Tensor) -> Tensor:
    if isinstance(parameter, nn.Module):
        found: Tensor = parameter(like.detach())
        return found
    return parameter


def series(objective: MaskedSeries, count: int, generator: torch.Generator) -> Tensor:
    """Random walks (count, channels, length), standardised one by one."""
    walks = torch.randn(count, *objective.form, generator=generator).cumsum(2)
    return (walks - walks.mean(2, keepdim=True)) / walks.std(2, keepdim=True)
