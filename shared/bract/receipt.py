"""What the hub gives back: a signed receipt for each contribution that went into an encoder version."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AwareDatetime, Field

from bract.digest import Digest
from bract.plan import Name
from bract.value import strict


@strict
@dataclass(frozen=True)
class RoundReceipt:
    """The site's contribution is in this encoder version, at this share; 0 when the round's rule left its update out."""

    site: Name
    plan: Digest
    contribution: Digest
    version: Digest
    share: Annotated[float, Field(ge=0, le=1)]
    issued_at: AwareDatetime


@strict
@dataclass(frozen=True)
class EncoderVersion:
    """An aggregated encoder: its name is the digest of this value.

    Attributes:
        campaign: digest of the campaign's plan.
        number: the round that made it; 0 is the public initialisation.
        arrays: digest of its safetensors file.
        parent: the version that the round started from, None for number 0.
        contributions: digests of the contributions inside, in the order of their sites' names.
    """

    campaign: Digest
    number: Annotated[int, Field(ge=0)]
    arrays: Digest
    arrays_bytes: Annotated[int, Field(ge=1)]
    parent: Digest | None
    contributions: tuple[Digest, ...]
