"""From public specs to an objective with its encoder."""

import torch

from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.encoders.weights import fill
from bract.errors import MALFORMED, BractError
from bract.objectives.barlow import Barlow
from bract.objectives.bucket_contrast import BucketContrast
from bract.objectives.byol import Byol
from bract.objectives.objective import Objective
from bract.objectives.public_contrast import PublicContrast
from bract.objectives.simsiam import SimSiam
from bract.objectives.spec import (
    BarlowSpec,
    BucketContrastSpec,
    ByolSpec,
    LatentImageSpec,
    MaskedImageSpec,
    MaskedTableSpec,
    ObjectiveSpec,
    PairSpec,
    PublicContrastSpec,
    SimSiamSpec,
    SpectralContrastSpec,
    VicRegSpec,
)
from bract.objectives.spectral_contrast import SpectralContrast
from bract.objectives.vicreg import VicReg


def build(encoder: EncoderSpec, objective: ObjectiveSpec, seed: int) -> Objective:
    """The objective, initialised from the seed alone; the global random state stays as it was.

    What it derives from its weights is in place; `begin` brings it up to date when other weights were put in.

    Raises:
        BractError: `malformed` when the two do not fit each other or their own sizes.
    """
    with torch.random.fork_rng(devices=[]):
        module = _module(encoder, objective)
    fill(module, seed)
    module.begin()
    return module


def _module(encoder: EncoderSpec, objective: ObjectiveSpec) -> Objective:
    # each modality loads its own libraries: timm alone takes seconds
    match encoder, objective:
        case TableSpec(), MaskedTableSpec():
            from bract.objectives.masked_table import MaskedTable  # noqa: PLC0415

            return MaskedTable(encoder, objective)
        case ViTSpec(), MaskedImageSpec():
            from bract.objectives.masked_image import MaskedImage  # noqa: PLC0415

            return MaskedImage(encoder, objective)
        case ViTSpec(), LatentImageSpec():
            from bract.objectives.latent_image import LatentImage  # noqa: PLC0415

            return LatentImage(encoder, objective)
        case _, MaskedTableSpec() | MaskedImageSpec() | LatentImageSpec():
            raise BractError(MALFORMED, f"objective: {objective.kind} does not fit a {encoder.kind} encoder")
        case _:
            return _paired(encoder, objective)


def _paired(encoder: EncoderSpec, objective: PairSpec) -> Objective:  # noqa: PLR0911 (one a kind)
    match objective:
        case SimSiamSpec():
            return SimSiam(encoder, objective)
        case ByolSpec():
            return Byol(encoder, objective)
        case PublicContrastSpec():
            return PublicContrast(encoder, objective)
        case BucketContrastSpec():
            return BucketContrast(encoder, objective)
        case BarlowSpec():
            return Barlow(encoder, objective)
        case VicRegSpec():
            return VicReg(encoder, objective)
        case SpectralContrastSpec():
            return SpectralContrast(encoder, objective)
