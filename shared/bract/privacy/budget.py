"""The budget rule: a charge is granted only if all that was ever charged, and it, stay within the cap. Pure.

    1. What is spent is a sum of Rényi curves in integers; sums do not depend on the order of the charges.
    2. A charge is granted when the ε of the new sum at the account's δ is at most the cap; else nothing changes.
    3. Nothing is ever given back: there is no subtraction here.

Granting by the running sum is a Rényi filter: it holds also when each charge is chosen after seeing the results of the
former ones [Feldman and Zrnic 2021, 2008.11193, thm. 4.3; Lécuyer 2021, 2103.01379].
"""

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
