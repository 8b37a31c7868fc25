"""From public specs to an objective with its encoder."""

import torch

from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.encoders.weights import fill
from bract.errors import MALFORMED, BractError
from bract.objectives.objective import Objective
from bract.objectives.spec import MaskedImageSpec, MaskedTableSpec, ObjectiveSpec


def build(encoder: EncoderSpec, objective: ObjectiveSpec, seed: int) -> Objective:
    """The objective, initialised from the seed alone; the global random state stays as it was.

    Raises:
        BractError: `malformed` when the two do not fit each other or their own sizes.
    """
    with torch.random.fork_rng(devices=[]):
        module = _module(encoder, objective)
    fill(module, seed)
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
        case _:
            raise BractError(MALFORMED, f"objective: {objective.kind} does not fit a {encoder.kind} encoder")
