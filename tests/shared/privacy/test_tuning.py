"""Keeping the best of several runs costs what the theorems say, and that is enough."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bract.errors import MALFORMED, BractError
from bract.privacy.accounting import NANO, ORDERS, Curve, epsilon_of_curve, rdp_curve
from bract.privacy.spec import Mechanism
from bract.privacy.tuning import NegativeBinomialRuns, PoissonRuns, Runs, tuned_curve, tuned_epsilon

Chances = NDArray[np.float64]
CHANCES = st.lists(st.floats(0.02, 1), min_size=5, max_size=5).map(lambda w: np.array(w) / sum(w))
RUNS: st.SearchStrategy[Runs] = st.one_of(
    st.builds(PoissonRuns, st.floats(1, 30)),
    st.builds(NegativeBinomialRuns, st.floats(1.01, 30), st.sampled_from([-0.5, 0.0, 0.5, 1.0, 3.0])),
)
M = Mechanism(1.0, 0.01, 500)


def _divergence(first: Chances, second: Chances, order: int) -> float:
    logs = order * np.log(first) + (1 - order) * np.log(second)
    return float(np.logaddexp.reduce(logs)) / (order - 1)


def _curve(first: Chances, second: Chances) -> Curve:
    """Of a mechanism with finitely many outcomes, in both directions, rounded up."""
    either = [max(_divergence(first, second, order), _divergence(second, first, order)) for order in ORDERS]
    return tuple(math.ceil(max(0.0, value) * NANO + 1) for value in either)


def _at_epsilon(first: Chances, second: Chances, epsilon: float) -> float:
    ways = (np.maximum(0, one - math.exp(epsilon) * other).sum() for one, other in ((first, second), (second, first)))
    return float(max(ways))


def _generating(runs: Runs, x: Chances) -> Chances:
    """E[x^K]."""
    if isinstance(runs, PoissonRuns):
        return np.exp(runs.mean * (x - 1))
    rest = 1 - (1 - runs.gamma) * x
    if runs.eta == 0:
        return np.log(rest) / math.log(runs.gamma)
    made: Chances = (rest**-runs.eta - 1) / (runs.gamma**-runs.eta - 1)
    return made


def _best(runs: Runs, one: Chances) -> Chances:
    """How the best of K runs is distributed, outcomes in ascending order of merit; first, that there was no run."""
    upto = _generating(runs, np.concatenate([[0.0], np.cumsum(one)]))
    return np.concatenate([upto[:1], np.diff(upto)])[0 if upto[0] > 0 else 1 :]


@settings(max_examples=150, deadline=None)
@given(CHANCES, CHANCES, RUNS, st.floats(0.02, 1))
def test_the_bound_holds_for_every_mechanism_with_five_outcomes(
    first: Chances, other: Chances, runs: Runs, apart: float
) -> None:
    second = (1 - apart) * first + apart * other
    bound = tuned_curve(_curve(first, second), runs, lambda epsilon: _at_epsilon(first, second, epsilon))
    exact = _curve(_best(runs, first), _best(runs, second))
    for order, proved, found in zip(ORDERS, bound, exact, strict=True):
        assert found <= proved + 1e-6 * NANO, f"order {order}"


def test_choosing_is_not_free() -> None:
    """The positive control: some choice does cost more than the one run that is released."""
    first, second = np.array([0.99, 0.01]), np.array([0.9999, 0.0001])
    runs = NegativeBinomialRuns(10.0)
    assert _curve(_best(runs, first), _best(runs, second))[0] > 1.5 * _curve(first, second)[0]


@pytest.mark.parametrize("eta", [-0.5, 0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("mean", [1.5, 10.0, 100.0])
def test_gamma_gives_the_mean_that_was_asked_for(mean: float, eta: float) -> None:
    """By the sum over all K of the law itself [2110.03620, def. 1]."""
    runs = NegativeBinomialRuns(mean, eta)
    counts = np.arange(1, 400_000)
    logs = counts * math.log1p(-runs.gamma) - np.log(counts)
    if eta != 0:
        steps = np.log1p((eta - 1) / counts[1:])
        logs = counts * math.log1p(-runs.gamma) + np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    assert (weights * counts).sum() / weights.sum() == pytest.approx(mean, rel=1e-3)


def test_geometric_runs_have_gamma_one_over_the_mean() -> None:
    assert NegativeBinomialRuns(20.0, 1.0).gamma == pytest.approx(1 / 20)


def test_the_negative_binomial_price_is_the_theorem_s() -> None:
    """Theorem 2 written out once more, for geometric runs of mean 10."""
    one = [entry / NANO for entry in rdp_curve(M)]
    price = min(2 * (1 - 1 / a) * e + 2 * math.log(10) / a for a, e in zip(ORDERS, one, strict=True))
    found = tuned_curve(rdp_curve(M), NegativeBinomialRuns(10.0, 1.0), lambda _: 0.0)
    for place in (0, 5, 20):
        after = [e + price + math.log(10) / (a - 1) for a, e in zip(ORDERS, one, strict=True)]
        assert found[place] / NANO == pytest.approx(min(after[place:]), rel=1e-6)


def test_the_poisson_price_is_the_theorem_s() -> None:
    found = tuned_curve(rdp_curve(M), PoissonRuns(7.0), lambda epsilon: 1e-3 / epsilon)
    one = [entry / NANO for entry in rdp_curve(M)]
    after = [e + 7 * 1e-3 / math.log(1 + 1 / (a - 1)) + math.log(7) / (a - 1) for a, e in zip(ORDERS, one, strict=True)]
    assert found[3] / NANO == pytest.approx(min(after[3:]), rel=1e-6)


def test_one_run_for_sure_costs_one_run() -> None:
    assert tuned_curve(rdp_curve(M), NegativeBinomialRuns(1.0), lambda _: 0.0)[10] == pytest.approx(
        rdp_curve(M)[10], rel=1e-6
    )


def test_more_runs_cost_more_and_less_than_each_by_itself() -> None:
    single = epsilon_of_curve(rdp_curve(M), 1e-6)
    geometric = [tuned_epsilon([M], NegativeBinomialRuns(mean), 1e-6) for mean in (2, 10, 100)]
    poisson = [tuned_epsilon([M], PoissonRuns(mean), 1e-6) for mean in (2, 10, 100)]
    assert single < geometric[0] < geometric[1] < geometric[2] < 4 * single
    assert single < poisson[0] < poisson[1] < poisson[2] < 5 * single


def test_nothing_done_costs_nothing_however_often() -> None:
    assert tuned_epsilon([], NegativeBinomialRuns(10.0), 1e-6) == 0.0


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: PoissonRuns(0.5), "mean"),
        (lambda: PoissonRuns(float("nan")), "mean"),
        (lambda: NegativeBinomialRuns(0.0), "mean"),
        (lambda: NegativeBinomialRuns(1e9), "mean"),
        (lambda: NegativeBinomialRuns(10.0, -1.0), "eta"),
        (lambda: tuned_epsilon([M], PoissonRuns(2.0), 0.0), "delta"),
    ],
)
def test_a_law_or_delta_out_of_range_is_refused(make: object, field: str) -> None:
    with pytest.raises(BractError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.code == MALFORMED
    assert caught.value.detail.startswith(field)
