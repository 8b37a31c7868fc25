"""Which way up is it [Gidaris et al. 2018, 1803.07728]: an image is turned by 0–3 quarters, and the net tells by how many.

The net is a pre-activation residual one [He et al. 2016, 1603.05027] with GroupNorm [Wu and He 2018, 1803.08494].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bract.objectives.objective import Objective

_GROUPS = 8


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(_GROUPS, inputs), nn.GroupNorm(_GROUPS, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        active = functional.relu(self.norm1(maps))
        found: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return found + (maps if self.short is None else self.short(active))


class Turned(Objective):
    """Images (B, 3, H, W); draws (B,), how many quarters each is turned."""

    def __init__(self, widths: tuple[int, ...], depth: int, side: int) -> None:
        super().__init__()
        self.side = side
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
        inputs = 16
        for place, width in enumerate(widths):
            for number in range(depth):
                layers.append(Residual(inputs, width, 2 if place and not number else 1))
                inputs = width
        self.body = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(_GROUPS, inputs)
        self.head = nn.Linear(inputs, 4)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Quarters, each image's own."""
        return torch.randint(0, 4, (count,), generator=generator)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        """Cross-entropy of the quarters (B,)."""
        ways = torch.stack([torch.rot90(records, quarters, (2, 3)) for quarters in range(4)], 1)
        turned = torch.take_along_dim(ways, draws.reshape(-1, 1, 1, 1, 1), dim=1).squeeze(1)
        maps = functional.relu(self.norm(self.body(turned)))
        return functional.cross_entropy(self.head(maps.mean((2, 3))), draws, reduction="none")


def pictures(objective: Turned, count: int, generator: torch.Generator) -> Tensor:
    """Random images (count, 3, side, side)."""
    return torch.rand(count, 3, objective.side, objective.side, generator=generator)
