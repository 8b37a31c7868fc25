"""An estimate of ε from canaries' scores. It is an estimate, not a bound: it assumes that scores are normal.

One-shot canaries [Andrew et al. 2024, 2302.03098]: each canary's direction is compared with what was released. The scores
of those that were in are taken for N(μ, s²), those of directions that were not in for N(μ₀, s₀²), and ε̂ is that of the two
normal distributions at δ.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LABEL = "estimate, not a bound"

_NORMAL_LIMIT = 1.159
"""A² above this has probability 0.5 % or less for normal scores [Stephens 1974, case 3; D'Agostino 1986, table 4.7]."""
_MOST = 200.0


@dataclass(frozen=True)
class Estimate:
    """What the scores suggest.

    Attributes:
        epsilon: ε̂.
        normal: whether the Anderson–Darling test left the scores' normality standing; if not, do not use ε̂.
        label: says what this is wherever it is shown.
    """

    epsilon: float
    normal: bool
    label: str = LABEL


def canary_estimate(cosines: NDArray[np.float64], dimensions: int, delta: float) -> Estimate:
    """ε̂ from the cosines between canaries that were in and what was released, as the paper has it.

    Args:
        cosines: ⟨c_j, ρ⟩ / (‖c_j‖ ‖ρ‖) of k canaries drawn evenly from the sphere.
        dimensions: d; the cosine of a direction that was not in is about N(0, 1/d).
        delta: δ.

    Raises:
        ValueError: fewer than eight cosines.
    """
    mean, deviation = _fit(cosines)
    epsilon = epsilon_between((mean, deviation), (0.0, 1 / math.sqrt(dimensions)), delta)
    return Estimate(epsilon, _looks_normal(cosines))


def scores_estimate(scores: NDArray[np.float64], included: NDArray[np.bool_], delta: float) -> Estimate:
    """ε̂ from the scores of canaries of which some were in: the others take the place of the null distribution.

    Deviations that differ by less than three standard errors are taken for one and the same: their ratio decides about far
    tails, and so about ε̂.

    Raises:
        ValueError: fewer than eight that were in, or out.
    """
    inside, outside = scores[included], scores[~included]
    (mean, deviation), (mean0, deviation0) = _fit(inside), _fit(outside)
    error = math.sqrt(1 / (2 * len(inside)) + 1 / (2 * len(outside)))
    if abs(math.log(deviation / deviation0)) < 3 * error:
        deviation = deviation0 = math.sqrt((deviation**2 + deviation0**2) / 2)
    epsilon = epsilon_between((mean, deviation), (mean0, deviation0), delta)
    return Estimate(epsilon, _looks_normal(inside) and _looks_normal(outside))


def epsilon_between(first: tuple[float, float], second: tuple[float, float], delta: float) -> float:
    """The least ε with H_{e^ε} ≤ δ in both directions between N(μ, s²) given as (μ, s); at most 200."""

    def excess(epsilon: float) -> float:
        return max(hockey_stick(first, second, epsilon), hockey_stick(second, first, epsilon))

    if excess(0.0) <= delta:
        return 0.0
    low, high = 0.0, _MOST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) <= delta else (middle, high)
    return high


def hockey_stick(first: tuple[float, float], second: tuple[float, float], epsilon: float) -> float:
    """H_{e^ε}(P‖Q) = P(A) − e^ε Q(A) of two normals, where A is {log p/q > ε}: outside or inside the roots of a parabola."""
    (mean, deviation), (mean0, deviation0) = first, second
    square = 1 / (2 * deviation0**2) - 1 / (2 * deviation**2)
    slope = mean / deviation**2 - mean0 / deviation0**2
    constant = (
        mean0**2 / (2 * deviation0**2) - mean**2 / (2 * deviation**2) + math.log(deviation0 / deviation) - epsilon
    )

    def above(point: float) -> float:
        return _upper((point - mean) / deviation) - math.exp(min(epsilon, 700)) * _upper((point - mean0) / deviation0)

    def below(point: float) -> float:
        return _upper((mean - point) / deviation) - math.exp(min(epsilon, 700)) * _upper((mean0 - point) / deviation0)

    if abs(square) < 1e-12 * max(1.0, abs(slope)):
        if slope == 0:
            return max(0.0, 1 - math.exp(epsilon)) if constant > 0 else 0.0
        return max(0.0, above(-constant / slope) if slope > 0 else below(-constant / slope))
    inside = slope**2 - 4 * square * constant
    if inside <= 0:
        return max(0.0, 1 - math.exp(min(epsilon, 700))) if square > 0 else 0.0
    low, high = sorted((-slope + sign * math.sqrt(inside)) / (2 * square) for sign in (-1, 1))
    return max(0.0, below(low) + above(high) if square > 0 else above(low) - above(high))


def _fit(scores: NDArray[np.float64]) -> tuple[float, float]:
    if len(scores) < 8:
        raise ValueError("eight scores at least")
    return float(scores.mean()), float(scores.std(ddof=1))


def _looks_normal(scores: NDArray[np.float64]) -> bool:
    """Anderson–Darling for a normal distribution of unknown mean and variance, at 0.5 %."""
    mean, deviation = _fit(scores)
    ordered = np.sort((scores - mean) / deviation)
    count = len(ordered)
    lower = np.array([_upper(-point) for point in ordered]).clip(1e-300, 1)
    upper = np.array([_upper(point) for point in ordered]).clip(1e-300, 1)
    weights = 2 * np.arange(1, count + 1) - 1
    statistic = -count - float((weights * (np.log(lower) + np.log(upper[::-1]))).mean())
    return statistic * (1 + 0.75 / count + 2.25 / count**2) <= _NORMAL_LIMIT


def _upper(point: float) -> float:
    return math.erfc(point / math.sqrt(2)) / 2
