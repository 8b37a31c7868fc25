"""From an encoder's public spec to the module."""

import torch

from bract.encoders.spec import EncoderSpec, TableSpec
from bract.encoders.table import TableEncoder
from bract.encoders.vit import ViTEncoder
from bract.encoders.weights import fill

Encoder = TableEncoder | ViTEncoder


def build(spec: EncoderSpec, seed: int) -> Encoder:
    """The encoder, initialised from the seed alone; the global random state stays as it was.

    Raises:
        BractError: `malformed` for sizes that do not fit together or an unknown table schema.
    """
    with torch.random.fork_rng(devices=[]):  # the layers draw first values of their own, overwritten next
        encoder: Encoder = TableEncoder(spec) if isinstance(spec, TableSpec) else ViTEncoder(spec)
    fill(encoder, seed)
    return encoder
