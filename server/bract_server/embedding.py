"""What a site's encoder makes of public records: the encoder that its update would give, run on data of nobody at a site.

Images are cuts of the two photographs that come with scikit-learn; rows are persons of UCI Adult whom `bract.samples` gives to
no site, or, under another schema, invented ones. Only installed code runs, and what it runs on is public: the embeddings are a
post-processing of noised updates and cost no privacy.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bract.arrays import ArraysFile
from bract.encoders.encoder import Encoder
from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.encoders.weights import put_arrays
from bract.objectives.build import build
from bract.objectives.public_records import public_records
from bract.plan import CampaignPlan
from bract.samples import SAMPLE_SEED, adult_spare

Embeddings = NDArray[np.float64]
"""(n, r, dim): of each of n sites' encoders, the features of r public records."""

RECORDS = 64
_AT_ONCE = 16
_DOWN, _ACROSS, _SIDE = 4, 8, 160
"""Cuts of a photograph, down and across, and their side in its pixels."""


def embed(plan: CampaignPlan, origin: ArraysFile, updates: Sequence[ArraysFile]) -> Embeddings:
    """Features of the public records under each update, added to what the round started from; one encoder in memory.

    Raises:
        BractError: `bad-arrays`, `not-finite`, `disk`.
    """
    objective = build(plan.encoder, plan.objective, plan.seed)
    objective.eval()
    records, found = inspected(plan.encoder), []
    for update in updates:
        with np.errstate(
            over="ignore"
        ):  # an update may go beyond float32; its features are then not finite, and tell so
            put_arrays(objective, {name: origin.read(name) + update.read(name) for name in origin.layout})
        found.append(np.concatenate(list(_features(objective.encoder, records))))
    return np.stack(found).astype(np.float64)


def inspected(encoder: EncoderSpec) -> Tensor:
    """The public records (r, …) for such an encoder, always the same ones."""
    match encoder:
        case ViTSpec():
            return _cuts(encoder)
        case TableSpec(schema="adult"):
            return torch.from_numpy(_persons())
        case TableSpec():
            return public_records(encoder, RECORDS, SAMPLE_SEED)


def _features(encoder: Encoder, records: Tensor) -> Iterator[NDArray[np.float32]]:
    with torch.no_grad():
        for at in range(0, len(records), _AT_ONCE):
            yield encoder.features(records[at : at + _AT_ONCE]).numpy()


def _cuts(encoder: ViTSpec) -> Tensor:
    """Squares of the photographs in the encoder's size and channels, pixels in [0, 1]."""
    from sklearn.datasets import load_sample_images  # noqa: PLC0415 - a second that tables need not spend

    cuts = []
    for photograph in load_sample_images().images:
        down, across = (np.linspace(0, size - _SIDE, count).astype(int) for size, count in
                        zip(photograph.shape, (_DOWN, _ACROSS), strict=False))  # fmt: skip
        cuts += [photograph[y : y + _SIDE, x : x + _SIDE] for y in down for x in across]
    images = torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2) / 255
    size = (encoder.image_size, encoder.image_size)
    sized = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    if encoder.channels == 1:
        return sized.mean(1, keepdim=True)
    return sized[:, [channel % 3 for channel in range(encoder.channels)]]


@lru_cache(1)
def _persons() -> NDArray[np.float32]:
    return adult_spare(RECORDS, SAMPLE_SEED)
