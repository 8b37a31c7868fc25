"""What a campaign says about secure aggregation; public, and part of the signed plan."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bract.errors import MALFORMED, BractError
from bract.value import strict

MOST_SITES = 256
"""A roster of more sites would not fit into one envelope."""


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
    """

    threshold: Annotated[int, Field(ge=2, le=MOST_SITES)]
    clip: Annotated[float, Field(gt=0, le=1e6)]
    colluders: Annotated[int, Field(ge=0, le=MOST_SITES)] = 0

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
