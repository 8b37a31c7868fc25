"""A checkpoint: the owner's signed word on the whole log up to one entry. Whoever keeps one can tell a rewrite."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field

from bract.digest import Digest, parse_digest
from bract.value import strict


@strict
@dataclass(frozen=True)
class Checkpoint:
    """The log of `origin` had `size` entries and this Merkle root at that time."""

    origin: Annotated[str, Field(min_length=1, max_length=200)]
    size: Annotated[int, Field(ge=1)]
    root: Digest
    at: datetime


def root_digest(root: bytes) -> Digest:
    """A root hash in the form in which digests are written."""
    return parse_digest(f"sha256:{root.hex()}")
