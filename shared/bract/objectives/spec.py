"""What an objective is, as a public value, and how one subject may move its clipped sum. No torch here."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from bract.value import strict


class PrivacyStructure(StrEnum):
    """How far adding one subject can move the sum of clipped gradients, in units of the clip C."""

    PER_RECORD = "per-record"
    """Each subject's loss depends on its own records, public values and released values only: Δ = C."""
    NONE = "none"
    """No bound is proved: no DP guarantee."""


@strict
@dataclass(frozen=True)
class MaskedImageSpec:
    """Masked autoencoding of images [He et al. 2022, 2111.06377], one loss an image as in ViP [Yu et al. 2023, 2306.08842]."""

    kind: Literal["masked-image"]
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    decoder_dim: Annotated[int, Field(ge=8, le=1024)] = 64
    decoder_depth: Annotated[int, Field(ge=1, le=16)] = 1
    decoder_heads: Annotated[int, Field(ge=1, le=16)] = 4


@strict
@dataclass(frozen=True)
class MaskedTableSpec:
    """Masked features of a row: a masked column is replaced by a constant and predicted [after 1908.07442 §3; BERT 1810.04805].

    Values never come from other rows, so that the loss of a row is its own.
    """

    kind: Literal["masked-table"]
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.4


ObjectiveSpec = Annotated[MaskedImageSpec | MaskedTableSpec, Field(discriminator="kind")]


@dataclass(frozen=True)
class Entry:
    """An objective of this version: the encoder it trains, how one subject may move its clipped sum, and its paper."""

    encoder: str
    structure: PrivacyStructure
    paper: str


CATALOGUE = {
    "masked-image": Entry("vit", PrivacyStructure.PER_RECORD, "He et al. 2022, 2111.06377"),
    "masked-table": Entry("table", PrivacyStructure.PER_RECORD, "after Devlin et al. 2019, 1810.04805"),
}
"""Every objective by its kind. The structure is tested on the real engine (`bract.dpsgd.falsifier`)."""
