"""Bounds hold as often as they say, and estimates find the ε of distributions whose ε is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from bract.dpsgd.audit import lower_bound, p_value
from bract.dpsgd.canary_estimate import LABEL, canary_estimate, epsilon_between, hockey_stick, scores_estimate

DELTA = 1e-5


def gaussian_epsilon(distance: float, delta: float) -> float:
    """ε of two unit normals at a distance [Balle and Wang 2018, 1805.06530, thm. 8]."""

    def excess(epsilon: float) -> float:
        near, far = distance / 2 - epsilon / distance, -distance / 2 - epsilon / distance
        return float(stats.norm.cdf(near) - math.exp(epsilon) * stats.norm.cdf(far) - delta)

    return float(brentq(excess, 0, 100))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 8), st.floats(0, 8))
def test_a_larger_epsilon_is_never_refuted_more_firmly(guesses: int, share: float, one: float, other: float) -> None:
    right = round(share * guesses)
    low, high = sorted((one, other))
    before, after = (p_value(2 * guesses, guesses, right, epsilon, DELTA) for epsilon in (low, high))
    assert before <= after + 1e-12
    assert before >= 0 and after <= 1


def test_without_delta_it_is_the_binomial_tail() -> None:
    for guesses, right, epsilon in [(10, 9, 0.5), (300, 250, 1.2), (1000, 1000, 5.0)]:
        expected = stats.binom.sf(right - 1, guesses, 1 / (1 + math.exp(-epsilon)))
        assert p_value(1000, guesses, right, epsilon, 0.0) == pytest.approx(expected, rel=1e-9)


def test_randomised_response_is_refuted_as_often_as_the_confidence_allows() -> None:
    """The mechanism that is as bad as ε allows: a true bound may exceed it in one run of twenty, no more."""
    rng, epsilon, runs = np.random.default_rng(0), 1.0, 400
    truth = 1 / (1 + math.exp(-epsilon))
    wrong = 0
    for _ in range(runs):
        coins = rng.random(300) < 0.5
        said = np.where(rng.random(300) < truth, coins, ~coins)
        wrong += lower_bound(said + 1e-6 * rng.random(300), coins, 0.0).epsilon > epsilon
    assert stats.binomtest(wrong, runs, 0.05, alternative="greater").pvalue > 1e-4


@pytest.mark.parametrize("distance", [1.0, 2.0])
def test_a_gaussian_is_bounded_from_below_and_not_above(distance: float) -> None:
    rng = np.random.default_rng(1)
    claimed = gaussian_epsilon(distance, DELTA)
    for _ in range(10):
        coins = rng.random(1000) < 0.5
        found = lower_bound(distance * coins + rng.standard_normal(1000), coins, DELTA)
        assert 0.2 * claimed < found.epsilon <= claimed
        assert found.right <= found.guesses <= found.canaries == 1000


def test_scores_that_know_nothing_refute_nothing() -> None:
    rng = np.random.default_rng(2)
    found = lower_bound(rng.standard_normal(1000), rng.random(1000) < 0.5, DELTA)
    assert found.epsilon < 0.2


@pytest.mark.parametrize(("scores", "coins"), [([1.0], [True]), ([1.0, math.nan], [True, False]), ([1.0, 2.0], [True])])
def test_scores_that_cannot_be_ranked_are_refused(scores: list[float], coins: list[bool]) -> None:
    with pytest.raises(ValueError, match="scores"):
        lower_bound(np.array(scores), np.array(coins), DELTA)


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3), st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0, 4))
def test_the_hockey_stick_of_two_normals_is_that_of_an_integral(
    mean: float, deviation: float, deviation0: float, epsilon: float
) -> None:
    points = np.linspace(-40, 40, 400_001)
    first, second = stats.norm.pdf(points, mean, deviation), stats.norm.pdf(points, 0, deviation0)
    expected = np.maximum(first - math.exp(epsilon) * second, 0).sum() * (points[1] - points[0])
    assert hockey_stick((mean, deviation), (0.0, deviation0), epsilon) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("distance", [0.25, 1.0, 4.0])
def test_two_normals_alike_in_width_have_the_known_epsilon(distance: float) -> None:
    found = epsilon_between((distance, 1.0), (0.0, 1.0), DELTA)
    assert found == pytest.approx(gaussian_epsilon(distance, DELTA), abs=1e-6)


def test_one_shot_canaries_estimate_the_epsilon_of_a_gaussian_mechanism() -> None:
    """k unit canaries and noise σ in d dimensions: the sum is one release of a Gaussian mechanism with Δ = 1."""
    rng, dimensions, canaries, sigma = np.random.default_rng(3), 40_000, 400, 1.0
    directions = rng.standard_normal((canaries, dimensions)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    released = directions.sum(0) + sigma * rng.standard_normal(dimensions)
    cosines = (directions @ released / np.linalg.norm(released)).astype(np.float64)
    found = canary_estimate(cosines, dimensions, DELTA)
    assert found.epsilon == pytest.approx(gaussian_epsilon(1 / sigma, DELTA), rel=0.25)
    assert found.normal
    assert found.label == LABEL == "estimate, not a bound"


def test_scores_that_are_not_normal_are_said_to_be_so() -> None:
    rng = np.random.default_rng(4)
    coins = np.arange(1000) % 2 == 0
    assert scores_estimate(rng.standard_normal(1000), coins, DELTA).normal
    assert not scores_estimate(rng.exponential(size=1000), coins, DELTA).normal
