"""Noise is Gaussian, independent, and cannot be foreseen."""

import numpy as np
import pytest
from scipy import stats

from bract.dpsgd.keystream import Keystream
from bract.dpsgd.noise import SecureNoise, SeededNoise

ALARM = 1e-6


@pytest.mark.privacy
def test_the_draws_are_standard_normal() -> None:
    draws = SecureNoise().normal(100_000)
    assert stats.kstest(draws, "norm").pvalue > ALARM
    assert abs(draws.var() - 1) < 6 * np.sqrt(2 / len(draws))
    assert abs((draws**4).mean() - 3) < 6 * np.sqrt(96 / len(draws))


@pytest.mark.privacy
def test_halves_steps_and_neighbours_do_not_correlate() -> None:
    noise = SecureNoise()
    first, second = noise.normal(100_000), noise.normal(100_000)
    for left, right in [
        (first, second),
        (first[:50_000], first[50_000:]),
        (first[:-1], first[1:]),
        (first**2, second**2),
    ]:
        assert abs(np.corrcoef(left, right)[0, 1]) < 6 / np.sqrt(len(left))
    assert abs(np.corrcoef(first[:50_000] ** 2, first[50_000:] ** 2)[0, 1]) < 6 / np.sqrt(50_000)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_any_number_of_draws_can_be_had(count: int) -> None:
    draws = SecureNoise().normal(count)
    assert draws.shape == (count,)
    assert draws.dtype == np.float64
    assert np.isfinite(draws).all()


def test_two_sources_differ_and_seeded_ones_repeat() -> None:
    assert not np.array_equal(SecureNoise().normal(10), SecureNoise().normal(10))
    assert np.array_equal(SeededNoise(3).normal(10), SeededNoise(3).normal(10))
    assert not np.array_equal(SeededNoise(3).normal(10), SeededNoise(4).normal(10))


def test_only_the_secure_one_says_private() -> None:
    assert SecureNoise().private
    assert not SeededNoise(3).private


def test_uniforms_are_above_zero_and_at_most_one() -> None:
    uniforms = Keystream(1).uniforms(100_000)
    assert uniforms.min() > 0
    assert uniforms.max() <= 1
    assert stats.kstest(uniforms, "uniform").pvalue > ALARM


def test_the_stream_goes_on_and_never_repeats() -> None:
    stream = Keystream(1)
    parts = np.concatenate([stream.words(3), stream.words(5)])
    assert np.array_equal(parts, Keystream(1).words(8))
    assert len(set(Keystream().words(10_000).tolist())) == 10_000
