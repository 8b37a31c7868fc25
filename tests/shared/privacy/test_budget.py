"""What is granted never exceeds the cap, in whatever order it is asked for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bract.errors import BUDGET, BractError
from bract.privacy.accounting import Curve, epsilon, epsilon_of_curve, rdp_curve
from bract.privacy.budget import NOTHING, add, charge
from bract.privacy.spec import Mechanism

MECHANISMS = st.builds(
    Mechanism,
    noise_multiplier=st.floats(0.5, 4),
    sampling_rate=st.sampled_from([0.01, 0.05, 1.0]),
    steps=st.integers(1, 100),
)


def _grant(asked: list[Mechanism], cap: float, delta: float) -> tuple[Curve, list[Mechanism]]:
    spent, granted = NOTHING, []
    for mechanism in asked:
        try:
            spent = charge(spent, mechanism, cap, delta)
            granted.append(mechanism)
        except BractError as error:
            assert error.code == BUDGET
    return spent, granted


@settings(max_examples=60, deadline=None)
@given(st.lists(MECHANISMS, max_size=12).flatmap(lambda asked: st.tuples(st.permutations(asked), st.floats(0.5, 10))))
def test_no_interleaving_of_granted_charges_exceeds_the_cap(case: tuple[list[Mechanism], float]) -> None:
    asked, cap = case
    spent, granted = _grant(asked, cap, 1e-6)
    assert not granted or epsilon_of_curve(spent, 1e-6) <= cap
    total = NOTHING
    for mechanism in granted:
        total = add(total, rdp_curve(mechanism))
    assert total == spent


@settings(max_examples=8, deadline=None)
@given(st.lists(MECHANISMS, min_size=1, max_size=4))
def test_the_reported_epsilon_of_what_was_granted_is_within_the_cap_too(asked: list[Mechanism]) -> None:
    _, granted = _grant(asked, 8.0, 1e-6)
    assert epsilon(granted, 1e-6) <= 8.0 + 1e-3


def test_a_refused_charge_changes_nothing_and_a_smaller_one_may_follow() -> None:
    spent = charge(NOTHING, Mechanism(1.0, 0.05, 100), 4.8, 1e-6)
    with pytest.raises(BractError) as caught:
        charge(spent, Mechanism(1.0, 0.05, 1000), 4.8, 1e-6)
    assert caught.value.code == BUDGET
    assert "the cap is 4.800" in caught.value.detail
    assert epsilon_of_curve(charge(spent, Mechanism(4.0, 0.01, 10), 4.8, 1e-6), 1e-6) <= 4.8


def test_curves_add_whatever_the_order() -> None:
    first, second = rdp_curve(Mechanism(1.0, 0.05, 10)), rdp_curve(Mechanism(2.0, 0.1, 5))
    assert add(first, second) == add(second, first)
    assert add(first, NOTHING) == first


def test_curves_of_different_orders_never_add() -> None:
    with pytest.raises(ValueError, match="shorter"):
        add(NOTHING, (1, 2, 3))


def test_a_cap_that_is_no_number_grants_nothing() -> None:
    with pytest.raises(BractError):
        charge(NOTHING, Mechanism(1.0, 0.05, 10), float("nan"), 1e-6)
