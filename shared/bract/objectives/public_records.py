"""Records of nobody: made from a seed by a public procedure, of the form that an encoder takes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.tables import LIMIT, TableSchema, schema

_LEAVES = 48
_SMALLEST, _LARGEST = 0.06, 0.6


def public_records(encoder: EncoderSpec, count: int, seed: int) -> Tensor:
    """Invented inputs (count, …), float32."""
    stream = np.random.Generator(np.random.Philox(key=seed))
    match encoder:
        case ViTSpec():
            return torch.from_numpy(dead_leaves(encoder, count, stream))
        case TableSpec():
            return torch.from_numpy(invented_rows(schema(encoder.schema), count, stream))


def dead_leaves(spec: ViTSpec, count: int, stream: np.random.Generator) -> NDArray[np.float32]:
    """Images (count, C, H, W) of overlapping discs in one shade each, pixels in [0, 1].

    Radii have density ∝ r⁻³, which gives the statistics of natural scales [Lee, Mumford and Huang 2001; used for
    pretraining by Baradad et al. 2021, 2106.05963].
    """
    steps = (np.arange(spec.image_size) + 0.5) / spec.image_size
    images = np.zeros((count, spec.channels, spec.image_size, spec.image_size), np.float32)
    for _ in range(_LEAVES):
        down, across, rank = stream.random((3, count, 1, 1))
        shade = stream.random((count, spec.channels, 1, 1), np.float32)
        squared = 1 / (_SMALLEST**-2 + rank * (_LARGEST**-2 - _SMALLEST**-2))
        inside = (steps[:, None] - down) ** 2 + (steps - across) ** 2 < squared
        images = np.where(inside[:, None], shade, images)
    return images


def invented_rows(table: TableSchema, count: int, stream: np.random.Generator) -> NDArray[np.float32]:
    """Rows (count, D) of independent columns: bell-shaped standardised numbers, words with equal chances.

    A sum of twelve uniform numbers stands for a normal one, for it is the same on every machine.
    """
    numbers = stream.random((count, len(table.numeric), 12)).sum(2) - 6
    columns = [numbers.clip(-LIMIT, LIMIT)]
    columns += [
        np.eye(len(column.values))[stream.integers(0, len(column.values), count)] for column in table.categorical
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)
