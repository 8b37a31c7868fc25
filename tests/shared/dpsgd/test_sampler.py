"""Subjects join by independent coins of the right weight."""

import numpy as np
import pytest
from scipy import stats

from bract.dpsgd.sampler import SecureSampler, SeededSampler

ALARM = 1e-6
"""Chance of a false alarm for each check on secure randomness."""


@pytest.mark.privacy
def test_every_subject_is_included_at_the_same_rate() -> None:
    sampler, subjects, draws, rate = SecureSampler(), 50, 4000, 0.13
    hits = np.zeros(subjects)
    for _ in range(draws):
        hits[sampler.draw(subjects, rate)] += 1
    expected, variance = draws * rate, draws * rate * (1 - rate)
    assert stats.chi2.sf(((hits - expected) ** 2 / variance).sum(), subjects) > ALARM


@pytest.mark.privacy
def test_the_batch_size_varies_as_poisson_sampling_says() -> None:
    sampler, subjects, draws, rate = SecureSampler(), 400, 4000, 0.1
    sizes = np.array([len(sampler.draw(subjects, rate)) for _ in range(draws)])
    variance = subjects * rate * (1 - rate)
    assert abs(sizes.mean() - subjects * rate) < 6 * np.sqrt(variance / draws)
    assert abs(sizes.var(ddof=1) / variance - 1) < 6 * np.sqrt(2 / draws)


@pytest.mark.privacy
def test_two_subjects_join_independently() -> None:
    sampler, draws, rate = SecureSampler(), 20_000, 0.3
    both = sum(len(sampler.draw(2, rate)) == 2 for _ in range(draws))
    assert stats.binomtest(both, draws, rate**2).pvalue > ALARM


def test_positions_are_distinct_ascending_and_within_range() -> None:
    for _ in range(50):
        drawn = SecureSampler().draw(100, 0.5)
        assert (np.diff(drawn) > 0).all()
        assert ((drawn >= 0) & (drawn < 100)).all()


def test_at_rate_one_everybody_is_in_and_of_nobody_none() -> None:
    assert SecureSampler().draw(1000, 1.0).tolist() == list(range(1000))
    assert SecureSampler().draw(0, 0.5).tolist() == []


def test_two_samplers_differ_and_seeded_ones_repeat() -> None:
    assert SecureSampler().draw(1000, 0.5).tolist() != SecureSampler().draw(1000, 0.5).tolist()
    assert SeededSampler(3).draw(1000, 0.5).tolist() == SeededSampler(3).draw(1000, 0.5).tolist()


def test_only_the_secure_one_says_private() -> None:
    assert SecureSampler().private
    assert not SeededSampler(3).private
