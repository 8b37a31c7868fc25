"""Noise is Gaussian, independent, cannot be foreseen, and leaves nothing to be read in its low bits."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bract.dpsgd.keystream import Keystream
from bract.dpsgd.noise import SecureNoise, SeededNoise, grid

ALARM = 1e-6
MANY = 200_000


def _normal(scale: float) -> NDArray[np.float64]:
    return SecureNoise().normal(MANY) * scale


def _added(scale: float) -> NDArray[np.float64]:
    total = torch.zeros(MANY, dtype=torch.float64)
    SecureNoise().add_to(total, scale)
    drawn: NDArray[np.float64] = total.numpy()
    return drawn


@pytest.mark.privacy
@pytest.mark.parametrize("draw", [_normal, _added])
@pytest.mark.parametrize("scale", [1.0, 3e-4, 777.0])
def test_the_draws_are_normal_of_that_deviation(draw: object, scale: float) -> None:
    draws = draw(scale) / scale  # type: ignore[operator]
    assert stats.kstest(draws, "norm").pvalue > ALARM
    assert abs(draws.mean()) < 6 / np.sqrt(MANY)
    assert abs(draws.var() - 1) < 6 * np.sqrt(2 / MANY)
    assert abs((draws**4).mean() - 3) < 6 * np.sqrt(96 / MANY)


@pytest.mark.privacy
def test_halves_steps_blocks_and_neighbours_do_not_correlate() -> None:
    noise = SecureNoise()
    first, second = noise.normal(1 << 17), noise.normal(1 << 17)
    shifts = (1, 1 << 14, 1 << 15, 1 << 16)
    for left, right in [(first, second), *((first[:-shift], first[shift:]) for shift in shifts)]:
        for power in (1, 2):
            assert abs(np.corrcoef(left**power, right**power)[0, 1]) < 6 / np.sqrt(len(left))


@pytest.mark.privacy
def test_the_two_numbers_of_one_radius_are_independent() -> None:
    """Box–Muller makes a pair, half a block apart, from one radius and one angle."""
    block = SecureNoise().normal(1 << 16).reshape(2, -1)
    radius = (block**2).sum(0)
    angle = np.arctan2(block[1], block[0])
    assert stats.kstest(radius, stats.chi2(2).cdf).pvalue > ALARM
    assert stats.kstest(angle / (2 * np.pi) + 0.5, "uniform").pvalue > ALARM
    assert abs(np.corrcoef(radius, angle)[0, 1]) < 6 / np.sqrt(len(radius))


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(1e-9, 1e9),
    sums=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
)
def test_every_noised_sum_lies_on_the_public_grid(scale: float, sums: list[float]) -> None:
    total = torch.tensor(sums, dtype=torch.float64) * scale
    SecureNoise().add_to(total, scale)
    cells = total.numpy() / grid(scale)
    assert np.array_equal(cells, np.round(cells))
    assert 2.0**-13 < grid(scale) / scale <= 2.0**-12
    assert np.log2(grid(scale)) == np.round(np.log2(grid(scale)))


def test_without_rounding_low_bits_would_tell_sums_apart() -> None:
    """The positive control: a plain float64 addition of noise shows whether the sum under it is zero."""
    noise = SecureNoise().normal(MANY)
    fine = 2.0**-53

    def finer(total: NDArray[np.float64]) -> int:
        return int((total / fine != np.round(total / fine)).sum())

    assert finer(1.0 + noise) == 0
    assert finer(0.0 + noise) > MANY / 8
    rounded = torch.zeros(MANY, dtype=torch.float64)
    SecureNoise().add_to(rounded, 1.0)
    assert finer(rounded.numpy()) == 0


def test_adding_to_a_sum_is_the_sum_and_the_noise_to_half_a_cell() -> None:
    total = torch.linspace(-50, 50, 100_001, dtype=torch.float64).reshape(-1, 11)[:, :]
    before = total.clone()
    SeededNoise(5).add_to(total, 0.3)
    apart = total - before - 0.3 * torch.from_numpy(SeededNoise(5).normal(total.numel())).reshape(total.shape)
    assert apart.abs().max() <= grid(0.3) / 2 * (1 + 1e-9)


@pytest.mark.parametrize("sizes", [(5, 7), (0, 1, 70_000), (65_536, 65_536, 1), (65_535, 2)])
def test_how_the_draws_are_asked_for_does_not_change_them(sizes: tuple[int, ...]) -> None:
    noise = SeededNoise(3)
    parts = [noise.normal(size) for size in sizes]
    assert [len(part) for part in parts] == list(sizes)
    assert np.array_equal(np.concatenate(parts), SeededNoise(3).normal(sum(sizes)))
    assert all(part.dtype == np.float64 and np.isfinite(part).all() for part in parts)


def test_draws_that_were_handed_out_are_not_overwritten() -> None:
    noise = SeededNoise(3)
    first = noise.normal(1000)
    kept = first.copy()
    noise.normal(1 << 17)
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-300])
def test_noise_without_a_deviation_is_refused_and_adds_nothing(scale: float) -> None:
    total = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="above zero"):
        SecureNoise().add_to(total, scale)
    assert torch.equal(total, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("total", [torch.zeros(4), torch.zeros(4, 4, dtype=torch.float64).T[1:3]])
def test_a_total_of_another_form_is_refused(total: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="contiguous float64"):
        SecureNoise().add_to(total, 1.0)


def test_a_tensor_that_needs_gradients_can_be_noised() -> None:
    total = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    SecureNoise().add_to(total, 1.0)
    assert total.detach().abs().sum() > 0


def test_two_sources_differ_and_seeded_ones_repeat() -> None:
    assert not np.array_equal(SecureNoise().normal(10), SecureNoise().normal(10))
    assert np.array_equal(SeededNoise(3).normal(10), SeededNoise(3).normal(10))
    assert not np.array_equal(SeededNoise(3).normal(10), SeededNoise(4).normal(10))


def test_torch_s_seed_has_no_say() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        drawn.append(SecureNoise().normal(10))
    assert not np.array_equal(drawn[0], drawn[1])


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


def test_a_stream_cannot_be_copied() -> None:
    with pytest.raises(TypeError):
        copy.deepcopy(SecureNoise())


FORKED = """
import os
import warnings

warnings.simplefilter("ignore")
from bract.dpsgd.noise import SecureNoise
from bract.dpsgd.sampler import SecureSampler

noise, sampler = SecureNoise(), SecureSampler()
noise.normal(3)
child = os.fork()
if child == 0:
    refused = 0
    for draw in (lambda: noise.normal(3), lambda: sampler.draw(10, 0.5), lambda: sampler.uniforms(1)):
        try:
            draw()
        except RuntimeError:
            refused += 1
    SecureNoise().normal(3)
    os._exit(refused)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
noise.normal(3)
"""


def test_no_two_processes_share_a_stream_not_even_draws_that_were_made_before_the_fork() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)
