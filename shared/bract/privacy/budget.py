"""The budget rule: a charge is granted only if all that was ever charged, and it, stay within the cap. Pure.

    1. What is spent is a sum of Rényi curves in integers; sums do not depend on the order of the charges.
    2. A charge is granted when the ε of the new sum at the account's δ is at most the cap; else nothing changes.
    3. A charge is given back only for a mechanism that was never begun: whoever calls `give_back` has made sure that it
       was not, and that it never will be.

Granting by the running sum is a Rényi filter: it holds also when each charge is chosen after seeing the results of the
former ones [Feldman and Zrnic 2021, 2008.11193, thm. 4.3; Lécuyer 2021, 2103.01379]. A mechanism that never ran has
released nothing and is not part of the composition, so the sum without it still bounds all that was released.
"""

from collections.abc import Iterable

from bract.errors import BUDGET, BractError
from bract.privacy.accounting import ORDERS, Curve, epsilon_of_curve, rdp_curve
from bract.privacy.spec import Mechanism

NOTHING: Curve = (0,) * len(ORDERS)
"""The curve of an account that was never charged."""


def add(first: Curve, second: Curve) -> Curve:
    """The curve of both together.

    Raises:
        ValueError: the curves are not of the same length.
    """
    return tuple(one + other for one, other in zip(first, second, strict=True))


def give_back(spent: Curve, unused: Curve) -> Curve:
    """The sum without one charge that is in it and whose mechanism never ran (rule 3).

    Raises:
        ValueError: the charge is not in the sum, or the curves are not of the same length.
    """
    left = tuple(one - other for one, other in zip(spent, unused, strict=True))
    if min(left) < 0:
        raise ValueError("more is given back than was charged")
    return left


def charge(spent: Curve, mechanism: Mechanism, cap_epsilon: float, delta: float) -> Curve:
    """The new sum of curves, if the cap allows the mechanism on top of what is spent.

    Raises:
        BractError: `budget-exhausted`, with the ε before, after and allowed.
    """
    total = add(spent, rdp_curve(mechanism))
    after = epsilon_of_curve(total, delta)
    if not after <= cap_epsilon:
        before = epsilon_of_curve(spent, delta) if any(spent) else 0.0
        raise BractError(
            BUDGET, f"ε {before:.3f} is spent, the charge would make it {after:.3f}, the cap is {cap_epsilon:.3f}"
        )
    return total


def bound(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """ε of all these charges at δ as the cap is compared with it (rule 2); 0 without one."""
    total = NOTHING
    for mechanism in mechanisms:
        total = add(total, rdp_curve(mechanism))
    return epsilon_of_curve(total, delta) if any(total) else 0.0
