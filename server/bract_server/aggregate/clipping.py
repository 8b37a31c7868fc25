"""Centred clipping of buckets [Karimireddy et al. 2021, 2012.10333; 2022, 2006.09365].

What is claimed, by arithmetic alone: each iteration moves its centre by at most the radius τ, and with one iteration any f
sites together move the result by at most 2 f τ / m, m the number of buckets. Theorem III of 2012.10333 bounds the error against
the honest mean for δ ≤ 0.1 and a radius that fits the spread of honest updates. With private updates that spread is mostly
noise, whose norm grows with the root of the encoder's size; a radius below it scales every update down, honest or not.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from bract.aggregation import CentredClipping
from bract_server.aggregate.combination import Combination, weighted
from bract_server.aggregate.gram import Reals, gram
from bract_server.aggregate.updates import SiteUpdate


def centred_clipping(spec: CentredClipping, updates: Sequence[SiteUpdate]) -> Combination:
    """From v = 0, the round's start, v ← v + (1/m) Σ_b (x_b − v) min(1, τ / ‖x_b − v‖) over m buckets.

    Every v is a sum of updates, so that inner products are all that the iterations need.
    """
    means = _buckets(spec.bucket, updates)
    products = means @ gram([update.arrays for update in updates]) @ means.T
    coefficients = np.zeros(len(means))
    for _ in range(spec.iterations):
        kept = np.minimum(1, _inverse(_distances(products, coefficients), spec.radius)) / len(means)
        coefficients = coefficients * (1 - kept.sum()) + kept
    return weighted(updates, [float(share) for share in coefficients @ means])


def _buckets(size: int, updates: Sequence[SiteUpdate]) -> Reals:
    """The mean that each bucket takes (m, n). Who is with whom is random, and set only when every update is in.

    The permutation is drawn from all of the updates' digests: no site can foresee it, for none knows the others' noise; and
    whoever holds the round's contributions draws the same.
    """
    seed = sha256("".join(update.digest for update in updates).encode()).digest()
    order = np.random.Generator(np.random.Philox(key=int.from_bytes(seed[:16], "big"))).permutation(len(updates))
    parts = [order[at : at + size] for at in range(0, len(order), size)]
    means = np.zeros((len(parts), len(updates)))
    for row, part in zip(means, parts, strict=True):
        row[part] = 1 / len(part)
    return means


def _distances(products: Reals, coefficients: Reals) -> Reals:
    """‖x_b − v‖ of each bucket's mean, v being their sum with these coefficients."""
    to_centre = products @ coefficients
    squared = products.diagonal() - 2 * to_centre + coefficients @ to_centre
    return np.sqrt(np.maximum(squared, 0))


def _inverse(distances: Reals, radius: float) -> Reals:
    return np.divide(radius, distances, out=np.ones_like(distances), where=distances > 0)
