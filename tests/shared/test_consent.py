"""The consent rule as a truth table, and what holds for every history."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.consent import RULE_DIGEST, ConsentEvent, Decision, Purpose, Verdict, resolve
from bract.retention import RetentionRule

NOW = datetime(2026, 6, 1, tzinfo=UTC)
P, OTHER = Purpose.PRETRAINING, Purpose.EVALUATION


def event(
    decision: Decision, days: int, *, until: int | None = None, dataset: str | None = None, purpose: Purpose = P
) -> ConsentEvent:
    end = None if until is None else NOW + timedelta(days=until)
    return ConsentEvent(purpose, decision, NOW + timedelta(days=days), end, dataset)


PERMIT, DENY, WITHDRAW, OBJECT = Decision.PERMIT, Decision.DENY, Decision.WITHDRAW, Decision.OBJECT
TABLE = {
    "silence is no": ([], Verdict.NO_CONSENT),
    "a permit counts": ([event(PERMIT, -9)], Verdict.ADMITTED),
    "a permit for another purpose does not": ([event(PERMIT, -9, purpose=OTHER)], Verdict.NO_CONSENT),
    "a permit for another data set does not": ([event(PERMIT, -9, dataset="b")], Verdict.NO_CONSENT),
    "a permit that begins tomorrow does not": ([event(PERMIT, 1)], Verdict.NO_CONSENT),
    "a permit that begins now does": ([event(PERMIT, 0)], Verdict.ADMITTED),
    "a permit that ends now is over": ([event(PERMIT, -9, until=0)], Verdict.EXPIRED),
    "a denial is a denial": ([event(DENY, -9)], Verdict.DENIED),
    "an objection is a denial": ([event(PERMIT, -9), event(OBJECT, -5)], Verdict.DENIED),
    "a withdrawal takes a permit back": ([event(PERMIT, -9), event(WITHDRAW, -5)], Verdict.WITHDRAWN),
    "a withdrawal from tomorrow on does not yet": ([event(PERMIT, -9), event(WITHDRAW, 1)], Verdict.ADMITTED),
    "a later permit counts again": ([event(WITHDRAW, -9), event(PERMIT, -5)], Verdict.ADMITTED),
    "of the same time the refusal wins": ([event(DENY, -9), event(PERMIT, -9)], Verdict.DENIED),
    "a denial of one data set beats a permit of all": (
        [event(PERMIT, -5), event(DENY, -9, dataset="a")],
        Verdict.DENIED,
    ),
    "a denial of all beats a permit of one": ([event(DENY, -9), event(PERMIT, -5, dataset="a")], Verdict.DENIED),
    "one live permit of two is enough": (
        [event(PERMIT, -9, until=-1), event(PERMIT, -9, dataset="a")],
        Verdict.ADMITTED,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_truth_table(name: str) -> None:
    events, verdict = TABLE[name]
    assert resolve(events, P, "a", NOW).verdict is verdict
    assert resolve(reversed(events), P, "a", NOW).verdict is verdict


EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from(Decision),
        st.integers(-50, 50),
        until=st.none() | st.integers(-49, 99),
        dataset=st.sampled_from([None, "a", "b"]),
        purpose=st.sampled_from([P, OTHER]),
    ),
    max_size=8,
)


@given(EVENTS)
def test_a_refusal_of_everything_now_always_wins(events: list[ConsentEvent]) -> None:
    events = [e for e in events if e.valid_from < NOW]
    assert resolve([*events, event(WITHDRAW, 0)], P, "a", NOW).verdict in (Verdict.WITHDRAWN, Verdict.DENIED)


@given(EVENTS)
def test_admission_needs_a_permit_in_force(events: list[ConsentEvent]) -> None:
    found = resolve(events, P, "a", NOW)
    if found.verdict is Verdict.ADMITTED:
        assert any(
            e.decision is PERMIT and e.purpose is P and e.dataset in (None, "a") and e.valid_from <= NOW
            and (e.valid_to is None or e.valid_to > NOW)
            for e in events
        )  # fmt: skip
        assert found.until is None or found.until > NOW


@given(EVENTS, st.integers(0, 40))
def test_a_verdict_stands_until_it_says(events: list[ConsentEvent], days: int) -> None:
    found = resolve(events, P, "a", NOW)
    later = NOW + timedelta(days=days)
    decided = [e for e in events if e.valid_from <= NOW]
    if found.verdict is Verdict.ADMITTED and (found.until is None or later < found.until):
        assert resolve(decided, P, "a", later).verdict is Verdict.ADMITTED


def test_the_rule_has_a_name_that_clearances_cite() -> None:
    assert RULE_DIGEST.startswith("sha256:")


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_retention_ends_a_record_at_its_ceiling(ceiling: int, age: int) -> None:
    collected = NOW - timedelta(days=age)
    assert RetentionRule(ceiling).over(collected, NOW) == (age >= ceiling)
    assert not RetentionRule(None).over(collected, NOW)
