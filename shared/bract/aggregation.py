"""How a campaign makes one update out of its sites', as a public value: the plan's choice, and what it may claim.

A rule that is told to withstand `byzantine` sites needs so many honest ones beside them that its theorem holds; a plan whose
quorum is smaller is refused, so that the claim holds for whatever round is closed. With fewer than `LEAST_SITES` sites nothing
is claimed at all, and none of the claims says that the encoder learns anything: that is what noise and data leave.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from bract.value import strict

LEAST_SITES = 5
"""With fewer sites no rule claims to withstand anybody, and none is told from the others by its embeddings."""

Byzantine = Annotated[int, Field(ge=0, le=10_000)]
"""Sites that may send anything, together; 0 claims nothing."""


@strict
@dataclass(frozen=True)
class DeclaredMean:
    """The mean by declared weights [McMahan et al. 2017, 1602.05629]. One site can move it anywhere: nothing is claimed."""

    kind: Literal["mean"] = "mean"

    @property
    def least_sites(self) -> int:
        """Sites without which the rule says nothing."""
        return 1


@strict
@dataclass(frozen=True)
class DivergenceMean:
    """Declared weights times 1 − μ, so that sites far from the round's start count less [after FedEMA, 2204.04385].

    Attributes:
        scale: τ: a site as far away as the median site has μ = τ.
    """

    kind: Literal["fedema"] = "fedema"
    scale: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @property
    def least_sites(self) -> int:
        """Sites without which the rule says nothing."""
        return 1


@strict
@dataclass(frozen=True)
class LayerMean:
    """Declared weights times each layer's cosine with the round's start [after L-DAWA, Rehman et al. 2023, 2307.07393]."""

    kind: Literal["l-dawa"] = "l-dawa"

    @property
    def least_sites(self) -> int:
        """Sites without which the rule says nothing."""
        return 1


@strict
@dataclass(frozen=True)
class Median:
    """Each coordinate's median [Yin et al. 2018, 1803.01498]. One voice a site."""

    byzantine: Byzantine
    kind: Literal["median"] = "median"

    @property
    def least_sites(self) -> int:
        """With n > 2f a majority is honest, and so is what lies in the middle."""
        return _claimed(self.byzantine, 2 * self.byzantine + 1)


@strict
@dataclass(frozen=True)
class TrimmedMean:
    """Each coordinate's mean without its f least and f greatest values [Yin et al. 2018, 1803.01498]. One voice a site."""

    byzantine: Annotated[int, Field(ge=1, le=10_000)]
    kind: Literal["trimmed-mean"] = "trimmed-mean"

    @property
    def least_sites(self) -> int:
        """With n > 2f what is left lies between honest values."""
        return _claimed(self.byzantine, 2 * self.byzantine + 1)


@strict
@dataclass(frozen=True)
class CentredClipping:
    """Means of buckets, each clipped to a radius around the centre [Karimireddy et al. 2021, 2012.10333; 2022, 2006.09365].

    The centre is the round's start, then what the iteration before found. One voice a site.

    Attributes:
        radius: τ, an L2 norm.
        bucket: s, sites whose mean counts as one; 1 is none.
    """

    radius: Annotated[float, Field(gt=0, le=1e12)]
    byzantine: Byzantine
    kind: Literal["centred-clipping"] = "centred-clipping"
    bucket: Annotated[int, Field(ge=1, le=100)] = 1
    iterations: Annotated[int, Field(ge=1, le=100)] = 1

    @property
    def least_sites(self) -> int:
        """s·f ≤ n/10: theorem III of 2012.10333 asks for δ ≤ 0.1, and buckets of s make δ to s·δ (2006.09365, theorem I)."""
        return _claimed(self.byzantine, 10 * self.bucket * self.byzantine)


@strict
@dataclass(frozen=True)
class MultiKrum:
    """The mean of the updates nearest to their neighbours [Blanchard et al. 2017, 1703.02757]. One voice a site.

    Attributes:
        selected: m updates that are averaged; the theorem is Krum's, with one.
    """

    byzantine: Annotated[int, Field(ge=1, le=10_000)]
    kind: Literal["multi-krum"] = "multi-krum"
    selected: Annotated[int, Field(ge=1, le=10_000)] = 1

    @property
    def least_sites(self) -> int:
        """Krum's n ≥ 2f + 3 (proposition 4.2), and m ≤ n − f − 2 as many as an update's neighbours."""
        needed = max(2 * self.byzantine + 3, self.selected + self.byzantine + 2)
        return _claimed(self.byzantine, needed)


Aggregation = Annotated[
    DeclaredMean | DivergenceMean | LayerMean | Median | TrimmedMean | CentredClipping | MultiKrum,
    Field(discriminator="kind"),
]

Inspection = Literal["none", "flag", "exclude"]
"""Whether sites' encoders are compared on public records: not; to be told of; or to leave a suspected update out."""

WEIGHTED = (DeclaredMean, DivergenceMean, LayerMean)
"""Rules to which declared weights matter; under the others each site has one voice."""


def _claimed(byzantine: int, needed: int) -> int:
    return max(LEAST_SITES, needed) if byzantine else 1
