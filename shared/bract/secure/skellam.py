"""Distributed noise: every site adds a little, the sum holds enough, and no one has to be trusted with it alone.

**Mechanism.** Site k adds X_k = P − P′ to each coordinate of its rounded update q_k, P and P′ Poisson with mean λ
(`SkellamSpec.rate`), before it is masked. Differences of Poisson variables are Skellam, and sums of independent Skellam
variables are Skellam with added variances [Agarwal, Kairouz, Liu 2021, 2110.04995]. What the hub opens is Σ q_k + Σ X_k.

**Unit and relation.** One *site*: its whole update of a round, there or zero (the round's cohort is public). The weight and
the clip bring ‖q_k‖₂ to at most Δ₂ = `levels`, rounding included (`ring.bounded_clip`), so Δ₁ ≤ min(√d Δ₂, Δ₂²) for d
whole numbers. It holds against the hub and `colluders` sites together, who know their own noise, and against whoever reads
the encoder; a site that looks on counts as a colluder.

**Proof.** Masks hide all but the sum; a sum that can be opened has at least t survivors, t − colluders of them honest, and each
of those added its noise: Skellam of variance μ = 2λ(t − colluders) at least, independent of everything known. More noise is
post-processing, and so is the ring: no sum wraps, and modulo 2³² would be a function of it. Theorem 3.5 there gives for
whole α > 1

    D_α ≤ α Δ₂²/(2μ) + min( ((2α − 1) Δ₂² + 6 Δ₁)/(4 μ²), 3 Δ₁/(2 μ) ),

and rounds compose by adding, since each site's update may depend on all opened sums before [Mironov 2017, 1702.07476].

**Sampler.** Inversion of the Poisson distribution's cumulative table with 128-bit uniform words of `Keystream`. Each entry is
right to `RELATIVE_ERROR` of itself and to 2⁻¹²⁸; counts beyond 14 standard deviations (together below 10⁻⁴²) are left out. By
the first, the likelihood of all that the fewest honest sites draw changes by a factor e^±s at most, s = 4 d (t − colluders) ·
RELATIVE_ERROR, and D_α by 3s at α ≥ 2: `site_curve` adds it. The others are a distance τ, `LEFT_OUT` a draw, that costs
(1 + e^ε) τ of δ: `site_epsilon` sets a thousandth of δ aside for it, and gives infinity where that is not enough.

**What it is not.** It does not change the ε of a subject, which is the site's own DP-SGD's. For a subject alone the sum's noise
proves only what it proves for the whole site, with Δ₂ doubled (one update replaced by another): we claim nothing of it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bract.dpsgd.keystream import Keystream
from bract.privacy.accounting import NANO, ORDERS, Curve, epsilon_of_curve
from bract.secure.ring import Words
from bract.secure.spec import SecureSpec

RELATIVE_ERROR = 1e-12
"""Of each probability in a table; a test compares with 50 digits."""

LEFT_OUT = 1e-32
"""How far, in total variation, one draw is from a Poisson variable for its cut tails and last bits: 2²¹ entries of 2⁻¹²⁸."""

_SERIES = 16
_ASIDE = 1e-3


def poisson_log(rate: int, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithms of the Poisson probabilities of these counts, by the saddle point [Loader 2000].

    ln p = −½ ln 2πk − δ(k) − λ h(x), x = (k − λ)/λ, h(x) = (1 + x) ln(1 + x) − x as its series: no
    digits cancel, and for |count − rate| ≤ rate / 8 no term that is left out counts.
    """
    x = (counts - rate) / rate
    h = np.zeros_like(x)
    for j in range(_SERIES, 1, -1):
        h = h * -x + 1 / (j * (j - 1))
    stirling = 1 / (12 * counts) - 1 / (360 * counts**3)
    return np.asarray(-0.5 * np.log(2 * math.pi * counts) - stirling - rate * h * x * x)


@dataclass(frozen=True)
class PoissonTable:
    """Cumulative probabilities of consecutive counts as 128-bit fractions, in two words each.

    Attributes:
        first: the count of the first entry.
    """

    first: int
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]

    def counts(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The count for each 128-bit fraction; one past the last where it lies above the table."""
        found = np.searchsorted(self.high, high, side="right")
        at = np.searchsorted(self.high, high, side="left") if (self.high[found - 1] == high).any() else found
        for tie in np.flatnonzero(at != found):
            entries = self.low[at[tie] : found[tie]]
            found[tie] = at[tie] + np.searchsorted(entries, low[tie], side="right")
        return np.asarray(found, np.int64) + self.first


def poisson_table(rate: int, reach: int) -> PoissonTable:
    """The table of the counts within `reach` of the rate.

    Raises:
        ValueError: when the series would not be exact: a rate below 2^14, or a reach beyond an eighth of it.
    """
    if rate < 1 << 14 or reach > rate // 8:
        raise ValueError("the saddle point's series is exact from a rate of 2^14, and within an eighth of it")
    counts = np.arange(rate - reach, rate + reach + 1)
    # a little less than all, so that the sum stays below one; what is drawn above it is drawn again
    scaled = np.exp(poisson_log(rate, counts.astype(np.float64))) * (1 - 2.0**-30) * 2.0**64
    high = np.floor(scaled)
    low = (scaled - high) * 2.0**64
    return PoissonTable(int(counts[0]), *_cumulated(high.astype(np.uint64), low.astype(np.uint64)))


def _cumulated(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Running sums of 128-bit words."""
    lows = np.cumsum(low, dtype=np.uint64)
    carries = np.cumsum(lows < low, dtype=np.uint64)
    return np.cumsum(high, dtype=np.uint64) + carries, lows


class SkellamNoise:
    """One site's noise of one round, from the operating system's randomness. Made once: the table takes a moment."""

    def __init__(self, spec: SecureSpec, stream: Keystream | None = None) -> None:
        assert spec.noise is not None  # noqa: S101 - who makes it looked
        self._stream = stream or Keystream()
        self._table = poisson_table(spec.noise.rate(spec.honest), spec.noise.reach(spec.honest) // 2)

    def words(self, count: int) -> Words:
        """The noise of the next `count` coordinates, as words of the ring."""
        return (self._poisson(count) - self._poisson(count)).astype("<u4")

    def _poisson(self, count: int) -> NDArray[np.int64]:
        table, stream = self._table, self._stream
        drawn = table.counts(stream.words(count), stream.words(count))
        beyond = table.first + len(table.high)
        while (again := np.flatnonzero(drawn == beyond)).size:
            drawn[again] = table.counts(stream.words(again.size), stream.words(again.size))
        return drawn


def skellam_rdp(order: int, variance: float, l2: float, l1: float) -> float:
    """D_α in nats of a Skellam mechanism of this variance, for whole α > 1 [2110.04995, theorem 3.5]."""
    least = min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return order * l2**2 / (2 * variance) + least


def site_curve(spec: SecureSpec, numbers: int, rounds: int) -> Curve:
    """The Rényi divergences at `ORDERS` of so many rounds, for one whole site, in nano-nats, rounded up.

    Args:
        spec: with noise.
        numbers: d, of the encoder.
        rounds: in which the site takes part.

    Raises:
        ValueError: without noise.
    """
    if spec.noise is None:
        raise ValueError("No DP guarantee: no noise is added to the sum")
    l2 = float(spec.noise.levels(spec.honest))
    l1, variance = min(math.sqrt(numbers) * l2, l2 * l2), 2.0 * spec.noise.rate(spec.honest) * spec.honest
    slack = 12 * numbers * spec.honest * RELATIVE_ERROR
    return tuple(math.ceil(rounds * (skellam_rdp(order, variance, l2, l1) + slack) * NANO) for order in ORDERS)


def site_epsilon(spec: SecureSpec, numbers: int, rounds: int, delta: float) -> float:
    """The ε at δ of what the hub and `colluders` sites learn of one whole site in so many rounds. Not a subject's ε.

    Infinity where the sampler's last bits would cost more of δ than is set aside for them: no DP guarantee.

    Raises:
        ValueError: as `site_curve`.
    """
    epsilon = epsilon_of_curve(site_curve(spec, numbers, rounds), delta * (1 - _ASIDE))
    distance = 2 * numbers * spec.honest * rounds * LEFT_OUT
    return epsilon if epsilon < 100 and (1 + math.exp(epsilon)) * distance <= delta * _ASIDE else math.inf
