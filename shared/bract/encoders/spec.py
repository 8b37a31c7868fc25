"""What an encoder is, as a public value. No torch here: hubs and auditors read specs without it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from bract.value import strict


@strict
@dataclass(frozen=True)
class ViTSpec:
    """A vision transformer with fixed sin-cos positions, LayerNorm only, mean-pooled [Dosovitskiy et al. 2021, 2010.11929].

    Images are (channels, image_size, image_size) floats; pixels are standardised by the fixed public `mean` and `std`.
    """

    kind: Literal["vit"]
    image_size: Annotated[int, Field(ge=4, le=1024)]
    patch_size: Annotated[int, Field(ge=1, le=64)]
    channels: Annotated[int, Field(ge=1, le=16)] = 1
    dim: Annotated[int, Field(ge=8, le=1536)] = 96
    depth: Annotated[int, Field(ge=1, le=48)] = 3
    heads: Annotated[int, Field(ge=1, le=24)] = 3
    mlp_ratio: Annotated[float, Field(gt=0, le=8)] = 2.0
    mean: float = 0.5
    std: Annotated[float, Field(gt=0)] = 0.5


@strict
@dataclass(frozen=True)
class TableSpec:
    """A LayerNorm MLP over one row. `schema` names a public column schema that ships with bract (`bract.tables`)."""

    kind: Literal["table"]
    schema: str
    dim: Annotated[int, Field(ge=8, le=4096)] = 128
    depth: Annotated[int, Field(ge=1, le=16)] = 2


EncoderSpec = Annotated[ViTSpec | TableSpec, Field(discriminator="kind")]
