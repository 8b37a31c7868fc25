"""Subjects join as by independent coins of the right weight."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bract.dpsgd.keystream import Keystream
from bract.dpsgd.sampler import SecureSampler, SeededSampler, binomial_sums

ALARM = 1e-6
"""Chance of a false alarm for each check on secure randomness."""

Draw = Callable[[int, float], NDArray[np.int64]]


def chances(draw: Draw, subjects: int, rate: float, draws: int) -> dict[str, float]:
    """How likely independent coins would look as odd as this sampler, by each of five tests; two-sided."""
    joins = np.zeros((draws, subjects))
    for step in range(draws):
        joins[step, draw(subjects, rate)] = 1
    spread = rate * (1 - rate)
    inclusion = ((joins.mean(0) - rate) ** 2).sum() * draws / spread
    sizes = joins.sum(1)
    centred = (joins - rate) / np.sqrt(spread)
    products = (centred.T @ centred)[np.triu_indices(subjects, 1)] / np.sqrt(draws)
    steps = (centred[1:] * centred[:-1]).sum() / np.sqrt(subjects * (draws - 1))
    variance = ((sizes - subjects * rate) ** 2).mean() / (subjects * spread)
    deviation = np.sqrt((2 + (1 - 6 * spread) / (spread * subjects)) / draws)
    return {
        "inclusion": _two_sided(stats.chi2(subjects), inclusion),
        "pairs": _two_sided(stats.norm(0, np.sqrt(2 * len(products))), (products**2).sum() - len(products)),
        "steps": _two_sided(stats.norm, steps),
        "mean size": _two_sided(stats.norm, (sizes.mean() - subjects * rate) / np.sqrt(subjects * spread / draws)),
        "size variance": _two_sided(stats.norm, (variance - 1) / deviation),
    }


def _two_sided(law: object, value: float) -> float:
    return float(2 * min(law.sf(value), law.cdf(value)))  # type: ignore[attr-defined]


@pytest.mark.privacy
@pytest.mark.parametrize(("subjects", "rate"), [(50, 0.13), (400, 0.02), (60, 0.5), (40, 0.85)])
def test_a_sample_is_as_independent_coins_would_make_it(subjects: int, rate: float) -> None:
    found = chances(SecureSampler().draw, subjects, rate, 4000)
    assert min(found.values()) > ALARM, found


def _shuffled(subjects: int, rate: float) -> NDArray[np.int64]:
    """What loaders do by default: a batch of fixed size from a shuffled order."""
    return np.random.default_rng().permutation(subjects)[: round(subjects * rate)]


def _in_pairs(subjects: int, rate: float) -> NDArray[np.int64]:
    coins = np.random.default_rng().random(subjects // 2) < rate
    return np.flatnonzero(np.repeat(coins, 2))


def _first_rather_than_last(subjects: int, rate: float) -> NDArray[np.int64]:
    weights = np.linspace(1.2, 0.8, subjects) * rate
    return np.flatnonzero(np.random.default_rng().random(subjects) < weights)


class _Epochs:
    """Batches that go through one shuffled order, so that who just joined does not join again."""

    def __init__(self) -> None:
        self._order: list[int] = []

    def __call__(self, subjects: int, rate: float) -> NDArray[np.int64]:
        if not self._order:
            self._order = list(np.random.default_rng().permutation(subjects))
        size = round(subjects * rate)
        batch, self._order = self._order[:size], self._order[size:]
        return np.array(batch)


@pytest.mark.privacy
@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (_shuffled, "size variance"),
        (_Epochs(), "size variance"),
        (_Epochs(), "inclusion"),
        (_Epochs(), "steps"),
        (_in_pairs, "pairs"),
        (_first_rather_than_last, "inclusion"),
        (lambda subjects, rate: SecureSampler().draw(subjects, rate * 1.1), "mean size"),
    ],
)
def test_a_sampler_without_independent_coins_is_caught(broken: Draw, caught_by: str) -> None:
    assert chances(broken, 50, 0.2, 4000)[caught_by] < ALARM


@pytest.mark.privacy
def test_of_three_subjects_every_set_comes_at_its_own_rate() -> None:
    sampler, draws, rate = SecureSampler(), 20_000, 0.3
    seen = {subset: 0 for size in range(4) for subset in combinations(range(3), size)}
    for _ in range(draws):
        seen[tuple(sampler.draw(3, rate).tolist())] += 1
    expected = [draws * rate ** len(subset) * (1 - rate) ** (3 - len(subset)) for subset in seen]
    assert stats.chisquare(list(seen.values()), expected).pvalue > ALARM


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.floats(1e-6, 1))
def test_the_sums_behind_the_count_are_the_exact_binomial_s(subjects: int, rate: float) -> None:
    least, sums = binomial_sums(subjects, rate)
    chance = Fraction(rate)
    exact = [comb(subjects, k) * chance**k * (1 - chance) ** (subjects - k) for k in range(subjects + 1)]
    for place, found in enumerate(sums):
        assert abs(Fraction(found, 1 << 128) - sum(exact[: least + place + 1])) < Fraction(1, 1 << 80)
    assert sums[-1] == 1 << 128


@pytest.mark.parametrize(("subjects", "rate"), [(10_000, 0.01), (1_000_000, 0.004), (10_000_000, 1e-7), (3000, 0.9)])
def test_large_binomials_agree_with_scipy(subjects: int, rate: float) -> None:
    least, sums = binomial_sums(subjects, rate)
    theirs = stats.binom.cdf(np.arange(least, least + len(sums)), subjects, rate)
    assert np.abs(theirs - np.array([found / 2**128 for found in sums])).max() < 1e-12
    assert stats.binom.cdf(least - 1, subjects, rate) < 1e-27
    assert stats.binom.sf(least + len(sums) - 1, subjects, rate) < 1e-27


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1, exclude_min=True))
def test_positions_are_distinct_ascending_and_within_range(subjects: int, rate: float) -> None:
    drawn = SecureSampler().draw(subjects, rate)
    assert drawn.dtype == np.int64
    assert (np.diff(drawn) > 0).all()
    assert ((drawn >= 0) & (drawn < subjects)).all()


def test_at_rate_one_everybody_is_in_and_of_nobody_none() -> None:
    assert SecureSampler().draw(1000, 1.0).tolist() == list(range(1000))
    assert SecureSampler().draw(0, 0.5).tolist() == []
    assert SecureSampler().draw(0, 1.0).tolist() == []


@pytest.mark.parametrize(("subjects", "rate"), [(10, 0.0), (10, -0.1), (10, 1.01), (10, float("nan")), (-1, 0.5)])
def test_a_rate_that_is_none_is_refused(subjects: int, rate: float) -> None:
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        SecureSampler().draw(subjects, rate)


@pytest.mark.privacy
@pytest.mark.parametrize("bound", [1, 2, 3, 40, 2**20 + 1])
def test_whole_numbers_below_a_bound_are_equally_likely(bound: int) -> None:
    drawn = Keystream().below(bound, 40_000)
    assert drawn.shape == (40_000,)
    assert ((drawn >= 0) & (drawn < bound)).all()
    if 1 < bound <= 40:
        assert stats.chisquare(np.bincount(drawn, minlength=bound)).pvalue > ALARM
    elif bound > 40:
        assert stats.kstest(drawn / bound, "uniform").pvalue > ALARM


def test_two_samplers_differ_and_seeded_ones_repeat() -> None:
    assert SecureSampler().draw(1000, 0.5).tolist() != SecureSampler().draw(1000, 0.5).tolist()
    assert SeededSampler(3).draw(1000, 0.5).tolist() == SeededSampler(3).draw(1000, 0.5).tolist()


def test_only_the_secure_one_says_private() -> None:
    assert SecureSampler().private
    assert not SeededSampler(3).private
