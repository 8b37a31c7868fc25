"""Two views of one record, from its own draws and public constants; nothing of any other record gets into them.

Plain tensor operations of fixed shape, alike for one record and for many. Pooling across records, values copied from
other rows [SCARF 2106.15147; VIME] and mixed images would each put one subject into another's loss.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bract.encoders.encoder import Encoder
from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.objectives.spec import ViewsSpec
from bract.tables import schema

_ASPECT = 4 / 3


class Views(ABC):
    """How two views of a record are drawn, and encoded in one pass."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws (count, 2, …): a function of the generator alone."""

    @abstractmethod
    def encode(self, encoder: Encoder, records: Tensor, draws: Tensor) -> Tensor:
        """Features (2·B, dim) of the views of records (B, …), a record's two views side by side."""


def views(encoder: EncoderSpec, spec: ViewsSpec) -> Views:
    """The views of that encoder's modality."""
    match encoder:
        case ViTSpec():
            return ImageViews(spec)
        case TableSpec():
            return TableViews(len(schema(encoder.schema).names), spec.hidden)


class TableViews(Views):
    """Each view hides the same number of columns: their numbers become zero and their flags one."""

    def __init__(self, columns: int, share: float) -> None:
        self.columns = columns
        self.hidden = min(columns - 1, max(1, round(share * columns)))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Which columns are hidden (count, 2, K)."""
        return torch.rand(count, 2, self.columns, generator=generator).argsort(2).argsort(2) < self.hidden

    def encode(self, encoder: Encoder, records: Tensor, draws: Tensor) -> Tensor:
        """See `Views`."""
        features: Tensor = encoder(_twice(records), draws.flatten(0, 1))
        return features


class ImageViews(Views):
    """Random resized crop, mirroring, brightness and contrast [as in SimCLR, Chen et al. 2020, 2002.05709]."""

    def __init__(self, spec: ViewsSpec) -> None:
        self.least_area, self.flip, self.jitter = spec.least_area, spec.flip, spec.jitter

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Seven uniform numbers a view (count, 2, 7)."""
        return torch.rand(count, 2, 7, generator=generator)

    def encode(self, encoder: Encoder, records: Tensor, draws: Tensor) -> Tensor:
        """See `Views`."""
        return encoder.features(self.images(_twice(records), draws.flatten(0, 1).to(records.dtype)))

    def images(self, images: Tensor, draws: Tensor) -> Tensor:
        """One view (B, C, H, W) of each image, by its draws (B, 7).

        Contrast is about the image's own mean.
        """
        area, aspect, across, down, side, brightness, contrast = draws.unbind(1)
        area = self.least_area + (1 - self.least_area) * area
        ratio = _ASPECT ** (2 * aspect - 1)
        rows = _resample((area / ratio).sqrt().clamp(max=1), down, torch.zeros_like(side), images.shape[2])
        mirrored = ((side < 0.5) & self.flip).to(images.dtype)
        columns = _resample((area * ratio).sqrt().clamp(max=1), across, mirrored, images.shape[3])
        cropped = rows[:, None] @ images @ columns[:, None].transpose(2, 3)
        mean = cropped.mean((1, 2, 3), keepdim=True)
        contrasted = (cropped - mean) * _factor(contrast, self.jitter) + mean
        return contrasted * _factor(brightness, self.jitter)


def _twice(records: Tensor) -> Tensor:
    return torch.stack([records, records], 1).flatten(0, 1)


def _factor(draw: Tensor, jitter: float) -> Tensor:
    return (1 + jitter * (2 * draw - 1))[:, None, None, None]


def _resample(share: Tensor, place: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Matrices (B, size, size) that stretch a part of an axis over the whole of it, linearly between pixels.

    Args:
        share: of the axis that is kept (B,), in (0, 1].
        place: where the part lies among its possible places (B,), in [0, 1].
        mirrored: one where the axis is read backwards (B,).
        size: pixels.
    """
    pixels = torch.arange(size, device=share.device, dtype=share.dtype)
    steps = (pixels + 0.5) / size
    steps = steps + mirrored[:, None] * (1 - 2 * steps)
    source = ((1 - share) * place)[:, None] + share[:, None] * steps
    source = (source * size - 0.5).clamp(0, size - 1)
    return (1 - (source[:, :, None] - pixels).abs()).clamp(min=0)
