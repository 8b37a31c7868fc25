"""What an objective is, as a public value, and how one subject may move its clipped sum. No torch here."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from bract.value import strict

Share = Annotated[float, Field(gt=0, lt=1)]
Width = Annotated[int, Field(ge=2, le=1024)]


class PrivacyStructure(StrEnum):
    """How far adding one subject can move the sum of clipped gradients, in units of the clip C."""

    PER_RECORD = "per-record"
    """Each subject's loss depends on its own records, public values and released values only: Δ = C."""
    PER_GROUP = "per-group"
    """A loss couples the members of a group; a subject changes one group, whose clipped gradient moves by 2C: Δ = 2C."""
    RELEASED_MOMENT = "released-moment"
    """Per record, given a noised moment that the same step releases; both together are one Gaussian mechanism."""
    NONE = "none"
    """No bound is proved: no DP guarantee."""


@strict
@dataclass(frozen=True)
class ViewsSpec:
    """How two views of one record are made from its own draws and public constants.

    Attributes:
        least_area: of an image, the least share of its area that a crop keeps.
        flip: whether an image may be mirrored; wrong for digits and letters.
        jitter: brightness and contrast of an image are multiplied by a factor in 1 ± jitter.
        hidden: of a row, the share of columns that a view hides (a constant and a flag; never values of other rows).
    """

    least_area: Annotated[float, Field(gt=0, le=1)] = 0.4
    flip: bool = False
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.4
    hidden: Share = 0.3


@strict
@dataclass(frozen=True)
class PublicRecordsSpec:
    """Procedural records that belong to nobody: how many, and the seed that they are made from."""

    count: Annotated[int, Field(ge=2, le=65_536)] = 256
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


@strict
@dataclass(frozen=True)
class MaskedImageSpec:
    """Masked autoencoding of images [He et al. 2022, 2111.06377], one loss an image as in ViP [Yu et al. 2023, 2306.08842]."""

    kind: Literal["masked-image"]
    mask_ratio: Share = 0.5
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
    mask_ratio: Share = 0.4


@strict
@dataclass(frozen=True)
class LatentImageSpec:
    """Latents of an image's hidden region, predicted from the rest [I-JEPA, Assran et al. 2023, 2301.08243].

    Attributes:
        mask_ratio: share of the patches in the hidden region.
        keep: how much of the slow copy stays at each step.
    """

    kind: Literal["latent-image"]
    mask_ratio: Share = 0.5
    predictor_dim: Annotated[int, Field(ge=8, le=1024)] = 32
    predictor_depth: Annotated[int, Field(ge=1, le=16)] = 1
    predictor_heads: Annotated[int, Field(ge=1, le=16)] = 4
    keep: Annotated[float, Field(ge=0, lt=1)] = 0.99


@strict
@dataclass(frozen=True)
class SimSiamSpec:
    """One view predicts the other's projection [Chen and He 2021, 2011.10566], without BatchNorm.

    Attributes:
        width: of the projection.
        hidden: of the predictor's inner layer.
    """

    kind: Literal["simsiam"]
    width: Width = 64
    hidden: Width = 32
    views: ViewsSpec = ViewsSpec()
    public: PublicRecordsSpec = PublicRecordsSpec()


@strict
@dataclass(frozen=True)
class ByolSpec:
    """One view predicts what a slow copy makes of the other [Grill et al. 2020, 2006.07733], without BatchNorm.

    Attributes:
        width: of the projection.
        hidden: of the predictor's inner layer.
        keep: how much of the slow copy stays at each step.
    """

    kind: Literal["byol"]
    width: Width = 64
    hidden: Width = 64
    keep: Annotated[float, Field(ge=0, lt=1)] = 0.99
    views: ViewsSpec = ViewsSpec()
    public: PublicRecordsSpec = PublicRecordsSpec()


@strict
@dataclass(frozen=True)
class PublicContrastSpec:
    """InfoNCE [van den Oord et al. 2018, 1807.03748] whose negatives are procedural, public records.

    Attributes:
        width: of the projection.
        temperature: τ.
        refresh: steps after which the public records are embedded anew.
        public: each gives two negatives.
    """

    kind: Literal["public-contrast"]
    width: Width = 32
    temperature: Annotated[float, Field(ge=0.05, le=10)] = 0.2
    refresh: Annotated[int, Field(ge=1, le=10_000)] = 1
    views: ViewsSpec = ViewsSpec()
    public: PublicRecordsSpec = PublicRecordsSpec()


@strict
@dataclass(frozen=True)
class BucketContrastSpec:
    """InfoNCE within groups made by independent coins [a correction of Li et al. 2026, 2604.26467].

    Attributes:
        width: of the projection.
        temperature: τ.
        group_size: subjects expected in a group.
        group_capacity: places in a group; at least two, and no fewer than `group_size`.
    """

    kind: Literal["bucket-contrast"]
    width: Width = 32
    temperature: Annotated[float, Field(ge=0.05, le=10)] = 0.2
    group_size: Annotated[int, Field(ge=1, le=1024)] = 8
    group_capacity: Annotated[int, Field(ge=2, le=4096)] = 16
    views: ViewsSpec = ViewsSpec()


@strict
@dataclass(frozen=True)
class BarlowSpec:
    """Redundancy reduction [Zbontar et al. 2021, 2103.03230] with a released moment for the batch's statistics.

    Attributes:
        width: d of the projection; the moment has d·(d + 1)/2 + 2d numbers.
        redundancy: λ, the weight of entries off the diagonal.
        floor: least variance by which one divides, as a share of 1/d.
        memory: how much of the earlier releases stays in the running mean.
        moment_noise: σ_m as a multiple of the gradient's noise multiplier.
    """

    kind: Literal["barlow"]
    width: Width = 16
    redundancy: Annotated[float, Field(gt=0, le=10)] = 0.05
    floor: Annotated[float, Field(gt=0, le=1)] = 0.1
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.5
    moment_noise: Annotated[float, Field(gt=0, le=1000)] = 4.0
    views: ViewsSpec = ViewsSpec()
    public: PublicRecordsSpec = PublicRecordsSpec()


@strict
@dataclass(frozen=True)
class VicRegSpec:
    """Variance, invariance, covariance [Bardes et al. 2022, 2105.04906] with a released moment for the batch's statistics.

    Attributes:
        width: d of the projection; the moment has d·(d + 1)/2 + d numbers.
        invariance: weight λ of the distance of a record's two views.
        variance: weight μ of the hinge on each coordinate's standard deviation.
        covariance: weight ν of squared covariances.
        floor: variance below which the hinge's root goes on as a straight line, as a share of one.
        memory: how much of the earlier releases stays in the running mean.
        moment_noise: σ_m as a multiple of the gradient's noise multiplier.
    """

    kind: Literal["vicreg"]
    width: Width = 16
    invariance: Annotated[float, Field(gt=0, le=1000)] = 25.0
    variance: Annotated[float, Field(gt=0, le=1000)] = 25.0
    covariance: Annotated[float, Field(ge=0, le=1000)] = 1.0
    floor: Annotated[float, Field(gt=0, le=1)] = 0.01
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.5
    moment_noise: Annotated[float, Field(gt=0, le=1000)] = 4.0
    views: ViewsSpec = ViewsSpec()
    public: PublicRecordsSpec = PublicRecordsSpec()


@strict
@dataclass(frozen=True)
class SpectralContrastSpec:
    """Spectral contrast [HaoChen et al. 2021, 2106.04156] with a released moment for the mean over all pairs.

    Attributes:
        width: d of the projection; the moment has d·(d + 1)/2 numbers.
        radius: μ; projections lie on a sphere of radius √μ.
        memory: how much of the earlier releases stays in the running mean.
        moment_noise: σ_m as a multiple of the gradient's noise multiplier.
    """

    kind: Literal["spectral-contrast"]
    width: Width = 16
    radius: Annotated[float, Field(gt=0, le=1024)] = 4.0
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.5
    moment_noise: Annotated[float, Field(gt=0, le=1000)] = 4.0
    views: ViewsSpec = ViewsSpec()
    public: PublicRecordsSpec = PublicRecordsSpec()


PairSpec = (
    SimSiamSpec | ByolSpec | PublicContrastSpec | BucketContrastSpec | BarlowSpec | VicRegSpec | SpectralContrastSpec
)
"""Objectives over two views of each record, for any encoder that has views."""

ObjectiveSpec = Annotated[MaskedImageSpec | MaskedTableSpec | LatentImageSpec | PairSpec, Field(discriminator="kind")]


@dataclass(frozen=True)
class Entry:
    """An objective of this version: the encoders it trains, how one subject may move its clipped sum, and its paper."""

    encoders: tuple[str, ...]
    structure: PrivacyStructure
    paper: str


_RECORD, _GROUP, _MOMENT = (
    PrivacyStructure.PER_RECORD,
    PrivacyStructure.PER_GROUP,
    PrivacyStructure.RELEASED_MOMENT,
)
_BOTH = ("vit", "table")

CATALOGUE = {
    "masked-image": Entry(("vit",), _RECORD, "He et al. 2022, 2111.06377"),
    "masked-table": Entry(("table",), _RECORD, "after Devlin et al. 2019, 1810.04805"),
    "latent-image": Entry(("vit",), _RECORD, "Assran et al. 2023, 2301.08243"),
    "simsiam": Entry(_BOTH, _RECORD, "Chen and He 2021, 2011.10566"),
    "byol": Entry(_BOTH, _RECORD, "Grill et al. 2020, 2006.07733"),
    "public-contrast": Entry(_BOTH, _RECORD, "after van den Oord et al. 2018, 1807.03748"),
    "bucket-contrast": Entry(_BOTH, _GROUP, "after Li et al. 2026, 2604.26467"),
    "barlow": Entry(_BOTH, _MOMENT, "after Zbontar et al. 2021, 2103.03230"),
    "vicreg": Entry(_BOTH, _MOMENT, "after Bardes et al. 2022, 2105.04906"),
    "spectral-contrast": Entry(_BOTH, _MOMENT, "after HaoChen et al. 2021, 2106.04156"),
}
"""Every objective by its kind. The structure is tested on the real engine (`bract.dpsgd.falsifier`)."""
