"""What it costs to try several settings on private data and to keep the best [Papernot and Steinke 2022, 2110.03620].

To choose by the private data is to use it. If the number K of runs is drawn from one of these laws, secretly and before
the first run, and only the best run's result is released, then with one run's Rényi curve ε(λ) the whole has, at order λ,

    truncated negative binomial (thm. 2), any order λ̂ ≥ 1:
        ε(λ) + (1+η)(1 − 1/λ̂) ε(λ̂) + (1+η) ln(1/γ)/λ̂ + ln E[K]/(λ−1)
    Poisson of mean μ (thm. 6), where one run is (ε̂, δ̂)-DP with e^ε̂ ≤ 1 + 1/(λ−1):
        ε(λ) + μ δ̂ + ln μ/(λ−1)

A fixed K is not one of them: known in advance, it costs K runs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bract.errors import MALFORMED, BractError
from bract.privacy.accounting import NANO, ORDERS, Curve, delta_of, epsilon_of_curve, rdp_curve
from bract.privacy.spec import Mechanism, check_delta

_MOST_RUNS = 1e6
_SLACK = 1 + 1e-9


@dataclass(frozen=True)
class PoissonRuns:
    """K is Poisson; with probability e^-mean there is no run, and then nothing is released.

    Attributes:
        mean: μ, 1 or more (below, the theorem does not hold).
    """

    mean: float

    def __post_init__(self) -> None:
        _check_mean(self.mean)


@dataclass(frozen=True)
class NegativeBinomialRuns:
    """K ≥ 1 is negative binomial, truncated: η = 1 is geometric, η = 0 logarithmic [2110.03620, def. 1].

    Attributes:
        mean: E[K].
        eta: η > −1; the larger, the less K varies, and the more it costs.
    """

    mean: float
    eta: float = 1.0

    def __post_init__(self) -> None:
        _check_mean(self.mean)
        if not -1 < self.eta <= 1000:
            raise BractError(MALFORMED, "eta: it must be above -1 and at most 1,000")

    @property
    def gamma(self) -> float:
        """γ of that mean: E[K] = η(1−γ) / (γ(1−γ^η)), or (1/γ − 1) / ln(1/γ) for η = 0. It falls as γ grows."""
        low, high = -700.0, -1e-12
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self._mean_at(middle) > self.mean else (low, middle)
        return math.exp(low)

    def _mean_at(self, log_gamma: float) -> float:
        odds = math.expm1(-log_gamma)
        if abs(self.eta) < 1e-9:
            return odds / -log_gamma
        exponent = self.eta * log_gamma
        return math.inf if exponent > 700 else odds * self.eta / -math.expm1(exponent)


Runs = PoissonRuns | NegativeBinomialRuns


def tuned_epsilon(run: Iterable[Mechanism], runs: Runs, delta: float) -> float:
    """The ε of choosing the best of K runs and releasing that one.

    Args:
        run: what one run does.
        runs: the law of K.
        delta: δ of the answer.

    Raises:
        BractError: `malformed` for a δ out of range.
    """
    check_delta(delta)
    mechanisms = tuple(run)
    curve = tuple(sum(entries) for entries in zip(*map(rdp_curve, mechanisms), strict=True))
    if not curve:
        return 0.0
    return epsilon_of_curve(tuned_curve(curve, runs, lambda epsilon: delta_of(mechanisms, epsilon)), delta)


def tuned_curve(curve: Sequence[int], runs: Runs, delta_at: Callable[[float], float]) -> Curve:
    """The Rényi curve of choosing the best of K runs, in whole nano-nats, rounded up.

    Args:
        curve: of one run, at `ORDERS`, in nano-nats.
        runs: the law of K.
        delta_at: one run's δ at an ε; asked for Poisson runs only.
    """
    one = [entry / NANO for entry in curve]
    if isinstance(runs, PoissonRuns):
        added = [
            runs.mean * delta_at(math.log1p(1 / (order - 1))) + math.log(runs.mean) / (order - 1) for order in ORDERS
        ]
    else:
        spread = -math.log(runs.gamma)
        price = (1 + runs.eta) * min(
            spread,
            *((1 - 1 / order) * each + spread / order for order, each in zip(ORDERS, one, strict=True)),
        )
        added = [price + math.log(runs.mean) / (order - 1) for order in ORDERS]
    whole = [divergence + more for divergence, more in zip(one, added, strict=True)]
    # A divergence of a higher order is never below one of a lower order: where the bound is, the higher one is better.
    for place in range(len(whole) - 2, -1, -1):
        whole[place] = min(whole[place], whole[place + 1])
    return tuple(math.ceil(max(0.0, value) * _SLACK * NANO) for value in whole)


def _check_mean(mean: float) -> None:
    if not 1 <= mean <= _MOST_RUNS:
        raise BractError(MALFORMED, f"mean: the expected number of runs must be from 1 to {_MOST_RUNS:g}")
