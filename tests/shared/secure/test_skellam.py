"""Distributed noise: drawn as its proof says, of the variance it is accounted with, and no update longer than its bound."""

import math
from bisect import bisect_right
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ive
from scipy.stats import chi2
from scipy.stats import norm as gaussian

from bract.errors import MALFORMED, BractError
from bract.privacy.accounting import NANO, ORDERS
from bract.secure.ring import bounded_clip, norm, quantised, scale_of, shortening
from bract.secure.skellam import (
    RELATIVE_ERROR,
    PoissonTable,
    SkellamNoise,
    poisson_table,
    site_curve,
    site_epsilon,
    skellam_rdp,
)
from bract.secure.spec import LARGEST, SecureSpec, SkellamSpec

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
NOISY = SecureSpec(threshold=3, clip=1.0, noise=SkellamSpec(1.0))


def exact(rate: int, count: int) -> Decimal:
    """The Poisson probability to 40 digits, by Stirling's series."""
    with localcontext() as context:
        context.prec = 60
        k, mean = Decimal(count), Decimal(rate)
        bernoulli = (Decimal(1) / 6, Decimal(-1) / 30, Decimal(1) / 42, Decimal(-1) / 30)
        tail = sum(b / (2 * n * (2 * n - 1) * k ** (2 * n - 1)) for n, b in enumerate(bernoulli, start=1))
        factorial = k * k.ln() - k + (2 * PI * k).ln() / 2 + tail
        return (k * mean.ln() - mean - factorial).exp()


@pytest.mark.parametrize("rate", [1 << 14, 10**6, 1 << 29])
def test_every_entry_of_a_table_is_as_exact_as_is_said(rate: int) -> None:
    reach = math.ceil(14 * math.sqrt(rate))
    table = poisson_table(rate, reach)
    ends = [0, *((int(high) << 64) + int(low) for high, low in zip(table.high, table.low, strict=True))]
    assert ends == sorted(ends) and ends[-1] < 1 << 128
    for place in {0, 1, *np.linspace(0, len(table.high) - 1, 60).astype(int).tolist(), reach}:
        meant = exact(rate, table.first + place) * (1 << 128) * (1 - Decimal(2) ** -30)
        assert abs(ends[place + 1] - ends[place] - meant) <= meant * Decimal(RELATIVE_ERROR) + 1
    left = 1 - Decimal(ends[-1]) / (1 << 128)
    assert abs(left - Decimal(2) ** -30) < Decimal(RELATIVE_ERROR), "nothing but the cut tails and the part drawn again"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=12), st.integers(0, 3), st.data())
def test_a_fraction_is_looked_up_to_its_last_bit(rows: list[tuple[int, int]], high: int, data: st.DataObject) -> None:
    """Small words, so that high halves are often equal."""
    rows = sorted(rows)
    table = PoissonTable(100, np.array([h for h, _ in rows], np.uint64), np.array([low for _, low in rows], np.uint64))
    low = data.draw(st.integers(0, 5))
    found = table.counts(np.array([high], np.uint64), np.array([low], np.uint64))
    assert found.tolist() == [100 + bisect_right(rows, (high, low))]


def statistic(drawn: NDArray[np.int64], variance: float) -> float:
    """χ² over 40 bins of equal probability of a Gaussian of this variance, which a Skellam variable is near."""
    edges = gaussian.ppf(np.linspace(0, 1, 41)[1:-1], scale=math.sqrt(variance))
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=40)
    even = len(drawn) / 40
    return float(((counts - even) ** 2 / even).sum())


def test_noise_has_the_distribution_that_is_accounted() -> None:
    assert NOISY.noise is not None
    variance, count = 2.0 * NOISY.noise.rate(NOISY.honest), 200_000
    drawn = SkellamNoise(NOISY).words(count).view("<i4").astype(np.int64)
    limit = float(chi2.isf(1e-9, 39))
    assert statistic(drawn, variance) < limit
    assert statistic(drawn, variance * 1.05) > limit, "five hundredths more or less would be seen"
    assert np.abs(drawn).max() <= NOISY.noise.reach(NOISY.honest)
    assert not np.array_equal(drawn, SkellamNoise(NOISY).words(count).view("<i4"))


@pytest.mark.parametrize("variance", [20.0, 200.0, 2000.0])
@pytest.mark.parametrize("shift", [1, 3, 10])
@pytest.mark.parametrize("order", [2, 3, 8, 32])
def test_the_divergence_is_bounded_as_the_theorem_says(variance: float, shift: int, order: int) -> None:
    """Against the sum over all values, e^−μ I_k(μ) being the probability of k."""
    width = math.ceil(30 * math.sqrt(variance)) + order * shift
    values = np.arange(-width, width + 1)
    with np.errstate(divide="ignore"):
        logs = np.log(ive(np.abs(np.arange(-width - shift, width + shift + 1)).astype(float), variance))
    there, moved = logs[shift:-shift], logs[: len(values)]
    finite = np.isfinite(there) & np.isfinite(moved)
    terms = order * moved[finite] + (1 - order) * there[finite]
    top = terms.max()
    divergence = (top + math.log(np.exp(terms - top).sum())) / (order - 1)
    bound = skellam_rdp(order, variance, shift, shift)
    assert divergence <= bound * (1 + 1e-9)
    if order * shift <= variance / 20:
        assert divergence > 0.95 * order * shift**2 / (2 * variance), "and not by far, where it is nearly Gaussian"


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200), st.floats(0.1, 1))
def test_no_rounded_update_is_longer_than_what_is_accounted(row: list[float], weight: float) -> None:
    values, at = np.array(row, np.float32), scale_of(NOISY, 5)
    factor = shortening(norm([values]), bounded_clip(at, len(values))) * weight
    rounded = quantised(values, factor, at).view("<i4").astype(object)
    assert sum(int(one) ** 2 for one in rounded) <= at.levels**2


def test_an_encoder_with_more_numbers_than_rounding_can_bear_is_refused() -> None:
    with pytest.raises(BractError) as caught:
        bounded_clip(scale_of(NOISY, 5), 10**11)
    assert caught.value.code == MALFORMED


@given(st.floats(0.01, 100), st.integers(2, 128), st.integers(0, 100))
def test_noise_that_a_plan_may_ask_for_cannot_wrap(multiplier: float, honest: int, colluders: int) -> None:
    sites = 2 * (honest + colluders) - colluders - 1
    spec = SecureSpec(min(256, honest + colluders), 1.0, colluders, SkellamSpec(multiplier))
    try:
        spec.check(sites, spec.threshold)
    except BractError as error:
        assert error.code == MALFORMED
        return
    assert spec.noise is not None
    largest = spec.noise.levels(spec.honest) + spec.noise.reach(spec.honest)
    assert sites * largest <= LARGEST
    deviation = math.sqrt(2 * spec.noise.rate(spec.honest) * spec.honest)
    assert deviation >= multiplier * spec.noise.levels(spec.honest)


def test_the_cost_is_near_the_gaussians_and_adds_over_rounds() -> None:
    numbers = 5_000_000
    one, ten = site_curve(NOISY, numbers, 1), site_curve(NOISY, numbers, 10)
    for order, spent in zip(ORDERS, one, strict=True):
        ideal = order / 2 * NANO
        assert ideal <= spent <= 1.001 * ideal + 0.01 * NANO
    assert all(9.99 * a <= b <= 10 * a for a, b in zip(one, ten, strict=True))
    assert site_epsilon(NOISY, numbers, 1, 1e-6) < site_epsilon(NOISY, numbers, 10, 1e-6) < math.inf


def test_fewer_honest_sites_must_each_add_more_and_without_noise_nothing_is_claimed() -> None:
    assert NOISY.noise is not None
    rates = [NOISY.noise.rate(honest) / NOISY.noise.levels(honest) ** 2 for honest in (2, 3, 6)]
    assert rates == sorted(rates, reverse=True)
    with pytest.raises(ValueError, match="No DP guarantee"):
        site_curve(replace(NOISY, noise=None), 1000, 1)
    assert site_epsilon(replace(NOISY, noise=SkellamSpec(0.02)), 10**6, 10, 1e-6) == math.inf
