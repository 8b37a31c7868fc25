"""What mechanisms cost: ε by three independent accountants, and RDP curves in integers for the budget.

Unit: the subject; relation: add or remove one; every mechanism is a Poisson-subsampled Gaussian, see
`bract.privacy.spec`.

    epsilon        privacy loss distributions [Doroshenko et al. 2022, 2207.04380], reported
    epsilon_prv    numerical composition of privacy random variables [Gopi et al. 2021, 2106.02848], cross-check
    epsilon_rdp    Rényi DP at many orders [Mironov et al. 2019, 1908.10530], cross-check, looser
    rdp_curve      Rényi DP at the fixed `ORDERS`, as integers rounded up: what a ledger adds and a budget compares

Torch is loaded only by the two cross-checks that Opacus computes.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from bract.privacy.search import boundary, least
from bract.privacy.spec import Mechanism

ORDERS: tuple[int, ...] = (*range(2, 65), 72, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024)
"""The Rényi orders α of every curve. Public and fixed: curves of different ledgers can be added."""

NANO = 10**9
"""Curve entries are whole billionths of a nat."""

Curve = tuple[int, ...]
"""Rényi divergences in nano-nats, one an order of `ORDERS`."""

PLD_LIMIT = 60.0
"""Above this ε nothing but the Rényi bound is computed."""

_FLOOR_DELTA = 1e-15
_SLACK = 1 + 1e-9
_History = tuple[tuple[float, float, int], ...]


def epsilon(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """The ε of all the mechanisms together: the number that reports carry. Pessimistic, so never too small.

    Where even the Rényi bound is above 60, that bound is the answer: no one relies on such an ε, and the distribution
    of so large a loss would need gigabytes.
    """
    history = _merged(mechanisms)
    if not history:
        return 0.0
    bound = epsilon_of_curve(_sum_of_curves(history), delta)
    return bound if bound > PLD_LIMIT else _pld(history, delta)


def epsilon_prv(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """The upper bound of Opacus' PRV accountant, which is at most 0.01 above its estimate."""
    return _prv(_merged(mechanisms), delta)


@lru_cache(maxsize=256)
def _prv(history: _History, delta: float) -> float:
    from opacus.accountants import PRVAccountant  # noqa: PLC0415  (loads torch)

    accountant = PRVAccountant()
    accountant.history = list(history)
    # Opacus takes logarithms of zero where it then throws them away.
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(accountant.get_epsilon(delta=delta)) if history else 0.0


def epsilon_rdp(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Opacus' RDP accountant at our orders and at fractional ones below 11."""
    from opacus.accountants import RDPAccountant  # noqa: PLC0415  (loads torch)

    accountant = RDPAccountant()
    accountant.history = list(_merged(mechanisms))
    alphas = [*(1 + tenth / 10 for tenth in range(1, 100)), *(float(order) for order in ORDERS if order > 10)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return float(accountant.get_epsilon(delta=delta, alphas=alphas)) if accountant.history else 0.0


@lru_cache(maxsize=4096)
def rdp_curve(mechanism: Mechanism) -> Curve:
    """The mechanism's Rényi divergence at each of `ORDERS`, rounded up to whole nano-nats.

    The sum of two curves bounds the composition of the two mechanisms [Mironov 2017, 1702.07476, prop. 1].
    """
    sigma, rate, steps = mechanism.noise_multiplier, mechanism.sampling_rate, mechanism.steps
    return tuple(math.ceil(_divergence(sigma, rate, order) * steps * _SLACK * NANO) for order in ORDERS)


def epsilon_of_curve(curve: Sequence[int], delta: float) -> float:
    """The least ε that the curve proves at δ, rounded up to a billionth [Balle et al. 2020, 1905.09982, thm. 21].

    ε = min over α of D_α + ln((α−1)/α) − (ln δ + ln α)/(α−1).

    Raises:
        ValueError: the curve does not have one entry an order, or δ is not between 0 and 1.
    """
    if len(curve) != len(ORDERS) or not 0 < delta < 1:
        raise ValueError("a curve has one entry an order, and 0 < δ < 1")
    least = min(
        divergence / NANO + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for order, divergence in zip(ORDERS, curve, strict=True)
    )
    return math.ceil(max(0.0, least) * _SLACK * NANO) / NANO


def rounded_up(value: float) -> float:
    """An ε to four digits after the point, as it is shown; never less than it is."""
    return math.ceil(value * 10_000) / 10_000


def shown(value: float) -> str:
    """An ε for people, rounded up to three digits after the point (what is a billionth above one is that one)."""
    return f"{math.ceil(value * 1000 - 1e-6) / 1000:.3f}"


def shown_left(value: float) -> str:
    """What is left of a budget, for people: rounded down likewise."""
    return f"{math.floor(value * 1000) / 1000:.3f}"


def delta_of(mechanisms: Iterable[Mechanism], at_epsilon: float) -> float:
    """The δ of all the mechanisms together at an ε. Pessimistic, so never too small; 0 for none.

    Raises:
        ValueError: ε is below zero.
    """
    if not at_epsilon >= 0:
        raise ValueError("ε is zero or more")
    history = _merged(mechanisms)
    if not history:
        return 0.0
    curve = _sum_of_curves(history)
    if epsilon_of_curve(curve, _FLOOR_DELTA) <= at_epsilon:
        return _FLOOR_DELTA
    if epsilon_of_curve(curve, 0.5) > PLD_LIMIT:
        return 1.0
    return min(1.0, max(_FLOOR_DELTA, float(_composed(history).get_delta_for_epsilon(at_epsilon))))


def calibrate(target_epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise multiplier, to a thousandth, whose `epsilon` stays within the target.

    Raises:
        ValueError: the Rényi bound meets the target at no noise multiplier up to 1,000.
    """

    def bounded(thousandths: int) -> bool:
        curve = rdp_curve(Mechanism(thousandths / 1000, sampling_rate, steps))
        return epsilon_of_curve(curve, delta) <= target_epsilon

    def excess(thousandths: int) -> float:
        return epsilon([Mechanism(thousandths / 1000, sampling_rate, steps)], delta) - target_epsilon

    if not bounded(1_000_000):
        raise ValueError("no noise multiplier up to 1,000 meets this target")
    good = least(bounded, 0, 1_000_000)
    bad = good * 9 // 10
    while bad > 0 and excess(bad) <= 0:
        good, bad = bad, bad * 9 // 10
    return (boundary(excess, good, bad) if bad > 0 else good) / 1000


def _merged(mechanisms: Iterable[Mechanism]) -> _History:
    """(σ, q, steps), sorted; equal (σ, q) once, with their steps added."""
    steps: Counter[tuple[float, float]] = Counter()
    for mechanism in mechanisms:
        steps[mechanism.noise_multiplier, mechanism.sampling_rate] += mechanism.steps
    return tuple((sigma, rate, count) for (sigma, rate), count in sorted(steps.items()))


@lru_cache(maxsize=1024)
def _pld(history: _History, delta: float) -> float:
    return float(_composed(history).get_epsilon_for_delta(delta))


@lru_cache(maxsize=4)
def _composed(history: _History) -> Any:
    """The privacy loss distribution of a history, by dp-accounting."""
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415  (a second, of no use to most commands)

    total = pld.identity()
    for sigma, rate, steps in history:
        total = total.compose(_one_step(sigma, rate).self_compose(steps))
    return total


@lru_cache(maxsize=8)
def _one_step(sigma: float, rate: float) -> Any:
    from dp_accounting import NeighboringRelation  # noqa: PLC0415
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415

    return pld.from_gaussian_mechanism(
        standard_deviation=sigma,
        sampling_prob=rate,
        pessimistic_estimate=True,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
    )


def _sum_of_curves(history: _History) -> Curve:
    curves = [rdp_curve(Mechanism(sigma, rate, steps)) for sigma, rate, steps in history]
    return tuple(sum(entries) for entries in zip(*curves, strict=True))


def _divergence(sigma: float, rate: float, order: int) -> float:
    """D_α of one step in nats, for a whole α ≥ 2 [Mironov et al. 2019, 1908.10530, §3.3].

    exp((α−1) D_α) = 1 + Σ_{k≥2} binom(α, k) (1−q)^{α−k} q^k (exp(k(k−1)/2σ²) − 1). Without the 1 every term is
    positive: no digits cancel, however small q is.
    """
    if rate == 1:
        return order / (2 * sigma**2)
    logs = []
    for k in range(2, order + 1):
        exponent = k * (k - 1) / (2 * sigma**2)
        binomial = math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
        excess = exponent + math.log(-math.expm1(-exponent))
        logs.append(binomial + (order - k) * math.log1p(-rate) + k * math.log(rate) + excess)
    top = max(logs)
    log_excess = top + math.log(math.fsum(math.exp(value - top) for value in logs))
    moment = log_excess + math.log1p(math.exp(-log_excess)) if log_excess > 0 else math.log1p(math.exp(log_excess))
    return moment / (order - 1)
