"""Means in which a site that has gone far from the round's start counts less. They claim nothing against anybody.

With private updates most of the way that an encoder has gone is noise, whose size all sites share: the factors then differ
little, and the more the noise, the nearer these rules are to the mean by declared weights.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bract.aggregation import DivergenceMean
from bract.arrays import Array, ArraysFile, count_of
from bract_server.aggregate.combination import Combination, as_floats, weighted
from bract_server.aggregate.gram import Reals, norms
from bract_server.aggregate.updates import Matrix, SiteUpdate, blocks


def divergence_mean(spec: DivergenceMean, updates: Sequence[SiteUpdate]) -> Combination:
    """Weights w_k (1 − μ_k) with μ_k = min(τ ‖Δ_k‖ / median ‖Δ‖, 1), made to sum to one.

    FedEMA [Zhuang et al. 2022, 2204.04385] keeps μ_k of a site's own encoder when it takes the global one;
    here sites keep nothing between rounds, and the hub leaves out as much of what they send. Its scale of distances is each
    site's first one; ours is the round's median, so that half of the sites count for sure.
    """
    gone = norms([update.arrays for update in updates])
    middle = float(np.median(gone))
    kept = 1 - np.minimum(spec.scale * gone / middle, 1) if middle > 0 else (gone == 0).astype(np.float64)
    weights = kept * [update.weight for update in updates]
    return weighted(updates, [float(weight) for weight in weights / weights.sum()])


def layer_mean(updates: Sequence[SiteUpdate], origin: ArraysFile) -> Combination:
    """Layer by layer, weights w_k max(cos(θ_k, θ), 0) made to sum to one; θ is the round's start and θ_k = θ + Δ_k.

    L-DAWA [Rehman et al. 2023, 2307.07393] multiplies by the cosine alone, which also shrinks the layer; made to sum to one, it
    stays a mean. A layer that begins at zero, or to which every site stands at a right angle or beyond, takes declared weights.
    """
    sizes = [int(np.prod(shape)) for _, shape in sorted(origin.layout.items())]
    ends = np.cumsum(sizes)
    declared = np.array([update.weight for update in updates])
    weights = declared[:, None] * np.maximum(_cosines(updates, origin, ends), 0)
    weights = np.where(weights.sum(0) > 0, weights, declared[:, None])
    weights /= weights.sum(0)

    def block(start: int, rows: Matrix) -> Array:
        layers = np.searchsorted(ends, np.arange(start, start + rows.shape[1]), side="right")
        total = np.zeros(rows.shape[1])
        for row, share in zip(rows, weights, strict=True):
            total += share[layers] * row
        return as_floats(total)

    shares = weights @ np.array(sizes) / count_of(origin.layout)
    return Combination({u.site: min(float(share), 1.0) for u, share in zip(updates, shares, strict=True)}, block)


def _cosines(updates: Sequence[SiteUpdate], origin: ArraysFile, ends: NDArray[np.int64]) -> Reals:
    """cos(θ_k, θ) (n, layers); 0 where either has no length."""
    products, ours_squared, start_squared = (np.zeros((len(updates), len(ends))) for _ in range(3))
    for start, rows in blocks([origin, *(update.arrays for update in updates)]):
        wide = rows.astype(np.float64)
        first, ours = wide[:1], wide[:1] + wide[1:]
        layers = np.searchsorted(ends, np.arange(start, start + rows.shape[1]), side="right")
        present, begins = np.unique(layers, return_index=True)
        for total, terms in ((products, first * ours), (ours_squared, ours**2), (start_squared, first**2)):
            total[:, present] += np.add.reduceat(terms, begins, axis=1)
    lengths = np.sqrt(ours_squared * start_squared)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
