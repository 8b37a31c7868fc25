"""The accountants agree, never under-count, and move the right way."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bract.privacy.accounting import (
    NANO,
    ORDERS,
    calibrate,
    epsilon,
    epsilon_of_curve,
    epsilon_prv,
    epsilon_rdp,
    rdp_curve,
    rounded_up,
    shown,
    shown_left,
)
from bract.privacy.spec import Mechanism

GRID = [(1.0, 0.01, 2000), (0.9, 0.04, 200), (1.2, 0.1, 50), (2.0, 0.05, 1000)]
WIDER = [*GRID, (0.7, 0.002, 5000), (6.0, 1.0, 10)]
MECHANISMS = st.builds(
    Mechanism,
    noise_multiplier=st.floats(0.6, 4),
    sampling_rate=st.floats(0.001, 0.2),
    steps=st.integers(1, 200),
)


@pytest.mark.parametrize(("sigma", "rate", "steps"), WIDER)
def test_the_three_accountants_agree(sigma: float, rate: float, steps: int) -> None:
    mechanism = Mechanism(sigma, rate, steps)
    reported = epsilon([mechanism], 1e-6)
    assert abs(reported - epsilon_prv([mechanism], 1e-6)) < 0.05
    assert reported <= epsilon_rdp([mechanism], 1e-6)


def test_the_published_example_costs_what_both_accountants_said() -> None:
    """q = 0.01, 2,000 steps, σ = 1, δ = 1e-6: PRV 2.97 and RDP 3.25."""
    mechanism = [Mechanism(1.0, 0.01, 2000)]
    assert round(epsilon_prv(mechanism, 1e-6), 2) == 2.97
    assert round(epsilon_rdp(mechanism, 1e-6), 2) == 3.25
    assert 2.95 < epsilon(mechanism, 1e-6) < 2.97


@settings(max_examples=40, deadline=None)
@given(MECHANISMS)
def test_a_curve_grows_with_its_order(mechanism: Mechanism) -> None:
    curve = rdp_curve(mechanism)
    assert all(lower <= higher for lower, higher in pairwise(curve))


def test_an_epsilon_is_shown_rounded_up() -> None:
    assert rounded_up(2.00001) == 2.0001
    assert rounded_up(2.0) == 2.0
    assert rounded_up(0.0) == 0.0


@pytest.mark.parametrize(("sigma", "rate", "steps"), GRID)
def test_the_integer_curve_gives_what_opacus_gives(sigma: float, rate: float, steps: int) -> None:
    ours = epsilon_of_curve(rdp_curve(Mechanism(sigma, rate, steps)), 1e-6)
    theirs = epsilon_rdp([Mechanism(sigma, rate, steps)], 1e-6)
    assert theirs - 1e-6 <= ours <= theirs * 1.01


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(MECHANISMS, st.sampled_from([1e-5, 1e-6, 1e-8]))
def test_the_reported_epsilon_is_never_above_the_budget_s(mechanism: Mechanism, delta: float) -> None:
    assert epsilon([mechanism], delta) <= epsilon_of_curve(rdp_curve(mechanism), delta) + 1e-3


@settings(max_examples=40, deadline=None)
@given(MECHANISMS)
def test_a_curve_is_never_under_the_divergence_it_stands_for(mechanism: Mechanism) -> None:
    sigma, rate = mechanism.noise_multiplier, mechanism.sampling_rate
    curve = rdp_curve(mechanism)
    for order in (2, 3, 5, 8):
        exact = _divergence_by_integration(sigma, rate, order) * mechanism.steps
        entry = curve[ORDERS.index(order)] / NANO
        assert exact * (1 - 1e-7) <= entry <= exact * (1 + 1e-6) + 2e-9


def test_a_tiny_rate_does_not_vanish_in_rounding() -> None:
    curve = rdp_curve(Mechanism(1.0, 1e-7, 1))
    assert all(entry >= 1 for entry in curve)


def test_without_sampling_the_curve_is_the_gaussian_s() -> None:
    curve = rdp_curve(Mechanism(2.0, 1.0, 3))
    for order, entry in zip(ORDERS, curve, strict=True):
        assert entry / NANO == pytest.approx(3 * order / 8, rel=1e-8)


@pytest.mark.parametrize("sigma", [1.0, 2.5])
@pytest.mark.parametrize("steps", [1, 10])
def test_without_sampling_epsilon_is_the_closed_form(sigma: float, steps: int) -> None:
    """The Gaussian mechanism's exact δ(ε) [Balle and Wang 2018, 1805.06530, thm. 8]."""
    shift = math.sqrt(steps) / sigma
    found = epsilon([Mechanism(sigma, 1.0, steps)], 1e-6)

    def delta(eps: float) -> float:
        return _phi(shift / 2 - eps / shift) - math.exp(eps) * _phi(-shift / 2 - eps / shift)

    assert delta(found) <= 1e-6 <= delta(found - 0.01)


def test_the_moments_accountant_s_example_costs_less_here() -> None:
    """Abadi et al. 2016 §4: q = 0.01, σ = 4, 10,000 steps at δ = 1e-5 give ε ≈ 1.26."""
    assert 0.9 < epsilon([Mechanism(4.0, 0.01, 10_000)], 1e-5) < 1.26


def test_epsilon_grows_with_steps_and_falls_with_noise() -> None:
    by_steps = [epsilon([Mechanism(1.0, 0.05, steps)], 1e-6) for steps in (1, 10, 100)]
    by_noise = [epsilon([Mechanism(sigma, 0.05, 100)], 1e-6) for sigma in (0.7, 1.0, 2.0)]
    assert all(a < b for a, b in pairwise(by_steps))
    assert all(a > b for a, b in pairwise(by_noise))


def test_equal_mechanisms_compose_to_one_with_all_their_steps() -> None:
    parts = [Mechanism(1.0, 0.05, 20), Mechanism(1.0, 0.05, 30)]
    assert epsilon(parts, 1e-6) == epsilon([Mechanism(1.0, 0.05, 50)], 1e-6)
    mixed = [Mechanism(1.0, 0.05, 20), Mechanism(2.0, 0.1, 30)]
    assert epsilon(mixed, 1e-6) == epsilon(mixed[::-1], 1e-6)
    assert epsilon(mixed, 1e-6) > epsilon(mixed[:1], 1e-6)
    assert abs(epsilon(mixed, 1e-6) - epsilon_prv(mixed, 1e-6)) < 0.05


def test_nothing_done_costs_nothing() -> None:
    assert epsilon([], 1e-6) == epsilon_prv([], 1e-6) == epsilon_rdp([], 1e-6) == 0.0


def test_hardly_any_noise_gives_a_huge_epsilon_quickly_and_no_crash() -> None:
    assert epsilon([Mechanism(0.001, 0.5, 100)], 1e-6) > 1e6


@pytest.mark.slow
def test_calibration_meets_the_target_closely_from_below() -> None:
    sigma = calibrate(6.0, 1e-6, 0.05, 200)
    assert epsilon([Mechanism(sigma, 0.05, 200)], 1e-6) <= 6.0
    assert epsilon([Mechanism(sigma - 0.001, 0.05, 200)], 1e-6) > 6.0


def test_a_target_out_of_reach_is_said_so() -> None:
    with pytest.raises(ValueError, match="no noise multiplier"):
        calibrate(1e-6, 1e-9, 1.0, 10_000_000)


@pytest.mark.parametrize(("curve", "delta"), [((1, 2), 1e-6), ((0,) * len(ORDERS), 0.0), ((0,) * len(ORDERS), 1.0)])
def test_a_curve_of_another_form_is_refused(curve: tuple[int, ...], delta: float) -> None:
    with pytest.raises(ValueError, match="one entry an order"):
        epsilon_of_curve(curve, delta)


def _divergence_by_integration(sigma: float, rate: float, order: int) -> float:
    """By the trapezoid rule, which is exact to rounding for so smooth an integrand."""
    z = np.linspace(-14 * sigma, order + 14 * sigma, 20_001)
    density = -(z**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
    grown = order * np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * sigma**2))
    ratio = rate * np.expm1(np.minimum((2 * z - 1) / (2 * sigma**2), 50))
    small = (np.expm1(np.minimum(grown, 30)) - order * ratio) * np.exp(density)
    excess = np.where(grown < 30, small, np.exp(grown + density))
    return math.log1p(float(excess.sum() * (z[1] - z[0]))) / (order - 1)


def _phi(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


@given(st.floats(0, 50))
def test_what_people_read_is_never_less_than_it_is_nor_more_than_is_left(value: float) -> None:
    assert value - 1e-8 <= float(shown(value)) <= value + 1.1e-3
    assert value - 1.1e-3 <= float(shown_left(value)) <= value
    assert (shown(5.8744), shown_left(5.8746)) == ("5.875", "5.874")
