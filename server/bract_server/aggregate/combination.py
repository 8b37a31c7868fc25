"""What a rule says of a round: how much of each site is in the result, and what becomes of a block of their numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bract.arrays import Array
from bract_server.aggregate.updates import Matrix, SiteUpdate


@dataclass(frozen=True)
class Combination:
    """A rule, made for one round.

    Attributes:
        shares: of each site in the result, from 0 to 1; they sum to at most one, and what is left stays at the round's start.
        block: from where a block begins and its rows (n, b), in the order of the sites' names, to its result (b,).
    """

    shares: Mapping[str, float]
    block: Callable[[int, Matrix], Array]


def weighted(updates: Sequence[SiteUpdate], shares: Sequence[float]) -> Combination:
    """The sum of the updates, which stand by site, each times its share."""

    def block(_start: int, rows: Matrix) -> Array:
        total = rows[0].astype(np.float64) * shares[0]
        for share, row in zip(shares[1:], rows[1:], strict=True):
            total += share * row
        return as_floats(total)

    return Combination({update.site: share for update, share in zip(updates, shares, strict=True)}, block)


def as_floats(numbers: NDArray[np.float64]) -> Array:
    """Results, computed in float64, as they are kept."""
    return numbers.astype(np.float32)


def one_voice(updates: Sequence[SiteUpdate], block: Callable[[Matrix], Array]) -> Combination:
    """A rule for each coordinate by itself, in which every site has the same part."""
    return Combination({update.site: 1 / len(updates) for update in updates}, lambda _start, rows: block(rows))
