"""Where a monotone bound is crossed, in as few questions as possible: each may cost a second."""

from collections.abc import Callable


def boundary(excess: Callable[[int], float], good: int, bad: int) -> int:
    """The good whole number beside a bad one, found by interpolation that cannot stall [Illinois rule, Dowell 1971].

    Args:
        excess: how far over the bound a number is; at most zero is good. Monotone between the two.
        good: a good number.
        bad: a bad one, above or below it.
    """
    over_good, over_bad = excess(good), excess(bad)
    while abs(bad - good) > 1:
        share = over_good / (over_good - over_bad) if over_bad - over_good > 0 else 0.5
        step = round((bad - good) * share)
        middle = good + (max(1, min(step, bad - good - 1)) if bad > good else min(-1, max(step, bad - good + 1)))
        found = excess(middle)
        if found <= 0:
            good, over_good, over_bad = middle, found, over_bad / 2
        else:
            bad, over_bad, over_good = middle, found, over_good / 2
    return good


def least(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The least whole number above `low` that holds, where `high` does and all above the least do."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
