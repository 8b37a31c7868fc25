"""All but one of σ, q, steps, ε and δ are given; here is the missing one.

1. The answer is never optimistic: the pessimistic `epsilon` of what is returned is within the given ε at the given δ.
2. It is tight: noise to a thousandth, rate to a millionth, steps to one, whichever is the best that still holds.
3. What gives no guarantee is refused before anything is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from bract.errors import MALFORMED, BractError
from bract.privacy import accounting
from bract.privacy.accounting import calibrate, delta_of, epsilon_of_curve, rdp_curve
from bract.privacy.search import boundary, least
from bract.privacy.spec import Mechanism, check_delta
from bract.value import decode

_MOST_STEPS = 10_000_000
_MILLION = 1_000_000


@dataclass(frozen=True)
class Guarantee:
    """What a mechanism guarantees: (ε, δ), for the subject as unit, under adding or removing one."""

    mechanism: Mechanism
    epsilon: float
    delta: float


def solve(
    *,
    noise_multiplier: float | None = None,
    sampling_rate: float | None = None,
    steps: int | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    subjects_floor: int | None = None,
) -> Guarantee:
    """The guarantee with the one missing value filled in: the least noise, the highest rate, the most steps, ε or δ.

    Args:
        noise_multiplier: σ.
        sampling_rate: q.
        steps: how many.
        epsilon: ε that must not be passed.
        delta: δ.
        subjects_floor: N̄, if δ shall be checked against it.

    Raises:
        BractError: `malformed` unless exactly one is missing; for a value that gives no guarantee (no noise, a rate
            above 1, no step, δ not below 1/N̄); or when no value of the missing one meets the others.
    """
    given = {"noise_multiplier": noise_multiplier, "sampling_rate": sampling_rate, "steps": steps}
    missing = [name for name, value in {**given, "epsilon": epsilon, "delta": delta}.items() if value is None]
    if len(missing) != 1:
        raise BractError(
            MALFORMED, "all but one of noise_multiplier, sampling_rate, steps, epsilon and delta are needed"
        )
    known = decode(Mechanism, {name: 1 if value is None else value for name, value in given.items()})
    if epsilon is not None and not (isfinite(epsilon) and epsilon > 0):
        raise BractError(MALFORMED, "epsilon: it must be a number above 0")
    if delta is not None:
        check_delta(delta, subjects_floor)
    return _filled(missing[0], known, epsilon or 0.0, delta or 0.0, subjects_floor)


def _filled(missing: str, known: Mechanism, target: float, delta: float, subjects_floor: int | None) -> Guarantee:
    sigma, rate, steps = known.noise_multiplier, known.sampling_rate, known.steps
    match missing:
        case "noise_multiplier":
            try:
                sigma = calibrate(target, delta, rate, steps)
            except ValueError as error:
                raise BractError(MALFORMED, "epsilon: no noise multiplier up to 1,000 meets it") from error
        case "sampling_rate":
            rate = _most(lambda k: Mechanism(sigma, k / _MILLION, steps), _MILLION, target, delta) / _MILLION
        case "steps":
            steps = _most(lambda k: Mechanism(sigma, rate, k), _MOST_STEPS, target, delta)
        case "delta":
            delta = delta_of([known], target)
            check_delta(delta, subjects_floor)
            return Guarantee(known, target, delta)
    found = Mechanism(sigma, rate, steps)
    return Guarantee(found, accounting.epsilon([found], delta), delta)


def _most(mechanism: Callable[[int], Mechanism], top: int, target: float, delta: float) -> int:
    """The largest whole number up to `top` whose mechanism stays within the target.

    The Rényi bound finds a number that surely does, and the privacy loss distribution one above it that does not.
    """

    def too_much(count: int) -> bool:
        return epsilon_of_curve(rdp_curve(mechanism(count)), delta) > target

    def excess(count: int) -> float:
        return accounting.epsilon([mechanism(count)], delta) - target

    good = least(too_much, 0, top) - 1 if too_much(top) else top
    if good == 0:
        if excess(1) > 0:
            raise BractError(MALFORMED, "epsilon: not even the least step or rate meets it")
        good = 1
    while good < top:
        bad = min(top, good + max(1, good // 10))
        if excess(bad) > 0:
            return boundary(excess, good, bad)
        good = bad
    return top
