"""What was done is kept as data, and any ε can be computed from it again, also by others."""

from typing import Any

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import MALFORMED, BractError
from bract.privacy.accounting import epsilon
from bract.privacy.events import dp_event, epsilon_of_events, mechanism_of
from bract.privacy.spec import Mechanism

MECHANISMS = st.builds(
    Mechanism,
    noise_multiplier=st.floats(1e-3, 1e3),
    sampling_rate=st.floats(1e-6, 1),
    steps=st.integers(1, 10_000),
)
ONE = Mechanism(1.2, 0.05, 100)


def _theirs(event: dict[str, Any]) -> Any:
    """The event as the library's own object."""
    fields = {key: _theirs(value) if isinstance(value, dict) else value for key, value in event.items()}
    return getattr(dp_accounting, fields.pop("class_name"))(**fields)


@given(MECHANISMS)
def test_a_mechanism_is_its_event(mechanism: Mechanism) -> None:
    assert mechanism_of(dp_event(mechanism)) == mechanism


def test_dp_accounting_reads_the_event_and_computes_the_same_epsilon() -> None:
    accountant = PLDAccountant()
    for mechanism in (ONE, Mechanism(2.0, 0.2, 10)):
        accountant.compose(_theirs(dp_event(mechanism)))
    ours = epsilon_of_events([dp_event(ONE), dp_event(Mechanism(2.0, 0.2, 10))], 1e-6)
    assert accountant.get_epsilon(1e-6) == pytest.approx(ours, abs=1e-3)
    assert ours == epsilon([ONE, Mechanism(2.0, 0.2, 10)], 1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        {"class_name": "ComposedDpEvent"},
        {"count": 0},
        {"count": 1.5},
        {"event": {"class_name": "GaussianDpEvent", "noise_multiplier": 1.0}},
        {"event": {**dp_event(ONE)["event"], "sampling_probability": 1.1}},
        {"event": {**dp_event(ONE)["event"], "event": {"class_name": "LaplaceDpEvent", "noise_multiplier": 1.0}}},
        {"event": {**dp_event(ONE)["event"], "event": {"class_name": "GaussianDpEvent", "noise_multiplier": 0.0}}},
        {"more": 1},
    ],
)
def test_an_event_that_is_none_of_ours_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BractError) as caught:
        mechanism_of({**dp_event(ONE), **changed})
    assert caught.value.code == MALFORMED
