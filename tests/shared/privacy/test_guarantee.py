"""Of σ, q, steps, ε and δ each is found from the others: never too good, and as good as it can be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bract.errors import MALFORMED, BractError
from bract.privacy.accounting import delta_of, epsilon
from bract.privacy.guarantee import Guarantee, solve
from bract.privacy.search import boundary
from bract.privacy.spec import Mechanism, PrivacySpec, check_delta

GOOD = {"clip": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": 10, "delta": 1e-6}


def _epsilon(sigma: float, rate: float, steps: int, delta: float) -> float:
    return epsilon([Mechanism(sigma, rate, steps)], delta)


def test_the_least_noise_holds_and_a_thousandth_less_does_not() -> None:
    found = solve(sampling_rate=0.05, steps=200, epsilon=3.0, delta=1e-6)
    sigma = found.mechanism.noise_multiplier
    assert found == Guarantee(Mechanism(sigma, 0.05, 200), _epsilon(sigma, 0.05, 200, 1e-6), 1e-6)
    assert found.epsilon <= 3.0 < _epsilon(sigma - 0.001, 0.05, 200, 1e-6)


def test_the_most_steps_hold_and_one_more_does_not() -> None:
    found = solve(noise_multiplier=1.5, sampling_rate=0.05, epsilon=3.0, delta=1e-6)
    steps = found.mechanism.steps
    assert found.epsilon <= 3.0 < _epsilon(1.5, 0.05, steps + 1, 1e-6)


def test_the_highest_rate_holds_and_a_millionth_more_does_not() -> None:
    found = solve(noise_multiplier=1.5, steps=200, epsilon=3.0, delta=1e-6)
    rate = found.mechanism.sampling_rate
    assert found.epsilon <= 3.0 < _epsilon(1.5, rate + 1e-6, 200, 1e-6)


def test_epsilon_is_the_reported_one() -> None:
    found = solve(noise_multiplier=1.5, sampling_rate=0.05, steps=200, delta=1e-6)
    assert found.epsilon == _epsilon(1.5, 0.05, 200, 1e-6)


def test_delta_and_epsilon_are_each_other_s_inverse() -> None:
    found = solve(noise_multiplier=1.5, sampling_rate=0.05, steps=200, epsilon=2.0)
    assert found.epsilon == 2.0
    assert 0 < found.delta < 1
    assert _epsilon(1.5, 0.05, 200, found.delta) == pytest.approx(2.0, abs=1e-6)


def test_where_even_full_sampling_holds_the_rate_is_one() -> None:
    assert solve(noise_multiplier=50.0, steps=1, epsilon=1.0, delta=1e-6).mechanism.sampling_rate == 1.0


@pytest.mark.slow
def test_the_most_steps_there_can_be_are_the_most() -> None:
    found = solve(noise_multiplier=1000.0, sampling_rate=1e-6, epsilon=1.0, delta=1e-6)
    assert found.mechanism.steps == 10_000_000


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.floats(0.5, 6), st.sampled_from([1e-5, 1e-7]), st.floats(0.005, 0.3), st.integers(1, 3000))
def test_calibrated_noise_never_exceeds_its_epsilon_and_is_tight(
    target: float, delta: float, rate: float, steps: int
) -> None:
    found = solve(sampling_rate=rate, steps=steps, epsilon=target, delta=delta)
    sigma = found.mechanism.noise_multiplier
    assert found.epsilon <= target
    assert sigma <= 0.001 or _epsilon(sigma - 0.001, rate, steps, delta) > target


@pytest.mark.parametrize(
    ("given_values", "says"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier"),
        ({"sampling_rate": 1.01}, "sampling_rate"),
        ({"sampling_rate": 0.0}, "sampling_rate"),
        ({"steps": 0}, "steps"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"delta": 1e-3, "subjects_floor": 1000}, "delta: 0.001 is not below 1 / 1000"),
        ({"epsilon": 1.0}, "all but one"),
        ({"delta": None}, "all but one"),
        ({"epsilon": 0.0, "delta": None}, "epsilon"),
        ({"epsilon": float("inf"), "steps": None}, "epsilon"),
        ({"epsilon": 1e-9, "noise_multiplier": None, "sampling_rate": 1.0}, "no noise multiplier"),
        ({"epsilon": 0.01, "noise_multiplier": 0.3, "sampling_rate": 0.5, "steps": None}, "not even"),
        ({"epsilon": 1e-9, "noise_multiplier": 0.3, "sampling_rate": None}, "not even"),
        ({"epsilon": 0.5, "delta": None, "subjects_floor": 10_000_000}, "delta"),
    ],
)
def test_what_gives_no_guarantee_is_refused(given_values: dict[str, float], says: str) -> None:
    asked = {"noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": 10, "delta": 1e-6, **given_values}
    with pytest.raises(BractError) as caught:
        solve(**asked)  # type: ignore[arg-type]
    assert caught.value.code == MALFORMED
    assert says in caught.value.detail


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip", 0.0),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", float("inf")),
        ("sampling_rate", 1.5),
        ("steps", 0),
        ("records_per_subject", 0),
        ("views_per_record", 0),
        ("delta", 0.0),
    ],
)
def test_a_spec_without_a_guarantee_is_refused_by_the_field_s_name(field: str, value: float) -> None:
    assert PrivacySpec(**GOOD).check(1000) == PrivacySpec(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(BractError) as caught:
        PrivacySpec(**{**GOOD, field: value}).check()  # type: ignore[arg-type]
    assert caught.value.code == MALFORMED
    assert field in caught.value.detail


def test_delta_must_be_below_one_over_the_number_of_subjects() -> None:
    check_delta(0.99e-3, 1000)
    for delta in (1e-3, 2e-3):
        with pytest.raises(BractError, match="delta"):
            check_delta(delta, 1000)
        with pytest.raises(BractError, match="delta"):
            PrivacySpec(**{**GOOD, "delta": delta}).check(1000)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(st.integers(-2000, 2000), st.integers(1, 3000), st.booleans(), st.floats(0.2, 4))
def test_a_boundary_is_found_whatever_the_curve(edge: int, room: int, rising: bool, power: float) -> None:
    asked = []

    def excess(x: int) -> float:
        asked.append(x)
        over = (x - edge) if rising else (edge - x)
        return float(abs(over) ** power * (1 if over > 0 else -1))

    side = 1 if rising else -1
    assert boundary(excess, edge - side * room, edge + side * room) == edge
    assert len(asked) < 200


def test_a_delta_that_the_accountant_cannot_resolve_is_not_called_zero() -> None:
    assert delta_of([Mechanism(100.0, 0.01, 1)], 5.0) > 0
    assert delta_of([Mechanism(0.01, 0.5, 100)], 5.0) == 1.0
    assert delta_of([], 5.0) == 0.0
    with pytest.raises(ValueError, match="zero or more"):
        delta_of([], -1.0)
