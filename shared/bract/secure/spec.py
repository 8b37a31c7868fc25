"""What a campaign says about secure aggregation; public, and part of the signed plan."""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bract.errors import MALFORMED, BractError
from bract.value import strict

MOST_SITES = 256
"""A roster of more sites would not fit into one envelope."""

LARGEST = (1 << 31) - 1
"""The largest magnitude of a sum in the ring."""

_LEAST_LEVELS, _MOST_LEVELS = 1 << 10, 1 << 20
_LEAST_RATE, _MOST_DEVIATION = 1 << 14, 1 << 15
_DEVIATIONS = 14


@strict
@dataclass(frozen=True)
class SkellamSpec:
    """Noise that every site adds to its update before it is masked: see `bract.secure.skellam` for what it proves.

    Attributes:
        multiplier: z; the noise of the fewest honest sites that a sum can have has standard deviation z · clip in each
            coordinate of the sum. More sites add more.
    """

    multiplier: Annotated[float, Field(ge=0.01, le=100)]

    def levels(self, honest: int) -> int:
        """What a value of the clip becomes, so fine that the sampler's tables stay small."""
        return min(_MOST_LEVELS, math.floor(_MOST_DEVIATION * math.sqrt(2 * honest) / self.multiplier))

    def rate(self, honest: int) -> int:
        """The mean of each of the two Poisson variables whose difference is one site's noise; its variance is twice this."""
        return math.ceil((self.multiplier * self.levels(honest)) ** 2 / (2 * honest))

    def reach(self, honest: int) -> int:
        """The largest magnitude of one site's noise: each Poisson variable is cut at 14 standard deviations."""
        return 2 * math.ceil(_DEVIATIONS * math.sqrt(self.rate(honest)))

    def check(self, honest: int, sites: int) -> None:
        """That sums with this noise cannot wrap, and the sampler's tables are as exact as it says.

        Raises:
            BractError: `malformed`.
        """
        if self.levels(honest) < _LEAST_LEVELS or self.rate(honest) < _LEAST_RATE:
            raise BractError(MALFORMED, "secure.noise.multiplier: too large or too small to be drawn exactly")
        if sites * (self.levels(honest) + self.reach(honest)) > LARGEST:
            raise BractError(MALFORMED, "secure.noise.multiplier: the noise of so many sites could wrap")


@strict
@dataclass(frozen=True)
class SecureSpec:
    """Updates are masked; only the sum of at least `threshold` of them can be opened.

    A hub that lies shows one set of survivors to some sites and another set to others, so that a site's self-mask seed and
    its mask key are both revealed. Each site signs one set a round and reveals nothing before `threshold` sites signed the
    same. Two sets would need 2·threshold signatures of the n sites, `colluders` of which may sign twice: with
    2·threshold > n + colluders there is at most one [1611.04482, theorem 6.5].

    Attributes:
        threshold: t, how many sites must survive a round, and how many shares open a secret.
        clip: the L2 bound of one site's update; a longer one is shortened to it before it is masked.
        colluders: how many sites may work with the hub without any other site's update being opened.
        noise: what sites add for a guarantee about whole sites; None by default.
    """

    threshold: Annotated[int, Field(ge=2, le=MOST_SITES)]
    clip: Annotated[float, Field(gt=0, le=1e6)]
    colluders: Annotated[int, Field(ge=0, le=MOST_SITES)] = 0
    noise: SkellamSpec | None = None

    @property
    def honest(self) -> int:
        """The fewest honest sites in a sum that can be opened."""
        return self.threshold - self.colluders

    def check(self, sites: int, quorum: int) -> None:
        """That these numbers protect a campaign of so many sites.

        Raises:
            BractError: `malformed`, naming the rule.
        """
        if sites > MOST_SITES:
            raise BractError(MALFORMED, f"secure: at most {MOST_SITES} sites")
        if quorum < self.threshold:
            raise BractError(MALFORMED, f"secure.threshold: {self.threshold} is more than the quorum of {quorum}")
        if 2 * self.threshold <= sites + self.colluders:
            raise BractError(
                MALFORMED, "secure.threshold: twice it must be more than the sites and the colluders together"
            )
        if self.threshold < self.colluders + 2:
            raise BractError(MALFORMED, "secure.threshold: a sum of fewer than two honest sites hides nobody")
        if self.noise is not None:
            self.noise.check(self.honest, sites)
