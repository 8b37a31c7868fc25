"""How much a hub bears of a site before it is set apart."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bract.value import strict


@strict
@dataclass(frozen=True)
class Patience:
    """How many contributions of a site may be refused, within how many of the newest rounds that it had a place in."""

    refused: Annotated[int, Field(ge=1, le=1_000)] = 3
    rounds: Annotated[int, Field(ge=1, le=1_000)] = 10
