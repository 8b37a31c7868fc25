"""Inner products of whole updates, for rules that need norms or distances: one pass over the files, n² numbers kept."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bract.arrays import ArraysFile
from bract_server.aggregate.updates import blocks

Reals = NDArray[np.float64]


def gram(files: Sequence[ArraysFile]) -> Reals:
    """⟨x_i, x_j⟩ (n, n) of the files' vectors, in float64; finite for any float32, whose squares stay below 10⁷⁷.

    Raises:
        BractError: `bad-arrays`, `not-finite`, `disk`.
    """
    total = np.zeros((len(files), len(files)))
    for _, rows in blocks(files):
        wide = rows.astype(np.float64)
        total += wide @ wide.T
    return total


def norms(files: Sequence[ArraysFile]) -> Reals:
    """‖x_i‖ (n,) of the files' vectors.

    Raises:
        BractError: as `gram`.
    """
    total = np.zeros(len(files))
    for _, rows in blocks(files):
        total += np.square(rows, dtype=np.float64).sum(1)
    return np.sqrt(total)


def squared_distances(products: Reals) -> Reals:
    """‖x_i − x_j‖² (n, n) from inner products; exact to some 10⁻¹⁵ of the greater norm squared."""
    squares = products.diagonal()
    return np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0)
