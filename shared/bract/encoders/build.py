"""From an encoder's public spec to the module."""

import torch

from bract.encoders.encoder import Encoder
from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.encoders.weights import fill


def build(spec: EncoderSpec, seed: int) -> Encoder:
    """The encoder, initialised from the seed alone; the global random state stays as it was.

    Raises:
        BractError: `malformed` for sizes that do not fit together or an unknown table schema.
    """
    with torch.random.fork_rng(devices=[]):  # the layers draw first values of their own, overwritten next
        encoder = module(spec)
    fill(encoder, seed)
    return encoder


def module(spec: EncoderSpec) -> Encoder:
    """The encoder with first values that are not ours; `build` and the objectives fill it.

    Raises:
        BractError: `malformed`, as `build`.
    """
    # each modality loads its own libraries: timm alone takes seconds
    match spec:
        case TableSpec():
            from bract.encoders.table import TableEncoder  # noqa: PLC0415

            return TableEncoder(spec)
        case ViTSpec():
            from bract.encoders.vit import ViTEncoder  # noqa: PLC0415

            return ViTEncoder(spec)
