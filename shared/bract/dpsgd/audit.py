"""A lower bound on ε from one run [Steinke, Nasr and Jagielski 2023, 2305.08846].

m canaries are each included by an independent fair coin. Whoever sees only what was released scores them, guesses "in" for
the highest scores, "out" for the lowest, and abstains on the rest. If the mechanism is (ε, δ)-DP, then of r guesses no
more than v are right, except with probability

    p ≤ β + 2 m δ α,   β = P[Binomial(r, e^ε/(1 + e^ε)) ≥ v],   α = max over 1 ≤ i ≤ v of (P[Binomial(r, ·) ≥ v − i] − β) / i

(theorem 5.2 there, as implemented in google-deepmind/jax_privacy). The bound is the largest ε that is refuted at the
confidence asked for, over several numbers of guesses, with a Bonferroni correction for having looked at them all.

An audit can show that a claim is false. It never shows that one is true: that it finds less is no guarantee.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
_MOST = 60.0
_HALVINGS = 40


@dataclass(frozen=True)
class Bound:
    """What one run refutes.

    Attributes:
        epsilon: the mechanism is not (ε', δ)-DP for any ε' below this, at the confidence given. Zero says nothing.
        confidence: one minus the chance of a false statement.
        canaries: m.
        guesses: r, for the number of guesses that gave the bound.
        right: v of them.
    """

    epsilon: float
    confidence: float
    canaries: int
    guesses: int
    right: int


def lower_bound(
    scores: NDArray[np.float64], included: NDArray[np.bool_], delta: float, confidence: float = 0.95
) -> Bound:
    """The largest ε that the scores of one run refute.

    Args:
        scores: (m,), higher for a canary that seems to be in; they may depend on what was released and on what is public.
        included: (m,), the coins; independent and fair, and hidden from whoever computed the scores.
        delta: δ of the claim.
        confidence: as a probability.

    Raises:
        ValueError: scores and coins of different lengths, fewer than two, scores that are not finite, or δ or confidence
            not between 0 and 1.
    """
    count = len(scores)
    if count != len(included) or count < 2 or not np.isfinite(scores).all():
        raise ValueError("two finite scores at least, and a coin for each")
    if not (0 <= delta < 1 and 0 < confidence < 1):
        raise ValueError("0 ≤ δ < 1 and 0 < confidence < 1")
    ranked = included[np.argsort(scores, kind="stable")]
    tried = _numbers_of_guesses(count)
    level = (1 - confidence) / len(tried)
    best = Bound(0.0, confidence, count, 0, 0)
    for lowest, highest in tried:
        right = int((~ranked[:lowest]).sum() + ranked[count - highest :].sum())
        epsilon = _refuted(count, lowest + highest, right, delta, level)
        if epsilon > best.epsilon:
            best = Bound(epsilon, confidence, count, lowest + highest, right)
    return best


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """A bound on the chance of so many right guesses if the mechanism were (ε, δ)-DP."""
    tails = _tails(guesses, epsilon)
    beta = float(tails[right])
    if delta == 0 or right == 0:
        return min(1.0, beta)
    fewer = np.arange(1, right + 1)
    alpha = float(np.max((tails[right - fewer] - beta) / fewer))
    return min(1.0, beta + 2 * canaries * delta * max(0.0, alpha))


def _numbers_of_guesses(count: int) -> list[tuple[int, int]]:
    """How many are guessed out and in: both alike, or only in. Fixed before any score is seen."""
    sizes = sorted({max(1, int(share * count)) for share in _SHARES})
    return [(size, size) for size in sizes if 2 * size <= count] + [(0, size) for size in sizes]


def _refuted(canaries: int, guesses: int, right: int, delta: float, level: float) -> float:
    """The largest ε whose p-value is at most the level: p grows with ε."""
    if p_value(canaries, guesses, right, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, _MOST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if p_value(canaries, guesses, right, middle, delta) <= level:
            low = middle
        else:
            high = middle
    return low


def _tails(guesses: int, epsilon: float) -> NDArray[np.float64]:
    """P[Binomial(r, e^ε/(1 + e^ε)) ≥ k] for k = 0 … r."""
    hit, miss = -math.log1p(math.exp(-epsilon)), -epsilon - math.log1p(math.exp(-epsilon))
    factorials = np.concatenate([[0.0], np.log(np.arange(1, guesses + 1)).cumsum()])
    ways = factorials[-1] - factorials - factorials[::-1]
    k = np.arange(guesses + 1)
    masses = np.exp(ways + k * hit + (guesses - k) * miss)
    tails: NDArray[np.float64] = np.minimum(1.0, masses[::-1].cumsum()[::-1])
    return tails
